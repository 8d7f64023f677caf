//! Taking over a store that `distribution` (registry:2 or registry:3) wrote.
//!
//! A repository at a time: its manifests are checked, the blobs that they name are taken in, and
//! then the rows are written, so that at every moment Berth holds whole images. What is there
//! already is left as it is: an import that was broken off is simply run again. An object whose row
//! was not written in time is an orphan, which collection takes.
//!
//! Nothing of the old store is written, except that [`How::Adopt`] removes the old name of a blob
//! once the row of the new one is durable.

mod batch;
pub mod layout;
mod repository;
mod taking_in;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
    time::Instant,
};

use berth_shared::{digest::Digest, name::RepositoryName, telemetry::chain, unix_owner::Owner};
use serde::Serialize;
use tokio::{runtime::Handle, task::spawn_blocking};

use super::error::Error;
use crate::{
    data::Offline,
    registry::{
        self,
        backend::Backend,
        event::{Event, Events},
    },
    storage::disk::How,
};
use batch::{Batch, Examined};
use layout::{About, Fault, OldStore};
use repository::{OldRepository, content, is_blob};
use taking_in::TakingIn;

/// What an import is to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How blobs are taken.
    pub how: How,
    /// Whether blobs are hashed before they are taken.
    pub verify: bool,
    /// Who owns Berth's data and is to be able to read them, if that is not who runs the import.
    pub owner: Option<Owner>,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "imported")]
pub struct Summary {
    /// Repositories that the old store has.
    pub repositories: u64,
    /// Manifests that were taken.
    pub manifests: u64,
    /// Tags that were set.
    pub tags: u64,
    /// Blobs that were taken.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests and tags that were there already.
    pub present: u64,
    /// Manifests and tags that were left behind.
    pub skipped: u64,
    /// Problems that were told.
    pub problems: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// The old store may not be read.
fn unreadable(source: io::Error) -> Error {
    let what = "reading the old store: where its files are root's, run this as root".to_owned();
    Error::Io { what, source }
}

/// Imports the store in `directory`, and tells how it goes. What it took until it broke off is kept.
///
/// All of it is one task of the blocking pool, since most of it is work on files.
///
/// # Errors
/// What keeps it from going on.
pub async fn run(
    offline: &Offline,
    directory: &Path,
    options: Options,
    events: Events,
) -> Result<Summary, Error> {
    let backend = offline.registry().backend.clone();
    let taking_in = TakingIn::new(offline.objects(), options.how, options.owner);
    let directory = directory.to_owned();
    let import = move || {
        let old = OldStore::open(&directory).map_err(unreadable)?.ok_or_else(|| {
            Error::Refused(format!(
                "{} holds no docker/registry/v2/repositories: name the directory that the old \
                 registry's configuration calls rootdirectory",
                directory.display()
            ))
        })?;
        backend.refuse_when_read_only()?;
        let import = Import {
            backend,
            taking_in,
            old,
            options,
            events,
            examined: HashMap::new(),
            batch: Batch::default(),
            bytes_total: 0,
            bytes_done: 0,
            summary: Summary::default(),
        };
        Handle::current().block_on(import.everything())
    };
    let imported = spawn_blocking(import).await;
    imported.map_err(|panicked| unreadable(io::Error::other(panicked)))?.map_err(
        |error| match error {
            Error::Registry(error) => {
                Error::Refused(format!("the registry cannot take it: {}", chain(&error)))
            }
            error => error,
        },
    )
}

struct Import {
    backend: Backend,
    taking_in: TakingIn,
    old: OldStore,
    options: Options,
    events: Events,
    /// What became of each blob that was come across: many repositories name the same.
    examined: HashMap<Digest, Examined>,
    /// What waits for being taken together.
    batch: Batch,
    bytes_total: u64,
    bytes_done: u64,
    summary: Summary,
}

impl Import {
    async fn everything(mut self) -> Result<Summary, Error> {
        let begun = Instant::now();
        let mut faults = Vec::new();
        let names = self.old.repositories(&mut faults).map_err(unreadable)?;
        for fault in faults {
            self.problem(fault.place, fault.what, Vec::new()).await?;
        }
        self.measure(&names).await?;
        for name in &names {
            self.summary.repositories += 1;
            self.repository(name).await?;
        }
        self.finish().await?;
        self.summary.millis = registry::gc::millis(begun.elapsed());
        Ok(self.summary)
    }

