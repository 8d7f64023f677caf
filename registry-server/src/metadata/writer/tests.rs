//! The writer with work that takes for ever, that nobody waits for, and of which there is much.

use std::sync::Mutex;

use berth_shared::{claimant::Claimant, database::Statements, subject::Subject};
use tokio::task::yield_now;

use super::*;
use crate::metadata::Database;

const FOR_EVER: &str = "WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c)";

async fn open() -> (tempfile::TempDir, Database) {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&directory.path().join("registry.db")).await.unwrap();
    (directory, database)
}

async fn insert(transaction: &mut Transaction<'_>, name: &str) -> Result<(), Error> {
    transaction.run("INSERT INTO repositories (name) VALUES ($1)", name).await.map(drop)
}

async fn write(database: &Database, name: &str) -> Result<(), Error> {
    database.write(name.to_owned(), |tx, name| Box::pin(insert(tx, name))).await
}

async fn names(database: &Database) -> Vec<String> {
    let statement = "SELECT name FROM repositories ORDER BY name";
    database.reader().await.unwrap().all(statement, ()).await.unwrap()
}

/// Writes a row and then goes on with `then` for ever.
async fn write_for_ever(database: &Database, then: String) -> Result<(), Error> {
    let write = database.write(then, |tx, then| {
        Box::pin(async move {
            insert(tx, "endless").await?;
            loop {
                let statement = sqlx::AssertSqlSafe(then.clone());
                tx.run(statement, ()).await?;
            }
        })
    });
    write.await
}

/// Holds the writer until the result is dropped or sent to.
async fn hold(database: &Database) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let (begun, has_begun) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let database = database.clone();
    let task = tokio::spawn(async move {
        let once = Mutex::new(Some((begun, released)));
        let write = database.write(once, |tx, once| {
            let (begun, released) = once.lock().unwrap().take().unwrap();
            Box::pin(async move {
                begun.send(()).unwrap();
                let _ = released.await;
                insert(tx, "held").await
            })
        });
        write.await.unwrap();
    });
    has_begun.await.unwrap();
    (release, task)
}

async fn until_queued(database: &Database, number: usize) {
    let Engine::Sqlite { writer, .. } = &database.engine else { panic!("its writer queues") };
    while writer.queue.0.len() != number {
        yield_now().await;
    }
}

#[tokio::test]
async fn what_takes_too_long_is_interrupted_and_the_others_are_kept_or_told() {
    let endless = [
        // Reads within one statement: SQLite interrupts it and keeps the transaction.
        format!("{FOR_EVER} SELECT COUNT(*) FROM c"),
        // Writes within one statement: SQLite rolls back the whole transaction.
        format!("{FOR_EVER} INSERT INTO repositories (name) SELECT 'endless' || x FROM c"),
        // Many short statements.
        "UPDATE repositories SET name = name".to_owned(),
    ];
    for endless in endless {
        let (_directory, database) = open().await;
        database.limit_writes(Duration::from_secs(3));
        let (before, long, after) = tokio::join!(
            write(&database, "before"),
            write_for_ever(&database, endless.clone()),
            write(&database, "behind"),
        );
        assert!(matches!(long, Err(Error::Busy)), "{endless}: {long:?}");
        assert!(matches!(before, Ok(()) | Err(Error::Busy)), "{endless}: {before:?}");
        after.unwrap();
        let expected: Vec<&str> =
            before.map_or_else(|_| vec!["behind"], |()| vec!["before", "behind"]);
        assert_eq!(names(&database).await, expected, "{endless}");
        write(&database, "later").await.unwrap();
    }
}

#[tokio::test]
async fn what_nobody_waits_for_is_never_begun_and_what_is_begun_goes_on() {
    let (_directory, database) = open().await;
    let (release, holder) = hold(&database).await;
    let (one, other) = (database.clone(), database.clone());
    let leaves = tokio::spawn(async move { write(&one, "left").await });
    until_queued(&database, 1).await;
    let stays = tokio::spawn(async move { write(&other, "stayed").await });
    until_queued(&database, 2).await;
    leaves.abort();
    holder.abort();
    until_queued(&database, 1).await;
    release.send(()).unwrap();
    stays.await.unwrap().unwrap();
    assert_eq!(names(&database).await, ["held", "stayed"]);
}

#[tokio::test]
async fn what_waits_too_long_is_told_so() {
    let (_directory, database) = open().await;
    let (release, holder) = hold(&database).await;
    database.limit_writes(Duration::from_millis(20));
    assert!(matches!(write(&database, "late").await, Err(Error::Busy)));
    release.send(()).unwrap();
    holder.await.unwrap();
    assert_eq!(names(&database).await, ["held"]);
}

#[tokio::test]
async fn whoever_asks_for_much_keeps_nobody_else_waiting() {
    let (_directory, database) = open().await;
    let (release, _holder) = hold(&database).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut asked = tokio::task::JoinSet::new();
    let mut ask = |who: &'static str, number: usize| {
        let (database, order) = (database.clone(), Arc::clone(&order));
        asked.spawn(
            Asker::Client(Arc::new(Claimant::Subject(Subject::User(who.parse().unwrap())))).scope(
                async move {
                    let write = database.write(order, move |_, order| {
                        Box::pin(async move {
                            order.lock().unwrap().push((who, number));
                            Ok(())
                        })
                    });
                    write.await.unwrap();
                },
            ),
        );
    };
    (0..200).for_each(|number| ask("many", number));
    ask("one", 0);
    until_queued(&database, 201).await;
    release.send(()).unwrap();
    asked.join_all().await;
    let order = order.lock().unwrap();
    assert!(order[..2].contains(&("one", 0)), "{:?}", &order[..3]);
    assert_eq!(order.len(), 201);
}

#[tokio::test]
async fn closing_drops_what_is_not_begun_and_interrupts_what_is() {
    let (directory, database) = open().await;
    let endless = format!("{FOR_EVER} INSERT INTO repositories (name) SELECT 'x' || x FROM c");
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (database, endless) = (database.clone(), endless.clone());
        asked.spawn(async move { write_for_ever(&database, endless).await });
    }
    // One of them is at work.
    until_queued(&database, 49).await;
    let mut reader = database.reader().await.unwrap();
    let read = tokio::spawn(async move {
        let statement = sqlx::AssertSqlSafe(format!("{FOR_EVER} SELECT COUNT(*) FROM c"));
        reader.run(statement, ()).await.map(drop)
    });
    database.close().await;
    let (mut dropped, mut interrupted) = (0, 0);
    while let Some(answer) = asked.join_next().await {
        match answer.unwrap() {
            Err(Error::Closed) => dropped += 1,
            Err(Error::Busy) => interrupted += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((dropped, interrupted), (49, 1));
    assert!(read.await.unwrap().is_err());
    assert!(!directory.path().join("registry.db-wal").exists(), "the journal is left behind");
    let again = Database::open(&directory.path().join("registry.db")).await.unwrap();
    assert_eq!(names(&again).await, Vec::<String>::new());
}
