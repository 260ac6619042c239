-- Payloads that their client may remove, until it has confirmed that. Nearly always empty.
CREATE TABLE acknowledgements (
    client_url TEXT NOT NULL,
    payload_id INTEGER NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (client_url, payload_id)
) STRICT, WITHOUT ROWID;
