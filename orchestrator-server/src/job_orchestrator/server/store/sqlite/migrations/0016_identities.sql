-- Users of trusted issuers. Their numbers are never used again.
CREATE TABLE identities (
    user_id INTEGER PRIMARY KEY,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    groups TEXT NOT NULL,
    since REAL NOT NULL,
    UNIQUE (issuer, subject)
) STRICT;
