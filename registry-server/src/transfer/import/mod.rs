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
pub mod report;
mod repository;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
    sync::Arc,
    time::Instant,
};

use berth_shared::{digest::Digest, name::RepositoryName, unix_owner::Owner};
use tokio::task::spawn_blocking;

use crate::{
    data::Offline,
    metadata,
    registry::{self, Registry},
    storage::{
        self,
        disk::{How, TakingIn},
    },
};
use batch::{Batch, Examined};
use layout::{About, Fault, OldStore};
use report::{Event, Summary, Tell};
use repository::{OldRepository, content, is_blob};

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

/// Why an import broke off. What it took until then is kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be done; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// A file can be neither taken nor given up.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Berth's own side failed.
    #[error("the registry cannot take it")]
    Registry(#[from] registry::Error),
}

/// The old store may not be read.
impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        let what = "reading the old store: where its files are root's, run this as root".to_owned();
        Self::Io { what, source }
    }
}

impl From<metadata::Error> for Error {
    fn from(error: metadata::Error) -> Self {
        Self::Registry(error.into())
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Self::Registry(error.into())
    }
}

/// Imports the store in `directory`, and tells how it goes.
///
/// # Errors
/// What keeps it from going on.
pub async fn run(
    offline: &Offline,
    directory: &Path,
    options: Options,
    tell: Tell,
) -> Result<Summary, Error> {
    let place = directory.to_owned();
    let old = in_background(move || Ok(OldStore::open(&place)?)).await?;
    let old = Arc::new(old.ok_or_else(|| {
        Error::Refused(format!(
            "{} holds no docker/registry/v2/repositories: name the directory that the old \
             registry's configuration calls rootdirectory",
            directory.display()
        ))
    })?);
    if offline.registry.is_read_only() {
        return Err(registry::Error::ReadOnly.into());
    }
    let mut import = Import {
        registry: offline.registry.clone(),
        taking_in: offline.taking_in(options.how, options.owner),
        old,
        options,
        tell,
        examined: HashMap::new(),
        batch: Batch::default(),
        bytes_total: 0,
        bytes_done: 0,
        summary: Summary::default(),
    };
    import.everything().await
}

/// Does file work on the blocking pool.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

struct Import {
    registry: Registry,
    taking_in: TakingIn,
    old: Arc<OldStore>,
    options: Options,
    tell: Tell,
    /// What became of each blob that was come across: many repositories name the same.
    examined: HashMap<Digest, Examined>,
    /// What waits for being taken together.
    batch: Batch,
    bytes_total: u64,
    bytes_done: u64,
    summary: Summary,
}

impl Import {
    async fn everything(&mut self) -> Result<Summary, Error> {
        let begun = Instant::now();
        let old = Arc::clone(&self.old);
        let found = in_background(move || Ok(old.repositories()?)).await?;
        for fault in found.faults {
            self.problem(fault.place, fault.what, Vec::new());
        }
        self.measure(&found.entries).await?;
        for name in &found.entries {
            self.summary.repositories += 1;
            self.repository(name).await?;
        }
        self.finish().await?;
        self.summary.millis = registry::gc::millis(begun.elapsed());
        Ok(self.summary.clone())
    }

    /// Adds up how many bytes there are to look after, for whoever waits.
    async fn measure(&mut self, names: &[RepositoryName]) -> Result<(), Error> {
        let mut seen = HashSet::new();
        for name in names {
            let repository = self.read(name).await?;
            for (digest, named) in repository.blobs() {
                if seen.insert(digest.clone()) {
                    self.bytes_total += named.size.unwrap_or(0);
                }
            }
        }
        self.progress(0);
        Ok(())
    }

    async fn read(&self, name: &RepositoryName) -> Result<OldRepository, Error> {
        let (old, name) = (Arc::clone(&self.old), name.clone());
        let (limits, now) = (self.registry.settings().limits, self.registry.intake.now());
        in_background(move || Ok(OldRepository::read(&old, &name, &limits, now)?)).await
    }

    async fn repository(&mut self, name: &RepositoryName) -> Result<(), Error> {
        let mut repository = self.read(name).await?;
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
            self.problem(fault.place, fault.what, images);
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

    fn problem(&mut self, place: String, what: String, images: Vec<String>) {
        self.summary.problems += 1;
        (self.tell)(Event::Problem { place, what, images });
    }

    fn progress(&mut self, bytes: u64) {
        self.bytes_done += bytes;
        let bytes_total = self.bytes_total.max(self.bytes_done);
        (self.tell)(Event::Progress { bytes_done: self.bytes_done, bytes_total });
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
