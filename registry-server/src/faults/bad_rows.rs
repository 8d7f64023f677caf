//! Rows that cannot be read, as a damaged disk or a careless hand leaves them: each is reported and
//! skipped, and the rest of the work is done.

use std::time::Duration;

use berth_shared::{clock::Clock, digest::Algorithm};
use bytes::Bytes;

use super::{operations, settings, sound};
use crate::registry::{
    Error, Registry,
    delete::Deleted,
    event::{Event, Events},
    verify,
};

/// What each spoils, by the statements that do it.
const SPOILT: [(&str, &[&str]); 4] = [
    (
        "a blob without a digest",
        &[
            "INSERT INTO blobs (digest, size, location, created, checked)
             VALUES ('no digest', 1, '00000000000000000000000000000001', 1, 1)",
            "INSERT INTO repository_blobs (repository, digest, touched)
             SELECT id, 'no digest', 1 FROM repositories LIMIT 1",
        ],
    ),
    (
        "a blob that lies nowhere, in a repository",
        &["UPDATE blobs SET location = 'nowhere'
           WHERE digest = (SELECT MIN(digest) FROM repository_blobs)"],
    ),
    (
        "a blob that lies nowhere, in none",
        &["INSERT INTO blobs (digest, size, location, created, checked)
           VALUES ('sha256:' || printf('%064d', 0), 1, 'nowhere', 1, 1)"],
    ),
    (
        "an upload session without an id",
        &["INSERT INTO uploads (id, repository, subject, location, received, algorithm, started,
                                touched)
           VALUES ('no id', 'app', '', '00000000000000000000000000000002', 0, 'sha256', 1, 1)"],
    ),
];

/// Does long work, and gives its result and how many problems it told.
async fn problems<T>(work: impl AsyncFnOnce(Events) -> Result<T, Error>) -> (T, usize) {
    let (events, mut told) = Events::channel();
    let count = async {
        let mut problems = 0;
        while let Some(event) = told.recv().await {
            problems += usize::from(matches!(event, Event::Problem { .. }));
        }
        problems
    };
    let (result, problems) = tokio::join!(work(events), count);
    (result.unwrap(), problems)
}

async fn push(registry: &Registry, text: &'static str) {
    let bytes = Bytes::from_static(text.as_bytes());
    operations::push(registry, "app", &bytes, Algorithm::Sha256).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_reported_and_the_rest_is_done() {
    for (what, statements) in SPOILT {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::set(Clock::system().now());
        let registry = sound(directory.path(), &clock).await;
        push(&registry, "one").await;
        push(&registry, "two").await;
        for statement in statements {
            registry.database().spoil(statement).await;
        }
        clock.advance(Duration::from_secs(60 * 60));

        let options = verify::Options { repair: true, bytes_per_sec_max: None };
        let (verified, found) =
            problems(async |events| registry.verifier.verify(options, &events).await).await;
        assert!(verified.blobs >= 1, "{what}");
        assert_eq!(found, usize::from(what.starts_with("a blob")), "{what}");
        let (collected, found) =
            problems(async |events| registry.collector.collect(&events).await).await;
        assert!(collected.blobs >= 1 && found >= 1, "{what}: {collected:?}");
        assert_eq!(collected.problems, found as u64, "{what}");
    }
}

#[tokio::test]
async fn a_repository_with_an_unreadable_tag_can_be_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let registry = sound(directory.path(), &clock).await;
    operations::push_image(&registry).await.unwrap();
    let spoil = "UPDATE tags SET name = 'no tag!'";
    registry.database().spoil(spoil).await;
    let app = "app".parse().unwrap();
    let (deleted, _) =
        problems(async |events| registry.deletion.delete(&app, None, false, &events).await).await;
    assert!(matches!(deleted, Deleted { manifests: 1, tags: 1, .. }), "{deleted:?}");
}

#[tokio::test]
async fn what_is_due_and_cannot_be_read_is_looked_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let registry = sound(directory.path(), &clock).await;
    push(&registry, "one").await;
    registry.database().spoil("UPDATE blobs SET location = 'nowhere'").await;
    push(&registry, "two").await;
    clock.advance(Duration::from_secs(60 * 60));
    let mut settings = settings();
    settings.verification.every = Some(Duration::from_secs(60));
    registry.change_settings(settings);
    let (verified, found) =
        problems(async |events| registry.verifier.verify_due(&events).await).await;
    assert_eq!((verified.blobs, found), (1, 1));
}
