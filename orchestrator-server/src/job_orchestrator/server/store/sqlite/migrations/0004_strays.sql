-- Attempts that were given up while their client may have had them: to be ended there as soon as it can
-- be asked. Nearly always empty.
CREATE TABLE strays (
    client_url TEXT NOT NULL,
    key TEXT NOT NULL,                             -- idempotency key of the attempt
    since REAL NOT NULL,
    PRIMARY KEY (client_url, key)
) STRICT, WITHOUT ROWID;
