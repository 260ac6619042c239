-- Clients that have registered themselves. services: their names, with commas.
CREATE TABLE registrations (
    name TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    services TEXT NOT NULL,
    seen_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Which clients have used a token that only some may use, by the hash of the token.
CREATE TABLE token_uses (
    token TEXT NOT NULL,
    identity TEXT NOT NULL,
    PRIMARY KEY (token, identity)
) STRICT, WITHOUT ROWID;

-- Clients, registered or configured, that get no jobs because an administrator wants it.
CREATE TABLE drained_clients (
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
