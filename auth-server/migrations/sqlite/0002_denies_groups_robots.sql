-- A rule allows, or denies whatever allows.
ALTER TABLE grants ADD COLUMN effect TEXT NOT NULL DEFAULT 'allow';

-- Who belongs to which group. A group is there as long as somebody is in it or a rule names it.
CREATE TABLE group_members (
    group_name TEXT NOT NULL,
    member     TEXT NOT NULL,
    PRIMARY KEY (group_name, member)
);
CREATE INDEX group_members_by_member ON group_members (member);

-- Robots: what their secrets hash to (SHA-256, hex), never the secrets. A secret has so many
-- random bits that nothing slower is needed.
CREATE TABLE robots (
    name        TEXT PRIMARY KEY,
    secret_hash TEXT NOT NULL UNIQUE,
    created     BIGINT NOT NULL,
    expires     BIGINT,
    last_used   BIGINT
);
