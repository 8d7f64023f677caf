//! Two registries on one PostgreSQL and one store: pushers, mounters, deleters and uploads that overtake
//! each other, while both collect without end and nothing rests for longer than moments. Nothing that was
//! acknowledged is lost, and nothing is left behind.
//!
//! `tests/interop/postgres.sh` starts the server, and runs this for `BERTH_STORM_SECS`.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    digest::{Algorithm, Digest},
};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    disk, listening, look_at,
    operations::{content, digest_of, permit, push, pusher, tag},
    scratch, settings,
};
use crate::{
    metadata::{Database, postgres},
    registry::{Error, Limits, Registry, Settings, gc, manifest::AsOf},
};

/// How long it lasts by default.
const SECS: u64 = 20;

/// How long a second of the registries' clock lasts.
const TICK: Duration = Duration::from_millis(10);

/// What nothing names is kept for so long by that clock: for a fifth of a second.
const GRACE: Duration = Duration::from_secs(20);

/// A client that was told that a blob is here is told so for this much of the grace at least.
const SURE: i64 = 15;

/// How many clients push.
const PUSHERS: usize = 6;

/// Layers that images share.
const LAYERS: usize = 12;

/// Where nothing is deleted but what its pusher deletes.
const TENDED: [&str; 2] = ["app", "other"];

/// Where anybody deletes anything.
const WILD: &str = "wild";

/// An image that was acknowledged and that nobody has begun to delete.
#[derive(Debug, Clone)]
struct Kept {
    repository: &'static str,
    tag: String,
    digest: Digest,
    blobs: [Digest; 2],
}

struct Storm {
    registries: [Registry; 2],
    clock: Clock,
    over: CancellationToken,
    kept: Mutex<Vec<Kept>>,
    /// Manifests that were acknowledged, and those that were refused for what was gone.
    acknowledged: AtomicU64,
    refused: AtomicU64,
    _root: TempDir,
}

fn stormy() -> Settings {
    let limits = Limits {
        uploads_max: 64,
        // An hour of that clock is half a minute.
        upload_idle: Duration::from_secs(3600),
        uploads_per_subject_max: 64,
        sessions_per_subject_max: 10_000,
        memory_bytes_max: 64 << 20,
        ..settings().limits
    };
    let collection = gc::Settings {
        interval: None,
        grace: GRACE,
        objects_kept: Duration::ZERO,
        // One process alone may take what it knows nothing of for nobody's.
        orphans_after: Duration::MAX,
        untagged_after: Some(GRACE),
    };
    Settings { limits, collection, ..settings() }
}

fn layer(number: usize) -> Bytes {
    Bytes::from(format!("the layer {number}"))
}

fn image_of(blobs: &[Digest; 2], mark: &str) -> Bytes {
    let [config, layer] = blobs
        .clone()
        .map(|digest| json!({ "mediaType": "a/b", "digest": digest.as_str(), "size": 1 }));
    let image = json!({
        "schemaVersion": 2, "config": config, "layers": [layer], "annotations": { "mark": mark },
    });
    image.to_string().into()
}

impl Storm {
    async fn begin() -> Self {
        let (root, clock) = (scratch(), Clock::set(Clock::system().now()));
        let at = postgres::tests::settings().await;
        let registry = async || {
            let database = Database::connect(&at).await.unwrap();
            Registry::new(database, disk(root.path()), clock.clone(), stormy())
        };
        let registries = [registry().await, registry().await];
        Self {
            registries,
            clock,
            over: CancellationToken::new(),
            kept: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            _root: root,
        }
    }

    /// Either of them, as a balancer gives it.
    fn registry(&self) -> &Registry {
        &self.registries[fastrand::usize(..2)]
    }

    fn goes_on(&self) -> bool {
        !self.over.is_cancelled()
    }

    /// Time passes until all is over.
    async fn pass_time(&self) {
        let mut ticks = interval(TICK);
        while self.goes_on() {
            ticks.tick().await;
            self.clock.advance(Duration::from_secs(1));
        }
    }

