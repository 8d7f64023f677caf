//! A repository that takes many steps to delete: it may break off behind any of them, everything
//! holds, and whoever deletes again goes on.

use berth_shared::{clock::Clock, digest::Digest, name::RepositoryName, reference::Reference};

use super::{Faults, faulty, listening, operations, sound};
use crate::{
    metadata::{deletion::Step, manifest::Answer},
    registry::{Error, Registry, delete::Deleted, event::Events},
};

/// Beside an image: 1,300 manifests that three indexes name, an index of those, a chain of 60
/// referrers, 1,100 tags on one manifest, and 700 blobs.
const CONTENT: [&str; 9] = [
    "CREATE TABLE n AS WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c
     WHERE x < 1300) SELECT x, 'sha256:' || printf('%064x', x * 7919) AS digest FROM c",
    "INSERT INTO manifests (repository, digest, media_type, size, pushed, bytes)
     SELECT 1, digest, '', 0, 0, x'' FROM n",
    "INSERT INTO manifests (repository, digest, media_type, size, pushed, bytes)
     SELECT 1, 'sha256:' || substr('0ff', x, 1) || printf('%063d', x), '', 0, 0, x'' FROM n
     WHERE x <= 3",
    "INSERT OR IGNORE INTO manifest_touches (repository, digest, touched)
     SELECT repository, digest, 0 FROM manifests",
    "INSERT INTO manifest_references (repository, manifest, digest, kind)
     SELECT 1, 'sha256:' || substr('0ff', i.x, 1) || printf('%063d', i.x), c.digest, 'child'
     FROM n i JOIN n c WHERE i.x <= 3 AND c.x % 3 < i.x",
    "INSERT INTO manifest_references (repository, manifest, digest, kind)
     SELECT 1, 'sha256:' || 'f' || printf('%063d', 3), 'sha256:' || '0' || printf('%063d', 1),
     'child'",
    "INSERT INTO manifest_references (repository, manifest, digest, kind)
     SELECT 1, a.digest, b.digest, 'subject' FROM n a JOIN n b ON b.x = a.x + 1 WHERE a.x < 60",
    "INSERT INTO tags (repository, name, digest, updated)
     SELECT 1, 'tag' || x, (SELECT digest FROM n WHERE x = 7), 0 FROM n WHERE x <= 1100",
    "INSERT INTO blobs (digest, size, location, created, checked)
     SELECT digest, 1, printf('%032x', x), 0, 0 FROM n WHERE x <= 700",
];

async fn large(registry: &Registry) {
    operations::push_image(registry).await.unwrap();
    for statement in CONTENT {
        registry.database().spoil(statement).await;
    }
    let links = "INSERT INTO repository_blobs (repository, digest, touched)
                 SELECT 1, digest, 0 FROM n WHERE x <= 700";
    registry.database().spoil(links).await;
}

/// Deletes, and hangs up when the first step is told.
async fn one_step(registry: &Registry) -> Result<Deleted, Error> {
    let (events, mut told) = Events::channel();
    let hang_up = async move {
        told.recv().await;
        drop(told);
        std::future::pending::<()>().await;
    };
    let app = "app".parse().unwrap();
    tokio::select! {
        deleted = registry.deletion.delete(&app, None, false, &events) => deleted,
        () = hang_up => unreachable!(),
    }
}

#[tokio::test]
async fn a_large_repository_goes_in_steps_and_everything_holds_between_them() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let registry = sound(directory.path(), &clock).await;
    large(&registry).await;
    assert_eq!(registry.database().dangling().await.unwrap(), 0);
    let mut steps = 0;
    let deleted = loop {
        match one_step(&registry).await {
            Err(Error::Abandoned) => steps += 1,
            deleted => break deleted.unwrap(),
        }
        assert_eq!(registry.database().broken_rules().await.unwrap(), Vec::<String>::new());
        assert_eq!(registry.database().dangling().await.unwrap(), 0, "behind step {steps}");
    };
    assert!(steps >= 5, "{steps} steps");
    assert!(matches!(deleted, Deleted { manifests: 0, tags: 0, .. }), "{deleted:?}");
    let (_, _, manifests) = registry.database().rows().await.unwrap();
    assert_eq!(manifests, 0);
    let app = "app".parse().unwrap();
    assert_eq!(registry.database().held(&app).await.unwrap().map(|held| held.rows), Some(0));
}

