//! The domain: what a registry does, in the specification's words, over a store and a database.
//!
//! It knows neither HTTP nor how rights are found; whoever calls it shows a `Permit` for the
//! repository. Its errors are those of the specification's table.

pub(crate) mod backend;
pub(crate) mod blob;
pub(crate) mod content;
pub mod delete;
pub mod event;
pub mod gc;
pub(crate) mod hash;
pub(crate) mod lease;
pub(crate) mod list;
pub(crate) mod manifest;
pub(crate) mod manifest_content;
mod matching;
pub(crate) mod mount;
pub mod upload;
pub mod verify;
#[cfg(test)]
mod version_4;

use std::{sync::Arc, time::Duration};

use berth_shared::{
    claimant::Claimant,
    clock::{Clock, UnixSeconds},
    digest::{Digest, InvalidDigest},
    name::RepositoryName,
    serve::budget::{Budget, Busy},
    tag::Tag,
};

use crate::{
    metadata::{
        self, Database,
        lease::Kind,
        switch::{Eye, Switch},
        totals::Totals,
        upload::InvalidUploadId,
    },
    storage::{self, Shares, Store},
};
use backend::Backend;
use blob::Blobs;
use delete::Deletion;
use gc::Collector;
use lease::{Lease, Sign, Work};
use list::Lists;
use manifest::Manifests;
use matching::Matching;
use mount::Mounts;
use upload::Uploads;
use verify::Verifier;

/// Files that blobs are read from at once, unless the system has fewer to give. A client has a
/// quarter.
pub(crate) const BLOB_FILES_MAX: usize = 4096;

/// How long what one of several servers has counted is told by all, in seconds.
const TOTALS_KEPT_SECS: i64 = 60 * 60;

/// What can be changed while the registry runs.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bounds.
    pub limits: Limits,
    /// When things go.
    pub collection: gc::Settings,
    /// How often stored blobs are hashed again.
    pub verification: verify::Settings,
    /// Whether nothing may be changed, as during maintenance.
    pub read_only: bool,
}

/// Bounds that the domain keeps.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest manifest, in bytes.
    pub manifest_bytes_max: usize,
    /// How long an upload session may be idle before it is forgotten.
    pub upload_idle: Duration,
    /// How long a write on the database may wait for its turn; it may take a third of that.
    pub write_time: Duration,
    /// Below this many free bytes the store counts as full.
    pub free_bytes_min: u64,
    /// Uploads that are received, hashed and written at once.
    pub uploads_max: usize,
    /// How many of those are one subject's.
    pub uploads_per_subject_max: usize,
    /// Upload sessions that a subject may have open.
    pub sessions_per_subject_max: u32,
    /// Bytes that they may hold together.
    pub unfinished_bytes_per_subject_max: u64,
    /// How much of manifests, blobs, lists and token requests may be in memory at once, in bytes.
    pub memory_bytes_max: usize,
    /// Whether an image may name layers, and an index manifests, that are not there.
    pub sparse_manifests: bool,
}

/// A registry: its parts, each with what it needs. Clones share them.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(crate) backend: Backend,
    pub(crate) blobs: Blobs,
    pub(crate) mounts: Mounts,
    pub(crate) uploads: Uploads,
    pub(crate) manifests: Manifests,
    pub(crate) lists: Lists,
    /// Deletes on request.
    pub deletion: Deletion,
    /// Collects garbage.
    pub collector: Collector,
    /// Verifies what is stored.
    pub verifier: Verifier,
    /// What is on its way from clients and to them, in bytes.
    pub(crate) memory: Budget,
    /// The files that blobs are read from.
    pub(crate) files: Budget,
}