    /// Sees to it that the blob is there, as clients do: asks, mounts, pushes. Gives since when it is.
    async fn bring(&self, repository: &str, bytes: &Bytes) -> Result<UnixSeconds, Error> {
        let (permit, digest) = (permit(repository), digest_of(bytes));
        let now = self.clock.now();
        match self.registry().blobs.find_sound(&permit, &digest).await {
            Ok(_) => return Ok(now),
            Err(Error::BlobUnknown) => {}
            Err(error) => return Err(error),
        }
        let source = super::operations::permit(TENDED[fastrand::usize(..2)]);
        let now = self.clock.now();
        if self.registry().mounts.mount(&permit, &source, &digest).await? {
            return Ok(now);
        }
        let now = self.clock.now();
        push(self.registry(), repository, bytes, Algorithm::Sha256).await?;
        Ok(now)
    }

    /// Pushes images, and deletes some of them.
    async fn push_images(&self, number: usize) {
        for turn in 0_u64.. {
            if !self.goes_on() {
                return;
            }
            let mark = format!("{number}-{turn}");
            let repository = match fastrand::usize(..3) {
                2 => WILD,
                tended => TENDED[tended],
            };
            match self.push_image(repository, &mark).await {
                Ok(()) | Err(Error::WriterBusy | Error::Busy(_)) => {}
                Err(error) => panic!("{mark}: {error:?}"),
            }
            if turn % 4 == 3 {
                self.delete_own(number).await;
            }
        }
    }

