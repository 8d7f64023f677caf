-- When a client last put the blob here or was told that it is here: what collection goes by.
ALTER TABLE repository_blobs RENAME COLUMN linked TO touched;

-- The same for manifests; besides a push, losing a tag counts.
ALTER TABLE manifests ADD COLUMN touched BIGINT NOT NULL DEFAULT 0;
UPDATE manifests SET touched = pushed;

-- Since when the object is known not to be what its digest says. Such a blob is not served, and a
-- push of the same digest takes its place.
ALTER TABLE blobs ADD COLUMN damaged BIGINT;
CREATE INDEX blobs_by_checked ON blobs (checked, digest);