/// Why the registry does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// code-1: no such blob in the repository.
    #[error("the repository has no such blob")]
    BlobUnknown,
    /// A blob that is still in use cannot be deleted.
    #[error("manifest {by} still names the blob: delete the manifest first")]
    BlobReferenced {
        /// A manifest of the repository that names it.
        by: Digest,
    },
    /// Indexes with these tags name the manifest, and who deletes it did not say that they may break.
    #[error("these need it and would break: {}; delete them first, or use --force", .0.join(", "))]
    ManifestNeeded(Vec<String>),
    /// code-2: an upload request that contradicts itself.
    #[error("{0}")]
    UploadInvalid(&'static str),
    /// code-3: no such upload session here, for this subject.
    #[error("there is no such upload session")]
    UploadUnknown,
    /// A chunk that does not begin where the session stands.
    #[error("the chunk does not begin where the upload stands")]
    OutOfOrder {
        /// Where the session stands.
        progress: upload::Progress,
    },
    /// The subject has as many upload sessions open as it may.
    #[error(
        "you have as many uploads under way as are allowed, {max}: finish or cancel some, or wait \
         until those that nobody goes on with are forgotten after {idle_secs} s"
    )]
    TooManySessions {
        /// How many it may have.
        max: u32,
        /// After how many seconds an idle one is forgotten.
        idle_secs: u64,
    },
    /// The unfinished uploads of the subject would hold more bytes than they may.
    #[error(
        "your unfinished uploads would hold more than the {max} bytes that are allowed: finish or \
         cancel some, or wait until those that nobody goes on with are forgotten after {idle_secs} \
         s; a larger blob needs a larger unfinished_bytes_per_subject_max"
    )]
    TooManyUnfinishedBytes {
        /// How many they may hold.
        max: u64,
        /// After how many seconds an idle one is forgotten.
        idle_secs: u64,
    },
    /// A newer request on the same session took over.
    #[error("another request on this upload session took over")]
    Superseded,
    /// The body ended early or made no progress; what came is kept.
    #[error("the request body was cut off")]
    BodyCutOff,
    /// The request body came more slowly than the least rate.
    #[error("the request body stood still, or came too slowly")]
    BodyLate,
    /// The client has its share in use.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// code-4: the content has another digest.
    #[error("the content does not have the digest that was given")]
    DigestMismatch,
    /// code-4: the text is no digest.
    #[error("{0}")]
    DigestInvalid(#[from] InvalidDigest),
    /// code-10: the length is not the one announced.
    #[error("the length of the body is not the one that was announced")]
    SizeInvalid,
    /// code-5: things that the manifest names are not in the repository.
    #[error("the manifest names content that the repository lacks: push that first")]
    ManifestReferencesUnknown(Vec<Digest>),
    /// code-6: the manifest cannot be used.
    #[error("{0}")]
    ManifestInvalid(String),
    /// code-7: no such manifest in the repository.
    #[error("the repository has no such manifest")]
    ManifestUnknown,
    /// code-7: no such tag in the repository, told to who administers it.
    #[error("{0} has no tag {1}: registry-server list {0} shows those that it has")]
    TagUnknown(RepositoryName, Tag),
    /// The manifest is over the limit.
    #[error("the manifest is larger than {0} bytes")]
    ManifestTooLarge(usize),
    /// code-9: no such repository.
    #[error("there is no such repository")]
    NameUnknown,
    /// No room is left.
    #[error("the registry's disk is full: make room on it, then push again")]
    StoreFull,
    /// Nothing may be changed at the moment.
    #[error("the registry is read-only for maintenance: pulls go on, push again later")]
    ReadOnly,
    /// It is not known whether anything may be changed.
    #[error("whether pushes are taken cannot be looked up just now: try again in a few seconds")]
    SwitchUnknown,
    /// Another server does the work by now.
    #[error("stopped, since another server may have taken the work over")]
    TakenOver,
    /// Nobody listens to long work any more.
    #[error("stopped, since nobody waits for it any more")]
    Abandoned,
    /// Rights cannot be asked for.
    #[error("the rights cannot be looked up at the moment")]
    RightsUnavailable,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] storage::Error),
    /// A write took too long. Nothing of it is kept.
    #[error("the registry is busy: try again in a few seconds")]
    WriterBusy,
    /// The registry ends.
    #[error("the registry is shutting down: try again in a few seconds")]
    Closing,
    /// The database does not answer.
    #[error("the database cannot be asked just now: try again in a few seconds")]
    DatabaseAway(#[source] metadata::Error),
    /// The store of the objects does not answer.
    #[error("the store of blobs cannot be asked just now: try again in a few seconds")]
    StoreAway(#[source] storage::Error),
    /// The blob is larger than the store takes.
    #[error(
        "the blob is larger than the {0} bytes that its store takes: a larger store.part_bytes allows more"
    )]
    BlobTooLarge(u64),
    /// The database failed.
    #[error("the database failed")]
    Metadata(#[source] metadata::Error),
}

