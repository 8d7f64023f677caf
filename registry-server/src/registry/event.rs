//! What long work tells while it runs: to the command line as JSON lines, to the log otherwise.

use berth_shared::digest::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Error;
use crate::metadata::{self, Rows};

/// What kind of thing an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A manifest of a repository.
    Manifest,
    /// A blob of a repository that other repositories hold too.
    Link,
    /// A blob, and the room that it takes.
    Blob,
    /// An upload session.
    Upload,
    /// An object that no blob and no session owns.
    Orphan,
    /// A repository without content.
    Repository,
}

impl Kind {
    /// What a person calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Link => "blob (kept by other repositories)",
            Self::Blob => "blob",
            Self::Upload => "upload session",
            Self::Orphan => "object",
            Self::Repository => "repository",
        }
    }
}

/// A step of long work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Collection removed something, or would.
    Gone {
        /// What kind of thing.
        kind: Kind,
        /// Where, if in one repository.
        repository: Option<String>,
        /// Its digest, id or location.
        name: String,
        /// The bytes that are free now.
        bytes: u64,
        /// Why.
        why: String,
    },
    /// An entry that cannot be worked on; the rest goes on.
    Problem {
        /// What is wrong, and with what.
        message: String,
    },
    /// Something of an old store is left behind, or is not as it should be.
    #[serde(rename = "problem", skip_deserializing)]
    LeftBehind {
        /// Where, as a path below the old store's root.
        place: String,
        /// What is wrong there.
        what: String,
        /// What is left behind by it: `repository:tag`, or `repository@digest` without a tag.
        images: Vec<String>,
    },
    /// A blob or manifest is not what its digest says.
    Damaged {
        /// Which.
        digest: Digest,
        /// What is wrong with it.
        what: String,
        /// The images that need it: `repository:tag`, or `repository@digest` without a tag.
        images: Vec<String>,
    },
    /// The index of a tag names manifests that are not there.
    Lacking {
        /// `repository:tag`.
        image: String,
        /// How many.
        lacking: u32,
        /// One of them.
        example: String,
        /// Whether the settings allow such indexes.
        is_sparse: bool,
    },
    /// A damaged blob is served again.
    Repaired {
        /// Which.
        digest: Digest,
        /// How.
        how: String,
    },
    /// How far the work has come.
    Progress {
        /// Done so far, where things are counted.
        #[serde(skip_serializing_if = "Option::is_none")]
        done: Option<u64>,
        /// In all, as far as is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// Bytes done.
        bytes_done: u64,
        /// Bytes in all, as far as is known.
        bytes_total: u64,
    },
    /// Nothing stored is deleted until the asker hangs up.
    Held,
    /// The work has to wait.
    Waiting {
        /// For what.
        what: String,
    },
}

/// Where long work tells what it does. It stops when nobody listens any more.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<Event>);

/// Events that may wait for a slow listener.
const QUEUE: usize = 64;

impl Events {
    /// A teller and its listener.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Tells one step.
    ///
    /// # Errors
    /// [`Error::Abandoned`] when nobody listens.
    pub async fn say(&self, event: Event) -> Result<(), Error> {
        self.0.send(event).await.map_err(|_| Error::Abandoned)
    }

    pub(crate) async fn problem(&self, message: String) -> Result<(), Error> {
        self.say(Event::Problem { message }).await
    }

    /// Tells how many things are done, and of how many bytes: each so far, and in all.
    pub(crate) async fn progress(
        &self,
        (done, total): (u64, u64),
        (bytes_done, bytes_total): (u64, u64),
    ) -> Result<(), Error> {
        let (done, total) = (Some(done), Some(total));
        self.say(Event::Progress { done, total, bytes_done, bytes_total }).await
    }

    /// What can be read of rows; the rest is told, by what `words` call it, and counted.
    pub(crate) async fn readable<K, R>(
        &self,
        rows: Rows<K, R>,
        words: impl Fn(K, metadata::Error) -> String,
    ) -> Result<(Vec<R>, u64), Error> {
        let (mut readable, mut problems) = (Vec::with_capacity(rows.len()), 0);
        for (key, row) in rows {
            match row {
                Ok(row) => readable.push(row),
                Err(error) => {
                    problems += 1;
                    self.problem(format!("{}: skipped", words(key, error))).await?;
                }
            }
        }
        Ok((readable, problems))
    }

    /// Returns when nobody listens any more.
    pub(crate) async fn abandoned(&self) {
        self.0.closed().await;
    }
}
