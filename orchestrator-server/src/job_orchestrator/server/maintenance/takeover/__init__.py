"""Import of the jobs of the original, the job-orchestrator written in Rust."""
