//! The way of bytes into an object: received, hashed and written at the same time.

use std::{future::poll_fn, mem::replace, pin::pin, task::Poll, time::Duration};

use berth_shared::digest::{Algorithm, Digest};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    pusher::{Pushing, Slot},
    turn::Turn,
};
use crate::{
    metadata::upload::Upload,
    registry::{
        Error,
        backend::Backend,
        content::{Content, broken_off},
        hash::Hasher,
    },
    storage::{self, Draft, Finished, ObjectWriter},
};

/// How much is gathered before it is hashed and written. Twice this is held per slot: one part on
/// its way to the disk, one being received.
const BATCH_BYTES: usize = 512 * 1024;

/// Chunks in a batch; a client that sends tiny ones must not make the list long.
const BATCH_CHUNKS: usize = 256;

/// How long a batch is gathered: a slot is there for bytes in hand, and the system's buffers hold
/// what a slow client sends meanwhile.
const GATHER_TIME: Duration = Duration::from_millis(50);

/// After how many bytes an upload gives its slot to one that waits.
const TURN_BYTES: u64 = 4 * 1024 * 1024;

/// After how many received bytes the free space, and what the pusher holds, is looked at again.
const CHECK_BYTES: u64 = 8 * 1024 * 1024;

/// After how many bytes a store that records them while they come does so, when the part is whole in which they
/// end, and durable.
const RECORDED_BYTES: u64 = 64 * 1024 * 1024;

/// After how long what came is recorded however little it is: sessions that nobody records end.
const RECORDED_TIME: Duration = Duration::from_secs(60);

/// What a batch of received chunks ended with.
enum Ending {
    /// The batch is full, and more may follow.
    Full,
    /// The client is slower than that; more may follow.
    Paused,
    /// The body ended, or the reason why no more of it is taken.
    Over(Result<(), Error>),
}

/// Whether the whole body came, and the slot under which it did.
type Received = (Result<(), Error>, Option<Slot>);

/// Up to where bytes are to be recorded while more come.
enum Mark {
    /// It is not known yet.
    Unset,
    /// They have not come so far.
    Ahead(u64),
    /// They have, with this state of the hash, and are not durable yet.
    Passed(u64, Vec<u8>),
}

/// A request body on its way into the object of a session.
pub(super) struct Reception<'r> {
    backend: &'r Backend,
    /// The session as it is recorded.
    pub(super) upload: Upload,
    /// The object as far as it is durable, where the row counts less.
    rested: Option<Draft>,
    hasher: Hasher,
    /// How much was appended.
    pub(super) received: u64,
    /// How much was there when room was looked for.
    looked_at: u64,
    /// How much the request is to bring, as far as that is known.
    expected: u64,
    writer: Option<Box<dyn ObjectWriter>>,
    /// When the row last said something.
    recorded: Instant,
    mark: Mark,
    /// The right to stay open between turns.
    kept_open: Option<Slot>,
    pushing: Pushing<'r>,
    turn: Turn<'r>,
}

impl<'r> Reception<'r> {
    pub(super) fn new(
        backend: &'r Backend,
        turn: Turn<'r>,
        pushing: Pushing<'r>,
        upload: Upload,
        hasher: Hasher,
    ) -> Self {
        let received = upload.draft.received;
        Self {
            backend,
            upload,
            rested: None,
            hasher,
            received,
            looked_at: received,
            expected: u64::MAX,
            writer: None,
            recorded: Instant::now(),
            mark: Mark::Unset,
            kept_open: None,
            pushing,
            turn,
        }
    }

    /// Appends the body to what the session holds, makes it durable and records it, as far as it came.
    pub(super) async fn append(&mut self, body: &mut Content) -> Result<(), Error> {
        let received = self.receive(body).await;
        let (came, slot) = self.or_cut_back(received).await?;
        self.keep(slot).await?;
        came
    }

    /// Appends the last of the body, and makes what was received an object that lasts. Gives its
    /// digest under `algorithm`, and where it lies.
    pub(super) async fn finish(
        &mut self,
        body: &mut Content,
        algorithm: Algorithm,
    ) -> Result<(Digest, Finished), Error> {
        let received = self.receive(body).await;
        let (came, slot) = self.or_cut_back(received).await?;
        if let Err(error) = came {
            self.keep(slot).await?;
            return Err(error);
        }
        self.backend.refuse_when_read_only()?;
        if let Some(sealed) = self.open().await?.seal().await.map_err(or_unknown)? {
            self.record_all(sealed).await?;
        }
        let finished = self.finish_object().await;
        drop((slot, self.kept_open.take()));
        let object = self.or_cut_back(finished).await?;
        let hasher = if self.hasher.algorithm() == algorithm {
            self.hasher.clone()
        } else {
            let whole = Draft::of(object.location.clone(), self.received);
            Hasher::over(&*self.backend.store, &whole, algorithm).await?
        };
        Ok((hasher.finish(), object))
    }

