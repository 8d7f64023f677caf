//! Two writers on PostgreSQL, one of which has done its part and not committed when the other comes.
//! `tests/interop/postgres.sh` runs these on a server of its own; on SQLite there are no two writers.

use std::sync::Mutex;

use berth_shared::{
    clock::UnixSeconds,
    database::Statements,
    digest::{Algorithm, Digest},
    name::RepositoryName,
};
use futures_util::future::BoxFuture;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    Database, Error, Transaction,
    blob::{Blob, Received},
    collection::{Collected, Stale},
    manifest::{Kind, Manifest, Named, NewManifest},
    postgres, repository,
};
use crate::storage::Location;

/// When everything was put here, and behind which nothing was touched.
const LONG_AGO: UnixSeconds = UnixSeconds::new(1);
const CUTOFF: UnixSeconds = UnixSeconds::new(100);
const NOW: UnixSeconds = UnixSeconds::new(1000);

async fn open() -> Database {
    Database::connect(&postgres::tests::settings().await).await.unwrap()
}

fn app() -> RepositoryName {
    "app".parse().unwrap()
}

fn digest(of: &str) -> Digest {
    Algorithm::Sha256.digest(of.as_bytes())
}

fn received(of: &str) -> Received {
    let location = Location::fresh().unwrap();
    let blob = Blob { digest: digest(of), size: 1, location, damaged: false };
    Received { blob, unsound: None, left: None, due: UnixSeconds::new(0) }
}

/// A manifest that names a blob, or another manifest.
fn naming(of: &str, kind: Kind) -> NewManifest {
    let bytes = format!("names {of}").into_bytes();
    let manifest = Manifest {
        digest: Algorithm::Sha256.digest(&bytes),
        media_type: "a/b".to_owned(),
        bytes: bytes.into(),
        touched: NOW,
    };
    let references = vec![Named { digest: digest(of), kind, size: None, required: true }];
    NewManifest { manifest, artifact_type: None, subject: None, annotations: None, references }
}

/// A manifest of these bytes that names nothing.
fn bare(of: &str) -> NewManifest {
    let manifest = Manifest {
        digest: digest(of),
        media_type: "a/b".to_owned(),
        bytes: of.to_owned().into(),
        touched: NOW,
    };
    NewManifest {
        manifest,
        artifact_type: None,
        subject: None,
        annotations: None,
        references: Vec::new(),
    }
}

/// Puts a blob into the repository, long ago.
async fn put_blob(database: &Database, of: &str) {
    let put = database.write(received(of), |tx, received| {
        Box::pin(async move {
            tx.put_blob(received, LONG_AGO).await?;
            tx.link_blob(&app(), &received.blob.digest, LONG_AGO).await
        })
    });
    assert!(put.await.unwrap());
}

async fn stale(database: &Database, of: &str) -> Vec<Stale> {
    let start = (Default::default(), String::new());
    let (found, _) = database.stale_links(&start, 10, CUTOFF).await.unwrap();
    let stale: Vec<_> = found.into_iter().map(|(_, stale)| stale.unwrap()).collect();
    assert!(stale.iter().any(|it| it.digest == digest(of)));
    stale
}

async fn stale_manifests(database: &Database) -> Vec<Stale> {
    let held = database.held(&app()).await.unwrap().unwrap();
    let found = database.unreached_manifests(held.id, CUTOFF, "", 10).await.unwrap();
    found.into_iter().map(|(_, stale)| stale.unwrap()).collect()
}

/// One that has done its work and commits when it is told to.
struct Paused<T> {
    go_on: oneshot::Sender<()>,
    task: JoinHandle<Result<T, Error>>,
}

impl<T> Paused<T> {
    async fn commit(self) -> T {
        self.go_on.send(()).unwrap();
        self.task.await.unwrap().unwrap()
    }
}

/// Does `work` and stops before the commit. It is not repeated.
async fn paused<T, W>(database: &Database, work: W) -> Paused<T>
where
    T: Send + 'static,
    W: for<'t> Fn(&'t mut Transaction<'_>) -> BoxFuture<'t, Result<T, Error>>
        + Send
        + Sync
        + 'static,
{
    let (begun, has_begun) = oneshot::channel();
    let (go_on, told) = oneshot::channel::<()>();
    let (database, once) = (database.clone(), Mutex::new(Some((begun, told))));
    let task = tokio::spawn(async move {
        let given = (once, work);
        let write = database.write(given, |tx, (once, work)| {
            let (begun, told) = once.lock().unwrap().take().unwrap();
            Box::pin(async move {
                let done = work(tx).await?;
                begun.send(()).unwrap();
                told.await.unwrap();
                Ok(done)
            })
        });
        write.await
    });
    has_begun.await.unwrap();
    Paused { go_on, task }
}

