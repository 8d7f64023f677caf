//! What every store must do, as a table of cases: each is done once with one store for all its steps,
//! and once with the writer dropped and another one opened by another store between any two of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{
    Dead, Draft, Error, Location, ObjectWriter, Store,
    disk::DiskStore,
    parts::PartStore,
    s3::{self, S3Store},
};

/// Makes a store of a kind over what lies in a directory.
type Make = fn(&Path) -> Arc<dyn Store>;

const STORES: [(&str, Make); 2] = [
    ("disk", |root| Arc::new(DiskStore::at(root))),
    ("parts", |root| Arc::new(PartStore::at(root))),
];

/// The least that S3 takes for a part.
const PART: usize = 5 << 20;

/// A store below a prefix of its own, for what lies in a directory.
fn s3(root: &Path) -> Arc<dyn Store> {
    let store = S3Store::open(&s3::tests::settings(root)).unwrap();
    store.belongs_to(s3::tests::IDENTITY);
    Arc::new(store)
}

/// What is done to an unfinished object.
#[derive(Debug, Clone, Copy)]
enum Step {
    Append(&'static str),
    /// So many bytes.
    Fill(usize),
    /// So many times what is appended and recorded.
    Tails(usize),
    /// What a request brings that breaks off before it records anything.
    Lose(&'static str),
    /// The same, of so many bytes.
    LoseMany(usize),
    /// The same where the process dies.
    Crash(&'static str),
    Checkpoint,
}

use Step::{Append, Checkpoint, Crash, Fill, Lose, LoseMany, Tails};

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

/// What makes parts at a store that has such.
const LARGE: &[&[Step]] = &[
    &[Fill(PART)],
    &[Fill(PART - 1)],
    &[Fill(PART + 1)],
    &[Fill(2 * PART), Append("end")],
    &[Fill(PART - 1), Checkpoint, Append("ab"), Checkpoint, Fill(PART)],
    &[Append("begin"), Checkpoint, Fill(3 * PART), Checkpoint, Append("end"), Checkpoint],
    &[Fill(7 * PART + 7)],
    &[LoseMany(2 * PART), Append("kept"), Fill(PART)],
    &[Fill(PART + 3), Checkpoint, LoseMany(2 * PART), Append("kept")],
    &[Tails(70), Append("end")],
    &[Fill(PART), Tails(70), Fill(PART), Checkpoint, Lose("lost")],
];

/// Bytes that no short pattern repeats in.
fn many(length: usize) -> Bytes {
    (0..length).map(|at| ((at * 7919) >> 8) as u8 ^ at as u8).collect()
}

/// What is there behind the steps.
fn expected(steps: &[Step]) -> Vec<u8> {
    let mut expected = Vec::new();
    for step in steps {
        match step {
            Append(text) => expected.extend_from_slice(text.as_bytes()),
            Fill(length) => expected.extend_from_slice(&many(*length)),
            Tails(count) => expected.extend_from_slice("tail".repeat(*count).as_bytes()),
            Checkpoint | Lose(_) | Crash(_) | LoseMany(_) => {}
        }
    }
    expected
}

/// An unfinished object, as its session has it.
struct Session {
    root: PathBuf,
    make: Make,
    store: Arc<dyn Store>,
    draft: Draft,
    writer: Option<Box<dyn ObjectWriter>>,
}

impl Session {
    fn begin(root: &Path, make: Make) -> Self {
        let draft = Draft { location: Location::fresh().unwrap(), received: 0, state: None };
        Self { root: root.to_owned(), make, store: make(root), draft, writer: None }
    }

    async fn take_writer(&mut self) -> Box<dyn ObjectWriter> {
        if let Some(writer) = self.writer.take() {
            return writer;
        }
        if let Some(reserved) = self.store.reserve(&self.draft).unwrap() {
            assert_eq!(reserved.received, self.draft.received);
            self.draft = reserved;
        }
        self.store.open(self.draft.clone()).await.unwrap()
    }

    async fn checkpoint(&mut self) {
        self.draft = self.take_writer().await.checkpoint().await.unwrap();
    }

    /// Another process goes on.
    fn reopen(&mut self) {
        self.writer = None;
        self.store = (self.make)(&self.root);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Append(text) => self.append(Bytes::from_static(text.as_bytes())).await,
            Fill(length) => self.append(many(length)).await,
            Tails(count) => {
                for _ in 0..count {
                    self.append(Bytes::from_static(b"tail")).await;
                    self.checkpoint().await;
                }
            }
            Checkpoint => self.checkpoint().await,
            Lose(text) => {
                self.lose(Bytes::from_static(text.as_bytes())).await;
                self.store.cut_back(&self.draft).await.unwrap();
            }
            LoseMany(length) => self.lose(many(length)).await,
            Crash(text) => self.lose(Bytes::from_static(text.as_bytes())).await,
        }
    }

    /// What was appended before counts, since its request recorded it.
    async fn lose(&mut self, bytes: Bytes) {
        self.checkpoint().await;
        self.append(bytes).await;
        // It may have come to lie there.
        let draft = self.draft.clone();
        let _ = self.take_writer().await.checkpoint().await;
        self.draft = draft;
    }

    async fn append(&mut self, bytes: Bytes) {
        // As they come from a network.
        let mut rest = bytes;
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(300_000));
            let mut writer = self.take_writer().await;
            if let Some(begun) = writer.append(vec![chunk]).await.unwrap() {
                assert_eq!(begun.received, self.draft.received);
                self.draft = begun;
            }
            self.writer = Some(writer);
        }
    }

