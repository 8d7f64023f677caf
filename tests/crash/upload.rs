//! Upload sessions of a client that goes on with the old one after a kill.

use berth_shared::digest::Digest;
use harness::{Response, upload::commit_target};

use crate::{
    content::Blob,
    pusher::Pusher,
    tally::{Fact, Violation},
    wire::expect,
};

/// A session, as the client knows it.
pub(crate) struct Session {
    location: String,
    blob: Blob,
    /// How many bytes are acknowledged.
    acknowledged: usize,
    /// How many bytes have been sent, answered or not.
    sent: usize,
}

/// What becomes of a session whose request broke off.
enum Found {
    /// It goes on where it stands.
    Open,
    /// It is no more: its blob is there.
    Committed,
}

impl Session {
    /// Where the session lies.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// Whether every byte is acknowledged.
    pub(crate) fn is_complete(&self) -> bool {
        self.acknowledged == self.blob.bytes.len()
    }

    /// Takes over where the registry says that it stands.
    ///
    /// # Errors
    /// When it has lost what was acknowledged, or has more than was sent.
    pub(crate) fn stand(&mut self, answer: &Response) -> Result<(), Violation> {
        let range = answer.find_header("range").unwrap_or_default();
        let last = range.strip_prefix("0-").and_then(|last| last.parse::<usize>().ok());
        let last = last.ok_or_else(|| Violation::new(format!("a session with Range {range:?}")))?;
        // 0-0 stands for none as well as for one, and no chunk ends after one byte.
        let received = if last == 0 { 0 } else { last + 1 };
        if received < self.acknowledged || received > self.sent {
            return Err(Violation::new(format!(
                "the session {} holds {received} bytes; {} were acknowledged and {} sent",
                self.location, self.acknowledged, self.sent
            )));
        }
        self.acknowledged = received;
        Ok(())
    }

    /// Where a chunk of random size ends: never after the first byte.
    fn next_end(&self, random: &mut fastrand::Rng, longest: usize) -> usize {
        let left = self.blob.bytes.len() - self.acknowledged;
        let end = self.acknowledged + random.usize(1..=left.min(longest));
        end.max(2).min(self.blob.bytes.len())
    }
}

impl Pusher {
    /// Uploads a blob in one of the ways that there are.
    pub(crate) async fn upload(&mut self, blob: &Blob) -> Result<(), Violation> {
        match self.random.u32(0..4) {
            0 => self.upload_at_once(blob).await,
            1 => {
                let session = self.start(blob).await?;
                self.commit(session).await
            }
            _ => {
                let mut session = self.start(blob).await?;
                for _ in 0..self.random.u32(1..=4) {
                    self.append(&mut session).await?;
                }
                self.commit(session).await
            }
        }
    }

    /// One POST with the whole blob. One that broke off is sent again: there is no session that
    /// the client knows.
    async fn upload_at_once(&mut self, blob: &Blob) -> Result<(), Violation> {
        loop {
            let target = format!("/v2/{}/blobs/uploads/?digest={}", self.repository, blob.digest);
            let call = self.wire.call("POST", target).body(blob.bytes.clone());
            match self.wire.send(call).await? {
                Some(answer) => return expect(&answer, 201, "POST of a whole blob"),
                None => self.after_the_kill().await?,
            }
        }
    }

    /// Begins a session.
    pub(crate) async fn start(&mut self, blob: &Blob) -> Result<Session, Violation> {
        loop {
            let target = format!("/v2/{}/blobs/uploads/", self.repository);
            match self.wire.send(self.wire.call("POST", target)).await? {
                Some(answer) => {
                    expect(&answer, 202, "POST that begins a session")?;
                    let location = answer.header("location").to_owned();
                    return Ok(Session { location, blob: blob.clone(), acknowledged: 0, sent: 0 });
                }
                None => self.after_the_kill().await?,
            }
        }
    }

    /// Sends a chunk, again if need be.
    pub(crate) async fn append(&mut self, session: &mut Session) -> Result<(), Violation> {
        // One byte is sent with the PUT, lest 0-0 be ambiguous.
        if session.blob.bytes.len() < 2 || session.is_complete() {
            return Ok(());
        }
        let end = session.next_end(&mut self.random, (self.largest / 3).max(1));
        while session.acknowledged < end {
            let first = session.acknowledged;
            session.sent = end;
            let call = self
                .wire
                .call("PATCH", session.location.clone())
                .header("content-type", "application/octet-stream")
                .header("content-range", format!("{first}-{}", end - 1))
                .body(session.blob.bytes.slice(first..end));
            if let Some(answer) = self.wire.send(call).await? {
                expect(&answer, 202, "PATCH")?;
                session.stand(&answer)?;
                if session.acknowledged != end {
                    return Err(Violation::new("a PATCH was answered with less than it brought"));
                }
            } else if matches!(self.find(session, false).await?, Found::Committed) {
                return Err(Violation::new("a session was committed by a PATCH"));
            }
        }
        Ok(())
    }

    /// Ends a session with the bytes that are left, again if need be.
    pub(crate) async fn commit(&mut self, mut session: Session) -> Result<(), Violation> {
        loop {
            let target = commit_target(&session.location, &session.blob.digest);
            let rest = session.blob.bytes.slice(session.acknowledged..);
            session.sent = session.blob.bytes.len();
            match self.wire.send(self.wire.call("PUT", target).body(rest)).await? {
                Some(answer) => return expect(&answer, 201, "PUT that ends a session"),
                None => {
                    if matches!(self.find(&mut session, true).await?, Found::Committed) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// After a kill: asks where the session stands. It may be gone if the request that broke off
    /// was to end it, and then its blob is there.
    async fn find(
        &mut self,
        session: &mut Session,
        may_have_ended: bool,
    ) -> Result<Found, Violation> {
        loop {
            self.after_the_kill().await?;
            let call = self.wire.call("GET", session.location.clone());
            let Some(answer) = self.wire.send(call).await? else { continue };
            if answer.status == 404 && may_have_ended {
                let Some(there) = self.has_blob(&session.blob.digest).await? else { continue };
                if !there {
                    return Err(Violation::new("a session is gone, and so is its blob"));
                }
                self.tally.count(Fact::HadCommitted);
                return Ok(Found::Committed);
            }
            expect(&answer, 204, "GET of a session after a kill")?;
            session.stand(&answer)?;
            self.tally.count(Fact::WentOn);
            return Ok(Found::Open);
        }
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<bool>, Violation> {
        let target = format!("/v2/{}/blobs/{digest}", self.repository);
        let answer = self.wire.send(self.wire.call("HEAD", target)).await?;
        Ok(answer.map(|answer| answer.status == 200))
    }
}