    /// Adds up how many bytes there are to look after, for whoever waits.
    async fn measure(&mut self, names: &[RepositoryName]) -> Result<(), Error> {
        let mut seen = HashSet::new();
        for name in names {
            for (digest, named) in self.read(name)?.blobs() {
                if seen.insert(digest.clone()) {
                    self.bytes_total += named.size.unwrap_or(0);
                }
            }
        }
        self.progress(0).await
    }

    fn read(&self, name: &RepositoryName) -> Result<OldRepository, Error> {
        let (limits, now) = (self.backend.settings().limits, self.backend.clock.now());
        OldRepository::read(&self.old, name, &limits, now).map_err(unreadable)
    }

    async fn repository(&mut self, name: &RepositoryName) -> Result<(), Error> {
        let mut repository = self.read(name)?;
        self.examine(&repository).await?;
        let mut faults = std::mem::take(&mut repository.faults);
        faults.extend(self.faults_of_blobs(&repository));
        let mut rejected = HashSet::new();
        for fault in faults {
            let needing = content(&fault).map(|digest| repository.needing(digest));
            let needing = needing.unwrap_or_default();
            let images = repository.images(&fault.about, &needing);
            self.summary.skipped += u64::from(matches!(fault.about, About::Tag(_)));
            rejected.extend(needing);
            self.problem(fault.place, fault.what, images).await?;
        }
        let manifests = repository.manifests.keys();
        self.summary.skipped += manifests.filter(|it| rejected.contains(*it)).count() as u64;
        let tags = std::mem::take(&mut repository.tags);
        let (left, tags): (Vec<_>, Vec<_>) =
            tags.into_iter().partition(|tag| rejected.contains(&tag.digest));
        self.summary.skipped += left.len() as u64;
        let manifests = repository.in_order(&rejected);
        self.take(name, manifests, tags).await
    }

    /// What is wrong with the blobs that the manifests of a repository cannot do without.
    fn faults_of_blobs(&self, repository: &OldRepository) -> Vec<Fault> {
        let mut faults: HashMap<&Digest, Fault> = HashMap::new();
        for (manifest, new) in &repository.manifests {
            for named in new.references.iter().filter(|it| is_blob(it) && it.required) {
                let digest = &named.digest;
                let (about, what) = match self.examined.get(digest) {
                    Some(Examined::Held(size) | Examined::There { size, .. }) => {
                        let Some(said) = named.size.filter(|said| said != size) else { continue };
                        let what = format!("has {size} bytes, and {manifest} says {said}");
                        (manifest, what)
                    }
                    Some(Examined::Faulty(what)) => (digest, what.clone()),
                    None => (digest, "is missing".to_owned()),
                };
                faults.entry(about).or_insert(Fault {
                    place: OldStore::place_of(digest),
                    what: format!("blob {digest} {what}"),
                    about: About::Content(about.clone()),
                });
            }
        }
        let mut faults: Vec<Fault> = faults.into_values().collect();
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        faults
    }

    async fn problem(
        &mut self,
        place: String,
        what: String,
        images: Vec<String>,
    ) -> Result<(), Error> {
        self.summary.problems += 1;
        Ok(self.events.say(Event::LeftBehind { place, what, images }).await?)
    }

    async fn progress(&mut self, bytes: u64) -> Result<(), Error> {
        self.bytes_done += bytes;
        let (bytes_done, bytes_total) = (self.bytes_done, self.bytes_total.max(self.bytes_done));
        let (done, total) = (None, None);
        Ok(self.events.say(Event::Progress { done, total, bytes_done, bytes_total }).await?)
    }
}

/// What a failed attempt to take a file in means for a person.
fn refused(how: How, path: &Path, source: io::Error) -> Error {
    let shown = path.display();
    match source.kind() {
        io::ErrorKind::CrossesDevices => Error::Refused(format!(
            "{shown} is on another file system, which hard links do not reach: add --copy"
        )),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported if how != How::Copy => {
            Error::Refused(format!(
                "{shown} may not be linked: run this as root, or add --copy if the file system has \
                 no hard links"
            ))
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Registry(registry::Error::StoreFull)
        }
        _ => Error::Io { what: format!("taking in {shown}"), source },
    }
}
