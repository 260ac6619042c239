"""Jobs whose runs and results can be checked from outside the services."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from harness import Portal

EXPECTED_STATUS = {
    "quick": "Completed",
    "short": "Completed",
    "failing": "Failed",
    "big": "Completed",
    "growing": "Completed",
    "gated": "Completed",
    "endless": "Killed",
}


@dataclass(frozen=True)
class SubmittedJob:
    """A job whose script records each run in a file that the services do not know."""

    kind: str
    token: str
    content: bytes

    def script(self, log: Path) -> str:
        """Return run.sh."""
        record_run = f"echo {self.token} >> '{log}'\n"
        copy = "mkdir -p out && cat 'in put/ä.bin' > out/copy\n"
        ends = {
            "quick": "exit 0\n",
            "short": "sleep 0.3\n",
            "failing": "exit 7\n",
            "big": "head -c 3000000 /dev/urandom > noise; sha256sum < noise > noise.sha; exit 0\n",
            "growing": "head -c 100000 /dev/urandom > noise\n",
            "gated": f"until [ -e '{log}.gate' ]; do sleep 0.05; done\n",
            "endless": "while :; do sleep 0.2; done\n",
        }
        return record_run + copy + ends[self.kind]


@dataclass
class Workload:
    """The acknowledged jobs of a test, and the checks of their runs and results."""

    log: Path
    accepted: dict[int, SubmittedJob] = field(default_factory=dict)

    def new(self, kind: str) -> SubmittedJob:
        """Create a job with unique content."""
        token = uuid4().hex
        # Inputs and results may both be small, both be large, or one of them.
        is_large = kind in ("big", "gated")
        return SubmittedJob(kind, token, token.encode() * (3000 if is_large else 100))

    async def submit(self, portal: Portal, kind: str, user: int = 1) -> int:
        """Submit a job of a kind. Errors of the portal are raised."""
        work = self.new(kind)
        job = await portal.submit(work.script(self.log), {"in put/ä.bin": work.content}, user=user)
        self.accepted[job] = work
        return job

    def open_gate(self) -> None:
        """Allow the gated jobs to end."""
        self.log.with_name(f"{self.log.name}.gate").touch()

    def runs(self) -> Counter[str]:
        """Count the runs of each script by its token."""
        return Counter(self.log.read_text().split()) if self.log.exists() else Counter()

    async def check(self, portal: Portal, *, max_runs: int = 1) -> None:
        """Check the status, the results and the number of runs of every acknowledged job."""
        for job, work in self.accepted.items():
            state = await portal.end_of(job)
            assert state["status"] == EXPECTED_STATUS[work.kind], state
            await check_results(portal, job, work)
        runs = self.runs()
        for work in self.accepted.values():
            least = 0 if work.kind == "endless" else 1
            assert least <= runs[work.token] <= max_runs, (work.kind, runs[work.token])


async def check_results(portal: Portal, job: int, work: SubmittedJob) -> None:
    """Check that the output of an ended job is complete and its own."""
    if work.kind == "endless":
        return  # its partial output may be lost with its client
    archive = await portal.results(
        job, "download_partial" if work.kind == "failing" else "download"
    )
    assert archive.read("out/copy") == work.content
    if work.kind == "big":
        digest = hashlib.sha256(archive.read("noise")).hexdigest()
        assert archive.read("noise.sha").decode().split()[0] == digest
