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
