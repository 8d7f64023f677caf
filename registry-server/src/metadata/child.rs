//! Manifests that indexes name: which tags need one, and which tags lack some.

use berth_shared::{digest::Digest, name::RepositoryName};

use super::{
    Database, Error,
    repository::RepositoryId,
    statement::{Statements, row},
};

/// A tag, and how many of the manifests that its index names are not there.
#[derive(Debug)]
pub(crate) struct TagLack {
    pub(crate) id: RepositoryId,
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) lacking: u32,
    /// One of those.
    pub(crate) example: Option<String>,
}

row!(TagLack { id, repository, tag, lacking, example });

impl Database {
    /// Up to `limit` tags of `repository` whose indexes name the manifest, themselves or through
    /// others; `above_max` indexes are looked at.
    pub(crate) async fn tags_above(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
        limit: u32,
        above_max: u32,
    ) -> Result<Vec<String>, Error> {
        let statement = "WITH RECURSIVE above (repository, digest) AS (
                 SELECT m.repository, m.manifest
                 FROM repositories r CROSS JOIN manifest_references m
                 WHERE r.name = $1 AND m.repository = r.id AND m.digest = $2 AND m.kind = 'child'
                 UNION
                 SELECT m.repository, m.manifest FROM above a CROSS JOIN manifest_references m
                 WHERE m.repository = a.repository AND m.digest = a.digest AND m.kind = 'child'
             )
             SELECT t.name FROM (SELECT repository, digest FROM above LIMIT $4) a
             CROSS JOIN tags t
             WHERE t.repository = a.repository AND t.digest = a.digest LIMIT $3";
        self.reader().await?.all(statement, (repository, manifest, limit, above_max)).await
    }

    /// The next `limit` tags of all repositories behind `last`, with what their indexes lack.
    pub(crate) async fn lacks_after(
        &self,
        last: &(RepositoryId, String),
        limit: u32,
    ) -> Result<Vec<TagLack>, Error> {
        let statement = "SELECT p.repository AS id, r.name AS repository, p.name AS tag,
             (SELECT COUNT(*) FROM manifest_references m
              WHERE m.repository = p.repository AND m.manifest = p.digest AND m.kind = 'child'
              AND NOT EXISTS (SELECT 1 FROM manifests c
                              WHERE c.repository = m.repository AND c.digest = m.digest)) AS lacking,
             (SELECT MIN(m.digest) FROM manifest_references m
              WHERE m.repository = p.repository AND m.manifest = p.digest AND m.kind = 'child'
              AND NOT EXISTS (SELECT 1 FROM manifests c
                              WHERE c.repository = m.repository AND c.digest = m.digest)) AS example
             FROM (SELECT repository, name, digest FROM tags WHERE (repository, name) > ($1, $2)
                   ORDER BY repository, name LIMIT $3) p
             CROSS JOIN repositories r WHERE r.id = p.repository";
        self.reader().await?.all(statement, (last.0, &last.1, limit)).await
    }
}