    /// Makes durable what came, and records it. The writer may keep it waiting, but no slot.
    async fn keep(&mut self, slot: Option<Slot>) -> Result<(), Error> {
        let kept = self.checkpoint().await;
        drop(slot);
        let draft = self.or_cut_back(kept).await?;
        self.record_all(draft).await
    }

    /// Records the object with all that was appended to it.
    async fn record_all(&mut self, draft: Draft) -> Result<(), Error> {
        self.mark = Mark::Unset;
        self.upload.hash_state = Some(self.hasher.state());
        self.record(draft).await?;
        self.pushing.note_recorded(0);
        Ok(())
    }

    /// Records what has become durable up to the mark, and sets the next one.
    async fn record_up_to_mark(&mut self) -> Result<(), Error> {
        let Some(writer) = &self.writer else { return Ok(()) };
        match replace(&mut self.mark, Mark::Unset) {
            Mark::Unset => {
                let least = self.upload.draft.received.saturating_add(RECORDED_BYTES);
                self.mark = writer.mark(least).map_or(Mark::Unset, Mark::Ahead);
            }
            Mark::Ahead(mark) => self.mark = Mark::Ahead(mark),
            Mark::Passed(mark, state) => {
                let Some(draft) = writer.up_to(mark) else {
                    self.mark = Mark::Passed(mark, state);
                    return Ok(());
                };
                self.upload.hash_state = Some(state);
                self.record(draft).await?;
                self.pushing.note_recorded(self.received - mark);
            }
        }
        Ok(())
    }

    /// Whether what came is to be recorded, since that was so long ago.
    fn is_due(&self) -> bool {
        let idle = self.backend.settings().limits.upload_idle;
        !self.backend.store.is_local() && self.recorded.elapsed() >= RECORDED_TIME.min(idle / 2)
    }

    /// Records what is said of the object, by which as much of it counts as before.
    async fn record(&mut self, draft: Draft) -> Result<(), Error> {
        self.upload.draft = draft;
        self.recorded = Instant::now();
        let now = self.backend.clock.now();
        match self.backend.database.record_upload(&mut self.upload, now).await? {
            true => Ok(()),
            false => Err(Error::Superseded),
        }
    }

    /// Takes the body in. Gives whether all of it came, and the slot under which the rest is to be
    /// done.
    async fn receive(&mut self, body: &mut Content) -> Result<Received, Error> {
        if body.length() == Some(0) && self.received > 0 {
            let slot = match self.pushing.part_bytes() {
                0 => None,
                part => self.pushing.slot(part).await,
            };
            return Ok((Ok(()), slot));
        }
        self.backend.refuse_when_full().await?;
        self.refuse_beyond_share(body.length().unwrap_or(0)).await?;
        self.expected = match self.received {
            0 => body.length().unwrap_or(u64::MAX),
            _ => u64::MAX,
        };
        self.pump(body).await
    }

    /// Refuses `more` bytes, which a client has announced, beyond what the unfinished uploads of
    /// its subject may hold.
    async fn refuse_beyond_share(&mut self, more: u64) -> Result<(), Error> {
        let limits = self.backend.settings().limits;
        let (max, sessions_max) =
            (limits.unfinished_bytes_per_subject_max, limits.sessions_per_subject_max);
        let (pusher, idle_since) = (&self.upload.pusher, self.backend.idle_since());
        let database = &self.backend.database;
        let (_, recorded) = database.unfinished_of(pusher, idle_since, sessions_max).await?;
        let bytes = recorded.saturating_add(self.pushing.unrecorded_bytes()).saturating_add(more);
        if bytes <= max {
            return Ok(());
        }
        Err(Error::TooManyUnfinishedBytes { max, idle_secs: limits.upload_idle.as_secs() })
    }

    /// Whether there still is room for more, every few MiB.
    async fn look_again(&mut self) -> Result<(), Error> {
        if self.received - self.looked_at >= CHECK_BYTES {
            self.backend.refuse_when_full().await?;
            self.refuse_beyond_share(0).await?;
            self.looked_at = self.received;
        }
        Ok(())
    }

