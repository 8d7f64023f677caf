//! A bucket, or what lies below a prefix of it: the calls that a store makes, each with its time, and what
//! became of them.

use std::{io, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use http::Method;
use metrics::counter;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStoreExt, PutPayload, aws::AmazonS3, multipart::PartId,
    path::Path, signer::Signer,
};
use tokio::{runtime::Handle, task::spawn_blocking, time::timeout};

use super::{
    Settings,
    client::{CALL_TIME, Client, For, SetupError, client, public},
    failure::{Failure, Why},
};
use crate::storage::room::Place;

/// What a call may take that sends much, tries included, besides what its bytes need at the least rate.
const SEND_TIME: Duration = Duration::from_secs(30);

/// The least rate at which a store is to take bytes, per second.
const SEND_RATE_MIN: u64 = 256 * 1024;

/// How long the head of an answer is waited for whose body is streamed.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// How long the next piece of a body is waited for, however often it is asked for.
const PIECE_TIME: Duration = Duration::from_secs(120);

/// Keys that are deleted with one call.
const DELETED_AT_ONCE: usize = 1000;

/// A bucket.
pub(super) struct Bucket {
    calls: Arc<dyn Client>,
    sending: Arc<dyn Client>,
    bodies: Arc<dyn Client>,
    public: Option<(AmazonS3, Duration)>,
    prefix: Path,
}

impl Bucket {
    pub(super) fn open(settings: &Settings) -> Result<Self, SetupError> {
        berth_shared::crypto::install();
        Ok(Self {
            calls: client(settings, For::calls())?,
            sending: client(settings, For::sending(send_time(settings.part_bytes)))?,
            bodies: client(settings, For::bodies())?,
            public: settings.redirect.as_ref().map(|to| public(settings, to)).transpose()?,
            prefix: Path::parse(&settings.prefix).map_err(object_store::Error::from)?,
        })
    }

