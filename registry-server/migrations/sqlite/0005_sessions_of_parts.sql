-- The fence of an upload session: each request that records something moves it on, and one that began
-- before that records and commits nothing any more. And what the store has to remember of the
-- unfinished object, in its own words.
ALTER TABLE uploads ADD COLUMN claim INTEGER NOT NULL DEFAULT 0;
ALTER TABLE uploads ADD COLUMN draft TEXT;

-- Objects that no row owns any more, and when they may be deleted. What lets an object go writes it
-- here first, and it goes from here when it is deleted.
CREATE TABLE dead_objects (
    location TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    draft TEXT,
    due INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX dead_objects_by_due ON dead_objects (due, location);

-- As for the other indexes, for SQLite's planner.
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('dead_objects', 'dead_objects', '100000 1'),
    ('dead_objects', 'dead_objects_by_due', '100000 100 1');
ANALYZE sqlite_schema;