    async fn push_image(&self, repository: &'static str, mark: &str) -> Result<(), Error> {
        let blobs = [Bytes::from(format!("the config {mark}")), layer(fastrand::usize(..LAYERS))];
        let since = self.bring(repository, &blobs[0]).await?;
        // Some rely on what they were told long ago: they may be refused, and if not, it stays.
        let since = match fastrand::u8(..3) {
            0 => UnixSeconds::MIN,
            _ => since.min(self.bring(repository, &blobs[1]).await?),
        };
        let digests = [digest_of(&blobs[0]), digest_of(&blobs[1])];
        let bytes = image_of(&digests, mark);
        let (permit, tag) = (permit(repository), tag(mark));
        match self.registry().manifests.put(&permit, &tag, Vec::new(), None, bytes).await {
            Ok(pushed) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                if repository != WILD {
                    let (digest, tag) = (pushed.digest, mark.to_owned());
                    self.kept.lock().push(Kept { repository, tag, digest, blobs: digests });
                }
                Ok(())
            }
            Err(Error::ManifestReferencesUnknown(missing)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let age = self.clock.now() - since;
                assert!(
                    repository == WILD || age > SURE,
                    "{missing:?} within {age} s of the grace"
                );
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes an image that the client has pushed, or its tag alone.
    async fn delete_own(&self, number: usize) {
        let own = format!("{number}-");
        let deleted = {
            let mut kept = self.kept.lock();
            let at = kept.iter().position(|kept| kept.tag.starts_with(&own));
            at.map(|at| kept.swap_remove(at))
        };
        let Some(Kept { repository, tag: name, digest, .. }) = deleted else { return };
        let reference = match fastrand::bool() {
            true => tag(&name),
            false => tag(digest.as_str()),
        };
        match self.registry().manifests.delete(&permit(repository), &reference).await {
            Ok(()) | Err(Error::WriterBusy | Error::Busy(_)) => {}
            Err(error) => panic!("deleting {name}: {error:?}"),
        }
    }

    /// Deletes blobs and all of a repository, where that may happen.
    async fn delete_wildly(&self) {
        let wild = permit(WILD);
        for turn in 0_u64.. {
            if !self.goes_on() {
                return;
            }
            let digest = digest_of(&layer(fastrand::usize(..LAYERS)));
            let deleted = match turn % 50 {
                49 => {
                    let (deletion, name) = (&self.registry().deletion, WILD.parse().unwrap());
                    let deleted =
                        listening(async |events| deletion.delete(&name, None, true, &events).await);
                    deleted.await.map(drop)
                }
                _ => self.registry().blobs.delete(&wild, &digest).await,
            };
            match deleted {
                Ok(())
                | Err(
                    Error::BlobUnknown
                    | Error::BlobReferenced { .. }
                    | Error::NameUnknown
                    | Error::WriterBusy
                    | Error::Busy(_),
                ) => {}
                Err(error) => panic!("deleting: {error:?}"),
            }
            sleep(TICK).await;
        }
    }

    /// Two requests on one upload session. At one registry: a file on a disk belongs to one process.
    async fn overtake(&self) {
        let permit = permit(TENDED[0]);
        for turn in 0_u64.. {
            if !self.goes_on() {
                return;
            }
            let bytes = Bytes::from(format!("an upload in two requests, {turn}"));
            let started =
                self.registry().uploads.start(&permit, pusher(&permit), Algorithm::Sha256);
            let id = match started.await {
                Ok(progress) => progress.id,
                Err(Error::WriterBusy | Error::Busy(_)) => continue,
                Err(error) => panic!("{error:?}"),
            };
            let digest = digest_of(&bytes);
            let send = async |registry: &Registry| {
                let body = &mut content(&bytes);
                registry.uploads.commit(&permit, &id, &digest, None, body).await
            };
            let registry = self.registry();
            let both: [Result<(), Error>; 2] = tokio::join!(send(registry), send(registry)).into();
            for outcome in both {
                match outcome {
                    Ok(())
                    | Err(
                        Error::UploadUnknown
                        | Error::Superseded
                        | Error::DigestMismatch
                        | Error::WriterBusy
                        | Error::Busy(_),
                    ) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    }

    async fn collect(&self, number: usize) {
        while self.goes_on() {
            let collector = &self.registries[number].collector;
            let collected = listening(async |events| collector.collect(&events).await).await;
            match collected {
                Ok(summary) => assert_eq!(summary.problems, 0),
                Err(Error::WriterBusy) => {}
                Err(error) => panic!("collecting: {error:?}"),
            }
            sleep(TICK).await;
        }
    }

    /// What was acknowledged is there, whole, at both.
    async fn look(&self, what: &str) {
        let kept = self.kept.lock().clone();
        for registry in &self.registries {
            look_at(registry, what).await;
            for Kept { repository, tag: name, digest, blobs } in &kept {
                let memory = super::operations::shares(registry).memory;
                let found = registry
                    .manifests
                    .find(&permit(repository), &tag(name), AsOf::Now, &memory)
                    .await;
                let found = found.unwrap_or_else(|error| panic!("{what}: {name}: {error:?}"));
                assert_eq!(found.manifest.digest, *digest, "{what}: {name}");
                for blob in blobs {
                    let found = registry.blobs.find_sound(&permit(repository), blob).await;
                    found.unwrap_or_else(|error| panic!("{what}: {blob} of {name}: {error:?}"));
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
fn duration() -> Duration {
    let secs = env::var("BERTH_STORM_SECS").ok().and_then(|secs| secs.parse().ok());
    Duration::from_secs(secs.unwrap_or(SECS))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn two_registries_on_one_database_lose_nothing_and_leave_nothing() {
    let storm = std::sync::Arc::new(Storm::begin().await);
    let mut parts = JoinSet::new();
    macro_rules! part {
        ($part:ident $(, $number:expr)?) => {{
            let storm = std::sync::Arc::clone(&storm);
            parts.spawn(async move { storm.$part($($number)?).await })
        }};
    }
    for number in 0..PUSHERS {
        part!(push_images, number);
    }
    part!(delete_wildly);
    part!(overtake);
    part!(collect, 0);
    part!(collect, 1);
    part!(pass_time);
    sleep(duration()).await;
    storm.over.cancel();
    while let Some(ended) = parts.join_next().await {
        ended.unwrap();
    }
    storm.look("behind the storm").await;
    let registry = &storm.registries[0];
    // The other one rests: nothing is about to get a row.
    let collection = gc::Settings { orphans_after: Duration::ZERO, ..stormy().collection };
    registry.change_settings(Settings { collection, ..stormy() });
    for _ in 0..2 {
        super::collect_all(registry, &storm.clock, "behind the storm").await;
    }
    storm.look("behind the last collection").await;
    let counted = (&storm.acknowledged, &storm.refused);
    let [acknowledged, refused] = [counted.0, counted.1].map(|it| it.load(Ordering::Relaxed));
    println!("{acknowledged} images were acknowledged, and {refused} refused for what was gone");
    assert!(acknowledged > 100, "{acknowledged}");
}