    fn key(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |key, part| key.join(part))
    }

    pub(super) async fn head(&self, name: &str) -> Result<ObjectMeta, Failure> {
        counted("head", within(self.calls.head(&self.key(name))).await)
    }

    /// A small object.
    pub(super) async fn get(&self, name: &str) -> Result<Bytes, Failure> {
        let read = within(async { self.calls.get(&self.key(name)).await?.bytes().await }).await;
        counted("get", read)
    }

    /// A part of an object, and how long the whole is.
    pub(super) async fn read(
        &self,
        name: &str,
        part: Range<u64>,
    ) -> Result<(u64, BoxStream<'static, Result<Bytes, Failure>>), Failure> {
        let options = GetOptions::default().with_range(Some(GetRange::Bounded(part)));
        let key = self.key(name);
        let asked = timeout(HEAD_TIME, self.bodies.get_opts(&key, options)).await;
        let found = asked.map_err(|_| Failure::late()).and_then(|found| Ok(found?));
        let found = counted("get", found)?;
        let length = found.meta.size;
        let pieces = stream::try_unfold(found.into_stream(), |mut body| async move {
            let piece = timeout(PIECE_TIME, body.try_next()).await;
            let piece = piece.map_err(|_| Failure::late())??;
            Ok(piece.map(|piece| (piece, body)))
        });
        Ok((length, pieces.boxed()))
    }

    pub(super) async fn put(&self, name: &str, payload: PutPayload) -> Result<(), Failure> {
        let (client, key) = (self.sending.clone(), self.key(name));
        let most = send_time(payload.content_length() as u64);
        let put = sending(most, async move { client.put(&key, payload).await }).await;
        counted("put", put.map(drop))
    }

    pub(super) async fn begin_upload(&self, name: &str) -> Result<String, Failure> {
        counted("begin_upload", within(self.calls.create_multipart(&self.key(name))).await)
    }

    /// Gives what the store wants to hear of the part when all are put together.
    pub(super) async fn put_part(
        &self,
        name: &str,
        upload: &str,
        number: usize,
        payload: PutPayload,
        place: Option<Place>,
    ) -> Result<String, Failure> {
        let (client, key, upload) = (self.sending.clone(), self.key(name), upload.to_owned());
        let most = send_time(payload.content_length() as u64);
        let part = sending(most, async move {
            // Its memory is given back when it has gone, whoever waits for it.
            let _place = place;
            client.put_part(&key, &upload, number, payload).await
        })
        .await;
        counted("put_part", part.map(|part| part.content_id))
    }

    pub(super) async fn complete(
        &self,
        name: &str,
        upload: &String,
        parts: &[String],
    ) -> Result<(), Failure> {
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        let completed = self.sending.complete_multipart(&self.key(name), upload, parts).await;
        counted("complete", completed.map(drop).map_err(Failure::from))
    }

    /// Gives an upload up, and its parts with it. One that is not there is given up.
    pub(super) async fn abort(&self, name: &str, upload: &String) -> Result<(), Failure> {
        let aborted = match within(self.calls.abort_multipart(&self.key(name), upload)).await {
            Err(Failure { why: Why::NoUpload | Why::Missing, .. }) => Ok(()),
            aborted => aborted,
        };
        counted("abort", aborted)
    }

    /// Deletes objects, and says of each what became of it. One that is not there is deleted.
    pub(super) async fn delete(&self, names: &[String]) -> Vec<Result<(), Failure>> {
        let mut results = Vec::with_capacity(names.len());
        for step in names.chunks(DELETED_AT_ONCE) {
            results.extend(self.delete_step(step).await);
        }
        results
    }

    async fn delete_step(&self, names: &[String]) -> Vec<Result<(), Failure>> {
        let keys: Vec<_> = names.iter().map(|name| Ok(self.key(name))).collect();
        let deleted = self.calls.delete_stream(stream::iter(keys).boxed());
        let is_gone = |deleted: object_store::Result<Path>| match deleted.map_err(Failure::from) {
            Ok(_) | Err(Failure { why: Why::Missing, .. }) => Ok(()),
            Err(failure) => Err(failure),
        };
        let deleted: Vec<Result<(), Failure>> =
            match timeout(CALL_TIME, deleted.map(is_gone).collect()).await {
                Ok(deleted) => deleted,
                Err(_) => vec![Err(Failure::late())],
            };
        if deleted.len() == names.len() {
            return deleted.into_iter().map(|deleted| counted("delete", deleted)).collect();
        }
        // The call as a whole failed.
        let text = deleted.iter().find_map(|it| it.as_ref().err()).map(|it| it.source.to_string());
        let text = text.unwrap_or("the store did not say".to_owned());
        let failure =
            || Failure { why: Why::Away, code: None, source: io::Error::other(text.clone()) };
        names.iter().map(|_| Err(failure())).collect()
    }

    /// A URL by which whoever has it may read an object for a while, where that is wanted.
    pub(super) async fn sign(&self, name: &str) -> Result<Option<String>, Failure> {
        let Some((public, holds)) = &self.public else { return Ok(None) };
        let key = self.key(name);
        let url = within(public.signed_url(Method::GET, &key, *holds)).await?;
        Ok(Some(url.into()))
    }

    /// What lies below a name, or below the prefix.
    pub(super) fn list(
        &self,
        below: Option<&str>,
    ) -> BoxStream<'static, Result<ObjectMeta, Failure>> {
        let prefix = below.map_or_else(|| self.prefix.clone(), |below| self.key(below));
        let prefix = Some(prefix).filter(|it| !it.as_ref().is_empty());
        self.calls.list(prefix.as_ref()).map_err(Failure::from).boxed()
    }
}

/// Counts what became of a call.
fn counted<T>(call: &'static str, result: Result<T, Failure>) -> Result<T, Failure> {
    let outcome = match &result {
        Ok(_) => "done",
        Err(Failure { why: Why::Missing | Why::NoUpload, .. }) => "missing",
        Err(Failure { why: Why::Away, .. }) => "away",
        Err(_) => "refused",
    };
    counter!("berth_store_calls_total", "call" => call, "outcome" => outcome).increment(1);
    result
}

/// How long so many bytes may take.
fn send_time(bytes: u64) -> Duration {
    SEND_TIME + Duration::from_secs(bytes / SEND_RATE_MIN)
}

/// Sends on a thread of its own, where it may go on when it is late: sums over much are not for those that serve the network.
async fn sending<T: Send + 'static>(
    most: Duration,
    call: impl Future<Output = object_store::Result<T>> + Send + 'static,
) -> Result<T, Failure> {
    let runtime = Handle::current();
    let sent = timeout(most, spawn_blocking(move || runtime.block_on(call))).await;
    let sent = sent.map_err(|_| Failure::late())?;
    let broken = |error| Failure { why: Why::Away, code: None, source: io::Error::other(error) };
    Ok(sent.map_err(broken)??)
}

async fn within<T>(call: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
    Ok(timeout(CALL_TIME, call).await.map_err(|_| Failure::late())??)
}
