//! Whose bucket it is, and whether a registry can be kept there.

use std::time::Duration;

use berth_shared::telemetry::chain;
use futures_util::StreamExt;
use object_store::PutPayload;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    S3Store,
    failure::{Failure, Why},
};
use crate::storage::random_hex;

/// The object that says whose bucket it is.
pub(super) const MARKER: &str = "registry.json";

/// What the names of objects begin with that are put to try a store out.
const TRY: &str = "try-";

/// How long another one may take that writes a marker at the same moment: not every store knows a condition.
const OTHERS_TIME: Duration = Duration::from_secs(2);

/// What the marker holds.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    identity: String,
}

/// A registry cannot be kept in the bucket.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

impl S3Store {
    /// Which registry's objects lie there, as the marker says; `None` where there is none.
    ///
    /// # Errors
    /// When the store does not answer or lets nobody look, in words for who runs it.
    pub async fn marker(&self) -> Result<Option<String>, Unfit> {
        match self.bucket().get(MARKER).await {
            Ok(bytes) => {
                let marker: Option<Marker> = serde_json::from_slice(&bytes).ok();
                Ok(Some(marker.map_or_else(String::new, |marker| marker.identity)))
            }
            Err(failure) if failure.why == Why::Missing => Ok(None),
            Err(failure) => Err(self.unfit(&failure)),
        }
    }

    /// Says whose objects they are. `false` when another registry said so at the same moment.
    ///
    /// # Errors
    /// As [`marker`](Self::marker).
    pub async fn mark(&self, identity: &str) -> Result<bool, Unfit> {
        let marker = Marker { identity: identity.to_owned() };
        let text = serde_json::to_string(&marker).unwrap_or_default();
        let put = self.bucket().put(MARKER, text.into()).await;
        put.map_err(|failure| self.unfit(&failure))?;
        sleep(OTHERS_TIME).await;
        Ok(self.marker().await?.as_deref() == Some(identity))
    }

    /// Whether nothing lies there.
    ///
    /// # Errors
    /// As [`marker`](Self::marker).
    pub async fn is_empty(&self) -> Result<bool, Unfit> {
        let mut found = self.bucket().list(None);
        while let Some(meta) = found.next().await {
            let meta = meta.map_err(|failure| self.unfit(&failure))?;
            // Of one who died while trying it out.
            if !meta.location.filename().is_some_and(|name| name.starts_with(TRY)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sees whether what a registry needs of a store can be done there: an object of parts, begun and given
    /// up, and one that is put, read and deleted.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn try_out(&self) -> Result<(), Unfit> {
        let name = format!("{TRY}{}", random_hex().map_err(|error| Unfit(chain(&error)))?);
        let tried = async {
            let upload = self.bucket().begin_upload(&name).await?;
            self.bucket().abort(&name, &upload).await?;
            self.bucket().put(&name, PutPayload::from_static(b"try")).await?;
            let read = self.bucket().get(&name).await?;
            for deleted in self.bucket().delete(&[name]).await {
                deleted?;
            }
            Ok(read == b"try"[..])
        };
        match tried.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Unfit(format!("{}: it gives back other bytes", self.place()))),
            Err(failure) => Err(self.unfit(&failure)),
        }
    }

    /// What to do about a failure.
    fn unfit(&self, Failure { why, code, source }: &Failure) -> Unfit {
        let place = self.place();
        let advice = match (code.as_deref(), why) {
            (Some("NoSuchBucket" | "ContainerNotFound"), _) => {
                "there is no such bucket: make it, or mend store.url".to_owned()
            }
            (Some(code), _) if code.contains("AccessKey") || code.contains("UserNotFound") => {
                "it does not know the key: mend store.access_key_file".to_owned()
            }
            (Some("SignatureDoesNotMatch"), _) => {
                "the secret is not the key's: mend store.secret_key_file".to_owned()
            }
            (Some("RequestTimeTooSkewed" | "RequestExpired"), _) => {
                "its clock is another than this machine's: set that".to_owned()
            }
            (
                Some("AuthorizationHeaderMalformed" | "IncorrectEndpoint" | "PermanentRedirect"),
                _,
            ) => "it is of another region: mend store.region".to_owned(),
            (Some("AccessDenied"), _) => {
                "the key may not read, write, list and delete there: give it these rights"
                    .to_owned()
            }
            (Some("NotImplemented" | "MethodNotAllowed"), _) => {
                "it cannot put objects together from parts, which registries need: take another one"
                    .to_owned()
            }
            (_, Why::Away) => {
                "it does not answer: see whether it runs, and mend store.endpoint".to_owned()
            }
            _ => "it does not do what registries need".to_owned(),
        };
        Unfit(format!("{place}: {advice} ({source})"))
    }
}