/// A push of a manifest that names a blob or another manifest, before its commit.
async fn pushing(database: &Database, of: &'static str, kind: Kind) -> Paused<()> {
    paused(database, move |tx| {
        Box::pin(async move { tx.put_manifest(&app(), &naming(of, kind), NOW).await.map(drop) })
    })
    .await
}

/// Begins, and waits until it waits for a lock; nothing else does, since one of these tests runs at a time.
async fn waiting<T: Send + 'static>(
    database: &Database,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let task = tokio::spawn(work);
    let statement = "SELECT COUNT(*) FROM pg_stat_activity
         WHERE wait_event_type = 'Lock' AND datname = current_database()";
    loop {
        let locked: u64 = database.reader().await.unwrap().one(statement, ()).await.unwrap();
        if locked > 0 || task.is_finished() {
            return task;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn what_a_push_names_is_not_collected_before_it_commits() {
    let database = open().await;
    put_blob(&database, "layer").await;
    let stale = stale(&database, "layer").await;
    let push = pushing(&database, "layer", Kind::Layer).await;
    let collected = database.collect_links(stale, CUTOFF, NOW).await.unwrap();
    assert_eq!(collected, [Collected::Kept]);
    push.commit().await;
    assert!(database.linked_blob(&app(), &digest("layer")).await.unwrap().is_some());
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_push_is_refused_what_collection_takes_before_it() {
    let database = open().await;
    put_blob(&database, "layer").await;
    let found = stale(&database, "layer").await;
    let collection = paused(&database, move |tx| {
        let found = found.clone();
        Box::pin(async move { tx.collect_link(&found[0], CUTOFF, NOW).await })
    })
    .await;
    let push =
        waiting(&database, {
            let database = database.clone();
            async move {
                database.put_manifest(&app(), naming("layer", Kind::Layer), Vec::new(), NOW).await
            }
        })
        .await;
    assert!(matches!(collection.commit().await, Collected::Freed(_)));
    let pushed = push.await.unwrap();
    assert!(
        matches!(&pushed, Err(Error::Missing(missing)) if *missing == [digest("layer")]),
        "{pushed:?}"
    );
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn who_deletes_a_repository_leaves_what_a_push_names() {
    let database = open().await;
    put_blob(&database, "layer").await;
    let id = database.held(&app()).await.unwrap().unwrap().id;
    let push = pushing(&database, "layer", Kind::Layer).await;
    let deletion = waiting(&database, {
        let database = database.clone();
        async move { database.unlink_after(id, &app(), String::new()).await }
    })
    .await;
    push.commit().await;
    deletion.await.unwrap().unwrap();
    assert!(database.linked_blob(&app(), &digest("layer")).await.unwrap().is_some());
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_client_takes_no_blob_away_that_a_push_names() {
    let database = open().await;
    put_blob(&database, "layer").await;
    let push = pushing(&database, "layer", Kind::Layer).await;
    let deletion = waiting(&database, {
        let database = database.clone();
        async move { database.unlink_blob(&app(), &digest("layer")).await }
    })
    .await;
    push.commit().await;
    let deleted = deletion.await.unwrap().unwrap();
    assert!(matches!(deleted, super::blob::Unlinked::StillNamed(_)), "{deleted:?}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_manifest_that_gets_a_tag_or_a_touch_or_a_parent_is_not_collected() {
    let database = open().await;
    database.put_manifest(&app(), bare("child"), Vec::new(), LONG_AGO).await.unwrap();
    let stale = stale_manifests(&database).await;
    assert_eq!(stale.len(), 1);
    let tagged = paused(&database, |tx| {
        Box::pin(
            async move { tx.put_tag(&app(), &"v1".parse().unwrap(), &digest("child"), NOW).await },
        )
    })
    .await;
    let outcome = database.collect_manifests(stale.clone(), CUTOFF).await.unwrap();
    assert_eq!(outcome, [None]);
    tagged.commit().await;
    database.delete_tag(&app(), &"v1".parse().unwrap(), LONG_AGO).await.unwrap();

    let parent = pushing(&database, "child", Kind::Child).await;
    let outcome = database.collect_manifests(stale.clone(), CUTOFF).await.unwrap();
    assert_eq!(outcome, [None]);
    parent.commit().await;
    let outcome = database.collect_manifests(stale, CUTOFF).await.unwrap();
    assert_eq!(outcome, [None]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_mount_is_told_no_of_a_blob_that_goes_meanwhile_and_keeps_it_else() {
    let database = open().await;
    let put = database.write(received("layer"), |tx, received| {
        Box::pin(async move { tx.put_blob(received, LONG_AGO).await.map(drop) })
    });
    put.await.unwrap();
    let mount = paused(&database, |tx| {
        Box::pin(async move { tx.link_blob(&app(), &digest("layer"), LONG_AGO).await })
    })
    .await;
    assert_eq!(database.collect_unlinked(&digest("layer"), NOW).await.unwrap(), None);
    assert!(mount.commit().await);

    let found = stale(&database, "layer").await;
    let collection = paused(&database, move |tx| {
        let found = found.clone();
        Box::pin(async move { tx.collect_link(&found[0], CUTOFF, NOW).await })
    })
    .await;
    let mount = waiting(&database, {
        let database = database.clone();
        async move { database.mount(&"other".parse().unwrap(), &digest("layer"), NOW).await }
    })
    .await;
    collection.commit().await;
    assert!(!mount.await.unwrap().unwrap());
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn two_who_bring_the_same_make_one_of_it() {
    let database = open().await;
    let (first, second) = (received("layer"), received("layer"));
    let location = first.blob.location.clone();
    let put = paused(&database, move |tx| {
        let first = first.clone();
        Box::pin(async move {
            let id = repository::ensure(tx, &app()).await?;
            tx.put_blob(&first, NOW).await?;
            Ok(id)
        })
    })
    .await;
    let other = waiting(&database, {
        let database = database.clone();
        async move {
            let write = database.write(second, |tx, second| {
                Box::pin(async move {
                    let id = repository::ensure(tx, &app()).await?;
                    Ok((id, tx.put_blob(second, NOW).await?))
                })
            });
            write.await
        }
    })
    .await;
    let id = put.commit().await;
    let (same, dead) = other.await.unwrap().unwrap();
    assert_eq!((same, dead.is_some()), (id, true));
    let blob = database.blob(&digest("layer")).await.unwrap().unwrap();
    assert_eq!(blob.location, location);
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_tag_that_moves_away_stays_when_its_old_manifest_is_deleted() {
    let database = open().await;
    let tag = || vec!["v1".parse().unwrap()];
    database.put_manifest(&app(), bare("old"), tag(), LONG_AGO).await.unwrap();
    database.put_manifest(&app(), bare("new"), Vec::new(), LONG_AGO).await.unwrap();
    let moves = paused(&database, |tx| {
        Box::pin(
            async move { tx.put_tag(&app(), &"v1".parse().unwrap(), &digest("new"), NOW).await },
        )
    })
    .await;
    let deletion = waiting(&database, {
        let database = database.clone();
        async move { database.delete_manifest(&app(), &digest("old")).await }
    })
    .await;
    moves.commit().await;
    assert_eq!(deletion.await.unwrap().unwrap().unwrap().tags, 0);
    let leads_to = database.tag(&app(), &"v1".parse().unwrap()).await.unwrap();
    assert_eq!(leads_to, Some(digest("new")));
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn what_comes_while_a_repository_is_emptied_stays_with_what_names_it() {
    let database = open().await;
    for blob in ["a", "c"] {
        put_blob(&database, blob).await;
    }
    let id = database.held(&app()).await.unwrap().unwrap().id;
    let first = pushing(&database, "a", Kind::Layer).await;
    let deletion = waiting(&database, {
        let database = database.clone();
        async move { database.unlink_after(id, &app(), String::new()).await }
    })
    .await;
    put_blob(&database, "b").await;
    let second = pushing(&database, "b", Kind::Layer).await;
    first.commit().await;
    deletion.await.unwrap().unwrap();
    second.commit().await;
    for (blob, stays) in [("a", true), ("b", true), ("c", false)] {
        let found = database.linked_blob(&app(), &digest(blob)).await.unwrap();
        assert_eq!(found.is_some(), stays, "{blob}");
    }
}
