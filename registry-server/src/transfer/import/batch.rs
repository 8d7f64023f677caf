//! The blobs of a repository, looked at and taken; and the rows that are written behind them.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
};

use berth_shared::{digest::Digest, name::RepositoryName};
use bytes::Bytes;

use super::{
    super::error::Error,
    Import,
    layout::{Content, TagLink},
    refused,
    repository::{OldRepository, is_blob},
    unreadable,
};
use crate::{
    metadata::{
        blob::{Blob, Received},
        import::Imported,
        manifest::NewManifest,
    },
    registry::{self, backend::Known, hash::Hasher},
    storage::{Dead, Location, disk::How},
};

/// Rows that are written in one transaction, about.
const ROWS_MAX: usize = 500;

/// Rows whose objects are made durable together, about: each time up to 256 directories are synced.
const BATCH_ROWS_MAX: usize = 20_000;

/// Bytes that are copied before their rows are written, about: so much is copied again when an
/// import is broken off.
const COPIED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// How long a batch may take, in seconds.
const NAMED_SECS: i64 = 24 * 60 * 60;

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
        state: State,
        /// Where Berth's own object lies, which is damaged.
        unsound: Option<Location>,
    },
    /// It cannot be taken, and why.
    Faulty(String),
}

/// Which file it is, and as of when: whatever is done to it changes the time of its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl State {
    fn of(meta: &fs::Metadata) -> Self {
        let changed = (meta.ctime(), meta.ctime_nsec());
        Self { device: meta.dev(), inode: meta.ino(), changed }
    }
}

/// A manifest or a tag, what is taken before it, and which files its blobs are.
#[derive(Debug)]
pub(super) struct Step {
    rows: Imported,
    files: Vec<State>,
}

impl Step {
    fn in_repository(repository: &RepositoryName) -> Self {
        let (blobs, links, files) = (Vec::new(), Vec::new(), Vec::new());
        let repository = repository.clone();
        Self { rows: Imported { repository, blobs, links, manifest: None, tag: None }, files }
    }

    fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.rows.blobs.iter().map(|received| &received.blob)
    }

    /// How many rows it writes, about.
    fn weight(&self) -> usize {
        let Imported { blobs, links, manifest, tag, .. } = &self.rows;
        let manifest = manifest.as_ref().map_or(0, |it| 1 + it.references.len());
        blobs.len() + links.len() + manifest + usize::from(tag.is_some())
    }
}

/// Steps that wait for being done together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    steps: Vec<Step>,
    rows: usize,
    bytes: u64,
}

impl Import {
    /// Looks at the blobs that a repository names and that were not come across before.
    pub(super) async fn examine(&mut self, repository: &OldRepository) -> Result<(), Error> {
        let names = repository.blobs();
        let mut digests: Vec<&Digest> = names.into_keys().collect();
        digests.retain(|digest| !self.examined.contains_key(digest));
        digests.sort();
        for digest in digests {
            let examined = match self.backend.know(digest).await? {
                Known::Sound(size) => Examined::Held(size),
                Known::Unsound(object) => self.look_for(digest, Some(object))?,
                Known::Nothing => self.look_for(digest, None)?,
            };
            if let Examined::Held(size) = &examined {
                self.progress(*size).await?;
            }
            self.examined.insert(digest.clone(), examined);
        }
        Ok(())
    }

    fn look_for(&self, digest: &Digest, unsound: Option<Location>) -> Result<Examined, Error> {
        let content = match self.old.blob(digest).map_err(unreadable)? {
            Ok(content) => content,
            Err(what) => return Ok(Examined::Faulty(what)),
        };
        let path = self.old.path_of(digest);
        if !self.may_be_taken(&content) {
            return Err(Error::Refused(format!(
                "{} belongs neither to who owns the old store nor to who owns Berth's data: add \
                 --copy",
                path.display()
            )));
        }
        if let Some(owner) = self.options.owner.filter(|_| self.options.how == How::HardLink)
            && !owner.may_read(&content.meta)
        {
            return Err(Error::Refused(format!(
                "user {} owns Berth's data and may not read {}: add --copy, or --adopt to give \
                 the old store up",
                owner.user,
                path.display()
            )));
        }
        let (size, state) = (content.meta.len(), State::of(&content.meta));
        if self.options.verify
            && let Some(what) = fault_of_bytes(content.file, digest)
        {
            return Ok(Examined::Faulty(what));
        }
        Ok(Examined::There { size, state, unsound })
    }

    /// Whether a file's owner lets it be taken. Root gives what is adopted to the owner of Berth's
    /// data: that must not be a third one's, of which somebody made a second name in the old store.
    fn may_be_taken(&self, content: &Content) -> bool {
        self.options.how != How::Adopt
            || self.old.owns(&content.meta)
            || self.options.owner.is_none_or(|owner| owner.user == content.meta.uid())
    }

    /// Takes manifests, in this order, with the blobs that they name, and then the tags.
    pub(super) async fn take(
        &mut self,
        name: &RepositoryName,
        manifests: Vec<NewManifest>,
        tags: Vec<TagLink>,
    ) -> Result<(), Error> {
        let mut linked = HashSet::new();
        for manifest in manifests {
            let mut step = Step::in_repository(name);
            let digest = &manifest.manifest.digest;
            let is_new = self.backend.database.manifest(name, digest).await?.is_none();
            for named in manifest.references.iter().filter(|named| is_blob(named)) {
                let can_link = self.gather(&named.digest, &mut step)?;
                if is_new && can_link && linked.insert(named.digest.clone()) {
                    step.rows.links.push(named.digest.clone());
                }
            }
            self.summary.present += u64::from(!is_new);
            step.rows.manifest = Some(manifest).filter(|_| is_new);
            self.add(step).await?;
        }
        for tag in tags {
            match self.backend.database.tag_since(name, &tag.tag).await? {
                // Where both were pushed to, the last push wins, as it does within one registry.
                Some((digest, since)) if digest == tag.digest || since >= tag.written => {
                    self.summary.present += 1;
                }
                _ => {
                    let mut step = Step::in_repository(name);
                    step.rows.tag = Some((tag.tag, tag.digest, tag.written));
                    self.add(step).await?;
                }
            }
        }
        Ok(())
    }