#[tokio::test]
async fn a_manifest_with_many_tags_goes_behind_the_last_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let registry = sound(directory.path(), &clock).await;
    large(&registry).await;
    let (app, digest): (RepositoryName, String) =
        ("app".parse().unwrap(), format!("sha256:{:064x}", 7 * 7919));
    let many: Digest = digest.parse().unwrap();
    let step = registry.database().delete_manifest(&app, &many).await.unwrap().unwrap();
    assert_eq!(step, Step { manifests: 0, tags: 500, left: vec![digest.clone()] });
    let many: Reference = digest.parse().unwrap();
    let delete =
        async |events: Events| registry.deletion.delete(&app, Some(&many), false, &events).await;
    let deleted = listening(delete).await.unwrap();
    assert!(matches!(deleted, Deleted { manifests: 1, tags: 600, .. }), "{deleted:?}");
    assert!(matches!(listening(delete).await, Err(Error::ManifestUnknown)));
}

/// Steps that it takes to record that the blob is damaged, once it was asked for.
async fn steps_of_damage(spoilt: &[&'static str]) -> i64 {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let before = sound(directory.path(), &clock).await;
    operations::push_image(&before).await.unwrap();
    for statement in spoilt {
        before.database().spoil(statement).await;
    }
    let (app, digest) = ("app".parse().unwrap(), operations::digest_of(&operations::BLOB));
    let counting = Faults::none();
    let database = faulty(directory.path(), &clock, &counting).await.database().clone();
    let blob = database.linked_blob(&app, &digest).await.unwrap().unwrap().blob;
    assert!(!blob.damaged);
    let (began, now) = (counting.taken(), clock.now());
    assert!(database.record_damage(&blob, now).await.unwrap());
    let taken = counting.taken() - began;
    assert!(database.linked_blob(&app, &digest).await.unwrap().unwrap().blob.damaged);
    taken
}

#[tokio::test]
async fn damage_is_recorded_at_the_same_cost_however_many_repositories_hold_a_blob() {
    let few = steps_of_damage(&[]).await;
    let many = steps_of_damage(&[
        "INSERT INTO repositories (name) WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1
         FROM c WHERE x < 2000) SELECT 'repository-' || x FROM c",
        "INSERT INTO repository_blobs (repository, digest, touched)
         SELECT r.id, b.digest, 0 FROM repositories r JOIN blobs b WHERE r.name <> 'app'",
    ]);
    let many = many.await;
    assert!(many <= few + few / 10 + 10, "{few} and {many} steps");
}

#[tokio::test]
async fn the_size_of_a_manifest_is_told_without_its_annotations() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let before = sound(directory.path(), &clock).await;
    operations::push_image(&before).await.unwrap();
    for statement in [
        "INSERT INTO manifests (repository, digest, media_type, annotations, size, pushed, bytes)
         VALUES (1, 'sha256:' || printf('%064x', 1), '', printf('%.100000c', 'a'), 2, 0,
                 CAST('{}' AS BLOB))",
        "INSERT OR IGNORE INTO manifest_touches (repository, digest, touched)
         SELECT 1, digest, 0 FROM manifests",
    ] {
        before.database().spoil(statement).await;
    }
    before.database().close().await;
    // Whoever reads on behind the annotations goes from page to page, and these lead nowhere.
    let file = directory.path().join("registry.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let of_annotations = |page: &&mut [u8]| page[4..].iter().all(|byte| *byte == b'a');
    for page in bytes.chunks_mut(4096).filter(of_annotations) {
        page[..4].fill(0);
    }
    std::fs::write(&file, bytes).unwrap();
    let database = sound(directory.path(), &clock).await.database().clone();
    let app = "app".parse().unwrap();
    let reference = Reference::Digest(format!("sha256:{:064x}", 1).parse().unwrap());
    let larger = database.stored_manifest(&app, &reference, 1).await.unwrap();
    assert!(matches!(larger, Some(Answer::TooLarge(2))), "{larger:?}");
    let behind = database.stored_manifest(&app, &reference, 2).await;
    assert!(behind.is_err(), "the bytes lie behind them: {behind:?}");
}
