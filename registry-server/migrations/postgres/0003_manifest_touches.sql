-- When a manifest was last put here or asked for, apart from its bytes: what is touched often is
-- written anew as a whole row.
CREATE TABLE manifest_touches (
    repository BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    touched BIGINT NOT NULL,
    PRIMARY KEY (repository, digest),
    FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
);
INSERT INTO manifest_touches (repository, digest, touched)
SELECT repository, digest, touched FROM manifests;
ALTER TABLE manifests DROP COLUMN touched;

-- PostgreSQL's planner goes by what it measures itself: it is told no numbers here.
