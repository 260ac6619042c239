-- Times are seconds since the epoch (UTC). Partial indexes keep the cost of what runs every moment
-- independent of how many jobs have ended: they hold only queued, active or expiring rows.

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,          -- never reused
    uuid TEXT NOT NULL UNIQUE,                     -- the job's folder
    user_id INTEGER NOT NULL,
    service TEXT NOT NULL,
    status TEXT NOT NULL,
    message TEXT NOT NULL,                         -- why it has this status, for the user
    attempt INTEGER NOT NULL DEFAULT 0,            -- claims so far; fences off what an earlier one does late
    failures INTEGER NOT NULL DEFAULT 0,           -- attempts that count towards MAX_ATTEMPTS
    not_before REAL NOT NULL DEFAULT 0,            -- earliest next claim
    client_url TEXT,                               -- upload URL of the client that has it
    dest_id INTEGER,                               -- its payload there
    exit_code INTEGER,
    has_output INTEGER NOT NULL DEFAULT 0,         -- output.zip is in the folder
    kill_requested INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    ended_at REAL
) STRICT;

CREATE INDEX jobs_queued ON jobs (service, user_id, id) WHERE status = 'Queued';
CREATE INDEX jobs_active ON jobs (service, user_id)
    WHERE status IN ('Processing', 'Running', 'Submitted', 'Unknown');
CREATE INDEX jobs_dispatched ON jobs (client_url, dest_id)
    WHERE status IN ('Running', 'Submitted', 'Unknown');
CREATE INDEX jobs_unknown ON jobs (changed_at) WHERE status = 'Unknown';
CREATE INDEX jobs_ended ON jobs (ended_at)
    WHERE status IN ('Completed', 'Failed', 'Invalid', 'Killed');

-- The last claim for each user of a service, numbered: who was served longest ago.
CREATE TABLE served (
    service TEXT NOT NULL,
    user_id INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    PRIMARY KEY (service, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX served_turn ON served (service, turn);

-- The history of every job. Written by triggers, so that no transition can forget it.
CREATE TABLE job_events (
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    at REAL NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    why TEXT NOT NULL
) STRICT;
CREATE INDEX job_events_of_job ON job_events (job_id);

CREATE TRIGGER job_created AFTER INSERT ON jobs BEGIN
    INSERT INTO job_events (job_id, at, from_status, to_status, why)
    VALUES (new.id, new.changed_at, NULL, new.status, new.message);
END;
CREATE TRIGGER job_changed AFTER UPDATE OF status ON jobs WHEN old.status <> new.status BEGIN
    INSERT INTO job_events (job_id, at, from_status, to_status, why)
    VALUES (new.id, new.changed_at, old.status, new.status, new.message);
END;
