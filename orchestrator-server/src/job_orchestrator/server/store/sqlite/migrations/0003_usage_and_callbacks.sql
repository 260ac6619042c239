-- What each user has queued and stored, counted by triggers as it changes: limits cost a look-up.
CREATE TABLE usage (
    user_id INTEGER PRIMARY KEY,
    queued INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL                  -- inputs and outputs of jobs that are not Cleaned
) STRICT;

INSERT INTO usage (user_id, queued, stored_bytes)
    SELECT user_id, sum(status = 'Queued'), sum(coalesce(input_bytes, 0) + coalesce(output_bytes, 0))
    FROM jobs WHERE status <> 'Cleaned' GROUP BY user_id;

CREATE TRIGGER usage_of_new AFTER INSERT ON jobs BEGIN
    INSERT INTO usage (user_id, queued, stored_bytes)
    VALUES (new.user_id, new.status = 'Queued', coalesce(new.input_bytes, 0))
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
            + iif(new.status = 'Cleaned', 0, coalesce(new.input_bytes, 0) + coalesce(new.output_bytes, 0))
            - iif(old.status = 'Cleaned', 0, coalesce(old.input_bytes, 0) + coalesce(old.output_bytes, 0))
    WHERE user_id = new.user_id;
END;

-- Ends that are still to be told to a callback URL. Written with the end itself.
CREATE TABLE callbacks (
    job_id INTEGER PRIMARY KEY REFERENCES jobs (id),
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL
) STRICT;
CREATE INDEX callbacks_due ON callbacks (due_at);

CREATE TRIGGER job_ended AFTER UPDATE OF status ON jobs
WHEN new.callback_url IS NOT NULL AND old.ended_at IS NULL AND new.ended_at IS NOT NULL
BEGIN
    INSERT INTO callbacks (job_id, due_at) VALUES (new.id, new.ended_at)
    ON CONFLICT (job_id) DO NOTHING;
END;
