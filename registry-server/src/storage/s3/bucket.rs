//! A bucket, or what lies below a prefix of it: the calls that a store makes, each with its time, and what
//! became of them.

use std::{
    io,
    ops::Range,
    path::{Path as File, PathBuf},
    time::Duration,
};

use berth_shared::files::{SMALL_FILE_BYTES_MAX, read_at_most};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use http::Method;
use metrics::counter;
use object_store::{
    Certificate, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    multipart::{MultipartStore, PartId},
    path::Path,
    signer::Signer,
};
use tokio::{runtime::Handle, task::spawn_blocking, time::timeout};

use super::{
    Checksum, Redirect, Settings,
    failure::{Failure, Why},
};
use crate::storage::room::Place;

/// What one call may take, tries included, unless much is sent or streamed.
const CALL_TIME: Duration = Duration::from_secs(30);

/// How often a call is tried again, and for how long.
const TRIES: usize = 3;
const TRY_TIME: Duration = Duration::from_secs(20);

/// What a call may take that sends much, tries included, besides what its bytes need at the least rate.
const SEND_TIME: Duration = Duration::from_secs(30);

/// The least rate at which a store is to take bytes, per second.
const SEND_RATE_MIN: u64 = 256 * 1024;

/// How long the head of an answer is waited for whose body is streamed.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// A body that brings nothing for so long has broken off, and is asked for again where it stands.
const READ_TIME: Duration = Duration::from_secs(30);

/// How long the next piece of a body is waited for, however often it is asked for.
const PIECE_TIME: Duration = Duration::from_secs(120);

/// A client may take as long for a body as it likes: it is the store's that is asked for again.
const BODY_TIME: Duration = Duration::from_secs(24 * 60 * 60);
const BODY_TRIES: usize = 100;

/// Keys that are deleted with one call.
const DELETED_AT_ONCE: usize = 1000;

/// What says who we are, where no files do: as the tools of AWS find it.
const CREDENTIALS: [&str; 10] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
];

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be read.
    #[error("store: {0}")]
    File(PathBuf, #[source] io::Error),
    /// They make no sense.
    #[error("store")]
    Settings(#[from] object_store::Error),
}

fn text_of(path: &File) -> Result<String, SetupError> {
    let failed = |error| SetupError::File(path.to_owned(), error);
    let bytes = read_at_most(path, SMALL_FILE_BYTES_MAX).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(io::Error::other).map_err(failed)?;
    Ok(text.trim().to_owned())
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Calls,
    Sending,
    Bodies,
}

/// A bucket.
pub(super) struct Bucket {
    calls: AmazonS3,
    sending: AmazonS3,
    bodies: AmazonS3,
    public: Option<(AmazonS3, Duration)>,
    prefix: Path,
}

impl Bucket {
    pub(super) fn open(settings: &Settings) -> Result<Self, SetupError> {
        berth_shared::crypto::install();
        Ok(Self {
            calls: client(settings, For::Calls)?,
            sending: client(settings, For::Sending)?,
            bodies: client(settings, For::Bodies)?,
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

fn client(settings: &Settings, is_for: For) -> Result<AmazonS3, SetupError> {
    let sending = send_time(settings.part_bytes);
    let options = ClientOptions::new();
    let (options, max_retries, retry_timeout) = match is_for {
        For::Calls => (options.with_timeout(CALL_TIME), TRIES, TRY_TIME),
        For::Sending => (options.with_timeout(sending), TRIES, sending),
        For::Bodies => {
            let options = options.with_timeout_disabled().with_read_timeout(READ_TIME);
            (options, BODY_TRIES, BODY_TIME)
        }
    };
    let retry = RetryConfig { max_retries, retry_timeout, ..RetryConfig::default() };
    let options = match &settings.ca {
        Some(file) => {
            let bundle = Certificate::from_pem_bundle(text_of(file)?.as_bytes())?;
            bundle.into_iter().fold(options.with_no_system_certificates(true), |options, it| {
                options.with_root_certificate(it)
            })
        }
        None => options,
    };
    let builder = match &settings.keys {
        Some((name, secret)) => AmazonS3Builder::new()
            .with_access_key_id(text_of(name)?)
            .with_secret_access_key(text_of(secret)?),
        None => CREDENTIALS.iter().fold(AmazonS3Builder::new(), |builder, name| {
            let value = std::env::var_os(name).and_then(|value| value.into_string().ok());
            match (value, name.to_ascii_lowercase().parse()) {
                (Some(value), Ok(key)) => builder.with_config(key, value),
                _ => builder,
            }
        }),
    };
    let is_http = settings.endpoint.as_ref().is_some_and(|it| it.starts_with("http://"));
    let builder = builder
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_virtual_hosted_style_request(!settings.path_style)
        .with_retry(retry)
        // Under TLS nobody changes bytes on their way, and hashing them once more is work.
        .with_unsigned_payload(!is_http)
        .with_client_options(options.with_allow_http(is_http));
    let builder = match &settings.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint_of(endpoint, settings)),
        None => builder,
    };
    let builder = match settings.checksum {
        Checksum::Crc64nvme => {
            builder.with_checksum_algorithm(object_store::aws::Checksum::CRC64NVME)
        }
        Checksum::Sha256 => builder.with_checksum_algorithm(object_store::aws::Checksum::SHA256),
        Checksum::None => builder,
    };
    Ok(builder.build()?)
}

/// Signs for the name by which clients reach the store.
fn public(settings: &Settings, to: &Redirect) -> Result<(AmazonS3, Duration), SetupError> {
    let settings = Settings { endpoint: Some(to.endpoint.clone()), ..settings.clone() };
    Ok((client(&settings, For::Calls)?, to.holds))
}

/// The library wants the bucket in the host's name, where it is to stand there.
fn endpoint_of(endpoint: &str, settings: &Settings) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://").filter(|_| !settings.path_style) {
        Some((scheme, host)) => format!("{scheme}://{}.{host}", settings.bucket),
        None => endpoint.to_owned(),
    }
}
