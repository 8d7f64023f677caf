ALTER TABLE audit ADD COLUMN ring TEXT COLLATE "C" GENERATED ALWAYS AS (
    CASE
        WHEN actor IS NOT NULL THEN 'act'
        WHEN event = 'login.fail' THEN
            CASE
                WHEN subject IS NULL THEN 'nobody'
                WHEN substr(subject, 1, 6) = 'robot.' THEN 'robot'
                WHEN detail::jsonb ->> 'checked' = 'true' THEN 'guess'
                ELSE 'unchecked'
            END
        WHEN event = 'login.busy' THEN 'busy'
        WHEN event = 'token.deny' AND subject <> 'anonymous' THEN 'deny'
        ELSE 'issue'
    END
) STORED;
CREATE INDEX audit_by_ring ON audit (ring, id);

CREATE TABLE audit_rings (
    ring TEXT COLLATE "C" PRIMARY KEY,
    rows BIGINT NOT NULL
);
INSERT INTO audit_rings (ring, rows) VALUES
    ('act', 0), ('guess', 0), ('unchecked', 0), ('robot', 0), ('nobody', 0), ('busy', 0), ('deny', 0),
    ('issue', 0);
UPDATE audit_rings SET rows = (SELECT COUNT(*) FROM audit WHERE audit.ring = audit_rings.ring);
-- Once for a statement: a row that is changed for each of many would have as many versions.
CREATE FUNCTION count_audit_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE audit_rings r SET rows = r.rows + c.count
    FROM (SELECT ring, COUNT(*) AS count FROM changed GROUP BY ring) c WHERE c.ring = r.ring;
    RETURN NULL;
END
$$;
CREATE FUNCTION count_audit_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE audit_rings r SET rows = r.rows - c.count
    FROM (SELECT ring, COUNT(*) AS count FROM changed GROUP BY ring) c WHERE c.ring = r.ring;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_inserted AFTER INSERT ON audit REFERENCING NEW TABLE AS changed
EXECUTE FUNCTION count_audit_inserted();
CREATE TRIGGER audit_deleted AFTER DELETE ON audit REFERENCING OLD TABLE AS changed
EXECUTE FUNCTION count_audit_deleted();
