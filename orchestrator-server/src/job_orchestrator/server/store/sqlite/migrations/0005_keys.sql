-- Keys of attempts are random: a claim after a restored backup must not get the key of a claim that the
-- backup does not contain. Attempts from before this migration have no nonce and keep their keys.
ALTER TABLE jobs ADD COLUMN nonce TEXT NOT NULL DEFAULT '';

-- One row: the random name of this database. Clients that serve several servers have keys of each; this
-- name, the start of every nonce, tells them apart. A restored backup has the same name.
CREATE TABLE installation (id TEXT NOT NULL) STRICT;
INSERT INTO installation (id) VALUES (lower(hex(randomblob(8))));
