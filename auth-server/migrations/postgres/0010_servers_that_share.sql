-- Who looks at the tables finds out of which database they are, and which programs may work on them: see
-- replicas of registry-server, whose table of this name is the same.
CREATE TABLE state (
    id              BIGINT PRIMARY KEY CHECK (id = 1),
    identity        TEXT COLLATE "C" NOT NULL,
    compatible_from BIGINT NOT NULL
);
INSERT INTO state (id, identity, compatible_from) VALUES (1, replace(gen_random_uuid()::TEXT, '-', ''), 10);

-- The number of a policy has the time in it, in milliseconds: a server that fails over to a copy without the last
-- commits gives no number again that somebody has seen.
CREATE OR REPLACE FUNCTION raise_policy_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE policy_version
    SET value = GREATEST(value + 1, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT));
    RETURN NULL;
END
$$;

-- The users, in place of an htpasswd file: a bcrypt hash as it stands in one.
CREATE TABLE users (
    name    TEXT COLLATE "C" PRIMARY KEY,
    hash    TEXT COLLATE "C" NOT NULL CHECK (hash !~ E'[:\n\r]'),
    changed BIGINT NOT NULL
);
CREATE TRIGGER users_changed AFTER INSERT OR UPDATE OR DELETE ON users
EXECUTE FUNCTION raise_policy_version();

-- What statements call the users that are known, whichever engine they are for.
DROP TABLE htpasswd_seen;
CREATE VIEW htpasswd_seen AS SELECT name, hash AS fingerprint FROM users;

-- The number of the last row of the audit: numbers are given under its lock, so that they are in the order of
-- commits and none is missing. Whoever has seen one has seen all below it.
CREATE TABLE audit_head (
    id   BIGINT PRIMARY KEY CHECK (id = 1),
    last BIGINT NOT NULL
);
INSERT INTO audit_head (id, last) SELECT 1, COALESCE(MAX(id), 0) FROM audit;
ALTER TABLE audit ALTER COLUMN id DROP IDENTITY;
