//! The blobs of a repository, looked at and taken; and the rows that are written behind them.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use berth_shared::{digest::Digest, name::RepositoryName};
use bytes::Bytes;

use super::{
    Error, Import, Replaced, in_background,
    layout::TagLink,
    refused,
    repository::{OldRepository, is_blob},
};
use crate::{
    metadata::{
        Database,
        blob::{Blob, PutBlob},
        manifest::NewManifest,
    },
    registry::{self, hash::Hasher},
    storage::{Location, disk::How},
};

/// Rows that are written in one transaction, about.
const ROWS_MAX: usize = 500;

/// How much of a blob is hashed at once.
const PIECE_BYTES: usize = 256 * 1024;

/// What is known about a blob.
#[derive(Debug, Clone)]
pub(super) enum Examined {
    /// Berth holds it, with so many bytes.
    Held(u64),
    /// The old store holds it.
    There {
        size: u64,
        path: PathBuf,
        /// Where Berth's own object lies, which is damaged.
        unsound: Option<Location>,
    },
    /// It cannot be taken, and why.
    Faulty(String),
}

/// A blob on its way.
#[derive(Debug, Clone)]
struct Taken {
    blob: Blob,
    from: PathBuf,
    unsound: Option<Location>,
}

/// What is written together.
#[derive(Debug, Default)]
struct Batch {
    blobs: Vec<Taken>,
    links: Vec<Digest>,
    manifests: Vec<NewManifest>,
    tags: Vec<TagLink>,
    rows: usize,
}

impl Import {
    /// Looks at the blobs that a repository names and that were not come across before.
    pub(super) async fn examine(&mut self, repository: &OldRepository) -> Result<(), Error> {
        let names = repository.blobs();
        let mut digests: Vec<&Digest> = names.into_keys().collect();
        digests.retain(|digest| !self.examined.contains_key(digest));
        digests.sort();
        for digest in digests {
            let examined = match self.registry.database.blob(digest).await? {
                Some(blob) if self.registry.is_sound(&blob).await? => Examined::Held(blob.size),
                unsound => self.look_for(digest, unsound.map(|blob| blob.location)).await?,
            };
            match &examined {
                Examined::Held(size) => self.progress(*size),
                Examined::Faulty(_) | Examined::There { .. } => {}
            }
            self.examined.insert(digest.clone(), examined);
        }
        Ok(())
    }

    async fn look_for(
        &self,
        digest: &Digest,
        unsound: Option<Location>,
    ) -> Result<Examined, Error> {
        let (old, digest, options) = (Arc::clone(&self.old), digest.clone(), self.options);
        let looked = in_background(move || {
            let content = match old.blob(&digest)? {
                Ok(content) => content,
                Err(what) => return Ok(Ok(Examined::Faulty(what))),
            };
            let path = content.path;
            if let Some(owner) = options.owner.filter(|_| options.how == How::Link)
                && !owner.may_read(&content.meta)
            {
                return Ok(Err(Error::UnreadableLink { path, owner }));
            }
            if options.verify {
                match hash(content.file, &digest) {
                    Ok(found) if found == digest => {}
                    Ok(_) => {
                        let what = "has other bytes than its digest says";
                        return Ok(Ok(Examined::Faulty(what.to_owned())));
                    }
                    Err(error) => {
                        return Ok(Ok(Examined::Faulty(format!("cannot be read: {error}"))));
                    }
                }
            }
            Ok(Ok(Examined::There { size: content.meta.len(), path, unsound }))
        });
        looked.await.map_err(Error::Unreadable)?
    }

    /// Takes manifests, in this order, with the blobs that they name, and then the tags.
    pub(super) async fn take(
        &mut self,
        name: &RepositoryName,
        manifests: Vec<NewManifest>,
        tags: Vec<TagLink>,
    ) -> Result<(), Error> {
        let mut batch = Batch::default();
        // What is in the batch or in the repository by now.
        let mut linked = HashSet::new();
        for manifest in manifests {
            let digest = &manifest.manifest.digest;
            let is_new = self.registry.database.manifest(name, digest).await?.is_none();
            for named in manifest.references.iter().filter(|named| is_blob(named)) {
                self.gather(&named.digest, &mut batch)?;
                let can_link =
                    !matches!(self.examined.get(&named.digest), None | Some(Examined::Faulty(_)));
                if is_new && can_link && linked.insert(named.digest.clone()) {
                    batch.links.push(named.digest.clone());
                    batch.rows += 1;
                }
            }
            if is_new {
                batch.rows += 1 + manifest.references.len();
                batch.manifests.push(manifest);
            } else {
                self.summary.present += 1;
            }
            if batch.rows >= ROWS_MAX {
                self.write(name, std::mem::take(&mut batch)).await?;
            }
        }
        for tag in tags {
            match self.registry.database.tag_since(name, &tag.tag).await? {
                // Where both were pushed to, the last push wins, as it does within one registry.
                Some((digest, since)) if digest == tag.digest || since >= tag.written => {
                    self.summary.present += 1;
                }
                _ => {
                    batch.tags.push(tag);
                    batch.rows += 1;
                }
            }
            if batch.rows >= ROWS_MAX {
                self.write(name, std::mem::take(&mut batch)).await?;
            }
        }
        self.write(name, batch).await
    }

