-- Names of repositories. A row is made when the first manifest or blob link is committed.
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- One row owns one object; an object's location is never used twice.
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    location TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    checked INTEGER NOT NULL
) WITHOUT ROWID;

-- A blob is readable in a repository only through a row here.
CREATE TABLE repository_blobs (
    repository INTEGER NOT NULL REFERENCES repositories (id),
    digest TEXT NOT NULL REFERENCES blobs (digest),
    linked INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX repository_blobs_by_digest ON repository_blobs (digest, repository);

CREATE TABLE manifests (
    repository INTEGER NOT NULL REFERENCES repositories (id),
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    -- JSON object, kept where a subject is, so that listing referrers reads no manifest.
    annotations TEXT,
    size INTEGER NOT NULL,
    pushed INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest)
    WHERE subject IS NOT NULL;

-- What a manifest names: kind is config, layer, child or subject.
CREATE TABLE manifest_references (
    repository INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (repository, manifest, digest, kind),
    FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX manifest_references_by_digest ON manifest_references (repository, digest);

CREATE TABLE tags (
    repository INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (repository, digest);

-- Upload sessions. The repository stands by name: an upload that is refused or given up leaves no
-- repository behind.
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    subject TEXT NOT NULL,
    location TEXT NOT NULL UNIQUE,
    received INTEGER NOT NULL,
    algorithm TEXT NOT NULL,
    hash_state BLOB,
    started INTEGER NOT NULL,
    touched INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_by_touched ON uploads (touched);
