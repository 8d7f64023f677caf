-- What clients cause is kept in rings, each bounded by itself, so that what anybody can cause without
-- end (tokens for anonymous, failures of names that nobody has, the same wrong password for ever)
-- washes out neither guesses at users' passwords nor what signed-in users were refused. A row's ring
-- follows from the row; nothing is stored for it but its entry in the index.
--
-- act       of administration: apart from all that clients cause
-- guess     a password of a user that was checked, and was wrong: no faster than guesses are checked
-- unchecked whatever else failed in a user's name: the same wrong password once more, a refresh token
-- robot     what failed in the name of a robot
-- nobody    what failed in a name that nobody has, or without one
-- busy      sign-ins that were turned away unseen
-- deny      less was given to somebody signed in than was asked for
-- issue     all else
ALTER TABLE audit ADD COLUMN ring TEXT GENERATED ALWAYS AS (
    CASE
        WHEN actor IS NOT NULL THEN 'act'
        WHEN event = 'login.fail' THEN
            CASE
                WHEN subject IS NULL THEN 'nobody'
                WHEN substr(subject, 1, 6) = 'robot.' THEN 'robot'
                WHEN detail ->> 'checked' THEN 'guess'
                ELSE 'unchecked'
            END
        WHEN event = 'login.busy' THEN 'busy'
        WHEN event = 'token.deny' AND subject <> 'anonymous' THEN 'deny'
        ELSE 'issue'
    END
) VIRTUAL;
CREATE INDEX audit_by_ring ON audit (ring, id);
-- Acts are found by their ring.
DROP INDEX audit_acts;

-- How many rows each ring has, so that nobody counts them.
CREATE TABLE audit_rings (
    ring TEXT PRIMARY KEY,
    rows BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO audit_rings (ring, rows) VALUES
    ('act', 0), ('guess', 0), ('unchecked', 0), ('robot', 0), ('nobody', 0), ('busy', 0), ('deny', 0),
    ('issue', 0);
UPDATE audit_rings SET rows = (SELECT COUNT(*) FROM audit WHERE audit.ring = audit_rings.ring);
CREATE TRIGGER audit_inserted AFTER INSERT ON audit
BEGIN UPDATE audit_rings SET rows = rows + 1 WHERE ring = NEW.ring; END;
CREATE TRIGGER audit_deleted AFTER DELETE ON audit
BEGIN UPDATE audit_rings SET rows = rows - 1 WHERE ring = OLD.ring; END;
