//! Exporting images into an OCI image layout, which other tools read.
//!
//! What is needed is found first, in the database; then blobs and manifests are written, and the
//! index last. What refers to an exported manifest, such as a signature, goes along.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use berth_shared::{
    clock::Clock,
    digest::Digest,
    files::{make_anew, rename},
    name::RepositoryName,
    reference::Reference,
    tag::Tag,
};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{
    error::{Error, doing},
    layout::Layout,
    quiet::Quiet,
};
use crate::{
    data::{Home, Objects},
    metadata::{Database, blob::Blob, manifest::Manifest},
    registry::{
        self,
        event::{Event, Events},
        hash::Hasher,
    },
    storage::{self, Store},
};

/// Rows that are read from the database at once.
const PAGE: u32 = 256;

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "exported")]
pub struct Summary {
    /// Tags, or 1 for an export by digest.
    pub images: u64,
    /// Manifests, those of platforms and referrers included.
    pub manifests: u64,
    /// Blobs.
    pub blobs: u64,
    /// The bytes of the blobs.
    pub bytes: u64,
    /// Blobs and manifests that are damaged, and therefore not in the layout.
    pub damaged: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Writes images of the registry at `home` into the image layout `to`: what `reference` leads to,
/// or all tags of the repository.
///
/// # Errors
/// When there is no such image, `to` is something else than a layout, and when a file, the
/// database or the server fails. Damaged blobs are no error: they are told and left out.
pub async fn export(
    home: Home,
    repository: RepositoryName,
    reference: Option<Reference>,
    to: PathBuf,
    clock: Clock,
    events: Events,
) -> Result<Summary, Error> {
    let started = Instant::now();
    let quiet = Quiet::over(&home, &clock).await?;
    let database = home.open_beside().await?;
    let objects = Objects::beside(&home, &database).await?;
    let mut export = Export {
        database,
        store: objects.store(),
        repository,
        events,
        manifests: BTreeMap::new(),
        referrers: BTreeSet::new(),
        blobs: BTreeMap::new(),
        done: Summary::default(),
    };
    let images = export.images(reference).await?;
    for (_, digest) in &images {
        export.find(digest.clone()).await?;
    }
    let mut layout = Layout::open(&to)?;
    export.write_blobs(&layout).await?;
    export.write_manifests(&images, &mut layout)?;
    layout.save()?;
    quiet.end().await;
    export.done.millis = registry::gc::millis(started.elapsed());
    Ok(export.done)
}

struct Export {
    database: Database,
    store: Arc<dyn Store>,
    repository: RepositoryName,
    events: Events,
    /// What is to be written.
    manifests: BTreeMap<Digest, Arc<Manifest>>,
    /// Which of the manifests are found only through what they refer to.
    referrers: BTreeSet<Digest>,
    blobs: BTreeMap<Digest, Option<Blob>>,
    done: Summary,
}

impl Export {
    /// What was asked for: manifests, with the tag to find each by.
    async fn images(
        &self,
        reference: Option<Reference>,
    ) -> Result<Vec<(Option<Tag>, Digest)>, Error> {
        let name = &self.repository;
        if !self.database.repository_exists(name).await? {
            return Err(registry::Error::NameUnknown.into());
        }
        let tags = match reference {
            Some(Reference::Digest(digest)) => {
                let manifest = self.database.manifest(name, &digest).await?;
                manifest.ok_or(registry::Error::ManifestUnknown)?;
                return Ok(vec![(None, digest)]);
            }
            Some(Reference::Tag(tag)) => vec![tag],
            None => self.all_tags().await?,
        };
        let mut images = Vec::new();
        for tag in tags {
            let Some(digest) = self.database.tag(name, &tag).await? else {
                return Err(registry::Error::TagUnknown(name.clone(), tag).into());
            };
            images.push((Some(tag), digest));
        }
        if images.is_empty() {
            return Err(Error::Refused(format!("{name} has no tags: name a digest")));
        }
        Ok(images)
    }

    async fn all_tags(&self) -> Result<Vec<Tag>, Error> {
        let mut tags: Vec<Tag> = Vec::new();
        loop {
            let last = tags.last().map_or("", Tag::as_str);
            let more = self.database.tags_after(&self.repository, last, PAGE).await?;
            if more.is_empty() {
                return Ok(tags);
            }
            tags.extend(more);
        }
    }

