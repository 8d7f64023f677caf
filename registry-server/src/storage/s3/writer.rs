//! An object that grows at an S3 store: full buffers become parts while the next one fills, and what is
//! left of a request becomes a tail.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream, stream::FuturesOrdered,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    S3Store,
    buffer::Buffer,
    state::{State, Tail, Upload},
};
use crate::storage::{
    Draft, Error, Finished, Location, ObjectWriter, Store,
    room::{Place, RoomShare},
};

/// Parts of one object that are on their way at once.
const PARTS_UNDER_WAY: usize = 4;

/// Tails that an object has at most: another one is put together with them.
const TAILS_MAX: usize = 64;

/// Tails of one object that are read at once.
const TAILS_AT_ONCE: usize = 8;

/// What every upload may keep in memory while its client thinks.
const REST_BYTES: u64 = 64 * 1024;

/// Writes behind what is durable of an object.
pub(super) struct S3Writer {
    store: S3Store,
    /// As it was last recorded.
    draft: Draft,
    state: State,
    buffer: Buffer,
    /// Room for that while the client thinks.
    kept: Option<Place>,
    under_way: FuturesOrdered<BoxFuture<'static, Result<String, Error>>>,
    /// The object as a whole, where it is one tail.
    object: Option<String>,
    /// Whether somebody may have told the store before to make the object.
    is_repeated: bool,
}

impl S3Writer {
    pub(super) fn new(store: S3Store, draft: Draft, state: State) -> Self {
        let (buffer, under_way) = (Buffer::default(), FuturesOrdered::new());
        let is_repeated = state.is_sealed;
        Self { store, draft, state, buffer, kept: None, under_way, object: None, is_repeated }
    }

    fn gone(&self) -> Error {
        Error::NotFound(self.draft.location.clone())
    }

    fn number_of_parts(&self) -> usize {
        self.state.parts.len() + self.under_way.len()
    }

    /// How many bytes it has, with those that are not durable yet.
    fn length(&self) -> u64 {
        let parts = (self.number_of_parts() as u64).saturating_mul(self.state.part_bytes);
        parts.saturating_add(self.state.tail_bytes()).saturating_add(self.buffer.bytes())
    }

    /// What makes a part or more.
    fn is_full(&self) -> bool {
        self.buffer.bytes() + self.state.tail_bytes() >= self.state.part_bytes
    }

    /// Waits until so few parts are on their way.
    async fn wait_for_parts(&mut self, most: usize) -> Result<(), Error> {
        while self.under_way.len() > most {
            if let Some(part) = self.under_way.next().await {
                self.state.parts.push(part?);
            }
        }
        Ok(())
    }

    /// Begins a multipart upload. Gives what has to be recorded before a part of it goes: else nobody
    /// could give it up.
    async fn begin_upload(&mut self) -> Result<Draft, Error> {
        let object = Location::fresh()?;
        let id = self.store.begin_upload(&object).await?;
        let upload = Some(Upload { id, at: object.as_str().to_owned() });
        let recorded = State::of(&self.draft, self.state.part_bytes, self.state.checksum)?;
        self.state.upload.clone_from(&upload);
        self.draft.state = Some(State { upload, ..recorded }.text());
        Ok(self.draft.clone())
    }

    /// Sends what makes whole parts.
    async fn send_parts(&mut self) -> Result<(), Error> {
        while self.is_full() {
            self.take_tails_back().await?;
            self.wait_for_parts(PARTS_UNDER_WAY - 1).await?;
            let place = self.store.room_of_parts().ahead(self.state.part_bytes);
            let is_ahead = place.is_some();
            let part = self.buffer.take(self.state.part_bytes);
            self.send_part(part, place)?;
            if !is_ahead {
                self.wait_for_parts(0).await?;
            }
        }
        Ok(())
    }

    fn send_part(&mut self, part: Buffer, place: Option<Place>) -> Result<(), Error> {
        let Some(upload) = self.state.upload.clone() else { return Err(self.gone()) };
        let (store, number) = (self.store.clone(), self.number_of_parts());
        let session = self.draft.location.clone();
        // In a task of its own, so that it goes on while the next one fills.
        let sent = AbortOnDropHandle::new(tokio::spawn(async move {
            let Upload { id, at } = upload;
            store.put_part(&at.parse()?, &id, number, part.payload(), place).await
        }));
        self.under_way.push_back(Box::pin(async move {
            sent.await.unwrap_or_else(|error| {
                let source = std::io::Error::other(error);
                Err(Error::Io { operation: "writing a part of", location: session, source })
            })
        }));
        Ok(())
    }

    /// Takes the bytes of the tails back, in front of what came since.
    async fn take_tails_back(&mut self) -> Result<(), Error> {
        let reading = self.state.tails.iter().map(|tail| read_tail(&self.store, tail));
        let reading: Vec<_> = reading.collect();
        let read: Vec<Vec<Bytes>> =
            stream::iter(reading).buffered(TAILS_AT_ONCE).try_collect().await?;
        let mut front = Buffer::default();
        for (tail, chunks) in self.state.tails.drain(..).zip(read) {
            self.state.spent.push(tail.at);
            front.extend(chunks);
        }
        self.buffer.put_in_front(front);
        Ok(())
    }

