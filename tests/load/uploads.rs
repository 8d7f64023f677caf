//! Loads of one pusher: sessions that are begun, uploads that are given up, uploads that trickle.

use std::{io, time::Duration};

use harness::{Client, client::HOST};
use tokio::{io::AsyncWriteExt, time::sleep};

use crate::{
    content,
    crowd::Crowd,
    line::{Line, authorization, location},
    site::Site,
};

/// Where the pusher begins an upload.
const START: &str = "/v2/eve/app/blobs/uploads/";

/// How many connections begin sessions.
const LINES: usize = 16;

/// So many sessions with a little in each.
pub(crate) fn sessions(site: &Site, count: usize) -> Crowd {
    Crowd::of(LINES, |first, tally| {
        let mut line = site.line("eve");
        async move {
            for _ in (first..count).step_by(LINES) {
                let begun = line.send("POST", START, None, "").await;
                let Some(target) = begun.ok().and_then(|answer| location(&answer).ok()) else {
                    tally.refused();
                    continue;
                };
                let bytes = content::filler(1000);
                let answer = line.send("PATCH", &target, None, bytes).await;
                tally.count(answer.ok().map(|answer| answer.status()));
            }
        }
    })
}

/// Sessions, until it is over.
pub(crate) fn sessions_without_end(site: &Site) -> Crowd {
    Crowd::of(LINES, |_, tally| {
        let mut line = site.line("eve");
        async move {
            loop {
                let answer = line.send("POST", START, None, "").await;
                tally.count(answer.ok().map(|answer| answer.status()));
            }
        }
    })
}

/// Uploads of which one half is sent and the other never.
pub(crate) fn aborted(site: &Site) -> Crowd {
    const UPLOADS: usize = 200;
    const BLOB_BYTES: usize = 20_000_000;
    let half = content::filler(BLOB_BYTES / 2);
    Crowd::of(UPLOADS, |_, tally| {
        let upload = Upload::of(site);
        let half = half.clone();
        async move {
            match upload.send(BLOB_BYTES, &half).await {
                Ok(stream) => {
                    tally.answered();
                    drop(stream);
                }
                Err(_) => tally.broken(),
            }
        }
    })
}

/// Uploads of which a byte comes now and then.
pub(crate) fn trickling(site: &Site, count: usize) -> Crowd {
    const BLOB_BYTES: usize = 1_000_000;
    const REST: Duration = Duration::from_secs(5);
    Crowd::of(count, |_, tally| {
        let upload = Upload::of(site);
        async move {
            let Ok(mut stream) = upload.send(BLOB_BYTES, b"x").await else {
                return tally.broken();
            };
            loop {
                sleep(REST).await;
                let sent = stream.write_all(b"x").await;
                if sent.is_err() || stream.flush().await.is_err() {
                    return tally.broken();
                }
            }
        }
    })
}

/// An upload that is written by hand.
struct Upload {
    client: Client,
    line: Line,
}

impl Upload {
    fn of(site: &Site) -> Self {
        Self { client: site.client.clone(), line: site.line("eve") }
    }

    /// Announces `length` bytes of a PATCH and sends the first of them.
    async fn send(
        mut self,
        length: usize,
        bytes: &[u8],
    ) -> io::Result<impl AsyncWriteExt + Unpin + Send> {
        let target = location(&self.line.send("POST", START, None, "").await?)?;
        let authorization = authorization("eve");
        let head = format!(
            "PATCH {target} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {authorization}\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        );
        let mut stream = self.client.try_connect().await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(bytes).await?;
        stream.flush().await?;
        Ok(stream)
    }
}
