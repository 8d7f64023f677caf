//! Deleting on the administrator's request: a tag, a manifest, or a repository with all it holds.

use berth_shared::{name::RepositoryName, reference::Reference};

use super::{Error, Registry, event::Event};

impl Registry {
    /// Deletes a tag, a manifest with its tags, or, without a reference, all manifests and blobs of
    /// a repository. Collection gives the space back.
    ///
    /// # Errors
    /// When it is not there, the registry is read-only, or the database fails.
    pub async fn delete(
        &self,
        repository: &RepositoryName,
        reference: Option<&Reference>,
    ) -> Result<Event, Error> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let (name, reference, now) = (repository.clone(), reference.cloned(), self.clock.now());
        self.database
            .write(move |tx| {
                Box::pin(async move {
                    let (what, manifests, tags) = match &reference {
                        None => {
                            let (manifests, tags) =
                                tx.delete_repository(&name).await?.ok_or(Error::NameUnknown)?;
                            (name.to_string(), manifests, tags)
                        }
                        Some(Reference::Tag(tag)) => {
                            if !tx.delete_tag(&name, tag, now).await? {
                                return Err(Error::ManifestUnknown);
                            }
                            (format!("{name}:{tag}"), 0, 1)
                        }
                        Some(Reference::Digest(digest)) => {
                            let tags = tx.tags_of(&name, digest).await?;
                            if !tx.delete_manifest(&name, digest).await? {
                                return Err(Error::ManifestUnknown);
                            }
                            (format!("{name}@{digest}"), 1, tags)
                        }
                    };
                    Ok(Event::Deleted { what, manifests, tags })
                })
            })
            .await
    }
}