impl From<metadata::Error> for Error {
    fn from(error: metadata::Error) -> Self {
        match error {
            metadata::Error::Busy => Self::WriterBusy,
            metadata::Error::TooManyLookups(busy) => Self::Busy(busy),
            metadata::Error::Closed => Self::Closing,
            error if error.passes() => Self::DatabaseAway(error),
            metadata::Error::ReadOnly => Self::ReadOnly,
            metadata::Error::SwitchUnknown => Self::SwitchUnknown,
            metadata::Error::Missing(digests) => Self::ManifestReferencesUnknown(digests),
            error => Self::Metadata(error),
        }
    }
}

impl From<InvalidUploadId> for Error {
    fn from(_: InvalidUploadId) -> Self {
        Self::UploadUnknown
    }
}

/// Only for what is unexpected: a caller that knows what a miss means matches it before.
impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::Full => Self::StoreFull,
            storage::Error::Busy(busy) => Self::Busy(busy),
            storage::Error::TooLarge(most) => Self::BlobTooLarge(most),
            error @ storage::Error::Away { .. } => Self::StoreAway(error),
            error => Self::Store(error),
        }
    }
}

impl Registry {
    /// A registry over these parts.
    #[must_use]
    pub fn new(
        database: Database,
        store: Arc<dyn Store>,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        let backend = Backend::new(database, store, clock, settings);
        let memory = Budget::new("memory_bytes_max", settings.limits.memory_bytes_max);
        let (matching, maintenance) = (Matching::default(), Arc::default());
        let uploads = Uploads::new(backend.clone(), settings.limits.uploads_max);
        let deletion = Deletion::new(backend.clone());
        Self {
            blobs: Blobs::new(backend.clone()),
            mounts: Mounts::new(backend.clone(), matching.clone()),
            manifests: Manifests::new(backend.clone(), deletion.clone()),
            lists: Lists::new(backend.clone(), memory.clone(), matching),
            deletion,
            collector: Collector::new(backend.clone(), uploads.clone(), Arc::clone(&maintenance)),
            verifier: Verifier::new(backend.clone(), maintenance),
            uploads,
            memory,
            files: Budget::new("LimitNOFILE", BLOB_FILES_MAX),
            backend,
        }
    }

    /// The same, with so many files to read blobs from at once.
    #[must_use]
    pub fn with_blob_files(self, most: usize) -> Self {
        Self { files: Budget::new("LimitNOFILE", most), ..self }
    }

    /// What a client may hold of memory and files.
    pub(crate) fn shares(&self, claimant: &Arc<Claimant>) -> Shares {
        let share = |budget: &Budget| budget.share(Arc::clone(claimant));
        Shares { memory: share(&self.memory), files: share(&self.files), has_begun: false }
    }

