-- Slot-seconds that each user of a service has used, see store/usage.py: usage_s as of usage_at, and the
-- slots that are held since then.
ALTER TABLE served ADD COLUMN usage_s REAL NOT NULL DEFAULT 0;
ALTER TABLE served ADD COLUMN slots INTEGER NOT NULL DEFAULT 0;
ALTER TABLE served ADD COLUMN usage_at REAL NOT NULL DEFAULT 0;

-- Token buckets of users with a rate: tokens as of a time.
CREATE TABLE rates (
    user_id INTEGER PRIMARY KEY,
    tokens REAL NOT NULL,
    at REAL NOT NULL
) STRICT;

-- Jobs on hold stay Queued. They are not in the index that claims read, so they cost claims nothing.
ALTER TABLE jobs ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (service, user_id, priority DESC, id)
    WHERE status = 'Queued' AND held = 0;

-- Services and users whose queued jobs don't start.
CREATE TABLE pauses (
    kind TEXT NOT NULL,                            -- 'service' or 'user'
    name TEXT NOT NULL,                            -- name of the service, or id of the user
    since REAL NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