    /// Puts what is in memory into the object whose place was reserved. Gives that.
    async fn put(&mut self) -> Result<Tail, Error> {
        let Some(at) = self.state.next.clone() else { return Err(self.gone()) };
        let whole = self.buffer.take_all();
        let bytes = whole.bytes();
        self.store.put_whole(&at.parse()?, whole.payload()).await?;
        self.state.next = None;
        Ok(Tail { at, bytes })
    }

    fn recorded(mut self) -> Draft {
        self.draft.state = Some(self.state.text());
        self.draft
    }
}

async fn read_tail(store: &S3Store, tail: &Tail) -> Result<Vec<Bytes>, Error> {
    store.read(None, &tail.at.parse()?, 0..tail.bytes).await?.try_collect().await
}

#[async_trait]
impl ObjectWriter for S3Writer {
    async fn append(&mut self, chunks: Vec<Bytes>) -> Result<Option<Draft>, Error> {
        if self.state.is_sealed {
            return Err(self.gone());
        }
        // It is in hand again.
        self.kept = None;
        while let Some(Some(part)) = self.under_way.next().now_or_never() {
            self.state.parts.push(part?);
        }
        self.buffer.extend(chunks);
        let most = self.store.object_bytes_max(self.state.part_bytes);
        if self.length() > most {
            return Err(Error::TooLarge(most));
        }
        if self.is_full() && self.state.upload.is_none() {
            return self.begin_upload().await.map(Some);
        }
        self.send_parts().await?;
        Ok(None)
    }

    fn mark(&self, least: u64) -> Option<u64> {
        Some(least.max(self.length()).next_multiple_of(self.state.part_bytes))
    }

    fn up_to(&self, mark: u64) -> Option<Draft> {
        let State { part_bytes, tails, upload, .. } = &self.state;
        let parts = usize::try_from(mark / part_bytes).ok()?;
        // What lies in tails is before all that has come since.
        if !tails.is_empty() || upload.is_none() || self.state.parts.len() < parts {
            return None;
        }
        let mut state = self.state.clone();
        state.parts.truncate(parts);
        Some(Draft { received: mark, state: Some(state.text()), ..self.draft.clone() })
    }

    fn may_rest(&mut self, _may_stay_open: bool, room: Option<&RoomShare>) -> bool {
        if self.buffer.bytes() > REST_BYTES && self.kept.is_none() {
            self.kept = room.and_then(|room| room.keep(self.buffer.bytes()));
        }
        self.buffer.bytes() <= REST_BYTES || self.kept.is_some()
    }

    async fn checkpoint(mut self: Box<Self>) -> Result<Draft, Error> {
        if self.state.is_sealed {
            return Ok(self.draft);
        }
        self.send_parts().await?;
        self.wait_for_parts(0).await?;
        if self.buffer.bytes() > 0 {
            if self.state.tails.len() >= TAILS_MAX {
                self.take_tails_back().await?;
            }
            let tail = self.put().await?;
            self.state.tails.push(tail);
        }
        // Nobody puts anything there any more.
        self.state.next = None;
        self.draft.received = self.state.bytes();
        Ok(self.recorded())
    }

    async fn seal(&mut self) -> Result<Option<Draft>, Error> {
        if self.state.is_sealed {
            return Ok(None);
        }
        self.send_parts().await?;
        if self.state.upload.is_none() {
            // One object, which a tail may be already.
            if let ([tail], 0) = (&*self.state.tails, self.buffer.bytes()) {
                self.object = Some(tail.at.clone());
            } else {
                self.take_tails_back().await?;
                self.object = Some(self.put().await?.at);
            }
            return Ok(None);
        }
        let received = self.length();
        self.take_tails_back().await?;
        if self.buffer.bytes() > 0 {
            let last = self.buffer.take_all();
            self.send_part(last, None)?;
        }
        self.wait_for_parts(0).await?;
        (self.state.is_sealed, self.state.next) = (true, None);
        self.draft.received = received;
        self.draft.state = Some(self.state.text());
        Ok(Some(self.draft.clone()))
    }

    async fn finish(self: Box<Self>) -> Result<Finished, Error> {
        let location: Location = match (&self.state.upload, &self.object) {
            (Some(Upload { id, at }), _) if self.state.is_sealed => {
                let object = at.parse()?;
                self.store.complete(&object, id, &self.state.parts, self.draft.received).await?;
                // A store that died while it did so may say that it has, of what it has not.
                if self.is_repeated
                    && self.store.describe(&object).await?.length != self.draft.received
                {
                    return Err(self.gone());
                }
                object
            }
            (None, Some(object)) => object.parse()?,
            _ => return Err(self.gone()),
        };
        let Self { state, draft, .. } = *self;
        let left = state.without(&location).map(|left| Draft {
            location: draft.location,
            received: left.bytes(),
            state: Some(left.text()),
        });
        Ok(Finished { location, left })
    }
}
