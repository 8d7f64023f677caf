//! What every store must do, as a table of cases: each is done once with one writer for all its steps,
//! and once with the writer dropped and another one opened by another store between any two of them.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{Dead, Draft, Error, Location, ObjectWriter, Store, disk::DiskStore, parts::PartStore};

/// Makes a store of a kind over what lies in a directory.
type Make = fn(&Path) -> Arc<dyn Store>;

const STORES: [(&str, Make); 2] = [
    ("disk", |root| Arc::new(DiskStore::at(root))),
    ("parts", |root| Arc::new(PartStore::at(root))),
];

/// What is done to an unfinished object.
#[derive(Debug, Clone, Copy)]
enum Step {
    Append(&'static str),
    /// What a request brings that breaks off before it records anything.
    Lose(&'static str),
    /// The same where the process dies.
    Crash(&'static str),
    Checkpoint,
}

use Step::{Append, Checkpoint, Crash, Lose};

const CASES: &[(&[Step], &str)] = &[
    (&[], ""),
    (&[Checkpoint], ""),
    (&[Append("a")], "a"),
    (&[Append("a"), Checkpoint], "a"),
    (&[Append("abc"), Append("de"), Checkpoint, Append("f")], "abcdef"),
    (&[Append("abc"), Checkpoint, Checkpoint, Append("d"), Checkpoint, Append("e")], "abcde"),
    (&[Lose("lost"), Append("kept")], "kept"),
    (&[Append("ab"), Checkpoint, Lose("lost, and long"), Append("c"), Checkpoint], "abc"),
    (&[Append("ab"), Checkpoint, Lose("x"), Lose("yz"), Checkpoint], "ab"),
    (&[Append("ab"), Crash("cd")], "ab"),
    (&[Append("ab"), Crash("cdef"), Append("gh")], "abgh"),
    (
        &[Append("0123456789abcdef"), Checkpoint, Append("0"), Append("1"), Checkpoint],
        "0123456789abcdef01",
    ),
];

/// An unfinished object, as its session has it.
struct Session {
    root: std::path::PathBuf,
    make: Make,
    draft: Draft,
    claim: u64,
    writer: Option<Box<dyn ObjectWriter>>,
}

impl Session {
    async fn writer(&mut self) -> &mut Box<dyn ObjectWriter> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                self.claim += 1;
                (self.make)(&self.root).open(self.draft.clone(), self.claim).await.unwrap()
            }
        };
        self.writer.insert(writer)
    }

    async fn checkpoint(&mut self) {
        self.draft = self.writer().await.checkpoint().await.unwrap();
    }

    async fn step(&mut self, step: Step) {
        match step {
            Append(text) => self.append(text).await,
            Checkpoint => self.checkpoint().await,
            Lose(text) | Crash(text) => {
                // What was appended before counts, since its request recorded it.
                self.checkpoint().await;
                self.append(text).await;
                self.writer = None;
                if matches!(step, Lose(_)) {
                    (self.make)(&self.root).cut_back(&self.draft).await.unwrap();
                }
            }
        }
    }

    async fn append(&mut self, text: &'static str) {
        self.writer().await.append(vec![Bytes::from_static(text.as_bytes())]).await.unwrap();
    }

    async fn finish(&mut self) -> Location {
        self.writer().await;
        let mut writer = self.writer.take().unwrap();
        if let Some(draft) = writer.seal().await.unwrap() {
            self.draft = draft;
        }
        writer.finish().await.unwrap()
    }
}

async fn read(store: &dyn Store, location: &Location, length: u64) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> = store.read(None, location, 0..length).await?.try_collect().await?;
    Ok(pieces.concat())
}

async fn run(kind: &str, make: Make, steps: &[Step], expected: &str, is_reopened: bool) {
    let directory = tempfile::tempdir().unwrap();
    let what = format!("{kind}, {steps:?}, reopened: {is_reopened}");
    let draft = Draft { location: Location::fresh().unwrap(), received: 0, state: None };
    let root = directory.path().to_owned();
    DiskStore::open(&root).unwrap();
    let mut session = Session { root: root.clone(), make, draft, claim: 0, writer: None };
    for step in steps {
        session.step(*step).await;
        if is_reopened {
            session.checkpoint().await;
            session.writer = None;
        }
    }
    let location = session.finish().await;
    let (store, length) = (make(&root), expected.len() as u64);
    assert_eq!(read(&*store, &location, length).await.unwrap(), expected.as_bytes(), "{what}");
    assert_eq!(store.length(&location).await.unwrap(), length, "{what}");
    // A crash behind the finish: the next request does it again.
    if session.draft.received == length {
        session.writer = None;
        assert_eq!(session.finish().await, location, "{what}");
        assert_eq!(store.length(&location).await.unwrap(), length, "{what}");
    }
    let dead = [Dead::of(location.clone(), length)];
    for _ in 0..2 {
        assert!(store.delete(&dead).await.iter().all(Result::is_ok), "{what}");
    }
    assert!(matches!(store.length(&location).await, Err(Error::NotFound(_))), "{what}");
}

#[tokio::test]
async fn an_object_grows_by_steps_between_which_everything_may_end() {
    for (kind, make) in STORES {
        for (steps, expected) in CASES {
            for is_reopened in [false, true] {
                run(kind, make, steps, expected, is_reopened).await;
            }
        }
    }
}

#[tokio::test]
async fn an_object_that_holds_less_than_its_draft_says_neither_grows_nor_is_finished() {
    for (kind, make) in STORES {
        let directory = tempfile::tempdir().unwrap();
        DiskStore::open(directory.path()).unwrap();
        let store = make(directory.path());
        let draft = Draft { location: Location::fresh().unwrap(), received: 5, state: None };
        let mut writer = store.open(draft.clone(), 1).await.unwrap();
        let appended = writer.append(vec![Bytes::from_static(b"more")]).await;
        assert!(matches!(appended, Err(Error::NotFound(_))), "{kind}: {appended:?}");
        let finished = store.open(draft, 2).await.unwrap().finish().await;
        assert!(matches!(finished, Err(Error::NotFound(_))), "{kind}: {finished:?}");
    }
}
