-- Which files the results of a job have: glob patterns, one a line ('' for all files), and 'all', or 'new'
-- for those that are not uploaded.
ALTER TABLE jobs ADD COLUMN outputs TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN results TEXT NOT NULL DEFAULT 'all';

-- What a job counts for the limit of its user. Results that hold the inputs are not added to them.
ALTER TABLE jobs ADD COLUMN stored_bytes INTEGER GENERATED ALWAYS AS (
    CASE results WHEN 'all' THEN max(coalesce(input_bytes, 0), coalesce(output_bytes, 0))
        ELSE coalesce(input_bytes, 0) + coalesce(output_bytes, 0) END) VIRTUAL;

DROP TRIGGER usage_of_new;
DROP TRIGGER usage_of_changed;
CREATE TRIGGER usage_of_new AFTER INSERT ON jobs BEGIN
    INSERT INTO usage (user_id, queued, stored_bytes)
    VALUES (new.user_id, new.status = 'Queued', new.stored_bytes)
    ON CONFLICT (user_id) DO UPDATE SET
        queued = queued + excluded.queued, stored_bytes = stored_bytes + excluded.stored_bytes;
END;
CREATE TRIGGER usage_of_changed AFTER UPDATE OF status, output_bytes ON jobs
WHEN (old.status = 'Queued') <> (new.status = 'Queued')
    OR (old.status = 'Cleaned') <> (new.status = 'Cleaned')
    OR old.output_bytes IS NOT new.output_bytes
BEGIN
    UPDATE usage SET
        queued = queued + (new.status = 'Queued') - (old.status = 'Queued'),
        stored_bytes = stored_bytes
            + iif(new.status = 'Cleaned', 0, new.stored_bytes)
            - iif(old.status = 'Cleaned', 0, old.stored_bytes)
    WHERE user_id = new.user_id;
END;

-- Jobs that have files: their number does not grow with the history.
DELETE FROM usage;
INSERT INTO usage (user_id, queued, stored_bytes)
    SELECT user_id, sum(status = 'Queued'), sum(stored_bytes) FROM (
        SELECT user_id, status, stored_bytes FROM jobs INDEXED BY jobs_queued WHERE status = 'Queued'
        UNION ALL
        SELECT user_id, status, stored_bytes FROM jobs INDEXED BY jobs_active
            WHERE status IN ('Processing', 'Running', 'Submitted', 'Unknown')
        UNION ALL
        SELECT user_id, status, stored_bytes FROM jobs INDEXED BY jobs_ended
            WHERE status IN ('Completed', 'Failed', 'Invalid', 'Killed'))
    GROUP BY user_id;

-- The queued jobs of each service, counted as they come and go: the statistics do not scan the queue.
-- Times are milliseconds, as integers, so that the sum stays exact.
CREATE TABLE queue (
    service TEXT PRIMARY KEY,
    jobs INTEGER NOT NULL,
    created_ms INTEGER NOT NULL                    -- sum of the times of submission
) STRICT, WITHOUT ROWID;
INSERT INTO queue (service, jobs, created_ms)
    SELECT service, count(*), sum(CAST(created_at * 1000 AS INTEGER))
    FROM jobs INDEXED BY jobs_queued WHERE status = 'Queued' GROUP BY service;
CREATE INDEX jobs_queued_since ON jobs (created_at) WHERE status = 'Queued';

CREATE TRIGGER queue_of_new AFTER INSERT ON jobs WHEN new.status = 'Queued' BEGIN
    INSERT INTO queue (service, jobs, created_ms)
    VALUES (new.service, 1, CAST(new.created_at * 1000 AS INTEGER))
    ON CONFLICT (service) DO UPDATE SET
        jobs = jobs + 1, created_ms = created_ms + excluded.created_ms;
END;
CREATE TRIGGER queue_of_changed AFTER UPDATE OF status ON jobs
WHEN (old.status = 'Queued') <> (new.status = 'Queued')
BEGIN
    UPDATE queue SET
        jobs = jobs + iif(new.status = 'Queued', 1, -1),
        created_ms = created_ms
            + iif(new.status = 'Queued', 1, -1) * CAST(new.created_at * 1000 AS INTEGER)
    WHERE service = new.service;
END;

-- While results are packed, a job has another reason. That is an event, without a change of the state.
CREATE TRIGGER job_explained AFTER UPDATE OF message ON jobs
WHEN old.status = 'Running' AND new.status = 'Running' AND old.message <> new.message
BEGIN
    INSERT INTO job_events (job_id, at, from_status, to_status, why)
    VALUES (new.id, new.changed_at, old.status, new.status, new.message);
END;
