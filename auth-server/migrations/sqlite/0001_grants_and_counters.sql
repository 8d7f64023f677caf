-- Who may do what to which repositories. A pattern may stand more than once for one grantee, with
-- different ends: what is granted until Friday never shortens what is granted for good.
CREATE TABLE grants (
    id      INTEGER PRIMARY KEY,
    grantee TEXT NOT NULL,
    pattern TEXT NOT NULL,
    actions TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT
);
CREATE INDEX grants_by_grantee ON grants (grantee, pattern);

-- One sequence for the whole server. Every act that takes something away moves it on by one, and
-- every token carries the value that was read before it was issued.
CREATE TABLE sequence (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);
INSERT INTO sequence (id, value) VALUES (1, 0);

-- What the sequence became when a grantee last lost something.
CREATE TABLE counters (
    grantee TEXT PRIMARY KEY,
    counter BIGINT NOT NULL
);

-- The users as the htpasswd file last showed them, so that an edit made while no server ran is
-- noticed. The fingerprint is a hash over the stored password hash, never the hash itself.
CREATE TABLE htpasswd_seen (
    name        TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL
);
