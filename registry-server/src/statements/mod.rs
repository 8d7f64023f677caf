//! What statements cost: none reads all of a table that grows with use, and no request takes more
//! steps where much is stored.
//!
//! Whoever adds a statement adds what makes it to [`exercise`], or an operation to
//! [`crate::faults`].

mod exercise;
mod large;

use std::{path::Path, sync::Arc};

use berth_shared::{
    claimant::Claimant,
    clock::{Clock, UnixSeconds},
    name::RepositoryName,
    rights::Rights,
};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

use crate::{
    faults::{
        self, Faults,
        operations::{self, OPERATIONS, Operation},
    },
    plans::{
        ReadsAll, Recording, complaints, keys_without_index,
        portable::{self, OfSqlite},
    },
    reach::Reach,
    registry::list::{PageRequest, TAGS_BYTES_MAX},
};

/// What begins at an id, and ends with the page.
const PAGE: &str = "every row behind the id is one of the page, and the limit ends it";

/// What reads all that there is, or all of a repository, or sorts, or seems to. None of the first
/// does so on the writer or on the way of a request.
const READ_ALL: [ReadsAll; 15] = [
    ReadsAll {
        statement: "VACUUM INTO",
        why: "a copy is of everything: for backups, migrations and dry runs, on a reader",
    },
    ReadsAll {
        statement: "PRAGMA integrity_check",
        why: "looks through a backup that is restored, which nobody serves",
    },
    ReadsAll {
        statement: "DELETE FROM uploads",
        why: "empties the table in the copy that becomes a backup, which nobody serves",
    },
    ReadsAll {
        statement: "WITH RECURSIVE live",
        why: "collection marks what is reached in one repository at a time, on a reader",
    },
    ReadsAll {
        statement: "WITH RECURSIVE reached (digest) AS ( SELECT digest FROM tags",
        why: "the verb `list` adds up one repository at a time, in a process of its own",
    },
    ReadsAll {
        statement: "SELECT id, (SELECT COUNT(*) FROM tags",
        why: "the verb `delete` says how far it is in one repository, asked on a reader",
    },
    ReadsAll {
        statement: "DELETE FROM tags WHERE repository = $1 AND name IN ( SELECT name",
        why: "a bounded step of deleting a repository",
    },
    ReadsAll {
        statement: "DELETE FROM repositories",
        why: "looks at the first row of each table only, which keeps the repository",
    },
    ReadsAll { statement: "INSERT INTO repositories", why: "a new number has no rows elsewhere" },
    ReadsAll {
        statement: "SELECT id, name, NOT EXISTS (SELECT 1 FROM manifests",
        why: "looks at the first row of each only",
    },
    ReadsAll {
        statement: "SELECT r.name, EXISTS (SELECT 1 FROM manifests",
        why: "looks at the first manifest of each only",
    },
    ReadsAll {
        statement: "SELECT EXISTS (SELECT 1 FROM manifests m JOIN repositories",
        why: "looks at the first manifest only",
    },
    ReadsAll { statement: "SELECT id FROM repositories WHERE id > $1", why: PAGE },
    ReadsAll {
        statement: "WITH RECURSIVE reached (digest) AS ( SELECT digest FROM manifests",
        why: "adds up one image, each of its layers once, for the verb `list`",
    },
    ReadsAll {
        statement: "WITH RECURSIVE above",
        why: "sorts the images that a damaged blob is in; `verify` names some, on a reader",
    },
];

/// What is SQLite's own here alone.
const OF_SQLITE: [OfSqlite; 5] = [
    OfSqlite { statement: "BEGIN IMMEDIATE", why: "the one writer takes its turn at once" },
    OfSqlite { statement: "SAVEPOINT work", why: "transactions are not prepared" },
    OfSqlite { statement: "RELEASE work", why: "the same" },
    OfSqlite { statement: "ROLLBACK", why: "the same" },
    OfSqlite { statement: "COMMIT", why: "the same" },
];

/// Operations whose cost is by what is stored in their repository, or at all.
const BY_WHAT_IS_STORED: [&str; 3] = ["deleting a repository", "collecting garbage", "verifying"];

async fn connect(path: &Path) -> sqlx::SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_cost_by_what_they_are_about() {
    let recording = Recording::start();
    exercise::everything().await;
    let directory = tempfile::tempdir().unwrap();
    let large = large::make(directory.path()).await;
    no_statement_reads_all_of_a_table(&large, &recording).await;
    requests_cost_the_same_however_much_is_stored(&large).await;
    the_catalog_costs_by_what_its_reader_may_see(&large).await;
    a_mount_without_a_source_costs_the_same_found_or_not(&large).await;
    all_tags_are_in_answers_that_meet(&large).await;
    referrers_of_a_type_cost_by_how_many_they_are(&large).await;
}

async fn no_statement_reads_all_of_a_table(large: &Path, recording: &Recording) {
    let mut connection = connect(large).await;
    assert_eq!(keys_without_index(&mut connection).await, Vec::<String>::new());
    let run = recording.statements();
    let (complaints, statements) = complaints(&run, &READ_ALL, &mut connection).await;
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    portable::write(&statements, &OF_SQLITE, &mut connection).await;
}

