//! Loads of what is large in memory: answers that nobody takes, lists of what is large, manifests
//! that never end.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use harness::{
    client::HOST,
    image::{INDEX, digest_of},
};
use http::{Request, header};
use hyper::{
    body::{Body, Frame},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::OnceCell;

use crate::{
    connections::{Say, h2},
    content::{self, MANIFEST_BYTES_MAX},
    crowd::Crowd,
    line::Line,
    pulls::{REPOSITORY, SCOPE},
    site::Site,
};

/// Where the pusher may push.
const PUSHERS: &str = "eve/app";

/// Connections whose windows are closed, and streams on each.
const CONNECTIONS: usize = 20;
const STREAMS: usize = 100;

/// Nobody asks for a large manifest and takes no byte of it.
///
/// # Errors
/// When it cannot be pushed.
pub(crate) async fn manifests(site: &Site) -> io::Result<Crowd> {
    let mut line = site.line("andrew");
    let target = format!("/v2/{REPOSITORY}/manifests/large");
    let manifest = content::index("large", MANIFEST_BYTES_MAX);
    line.expect("PUT", &target, Some(INDEX), manifest).await?;
    let authorization = site.bearer(None, SCOPE).await?;
    Ok(h2(site, CONNECTIONS, 0, Say::Get { target, authorization, count: STREAMS }))
}

/// Nobody asks for a blob and takes no byte of it.
///
/// # Errors
/// When it cannot be pushed.
pub(crate) async fn blobs(site: &Site) -> io::Result<Crowd> {
    let mut line = site.line("andrew");
    let digest = content::push_blob(&mut line, REPOSITORY, content::filler(2_000_000)).await?;
    let target = format!("/v2/{REPOSITORY}/blobs/{digest}");
    let authorization = site.bearer(None, SCOPE).await?;
    Ok(h2(site, CONNECTIONS, 0, Say::Get { target, authorization, count: STREAMS }))
}

/// Nobody lists what refers to a manifest, on four connections.
///
/// # Errors
/// When it cannot be pushed.
pub(crate) async fn referrers(site: &Site, count: usize, length: usize) -> io::Result<Crowd> {
    const LISTERS: usize = 4;
    let subject = content::index("subject", 0);
    let descriptor = content::descriptor(&subject);
    content::fill(site, count, move |number| {
        let bytes = content::referrer(&format!("referrer {number}"), &descriptor, length);
        (REPOSITORY.to_owned(), bytes)
    })
    .await?;
    let target = format!("/v2/{REPOSITORY}/referrers/{}", digest_of(&subject));
    let authorization = site.bearer(None, SCOPE).await?;
    let client = site.client.clone();
    Ok(Crowd::of(LISTERS, move |_, tally| {
        let mut line = Line::new(&client, Some(authorization.clone()));
        let target = target.clone();
        async move {
            loop {
                let answer = line.send("GET", &target, None, "").await;
                tally.count(answer.ok().map(|answer| answer.status()));
            }
        }
    }))
}

/// A pusher puts manifests in which `size` is a long list where a number is meant.
///
/// # Errors
/// When there is no token for it.
pub(crate) async fn nested_sizes(site: &Site) -> io::Result<Crowd> {
    const CONNECTIONS: usize = 8;
    let digest = digest_of(b"");
    let (begin, end) = (
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","config":{{"digest":"{digest}","size":["#
        ),
        r#"{"":0}]}}"#,
    );
    let objects = (MANIFEST_BYTES_MAX - begin.len() - end.len()) / r#"{"":0},"#.len();
    let manifest = Bytes::from(begin + &r#"{"":0},"#.repeat(objects) + end);
    let authorization = site.bearer(Some("eve"), &format!("repository:{PUSHERS}:*")).await?;
    let client = site.client.clone();
    Ok(Crowd::of(CONNECTIONS, move |_, tally| {
        let mut line = Line::new(&client, Some(authorization.clone()));
        let manifest = manifest.clone();
        async move {
            loop {
                let target = format!("/v2/{PUSHERS}/manifests/nested");
                let answer = line.send("PUT", &target, Some(INDEX), manifest.clone()).await;
                tally.count(answer.ok().map(|answer| answer.status()));
            }
        }
    }))
}

/// A pusher puts manifests on one connection, and keeps the last byte of each.
///
/// # Errors
/// When there is no token for it.
pub(crate) async fn stalled_puts(site: &Site) -> io::Result<Crowd> {
    let authorization = site.bearer(Some("eve"), &format!("repository:{PUSHERS}:*")).await?;
    let most = content::filler(MANIFEST_BYTES_MAX - 1);
    let client = site.http2.clone();
    let connection = Arc::new(OnceCell::<SendRequest<Stalled>>::new());
    Ok(Crowd::of(STREAMS, move |number, tally| {
        let request = Request::builder()
            .method("PUT")
            .uri(format!("https://{HOST}/v2/{PUSHERS}/manifests/stalled-{number}"))
            .header(header::AUTHORIZATION, &authorization)
            .header(header::CONTENT_TYPE, INDEX)
            .body(Stalled(Some(most.clone())));
        let (client, connection) = (client.clone(), Arc::clone(&connection));
        async move {
            let connect = async || {
                let stream = client.try_connect().await.map_err(io::Error::other)?;
                let shaken = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
                let (sender, connection) = shaken.map_err(io::Error::other)?;
                tokio::spawn(connection);
                io::Result::Ok(sender)
            };
            let sender = connection.get_or_try_init(connect).await.cloned();
            let (Ok(mut sender), Ok(request)) = (sender, request) else { return tally.broken() };
            let answer = sender.send_request(request).await;
            tally.count(answer.ok().map(|answer| answer.status()));
        }
    }))
}

/// A body that has begun and does not end.
struct Stalled(Option<Bytes>);

impl Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}
