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
