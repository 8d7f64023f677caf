//! What is measured: a row of the table.

use std::{future::Future, io, sync::Arc, time::Instant};

use ::http::StatusCode;
use bytes::Bytes;
use clap::ValueEnum;
use tokio::task::JoinSet;

use crate::{
    content::{BLOB_TYPE, Content, INDEX_TYPE, MANIFEST_TYPE, sha256_of},
    peer::Peer,
    tool::{self, Asked},
};

/// How many clients push small things at once.
const WORKERS: usize = 16;

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Work {
    Manifest,
    #[value(name = "blob-10k")]
    Blob10K,
    #[value(name = "blob-1m")]
    Blob1M,
    PullHttp1,
    PullHttp2,
    PushHttp1,
    PushHttp2,
    SmallBlobs,
    Tags,
    Index,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Fewer are better.
    Seconds,
    /// More are better.
    PerSecond,
}

impl Unit {
    /// A figure with its unit.
    pub(crate) fn told(self, figure: f64) -> String {
        match self {
            Self::Seconds if figure < 0.1 => format!("{:.1} ms", figure * 1000.0),
            Self::Seconds => format!("{figure:.2} s"),
            Self::PerSecond => format!("{figure:.0}/s"),
        }
    }

    /// How many times better `ours` is than `theirs`.
    pub(crate) fn lead(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::Seconds => theirs / ours,
            Self::PerSecond => ours / theirs,
        }
    }
}

impl Work {
    pub(crate) fn all() -> &'static [Self] {
        Self::value_variants()
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Manifest => "manifest by tag, 32 connections",
            Self::Blob10K => "blob of 10 KiB, 32 connections",
            Self::Blob1M => "blob of 1 MiB, 16 connections",
            Self::PullHttp1 => "pull of a large blob, HTTP/1.1",
            Self::PullHttp2 => "pull of a large blob, HTTP/2",
            Self::PushHttp1 => "push of a large blob, HTTP/1.1",
            Self::PushHttp2 => "push of a large blob, HTTP/2",
            Self::SmallBlobs => "pushes of 4 KiB blobs, 16 clients",
            Self::Tags => "pushes of tags, 16 clients",
            Self::Index => "push of a large index",
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Manifest | Self::Blob10K | Self::Blob1M | Self::SmallBlobs | Self::Tags => {
                Unit::PerSecond
            }
            Self::PullHttp1 | Self::PullHttp2 | Self::PushHttp1 | Self::PushHttp2 | Self::Index => {
                Unit::Seconds
            }
        }
    }

    /// Whether there is such a thing at this peer: no client speaks HTTP/2 without TLS.
    pub(crate) fn suits(self, peer: &Peer) -> bool {
        peer.is_tls() || !matches!(self, Self::PullHttp2 | Self::PushHttp2)
    }

    /// Measures once.
    pub(crate) async fn measure(
        self,
        peer: &Peer,
        content: &mut Content,
        secs: u64,
    ) -> io::Result<f64> {
        let load = async |connections, path: &str| {
            let authorization = peer.authorization().await?;
            let path = format!("/v2/bench/app/{path}");
            let asked = Asked::Path(&path);
            tool::wrk(&peer.base, asked, authorization.as_deref(), connections, secs).await
        };
        match self {
            Self::Manifest => load(32, "manifests/v1").await,
            Self::Blob10K => load(32, &format!("blobs/{}", content.small)).await,
            Self::Blob1M => load(16, &format!("blobs/{}", content.mib)).await,
            Self::PullHttp1 => tool::pull(peer, &content.large, "--http1.1").await,
            Self::PullHttp2 => tool::pull(peer, &content.large, "--http2").await,
            Self::PushHttp1 => content.push_large(peer, "--http1.1").await,
            Self::PushHttp2 => content.push_large(peer, "--http2").await,
            Self::SmallBlobs => small_blobs(peer, content).await,
            Self::Tags => tags(peer, content).await,
            Self::Index => index(peer, content).await,
        }
    }
}

