-- When a manifest was last put here or asked for, apart from its bytes: SQLite writes a row as a
-- whole, and reads it up to the column that is asked for.
CREATE TABLE manifest_touches (
    repository INTEGER NOT NULL,
    digest TEXT NOT NULL,
    touched INTEGER NOT NULL,
    PRIMARY KEY (repository, digest),
    FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
INSERT INTO manifest_touches (repository, digest, touched)
SELECT repository, digest, touched FROM manifests;
ALTER TABLE manifests DROP COLUMN touched;

-- How many rows there are by each part of an index, for SQLite's planner: it would guess that a
-- repository has ten tags and ten manifests, and read all of them where an index leads to one. The
-- numbers are no measurement, and need not be right: they tell what grows, and by what.
ANALYZE repositories;
DELETE FROM sqlite_stat1;
DELETE FROM sqlite_stat4;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('repositories', 'sqlite_autoindex_repositories_1', '100000 1'),
    ('blobs', 'blobs', '1000000 1'),
    ('blobs', 'sqlite_autoindex_blobs_2', '1000000 1'),
    ('blobs', 'blobs_by_checked', '1000000 100 1'),
    ('repository_blobs', 'repository_blobs', '1000000 1000 1'),
    ('repository_blobs', 'repository_blobs_by_digest', '1000000 5 1'),
    ('manifests', 'sqlite_autoindex_manifests_1', '1000000 1000 1'),
    ('manifests', 'manifests_by_subject', '100000 1000 5 1'),
    ('manifest_touches', 'manifest_touches', '1000000 1000 1'),
    ('manifest_references', 'manifest_references', '10000000 10000 10 1 1'),
    ('manifest_references', 'manifest_references_by_digest', '10000000 10000 5'),
    ('tags', 'tags', '1000000 1000 1'),
    ('tags', 'tags_by_digest', '1000000 1000 2'),
    ('uploads', 'uploads', '100000 1'),
    ('uploads', 'sqlite_autoindex_uploads_2', '100000 1'),
    ('uploads', 'uploads_by_touched', '100000 5');
-- For the connection that made them; others read them when they open the database.
ANALYZE sqlite_schema;
