-- Arrays: jobs that were submitted together with one set of files. They are tasks of the array.
CREATE TABLE arrays (
    id INTEGER PRIMARY KEY REFERENCES jobs (id),   -- that of its first task
    uuid TEXT NOT NULL UNIQUE,                     -- the folder of its files
    user_id INTEGER NOT NULL,
    idempotency_key TEXT,
    size INTEGER NOT NULL,                         -- tasks; their ids follow each other
    max_active INTEGER NOT NULL,                      -- tasks that may be claimed or active
    input_bytes INTEGER NOT NULL,                  -- counted once for the user
    unended INTEGER NOT NULL,                      -- tasks that have not ended
    waiting INTEGER NOT NULL,                      -- of these, tasks that max_active holds back
    kept INTEGER NOT NULL                          -- tasks that are not Cleaned; 0: the files are removed
) STRICT;
CREATE UNIQUE INDEX arrays_repeats ON arrays (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND kept > 0;

-- Files of small arrays.
CREATE TABLE array_inputs (
    array_id INTEGER PRIMARY KEY REFERENCES arrays (id),
    files BLOB NOT NULL
) STRICT;

ALTER TABLE jobs ADD COLUMN array_id INTEGER REFERENCES jobs (id);   -- NULL: not a task
ALTER TABLE jobs ADD COLUMN array_index INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN array_size INTEGER NOT NULL DEFAULT 0;
-- Held back by max_active. It is counted in open_dependencies as well, which keeps it out of claims.
ALTER TABLE jobs ADD COLUMN array_waits INTEGER NOT NULL DEFAULT 0;

CREATE INDEX jobs_of_array ON jobs (array_id, status) WHERE array_id IS NOT NULL;
CREATE INDEX jobs_held_back ON jobs (array_id, id)
    WHERE array_id IS NOT NULL AND array_waits = 1 AND status = 'Queued';
-- Claims for older clients, which can't run tasks, must know whether one is queued.
CREATE INDEX jobs_ready_tasks ON jobs (service)
    WHERE status = 'Queued' AND held = 0 AND open_dependencies = 0 AND array_id IS NOT NULL;

-- A row may also wait for all tasks of an array.
ALTER TABLE dependencies RENAME TO old_dependencies;
CREATE TABLE dependencies (
    on_id INTEGER NOT NULL REFERENCES jobs (id),
    on_array INTEGER NOT NULL DEFAULT 0,           -- 1: on_id is an array
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    needs_success INTEGER NOT NULL,
    PRIMARY KEY (on_id, on_array, job_id)
) STRICT, WITHOUT ROWID;
INSERT INTO dependencies (on_id, on_array, job_id, needs_success)
    SELECT on_id, 0, job_id, needs_success FROM old_dependencies;
DROP TABLE old_dependencies;

CREATE TRIGGER array_task_ended AFTER UPDATE OF status ON jobs
WHEN new.array_id IS NOT NULL AND old.ended_at IS NULL AND new.ended_at IS NOT NULL
BEGIN
    UPDATE arrays SET unended = unended - 1, waiting = waiting - old.array_waits
    WHERE id = new.array_id;
END;
CREATE TRIGGER array_task_released AFTER UPDATE OF array_waits ON jobs
WHEN new.array_id IS NOT NULL AND old.array_waits <> new.array_waits
BEGIN
    UPDATE arrays SET waiting = waiting + new.array_waits - old.array_waits
    WHERE id = new.array_id;
END;
CREATE TRIGGER array_task_cleaned AFTER UPDATE OF status ON jobs
WHEN new.array_id IS NOT NULL AND old.status <> 'Cleaned' AND new.status = 'Cleaned'
BEGIN
    UPDATE arrays SET kept = kept - 1 WHERE id = new.array_id;
END;

-- The files are counted for the user while they are kept.
CREATE TRIGGER array_created AFTER INSERT ON arrays BEGIN
    INSERT INTO usage (user_id, queued, stored_bytes) VALUES (new.user_id, 0, new.input_bytes)
    ON CONFLICT (user_id) DO UPDATE SET stored_bytes = stored_bytes + excluded.stored_bytes;
END;
CREATE TRIGGER array_cleaned AFTER UPDATE OF kept ON arrays WHEN old.kept > 0 AND new.kept = 0
BEGIN
    DELETE FROM array_inputs WHERE array_id = new.id;
    UPDATE usage SET stored_bytes = stored_bytes - new.input_bytes WHERE user_id = new.user_id;
END;
