-- SHA-256 of the stored results; NULL if they were stored before there were digests.
ALTER TABLE jobs ADD COLUMN output_sha256 BLOB;
