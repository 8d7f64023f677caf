-- The fence of an upload session: each request that records something moves it on, and one that began
-- before that records and commits nothing any more. And what the store has to remember of the
-- unfinished object, in its own words.
ALTER TABLE uploads ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;
ALTER TABLE uploads ADD COLUMN draft TEXT COLLATE "C";

-- Objects that no row owns any more, and when they may be deleted. What lets an object go writes it
-- here first, and it goes from here when it is deleted.
CREATE TABLE dead_objects (
    location TEXT COLLATE "C" PRIMARY KEY,
    size BIGINT NOT NULL,
    draft TEXT COLLATE "C",
    due BIGINT NOT NULL
);
CREATE INDEX dead_objects_by_due ON dead_objects (due, location);