    /// Finds what the manifest needs, and what refers to it.
    async fn find(&mut self, digest: Digest) -> Result<(), Error> {
        let mut queue = vec![digest];
        while let Some(digest) = queue.pop() {
            if self.manifests.contains_key(&digest) {
                continue;
            }
            let Some(manifest) = self.database.manifest(&self.repository, &digest).await? else {
                // An index may name platforms that were never pushed.
                let message = format!("manifest {digest} is not here, or damaged: left out");
                self.events.problem(message).await?;
                continue;
            };
            self.manifests.insert(digest.clone(), manifest);
            let needs = self.database.needs(&self.repository, &digest).await?;
            for blob in needs.blobs {
                if !self.blobs.contains_key(&blob) {
                    let found = self.database.linked_blob(&self.repository, &blob).await?;
                    self.blobs.insert(blob, found.map(|linked| linked.blob));
                }
            }
            queue.extend(needs.children);
            queue.extend(self.referrers_of(&digest).await?);
        }
        Ok(())
    }

    async fn referrers_of(&mut self, subject: &Digest) -> Result<Vec<Digest>, Error> {
        let mut found: Vec<Digest> = Vec::new();
        loop {
            let last = found.last().map_or("", Digest::as_str).to_owned();
            let page =
                self.database.referrers_after(&self.repository, subject, &last, PAGE).await?;
            if page.is_empty() {
                self.referrers.extend(found.iter().cloned());
                return Ok(found);
            }
            found.extend(page);
        }
    }

    async fn write_blobs(&mut self, layout: &Layout) -> Result<(), Error> {
        let blobs = std::mem::take(&mut self.blobs);
        let bytes_total = blobs.values().flatten().map(|blob| blob.size).sum();
        let total = blobs.len() as u64;
        for (digest, blob) in blobs {
            let Some(blob) = blob else {
                // A layer that lies elsewhere by its nature, such as those of Windows.
                let message = format!("blob {digest} is not in {}: left out", self.repository);
                self.events.problem(message).await?;
                continue;
            };
            if blob.damaged || !self.write_blob(&blob, layout).await? {
                self.done.damaged += 1;
                let images = self.database.images_with(&digest, None, PAGE).await?;
                let what = "its object is missing or has other bytes: left out".to_owned();
                self.events.say(Event::Damaged { digest, what, images }).await?;
                continue;
            }
            self.done.blobs += 1;
            self.done.bytes += blob.size;
            let Summary { blobs, bytes, .. } = self.done;
            self.events.progress((blobs, total), (bytes, bytes_total)).await?;
        }
        Ok(())
    }

    /// Copies a blob. `false` when its object is not what the digest says.
    async fn write_blob(&self, blob: &Blob, layout: &Layout) -> Result<bool, Error> {
        if layout.has(&blob.digest, blob.size) {
            return Ok(true);
        }
        let path = layout.place(&blob.digest)?;
        let mut object = match self.store.read(None, &blob.location, 0..blob.size).await {
            Err(storage::Error::NotFound(_)) => return Ok(false),
            object => object?,
        };
        let partial = path.with_extension("partial");
        let file = layout.within(|| make_anew(&partial)).map_err(doing("making", &partial))?;
        let file = Arc::new(file);
        let mut hasher = Hasher::new(blob.digest.algorithm());
        while let Some(piece) = object.next().await {
            let piece = piece?;
            hasher.update(std::slice::from_ref(&piece));
            let file = Arc::clone(&file);
            let written = spawn_blocking(move || (&*file).write_all(&piece)).await;
            written.map_err(io::Error::other).flatten().map_err(doing("writing", &partial))?;
        }
        let is_sound = hasher.finish() == blob.digest;
        let end = || match is_sound {
            true => file.sync_all().and_then(|()| rename(&partial, &path)),
            false => fs::remove_file(&partial),
        };
        layout.within(end).map_err(doing("writing", &path))?;
        Ok(is_sound)
    }

    fn write_manifests(
        &mut self,
        images: &[(Option<Tag>, Digest)],
        layout: &mut Layout,
    ) -> Result<(), Error> {
        for (digest, manifest) in &self.manifests {
            layout.replace(&layout.place(digest)?, &manifest.bytes)?;
            self.done.manifests += 1;
        }
        for (tag, digest) in images {
            match self.manifests.get(digest) {
                Some(manifest) => {
                    layout.add(descriptor(manifest), tag.as_ref());
                    self.done.images += 1;
                }
                None => self.done.damaged += 1,
            }
        }
        for digest in &self.referrers {
            if let Some(manifest) = self.manifests.get(digest) {
                layout.add(descriptor(manifest), None);
            }
        }
        Ok(())
    }
}

/// How an index names the manifest.
fn descriptor(manifest: &Manifest) -> Value {
    let Manifest { media_type, digest, bytes, .. } = manifest;
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}