    /// Puts a blob into the batch, if Berth has to have it still.
    fn gather(&mut self, digest: &Digest, batch: &mut Batch) -> Result<(), Error> {
        let Some(examined) = self.examined.get_mut(digest) else { return Ok(()) };
        let Examined::There { size, path, unsound } = examined else { return Ok(()) };
        let location = Location::fresh()?;
        let blob = Blob { digest: digest.clone(), size: *size, location, damaged: false };
        batch.blobs.push(Taken { blob, from: std::mem::take(path), unsound: unsound.take() });
        batch.rows += 1;
        *examined = Examined::Held(*size);
        Ok(())
    }

    /// Takes the objects, makes them durable, and then writes the rows.
    async fn write(&mut self, name: &RepositoryName, batch: Batch) -> Result<(), Error> {
        if batch.rows == 0 {
            return Ok(());
        }
        let counted = (batch.manifests.len() as u64, batch.tags.len() as u64);
        let blobs = batch.blobs.clone();
        self.take_in(&blobs).await?;
        let now = self.registry.clock.now();
        for replaced in write_rows(&self.registry.database, name, batch, now).await? {
            self.registry.store.delete(&replaced).await?;
        }
        self.summary.manifests += counted.0;
        self.summary.tags += counted.1;
        self.summary.blobs += blobs.len() as u64;
        self.summary.bytes += blobs.iter().map(|taken| taken.blob.size).sum::<u64>();
        if self.options.how == How::Adopt {
            give_up(blobs).await?;
        }
        Ok(())
    }

    async fn take_in(&mut self, blobs: &[Taken]) -> Result<(), Error> {
        let options = self.options;
        for taken in blobs {
            let (disk, one) = (self.disk.clone(), taken.clone());
            let done = in_background(move || {
                disk.take_in(&one.from, &one.blob.location, options.how, options.owner)
            });
            done.await.map_err(|error| refused(options.how, &taken.from, error))?;
            self.progress(taken.blob.size);
        }
        let locations: Vec<Location> = blobs.iter().map(|it| it.blob.location.clone()).collect();
        let disk = self.disk.clone();
        let synced = in_background(move || disk.sync_shards(&locations)).await;
        synced.map_err(|source| Error::Io {
            operation: "syncing the objects in",
            path: PathBuf::from("Berth's store"),
            source,
        })
    }
}

/// Removes the old names of blobs that Berth holds by now.
async fn give_up(blobs: Vec<Taken>) -> Result<(), Error> {
    let removed = in_background(move || {
        for Taken { from, .. } in blobs {
            if let Err(source) = fs::remove_file(&from) {
                return Ok(Err(Error::Io { operation: "giving up", path: from, source }));
            }
        }
        Ok(Ok(()))
    });
    removed.await.map_err(Error::Unreadable)?
}

/// Writes the rows of a batch. Gives where the damaged objects lie that were replaced.
async fn write_rows(
    database: &Database,
    name: &RepositoryName,
    batch: Batch,
    now: i64,
) -> Result<Replaced, registry::Error> {
    let name = name.clone();
    database
        .write(move |tx| {
            Box::pin(async move {
                let mut replaced = Vec::new();
                for taken in &batch.blobs {
                    let put = tx.put_blob(&taken.blob, taken.unsound.as_ref(), now).await?;
                    match put {
                        PutBlob::New => {}
                        PutBlob::Kept => replaced.push(taken.blob.location.clone()),
                        PutBlob::Replaced(old) => replaced.push(old),
                    }
                }
                for digest in &batch.links {
                    tx.link_blob(&name, digest, now).await?;
                }
                for manifest in &batch.manifests {
                    let missing = tx.put_manifest(&name, manifest, now).await?;
                    if !missing.is_empty() {
                        return Err(registry::Error::ManifestReferencesUnknown(missing));
                    }
                }
                for tag in &batch.tags {
                    tx.put_tag(&name, &tag.tag, &tag.digest, tag.written.min(now)).await?;
                }
                Ok(replaced)
            })
        })
        .await
}

fn hash(mut file: fs::File, digest: &Digest) -> io::Result<Digest> {
    let mut hasher = Hasher::new(digest.algorithm());
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        piece.truncate(read);
        hasher.update(&[Bytes::from(piece)]);
    }
}
