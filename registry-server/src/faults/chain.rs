//! Long chains of manifests that nothing keeps alive: each costs what it is, however they lie.

use berth_shared::clock::Clock;

use super::{Faults, faulty, listening, operations, sound};
use crate::{metadata::repository::RepositoryId, registry::gc::Summary};

/// So many manifests, untouched for long.
const LINKS: [&str; 2] = [
    "INSERT INTO manifests (repository, digest, media_type, size, pushed, bytes)
     SELECT 1, digest, '', 1, 0, x'' FROM n",
    "INSERT INTO manifest_touches (repository, digest, touched) SELECT 1, digest, 0 FROM n",
];

/// Each is named by the one that comes behind it as its index, or names that one as its subject:
/// the last goes first.
const CHAINS: [&[&str]; 2] = [
    &["INSERT INTO manifest_references (repository, manifest, digest, kind)
       SELECT 1, a.digest, b.digest, 'child' FROM n a JOIN n b ON b.x = a.x - 1"],
    &[
        "INSERT INTO manifest_references (repository, manifest, digest, kind)
         SELECT 1, a.digest, b.digest, 'subject' FROM n a JOIN n b ON b.x = a.x + 1",
        "UPDATE manifests SET subject = (SELECT r.digest FROM manifest_references r
         WHERE r.repository = 1 AND r.manifest = manifests.digest AND r.kind = 'subject')
         WHERE size = 1",
    ],
];

/// Collects a chain, and gives how many steps that takes.
async fn steps(numbers: &'static str, chain: &[&'static str]) -> (Summary, i64) {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let before = sound(directory.path(), &clock).await;
    operations::push_image(&before).await.unwrap();
    for statement in [numbers].iter().chain(&LINKS).chain(chain) {
        before.database().spoil(statement).await;
    }
    let counting = Faults::none();
    let registry = faulty(directory.path(), &clock, &counting).await;
    let began = counting.taken();
    let summary =
        listening(async |events| registry.collector.collect(&events).await).await.unwrap();
    (summary, counting.taken() - began)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_twice_as_long_is_collected_in_twice_the_steps() {
    for chain in CHAINS {
        let (short, few) = steps(
            "CREATE TABLE n AS WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c
             WHERE x < 400) SELECT x, 'sha256:' || printf('%064x', x) AS digest FROM c",
            chain,
        )
        .await;
        let (long, many) = steps(
            "CREATE TABLE n AS WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c
             WHERE x < 800) SELECT x, 'sha256:' || printf('%064x', x) AS digest FROM c",
            chain,
        )
        .await;
        assert_eq!((short.manifests, long.manifests), (400, 800));
        assert!(many * 2 <= few * 5, "{few} and {many} steps");
    }
}

#[tokio::test]
async fn unreached_manifests_are_read_by_pages() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let registry = sound(directory.path(), &clock).await;
    operations::push_image(&registry).await.unwrap();
    let numbers = "CREATE TABLE n AS WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1
                   FROM c WHERE x < 20) SELECT x, 'sha256:' || printf('%064x', x) AS digest FROM c";
    for statement in [numbers].iter().chain(&LINKS).chain(CHAINS[0]) {
        registry.database().spoil(statement).await;
    }
    let id = registry.database().repository_ids(RepositoryId::default(), 1).await.unwrap()[0];
    let (mut pages, mut last) = (Vec::new(), String::new());
    loop {
        let page = registry.database().unreached_manifests(id, clock.now() - 60, &last, 7).await;
        let page = page.unwrap();
        let Some(end) = page.last() else { break };
        last.clone_from(&end.0.1);
        pages.push(page.len());
    }
    assert_eq!(pages, [7, 7, 6]);
}
