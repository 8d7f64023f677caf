-- Refresh tokens: what they hash to (SHA-256, hex), never the tokens. Each is of one subject and
-- bound to the password or secret that the subject signed in with when it was issued: `credential`
-- tells that one from others without holding it. An id is never given twice, since it is what
-- `authctl refresh-tokens revoke` is told.
CREATE TABLE refresh_tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    hash       TEXT NOT NULL UNIQUE,
    subject    TEXT NOT NULL,
    credential TEXT NOT NULL,
    client     TEXT NOT NULL,
    created    BIGINT NOT NULL,
    last_used  BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_by_subject ON refresh_tokens (subject, last_used);
CREATE INDEX refresh_tokens_by_use ON refresh_tokens (last_used);
