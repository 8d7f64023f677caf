-- The number of the last row of the audit, as in PostgreSQL, where numbers that a sequence gives are not in the
-- order of commits. What else stands there under this number is what several servers share.
CREATE TABLE audit_head (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    last INTEGER NOT NULL
);
INSERT INTO audit_head (id, last)
VALUES (1, MAX(COALESCE((SELECT MAX(id) FROM audit), 0),
               COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'audit'), 0)));

-- A program from before this, which may still run, has its rows numbered by the table itself.
CREATE TRIGGER audit_numbered AFTER INSERT ON audit WHEN NEW.id > (SELECT last FROM audit_head)
BEGIN UPDATE audit_head SET last = NEW.id; END;
