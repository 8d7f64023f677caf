//! Imports: what many pushes would have written, in one transaction.

use berth_shared::{clock::UnixSeconds, digest::Digest, name::RepositoryName, tag::Tag};

use super::{Database, Error, blob::Received, manifest::NewManifest};
use crate::storage::{Dead, Location};

/// A manifest or a tag, and what it needs.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) repository: RepositoryName,
    pub(crate) blobs: Vec<Received>,
    /// Which blobs the repository links.
    pub(crate) links: Vec<Digest>,
    pub(crate) manifest: Option<NewManifest>,
    pub(crate) tag: Option<(Tag, Digest, UnixSeconds)>,
}

impl Database {
    /// Writes the rows of all of them. Gives the objects that no row names any more. Those that were
    /// `buried` before they were put are to last from now on.
    ///
    /// # Errors
    /// When a manifest requires what is missing, or buried objects may be gone: then nothing is stored.
    pub(crate) async fn import(
        &self,
        imported: Vec<Imported>,
        buried: Vec<Location>,
        now: UnixSeconds,
    ) -> Result<Vec<Dead>, Error> {
        self.write((imported, buried), move |tx, (imported, buried)| {
            Box::pin(async move {
                let mut superfluous = Vec::new();
                tx.dig_up(buried, now).await?;
                for Imported { repository, blobs, links, manifest, tag } in imported {
                    for received in blobs {
                        superfluous.extend(tx.put_blob(received, now).await?);
                    }
                    for digest in links {
                        tx.link_blob(repository, digest, now).await?;
                    }
                    if let Some(manifest) = manifest {
                        tx.put_manifest(repository, manifest, now).await?;
                    }
                    if let Some((tag, digest, written)) = tag {
                        tx.put_tag(repository, tag, digest, (*written).min(now)).await?;
                    }
                }
                Ok(superfluous)
            })
        })
        .await
    }
}
