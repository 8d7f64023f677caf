-- What the policy is read from has a version, so that a commit of something else (a row of the
-- audit, with every token) is no reason to read the whole policy again. SQLite's own data_version
-- cannot tell them apart.
CREATE TABLE policy_version (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);
INSERT INTO policy_version (id, value) VALUES (1, 0);

CREATE TRIGGER grants_inserted AFTER INSERT ON grants
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER grants_updated AFTER UPDATE ON grants
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER grants_deleted AFTER DELETE ON grants
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER sequence_inserted AFTER INSERT ON sequence
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER sequence_updated AFTER UPDATE ON sequence
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER sequence_deleted AFTER DELETE ON sequence
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER counters_inserted AFTER INSERT ON counters
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER counters_updated AFTER UPDATE ON counters
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER counters_deleted AFTER DELETE ON counters
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER group_members_inserted AFTER INSERT ON group_members
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER group_members_updated AFTER UPDATE ON group_members
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER group_members_deleted AFTER DELETE ON group_members
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER robots_inserted AFTER INSERT ON robots
BEGIN UPDATE policy_version SET value = value + 1; END;
-- That a robot signed in changes nothing of what it may do.
CREATE TRIGGER robots_updated AFTER UPDATE OF name, secret_hash, created, expires ON robots
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER robots_deleted AFTER DELETE ON robots
BEGIN UPDATE policy_version SET value = value + 1; END;

-- What happened, in its order. An id is never used twice: the JSON lines of the running server go
-- by it. `actor` stands where somebody with access to the machine did it, and is missing where a
-- client asked for something over the network. `detail` is an object of JSON.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      BIGINT NOT NULL,
    event   TEXT NOT NULL,
    subject TEXT,
    actor   TEXT,
    detail  TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
-- Acts of administration are few, are kept apart from what clients can cause, and are looked for.
CREATE INDEX audit_acts ON audit (id) WHERE actor IS NOT NULL;

-- The last row that was written to the file of JSON lines, durably.
CREATE TABLE audit_exported (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    last_id BIGINT NOT NULL
);
INSERT INTO audit_exported (id, last_id) VALUES (1, 0);
