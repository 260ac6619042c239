-- Jobs that a job waits for, as its user named them: ids with commas. Those of the first list must
-- succeed, those of the second must end.
ALTER TABLE jobs ADD COLUMN after_success TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN after_end TEXT NOT NULL DEFAULT '';

-- Rows of dependencies that hold a job back. Such jobs stay Queued. They are not in the index that
-- claims read, so they cost claims nothing.
ALTER TABLE jobs ADD COLUMN open_dependencies INTEGER NOT NULL DEFAULT 0;
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (service, user_id, priority DESC, id)
    WHERE status = 'Queued' AND held = 0 AND open_dependencies = 0;
DROP INDEX jobs_sized;
CREATE INDEX jobs_sized ON jobs (service)
    WHERE status = 'Queued' AND held = 0 AND open_dependencies = 0
        AND (cpus > 0 OR memory_bytes > 0 OR gpus > 0);

-- Which job waits for the end of which. A row is removed with that end.
CREATE TABLE dependencies (
    on_id INTEGER NOT NULL REFERENCES jobs (id),
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    needs_success INTEGER NOT NULL,
    PRIMARY KEY (on_id, job_id)
) STRICT, WITHOUT ROWID;