    /// After a failure gives back the room that bytes take which the row does not count; on a full
    /// disk at once.
    async fn or_cut_back<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err()
            && let Err(error) = self.backend.store.cut_back(&self.upload.draft).await
        {
            let error = berth_shared::telemetry::chain(&error);
            tracing::warn!(upload = self.upload.id.as_str(), error, "cutting back an upload");
        }
        result
    }

    /// Receives the body, turn by turn. Within a turn one batch is
    /// received while the one before is hashed and written. Between turns nothing is in hand and no
    /// slot is held, for as long as the client thinks.
    async fn pump(&mut self, body: &mut Content) -> Result<Received, Error> {
        let superseded = self.turn.superseded.clone();
        let turn_bytes = TURN_BYTES.max(self.pushing.part_bytes());
        loop {
            self.look_again().await?;
            let (slot, chunk) = match self.first_chunk(body).await {
                Ok(Some(first)) => first,
                Ok(None) => return Ok((Ok(()), self.pushing.slot(self.expected).await)),
                Err(error) => return Ok((Err(error), self.pushing.slot(self.expected).await)),
            };
            let began = self.received;
            let (mut batch, mut ending) = gather(vec![chunk], body, &superseded).await;
            while matches!(ending, Ending::Full)
                && (self.received - began < turn_bytes || !self.pushing.keeps_others_waiting())
            {
                self.look_again().await?;
                let (stored, next) =
                    tokio::join!(self.store(batch), gather(Vec::new(), body, &superseded));
                stored?;
                (batch, ending) = next;
            }
            self.store(batch).await?;
            if let Ending::Over(came) = ending {
                return Ok((came, Some(slot)));
            }
            self.rest().await?;
            drop(slot);
        }
    }

    /// Waits until bytes are there, and takes the first of them together with a slot; `None` behind
    /// the last. The body is asked while a slot is held and never else: what a client sends while
    /// all are taken stays on its connection, whose window bounds it for all uploads there together.
    /// A chunk in hand of each, of 256 KiB over HTTP/2, would open that window again and again.
    ///
    /// A body that had nothing counts as awaited until it is asked again, also while bytes are there
    /// and all slots are taken. That time is charged to the client, whom the bytes give it back at
    /// the least rate; and where connections run out, its own looks as if it kept the server waiting.
    async fn first_chunk(&mut self, body: &mut Content) -> Result<Option<(Slot, Bytes)>, Error> {
        let superseded = &self.turn.superseded;
        loop {
            let slot = tokio::select! {
                slot = self.pushing.slot(self.expected) => slot.ok_or(Error::Superseded)?,
                () = superseded.cancelled() => return Err(Error::Superseded),
            };
            match poll_fn(|cx| Poll::Ready(body.poll_next_unpin(cx))).await {
                Poll::Ready(Some(Ok(chunk))) => return Ok(Some((slot, chunk))),
                Poll::Ready(Some(Err(error))) => return Err(broken_off(&error)),
                Poll::Ready(None) => return Ok(None),
                // A body that stands still for too long ends by itself.
                Poll::Pending => drop(slot),
            }
            tokio::select! {
                () = woken() => {}
                () = superseded.cancelled() => return Err(Error::Superseded),
            }
        }
    }

    async fn open(&mut self) -> Result<&mut Box<dyn ObjectWriter>, Error> {
        let writer = self.take_writer().await?;
        Ok(self.writer.insert(writer))
    }

    async fn begin(&mut self) -> Result<Box<dyn ObjectWriter>, Error> {
        let store = &self.backend.store;
        if let Some(reserved) = store.reserve(&self.upload.draft).map_err(or_unknown)? {
            self.record(reserved).await?;
        }
        let draft = self.rested.take().unwrap_or_else(|| self.upload.draft.clone());
        self.backend.store.open(draft).await.map_err(or_unknown)
    }

    /// Stores a batch, and records what is due.
    async fn store(&mut self, batch: Vec<Bytes>) -> Result<(), Error> {
        self.backend.refuse_when_read_only()?;
        let (batch, behind) = match self.mark {
            Mark::Ahead(mark) => split(batch, mark.saturating_sub(self.received)),
            Mark::Unset | Mark::Passed(..) => (batch, Vec::new()),
        };
        self.store_piece(batch).await?;
        if matches!(self.mark, Mark::Ahead(mark) if mark == self.received) {
            self.mark = Mark::Passed(self.received, self.hasher.state());
        }
        self.store_piece(behind).await?;
        self.record_up_to_mark().await?;
        if self.is_due() {
            let draft = self.checkpoint().await?;
            self.record_all(draft).await?;
        }
        Ok(())
    }

    /// Hashes and writes bytes, both at once and both off the threads that serve the network.
    async fn store_piece(&mut self, batch: Vec<Bytes>) -> Result<(), Error> {
        let length: u64 = batch.iter().map(|chunk| chunk.len() as u64).sum();
        if length == 0 {
            return Ok(());
        }
        let hashing = self.hasher.clone().updated(batch.clone());
        let writer = self.open().await?;
        let (hashed, written) = tokio::join!(hashing, writer.append(batch));
        let begun = written.map_err(or_unknown)?;
        self.hasher = hashed?;
        self.received += length;
        self.pushing.note_received(length);
        match begun {
            Some(draft) => self.record(draft).await,
            None => Ok(()),
        }
    }

    /// Closes the object for as long as the client thinks, unless it may stay open.
    async fn rest(&mut self) -> Result<(), Error> {
        if self.kept_open.is_none() {
            self.kept_open = self.pushing.keep_open();
        }
        let may_stay_open = self.kept_open.is_some();
        let room = self.pushing.room();
        if self.writer.as_mut().is_some_and(|writer| !writer.may_rest(may_stay_open, room)) {
            // An error of writing back is told to who has the file open at the time.
            let draft = self.checkpoint().await?;
            // What a store elsewhere has is found by the row alone.
            match self.backend.store.is_local() {
                true => self.rested = Some(draft),
                false => self.record_all(draft).await?,
            }
        }
        Ok(())
    }

    async fn take_writer(&mut self) -> Result<Box<dyn ObjectWriter>, Error> {
        match self.writer.take() {
            Some(writer) => Ok(writer),
            None => self.begin().await,
        }
    }

    /// Makes all of it durable, and says what is to be recorded. An object without bytes is one too.
    async fn checkpoint(&mut self) -> Result<Draft, Error> {
        // What came stays unrecorded, as after a crash.
        self.backend.refuse_when_read_only()?;
        self.take_writer().await?.checkpoint().await.map_err(or_unknown)
    }

    async fn finish_object(&mut self) -> Result<Finished, Error> {
        self.take_writer().await?.finish().await.map_err(or_unknown)
    }
}

