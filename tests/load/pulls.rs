//! Loads of pullers: downloads that are slow and steady.

use std::{io, time::Duration};

use harness::{Client, client::HOST};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::{content, crowd::Crowd, site::Site};

/// The repository that anybody may pull from.
pub(crate) const REPOSITORY: &str = "public/app";

/// The scope of a token for that.
pub(crate) const SCOPE: &str = "repository:public/app:pull";

/// How many pull at once.
const PULLS: usize = 200;

/// More than any of them gets.
const BLOB_BYTES: usize = 20_000_000;

/// Pulls of one blob by nobody at so many bytes in a second each.
///
/// # Errors
/// When the blob cannot be pushed.
pub(crate) async fn slow(site: &Site, bytes_per_sec: usize) -> io::Result<Crowd> {
    steady(site, PULLS, BLOB_BYTES, bytes_per_sec).await
}

/// Pulls of a blob of `length` bytes, of which each is counted when its end has come.
///
/// # Errors
/// When the blob cannot be pushed.
pub(crate) async fn steady(
    site: &Site,
    count: usize,
    length: usize,
    bytes_per_sec: usize,
) -> io::Result<Crowd> {
    let mut line = site.line("andrew");
    let digest = content::push_blob(&mut line, REPOSITORY, content::filler(length)).await?;
    let authorization = site.bearer(None, SCOPE).await?;
    let target = format!("/v2/{REPOSITORY}/blobs/{digest}");
    let head =
        format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {authorization}\r\n\r\n");
    let client = site.client.clone();
    Ok(Crowd::of(count, move |_, tally| {
        let (client, head) = (client.clone(), head.clone());
        async move {
            match pull(&client, &head, length, bytes_per_sec).await {
                Ok(true) => tally.answered(),
                Ok(false) => tally.refused(),
                Err(_) => tally.broken(),
            }
        }
    }))
}

/// Reads an answer to its end, a little at a time. False when it is a refusal.
async fn pull(
    client: &Client,
    head: &str,
    length: usize,
    bytes_per_sec: usize,
) -> io::Result<bool> {
    const READS_PER_SEC: u32 = 10;
    let mut stream = client.try_connect_narrow().await?;
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let mut piece = vec![0; bytes_per_sec / READS_PER_SEC as usize];
    let mut body = Reader::default();
    while body.length < length {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        body.take(&piece[..count]);
        if body.is_refusal() {
            return Ok(false);
        }
        sleep(Duration::from_secs(1) / READS_PER_SEC).await;
    }
    Ok(true)
}

/// Tells the head of an answer from its body.
#[derive(Default)]
struct Reader {
    head: Vec<u8>,
    is_body: bool,
    length: usize,
}

impl Reader {
    fn take(&mut self, bytes: &[u8]) {
        if self.is_body {
            self.length += bytes.len();
            return;
        }
        self.head.extend(bytes);
        if let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") {
            self.is_body = true;
            self.length = self.head.len() - end - 4;
        }
    }

    fn is_refusal(&self) -> bool {
        self.is_body && !self.head.starts_with(b"HTTP/1.1 200")
    }
}
