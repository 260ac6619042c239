-- What a job asks for in addition to a slot; 0: nothing.
ALTER TABLE jobs ADD COLUMN cpus REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;

-- Claims must know whether a queued job of a service asks for anything. Others are not in this index.
CREATE INDEX jobs_sized ON jobs (service)
    WHERE status = 'Queued' AND held = 0 AND (cpus > 0 OR memory_bytes > 0 OR gpus > 0);
