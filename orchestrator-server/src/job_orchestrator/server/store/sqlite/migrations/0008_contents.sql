-- Files of small jobs, stored in the transaction of the row. Apart from jobs, whose rows are updated and
-- must stay narrow.
CREATE TABLE job_inputs (
    job_id INTEGER PRIMARY KEY REFERENCES jobs (id),
    files BLOB NOT NULL                            -- see common/protocol/small_files.py
) STRICT;
CREATE TABLE job_results (
    job_id INTEGER PRIMARY KEY REFERENCES jobs (id),
    zip BLOB NOT NULL
) STRICT;
CREATE TRIGGER contents_of_cleaned AFTER UPDATE OF status ON jobs WHEN new.status = 'Cleaned' BEGIN
    DELETE FROM job_inputs WHERE job_id = new.id;
    DELETE FROM job_results WHERE job_id = new.id;
END;