async fn small_blobs(peer: &Peer, content: &mut Content) -> io::Result<f64> {
    let blobs: Vec<Bytes> = (0..content.many).map(|_| content.fresh(4096)).collect();
    let blobs = Arc::new(blobs);
    many(peer, blobs.len(), move |pusher, number| {
        let blobs = Arc::clone(&blobs);
        async move { pusher.push_blob("many", blobs[number].clone()).await.map(drop) }
    })
    .await
}

async fn tags(peer: &Peer, content: &mut Content) -> io::Result<f64> {
    let prefix = content.number();
    let manifest = content.manifest();
    many(peer, content.many, move |pusher, number| {
        let (manifest, tag) = (manifest.clone(), format!("t{prefix}-{number}"));
        async move { pusher.put_manifest(&tag, MANIFEST_TYPE, manifest).await }
    })
    .await
}

async fn index(peer: &Peer, content: &mut Content) -> io::Result<f64> {
    let children = content.children();
    if content.children_are_new_to(peer) {
        let pushed = Arc::clone(&children);
        many(peer, children.len(), move |pusher, number| {
            let child = pushed[number].clone();
            async move { pusher.put_manifest(&sha256_of(&child), MANIFEST_TYPE, child).await }
        })
        .await?;
    }
    let index = content.index(&children);
    let pusher = Pusher::new(peer).await?;
    let begun = Instant::now();
    pusher.put_manifest("index", INDEX_TYPE, index).await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Does something `count` times, by so many clients as there are workers. Gives how often in a second.
pub(crate) async fn many<W>(
    peer: &Peer,
    count: usize,
    work: impl Fn(Pusher, usize) -> W + Clone + Send + 'static,
) -> io::Result<f64>
where
    W: Future<Output = io::Result<()>> + Send,
{
    let pusher = Pusher::new(peer).await?;
    let mut workers = JoinSet::new();
    let begun = Instant::now();
    for first in 0..WORKERS {
        let (pusher, work) = (pusher.clone(), work.clone());
        workers.spawn(async move {
            for number in (first..count).step_by(WORKERS) {
                work(pusher.clone(), number).await?;
            }
            io::Result::Ok(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// A client that has signed in and pushes small things.
#[derive(Debug, Clone)]
pub(crate) struct Pusher {
    http: crate::http::Http,
    base: String,
    authorization: Option<String>,
}

impl Pusher {
    pub(crate) async fn new(peer: &Peer) -> io::Result<Self> {
        let authorization = peer.authorization().await?;
        Ok(Self { http: peer.http.clone(), base: peer.base.clone(), authorization })
    }

    /// Pushes a blob into `bench/<repository>` with POST and one PUT. Gives its digest.
    pub(crate) async fn push_blob(&self, repository: &str, bytes: Bytes) -> io::Result<String> {
        let digest = sha256_of(&bytes);
        let uploads = format!("{}/v2/bench/{repository}/blobs/uploads/", self.base);
        let authorization = self.authorization.as_deref();
        let opened = self.http.send("POST", &uploads, authorization, None, "").await?;
        let opened = opened.expect(&[StatusCode::ACCEPTED])?;
        let commit = opened.location(&self.base, &digest)?;
        let ended = self.http.send("PUT", &commit, authorization, Some(BLOB_TYPE), bytes).await?;
        ended.expect(&[StatusCode::CREATED])?;
        Ok(digest)
    }

    /// Puts a manifest into `bench/many`.
    pub(crate) async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> io::Result<()> {
        self.put_manifest_into("many", reference, media_type, bytes).await
    }

    /// Puts a manifest into `bench/<repository>`.
    pub(crate) async fn put_manifest_into(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> io::Result<()> {
        let url = format!("{}/v2/bench/{repository}/manifests/{reference}", self.base);
        let authorization = self.authorization.as_deref();
        let put = self.http.send("PUT", &url, authorization, Some(media_type), bytes).await?;
        put.expect(&[StatusCode::CREATED]).map(drop)
    }
}
