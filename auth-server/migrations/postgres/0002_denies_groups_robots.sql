ALTER TABLE grants ADD COLUMN effect TEXT COLLATE "C" NOT NULL DEFAULT 'allow';

CREATE TABLE group_members (
    group_name TEXT COLLATE "C" NOT NULL,
    member     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (group_name, member)
);
CREATE INDEX group_members_by_member ON group_members (member);

CREATE TABLE robots (
    name        TEXT COLLATE "C" PRIMARY KEY,
    secret_hash TEXT COLLATE "C" NOT NULL UNIQUE,
    created     BIGINT NOT NULL,
    expires     BIGINT,
    last_used   BIGINT
);