/// How many steps of SQLite's machine the operation takes, by tens, and its preparation none.
async fn steps(root: &Path, operation: &Operation) -> i64 {
    let clock = Clock::set(Clock::system().now());
    let before = faults::sound(root, &clock).await;
    (operation.prepare)(&before, &clock).await.unwrap();
    before.database().close().await;
    let counting = Faults::none();
    let registry = faults::faulty(root, &clock, &counting).await;
    let began = counting.taken();
    (operation.act)(&registry).await.unwrap();
    let taken = counting.taken() - began;
    registry.database().close().await;
    taken
}

async fn requests_cost_the_same_however_much_is_stored(filled: &Path) {
    let mut dear = Vec::new();
    for operation in OPERATIONS.iter().filter(|it| !BY_WHAT_IS_STORED.contains(&it.name)) {
        let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::copy(filled, large.path().join("registry.db")).unwrap();
        let few = steps(small.path(), operation).await;
        let many = steps(large.path(), operation).await;
        if many > few + few / 10 + 10 {
            dear.push(format!("{}: {few} and {many}", operation.name));
        }
    }
    assert_eq!(dear, Vec::<String>::new());
}

/// Steps that `work` takes on the large registry.
async fn steps_of<T>(
    filled: &Path,
    work: impl AsyncFnOnce(&crate::registry::Registry) -> T,
) -> i64 {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(filled, directory.path().join("registry.db")).unwrap();
    let counting = Faults::none();
    let clock = Clock::set(Clock::system().now());
    let registry = faults::faulty(directory.path(), &clock, &counting).await;
    let began = counting.taken();
    work(&registry).await;
    let taken = counting.taken() - began;
    registry.database().close().await;
    taken
}

async fn the_catalog_costs_by_what_its_reader_may_see(filled: &Path) {
    let page = PageRequest { limit: 100, last: String::new() };
    let mut cost = Vec::new();
    for (patterns, seen) in [
        (exercise::rights((0..300).map(|n| ("allow", format!("team-{n}/**")))), 0),
        (exercise::rights([("allow", "app".to_owned())]), 1),
        (Rights::everything(), 100),
    ] {
        let taken = steps_of(filled, async |registry| {
            let memory = operations::shares(registry).memory;
            let found = registry.lists.catalog(&patterns, &page, &memory).await.unwrap();
            assert_eq!(found.items.len().min(100), seen);
        });
        cost.push(taken.await);
    }
    // Three hundred rules are some thousand steps, and a thousand names that are looked at as well;
    // a hundred thousand repositories would be a hundred times that.
    assert!(cost.iter().all(|taken| *taken < 10_000), "{cost:?}");
}

async fn a_mount_without_a_source_costs_the_same_found_or_not(filled: &Path) {
    let rights = exercise::rights([
        ("allow", "other/000010".to_owned()),
        ("allow", "other/000020/**".to_owned()),
        ("allow", "*/*/pulled".to_owned()),
        ("deny", "app/**".to_owned()),
    ]);
    let mut cost = Vec::new();
    for digest in [large::digest(1), large::digest(2), large::digest(10 * large::ROWS)] {
        let taken = steps_of(filled, async |registry| {
            let reach = Reach::of(&rights, UnixSeconds::new(0));
            let found = registry.database().mount_sources(&reach, &digest, 1000).await.unwrap();
            assert!(!found.is_empty() && found.iter().all(|source| !source.holds));
            let may: Vec<&RepositoryName> = found
                .iter()
                .map(|it| &it.repository)
                .filter(|it| reach.holds(it, &mut 0))
                .collect();
            assert_eq!(may.len(), 2, "{may:?}");
        });
        cost.push(taken.await);
    }
    assert!(cost.iter().all(|taken| *taken == cost[0]), "{cost:?}");
}

async fn all_tags_are_in_answers_that_meet(filled: &Path) {
    for (bytes_max, is_one_answer) in [(TAGS_BYTES_MAX, true), (300_000, false)] {
        let read = steps_of(filled, async |registry| {
            let (app, asker) = (operations::permit("app"), Arc::new(Claimant::stranger(None)));
            let (mut names, mut answers, mut last) = (Vec::new(), 0, Some(String::new()));
            while let Some(begin) = last {
                let list = registry.lists.all_tags(&app, &begin, &asker, bytes_max).await.unwrap();
                let first = stream::once(future::ready(Ok(list.first)));
                let mut pages = first.chain(list.rest);
                while let Some(page) = pages.try_next().await.unwrap() {
                    names.extend(page.items);
                }
                assert!(
                    list.next.as_deref().is_none_or(|next| names.last().unwrap().as_str() == next)
                );
                (last, answers) = (list.next, answers + 1);
            }
            assert!(names.len() == large::ROWS as usize && names.is_sorted());
            assert_eq!(answers == 1, is_one_answer, "{answers}");
        });
        read.await;
    }
}

async fn referrers_of_a_type_cost_by_how_many_they_are(filled: &Path) {
    let app = operations::permit("other/003000");
    let page = PageRequest { limit: 100, last: String::new() };
    for (artifact_type, count, next, most) in [
        (Some("a/none"), 0, false, 20),
        (Some("a/rare"), 19, false, 100),
        (Some("a/1"), 100, true, 500),
        (None, 100, true, 500),
    ] {
        let taken = steps_of(filled, async |registry| {
            let memory = operations::shares(registry).memory;
            let subject = large::digest(1);
            let found = registry.lists.referrers(&app, &subject, artifact_type, &page, &memory);
            let found = found.await.unwrap();
            assert_eq!((found.items.len(), found.next.is_some()), (count, next));
        });
        let taken = taken.await;
        assert!(taken < most, "{artifact_type:?}: {taken}");
    }
}