/// The first of the bytes, and those behind them.
fn split(mut batch: Vec<Bytes>, first: u64) -> (Vec<Bytes>, Vec<Bytes>) {
    let mut left = usize::try_from(first).unwrap_or(usize::MAX);
    let Some(at) = batch.iter().position(|chunk| {
        let is_within = chunk.len() > left;
        left -= if is_within { 0 } else { chunk.len() };
        is_within
    }) else {
        return (batch, Vec::new());
    };
    let mut behind = batch.split_off(at);
    if left > 0 {
        batch.push(behind[0].split_to(left));
    }
    (batch, behind)
}

/// Ends when the task is woken: by the body, if that was asked and had nothing, or by anything else.
async fn woken() {
    let mut is_asleep = false;
    poll_fn(|_| if replace(&mut is_asleep, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Takes what the client sends, for a short time, until it is a batch.
async fn gather(
    mut batch: Vec<Bytes>,
    body: &mut Content,
    superseded: &CancellationToken,
) -> (Vec<Bytes>, Ending) {
    let mut bytes: usize = batch.iter().map(Bytes::len).sum();
    let mut end = pin!(sleep(GATHER_TIME));
    while bytes < BATCH_BYTES && batch.len() < BATCH_CHUNKS {
        let chunk = tokio::select! {
            biased;
            () = superseded.cancelled() => return (batch, Ending::Over(Err(Error::Superseded))),
            chunk = body.next() => chunk,
            () = end.as_mut() => return (batch, Ending::Paused),
        };
        match chunk {
            Some(Ok(chunk)) => {
                bytes += chunk.len();
                batch.push(chunk);
            }
            Some(Err(error)) => return (batch, Ending::Over(Err(broken_off(&error)))),
            None => return (batch, Ending::Over(Ok(()))),
        }
    }
    (batch, Ending::Full)
}

/// The row counts more bytes than the object holds: nothing is appended to that.
fn or_unknown(error: storage::Error) -> Error {
    match error {
        storage::Error::NotFound(_) => Error::UploadUnknown,
        error => error.into(),
    }
}