    /// Gives where it lies, and what is left besides.
    async fn finish(&mut self) -> (Location, Option<Dead>) {
        let mut writer = self.take_writer().await;
        if let Some(draft) = writer.seal().await.unwrap() {
            self.draft = draft;
        }
        let finished = writer.finish().await.unwrap();
        (finished.location, finished.left)
    }
}

async fn read(store: &dyn Store, location: &Location, length: u64) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> = store.read(None, location, 0..length).await?.try_collect().await?;
    Ok(pieces.concat())
}

/// How many objects lie in the store.
async fn count(store: &dyn Store) -> usize {
    let mut count = 0;
    for shard in 0..=u8::MAX {
        count += store.list(shard).await.unwrap().objects.len();
    }
    count
}

async fn run(kind: &str, make: Make, steps: &[Step], is_reopened: bool) {
    let expected = expected(steps);
    let directory = tempfile::tempdir().unwrap();
    let what = format!("{kind}, {steps:?}, reopened: {is_reopened}");
    let root = directory.path();
    if kind == "s3" {
        s3::tests::mark(root).await;
    } else {
        DiskStore::open(root).unwrap();
    }
    let mut session = Session::begin(root, make);
    for step in steps {
        session.step(*step).await;
        if is_reopened {
            session.checkpoint().await;
            session.reopen();
        }
    }
    let (location, left) = session.finish().await;
    let (store, length) = (make(root), expected.len() as u64);
    assert!(read(&*store, &location, length).await.unwrap() == expected, "{what}");
    assert_eq!(store.length(&location).await.unwrap(), length, "{what}");
    let mut dead: Vec<Dead> = left.into_iter().collect();
    // A crash behind the finish: the next request does it again.
    if session.draft.received == length {
        session.reopen();
        let (again, left) = session.finish().await;
        assert!(read(&*store, &again, length).await.unwrap() == expected, "{what}");
        dead.extend(left);
        dead.push(Dead::of(again, length));
    }
    dead.push(Dead::of(location.clone(), length));
    dead.push(session.draft.clone());
    for _ in 0..2 {
        for deleted in store.delete(&dead).await {
            deleted.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        }
    }
    assert!(matches!(store.length(&location).await, Err(Error::NotFound(_))), "{what}");
    assert_eq!(count(&*store).await, 0, "{what}");
}

#[tokio::test]
async fn an_object_grows_by_steps_between_which_everything_may_end() {
    for (kind, make) in STORES {
        for (steps, bytes) in CASES {
            assert_eq!(expected(steps), bytes.as_bytes());
            for is_reopened in [false, true] {
                run(kind, make, steps, is_reopened).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, which tests/interop/s3.sh starts"]
async fn an_object_at_s3_grows_by_steps_between_which_everything_may_end() {
    for steps in CASES.iter().map(|(steps, _)| *steps).chain(LARGE.iter().copied()) {
        for is_reopened in [false, true] {
            run("s3", s3, steps, is_reopened).await;
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
        let mut writer = store.open(draft.clone()).await.unwrap();
        let appended = writer.append(vec![Bytes::from_static(b"more")]).await;
        assert!(matches!(appended, Err(Error::NotFound(_))), "{kind}: {appended:?}");
        let finished = store.open(draft).await.unwrap().finish().await;
        assert!(matches!(finished, Err(Error::NotFound(_))), "{kind}: {finished:?}");
    }
}
