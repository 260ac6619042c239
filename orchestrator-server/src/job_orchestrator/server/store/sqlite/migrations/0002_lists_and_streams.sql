-- What a submission may say of its job, what lists and streams of jobs need, and priorities.

ALTER TABLE jobs ADD COLUMN name TEXT NOT NULL DEFAULT '';      -- the user's own words
ALTER TABLE jobs ADD COLUMN tag TEXT NOT NULL DEFAULT '';       -- to find jobs that belong together
ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0; -- higher first, within a user's queue
ALTER TABLE jobs ADD COLUMN time_limit_s REAL;
ALTER TABLE jobs ADD COLUMN callback_url TEXT;
ALTER TABLE jobs ADD COLUMN idempotency_key TEXT;               -- the web app's, for its repeats
ALTER TABLE jobs ADD COLUMN started_at REAL;                    -- first Running
ALTER TABLE jobs ADD COLUMN input_bytes INTEGER;
ALTER TABLE jobs ADD COLUMN output_bytes INTEGER;

-- The next of a user is a look-up, whatever the priorities.
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (service, user_id, priority DESC, id) WHERE status = 'Queued';

-- A key is the job's as long as its files are kept.
CREATE UNIQUE INDEX jobs_repeats ON jobs (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND status <> 'Cleaned';

-- For lists: see store/listing.py.
CREATE INDEX jobs_of_user ON jobs (user_id, service, status);
CREATE INDEX jobs_of_service ON jobs (service, status);
CREATE INDEX jobs_with_tag ON jobs (tag, user_id, service, status) WHERE tag <> '';

-- Events get a number that only grows: a stream is resumed after it.
DROP TRIGGER job_created;
DROP TRIGGER job_changed;
ALTER TABLE job_events RENAME TO old_job_events;
DROP INDEX job_events_of_job;
CREATE TABLE job_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    at REAL NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    why TEXT NOT NULL
) STRICT;
INSERT INTO job_events (job_id, at, from_status, to_status, why)
    SELECT job_id, at, from_status, to_status, why FROM old_job_events ORDER BY rowid;
DROP TABLE old_job_events;
CREATE INDEX job_events_of_job ON job_events (job_id);

CREATE TRIGGER job_created AFTER INSERT ON jobs BEGIN
    INSERT INTO job_events (job_id, at, from_status, to_status, why)
    VALUES (new.id, new.changed_at, NULL, new.status, new.message);
END;
CREATE TRIGGER job_changed AFTER UPDATE OF status ON jobs WHEN old.status <> new.status BEGIN
    INSERT INTO job_events (job_id, at, from_status, to_status, why)
    VALUES (new.id, new.changed_at, old.status, new.status, new.message);
END;

-- When the jobs of earlier versions started.
UPDATE jobs SET started_at =
    (SELECT min(at) FROM job_events WHERE job_id = jobs.id AND to_status = 'Running');