    /// Adds a blob to the step, if Berth has to have it still. Whether Berth will have it then.
    fn gather(&mut self, digest: &Digest, step: &mut Step) -> Result<bool, Error> {
        let Some(examined) = self.examined.get_mut(digest) else { return Ok(false) };
        let (size, state, unsound) = match examined {
            Examined::Held(_) => return Ok(true),
            Examined::Faulty(_) => return Ok(false),
            Examined::There { size, state, unsound } => (*size, *state, unsound.take()),
        };
        let location = Location::fresh()?;
        let blob = Blob { digest: digest.clone(), size, location, damaged: false };
        let due = self.backend.due();
        step.rows.blobs.push(Received { blob, unsound, left: None, due });
        step.files.push(state);
        *examined = Examined::Held(size);
        Ok(true)
    }

    async fn add(&mut self, step: Step) -> Result<(), Error> {
        self.batch.rows += step.weight();
        self.batch.bytes += step.blobs().map(|blob| blob.size).sum::<u64>();
        self.batch.steps.push(step);
        let copies = self.options.how == How::Copy || !self.backend.store.is_local();
        let is_much = copies && self.batch.bytes >= COPIED_BYTES_MAX;
        if is_much || self.batch.rows >= BATCH_ROWS_MAX { self.finish().await } else { Ok(()) }
    }

    /// Does what waits: takes the objects, makes them durable, and then writes the rows.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        self.name(&batch.steps).await?;
        self.take_in(&batch.steps).await?;
        let (mut rows, mut chunk) = (0, Vec::new());
        for step in batch.steps {
            rows += step.weight();
            chunk.push(step);
            if rows >= ROWS_MAX {
                rows = 0;
                self.write(std::mem::take(&mut chunk)).await?;
            }
        }
        self.write(chunk).await
    }

    /// Where nobody looks for what no row names, all is named before it is there: what has no blob's row
    /// in the end goes.
    async fn name(&self, steps: &[Step]) -> Result<(), Error> {
        if self.backend.store.is_local() {
            return Ok(());
        }
        let blobs = steps.iter().flat_map(Step::blobs);
        let dead = blobs.map(|blob| Dead::of(blob.location.clone(), blob.size)).collect();
        let due = self.backend.clock.now() + NAMED_SECS;
        Ok(self.backend.database.bury_all(dead, due).await?)
    }

    /// Writes the rows of some steps. What they name is durable.
    async fn write(&mut self, steps: Vec<Step>) -> Result<(), Error> {
        let blobs: Vec<Blob> = steps.iter().flat_map(Step::blobs).cloned().collect();
        let rows: Vec<Imported> = steps.into_iter().map(|step| step.rows).collect();
        let manifests = rows.iter().filter(|rows| rows.manifest.is_some()).count() as u64;
        let tags = rows.iter().filter(|rows| rows.tag.is_some()).count() as u64;
        let buried = match self.backend.store.is_local() {
            true => Vec::new(),
            false => blobs.iter().map(|blob| blob.location.clone()).collect(),
        };
        let now = self.backend.clock.now();
        let superfluous = self.backend.database.import(rows, buried, now).await?;
        for deleted in self.backend.delete_objects(&superfluous).await {
            deleted.map_err(registry::Error::from)?;
        }
        self.summary.manifests += manifests;
        self.summary.tags += tags;
        self.summary.blobs += blobs.len() as u64;
        self.summary.bytes += blobs.iter().map(|blob| blob.size).sum::<u64>();
        if self.options.how == How::Adopt {
            self.give_up(&blobs)?;
        }
        Ok(())
    }

    async fn take_in(&mut self, steps: &[Step]) -> Result<(), Error> {
        let mut locations = Vec::new();
        for (blob, state) in steps.iter().flat_map(|step| step.blobs().zip(&step.files)) {
            let Blob { digest, location, .. } = blob;
            let take = async {
                // What was put in its place, or written to it, since it was looked at is another.
                let content = self.old.blob(digest)?.map_err(io::Error::other)?;
                if State::of(&content.meta) != *state || !self.may_be_taken(&content) {
                    return Err(io::Error::other("it has changed meanwhile"));
                }
                self.taking_in.take(content.file, location).await
            };
            let path = self.old.path_of(digest);
            take.await.map_err(|error| refused(self.options.how, &path, error))?;
            locations.push(location.clone());
            self.progress(blob.size).await?;
        }
        let what = "syncing the objects in Berth's store".to_owned();
        self.taking_in.sync(&locations).map_err(|source| Error::Io { what, source })
    }

    /// Removes the old names of blobs that Berth holds by now.
    fn give_up(&self, blobs: &[Blob]) -> Result<(), Error> {
        for Blob { digest, .. } in blobs {
            let what = format!("giving up {}", self.old.path_of(digest).display());
            self.old.give_up(digest).map_err(|source| Error::Io { what, source })?;
        }
        Ok(())
    }
}

/// What is wrong with the bytes of a file that should have this digest.
fn fault_of_bytes(file: fs::File, digest: &Digest) -> Option<String> {
    match hash(file, digest) {
        Ok(found) if found == *digest => None,
        Ok(_) => Some("has other bytes than its digest says".to_owned()),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
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