    /// What holds at the moment.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.backend.settings()
    }

    /// Puts other settings in force. How many uploads receive at once and how much is in memory stay
    /// as they were.
    pub fn change_settings(&self, settings: Settings) {
        self.backend.database.limit_writes(settings.limits.write_time);
        self.backend.settings.store(Arc::new(settings));
    }

    /// Hears what the database's clock says, if its times are by that. Gives how many seconds that is before the
    /// machine's.
    pub(crate) async fn hear_clock(&self) -> Result<Option<i64>, Error> {
        /// What was said so long ago is no time.
        const LATE: Duration = Duration::from_secs(1);
        let heard = self.backend.database.time().await?.filter(|(_, way)| *way < LATE);
        Ok(heard.map(|(now, _)| self.backend.clock.hear(now)))
    }

    /// Whether its times are by the database's clock.
    pub(crate) fn follows_a_clock(&self) -> bool {
        self.backend.database.connections().is_some()
    }

    /// What looks whether nothing may be changed, where several servers are told so.
    pub(crate) fn eye(&self) -> Option<Eye> {
        self.backend.database.eye().filter(|_| self.is_shared())
    }

    /// Whether nothing may be changed.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.backend.is_read_only()
    }

    /// Refuses whoever would change something, when nothing may be.
    pub(crate) fn refuse_when_read_only(&self) -> Result<(), Error> {
        self.backend.refuse_when_read_only()
    }

    /// Whether other servers may work on the same registry.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.backend.is_shared()
    }

    /// Looks whether nothing may be changed, where the database says so to several servers.
    pub(crate) async fn look_whether_read_only(&self) -> Result<(), metadata::Error> {
        if self.is_shared() {
            self.backend.database.read_only_since().await?;
        }
        Ok(())
    }

    /// Shows others that a process works on the registry that shares it; `None` where one has it alone.
    pub(crate) async fn show_presence(&self) -> Result<Option<Sign>, metadata::Error> {
        let Backend { database, clock, .. } = &self.backend;
        // Before it is looked for the other, who looks for this when it has taken the registry.
        let presence = Sign::show(Kind::Presence, database, clock).await?;
        if database.is_anybodys_alone().await? {
            presence.end().await;
            return Ok(None);
        }
        Ok(Some(presence))
    }

    /// Lets nothing be changed by this process any more.
    pub(crate) fn give_up(&self) {
        self.set_read_only(true);
        if let Some(switch) = self.backend.database.switch() {
            switch.give_up();
        }
    }

    /// Lets nothing be changed, or lets it again.
    pub fn set_read_only(&self, read_only: bool) {
        self.backend.settings.rcu(|settings| Settings { read_only, ..**settings });
    }

    /// Whether database and store answer.
    ///
    /// # Errors
    /// Which of them does not.
    pub async fn check(&self) -> Result<(), Error> {
        self.backend.database.check().await?;
        if self.backend.database.switch().is_some_and(Switch::is_unknown) {
            return Err(Error::SwitchUnknown);
        }
        self.backend.store.free_bytes().await?;
        Ok(())
    }

    /// Counts what is stored. Of several servers one does so now and then, for all: `None` while it does so
    /// for the first time.
    pub(crate) async fn totals(&self) -> Result<Option<Totals>, Error> {
        let Backend { database, clock, .. } = &self.backend;
        if !self.backend.is_shared() {
            return Ok(Some(database.totals().await?));
        }
        let kept = database.kept_totals().await?;
        if let Some((at, totals)) = kept
            && clock.now() - at < TOTALS_KEPT_SECS
        {
            return Ok(Some(totals));
        }
        let lease = Lease::take(database, clock, Work::Totals, UnixSeconds::MAX).await?;
        let Some(lease) = lease else { return Ok(kept.map(|(_, totals)| totals)) };
        let totals = database.totals().await?;
        database.keep_totals(totals, clock.now()).await?;
        lease.done(clock.now()).await;
        Ok(Some(totals))
    }

    #[cfg(test)]
    pub(crate) fn database(&self) -> &Database {
        &self.backend.database
    }

    #[cfg(test)]
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.backend.store
    }

    /// Ends: what is being read is given up, and what is queued to be written is refused.
    pub(crate) async fn close(&self) {
        self.backend.database.close().await;
    }
}
