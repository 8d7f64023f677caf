//! The client of `auth-server`: keys, revocations and rights, kept so that pulls with valid
//! tokens go on while it is down.

mod error;
mod keys;
mod link;
mod polled;
mod standing;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::http::{Request, Response, StatusCode, header};
use berth_shared::{
    auth_api::{REVOCATIONS_PATH, RIGHTS_PATH, Revocations},
    claimant::Network,
    client::ClientError,
    files::replace,
    rights::Rights,
    subject::Subject,
    telemetry::chain,
};
use bytes::Bytes;
use moka::future::Cache;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub(crate) use error::Error;
use keys::Keys;
use link::Link;
pub(crate) use link::{LinkError, Place, Settings as LinkSettings};
use polled::{Document, Polled};
use standing::{Asked, Failed, Standing};

/// The largest answer that is taken, in bytes; see also [`TABLE_BYTES_MAX`].
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The largest table of raised counters that is taken, in bytes: a million counters and more. It has a row for whoever
/// lost something within days, and where it does not arrive nothing is revoked any more: so this is
/// only there so that a broken answer does not take all memory.
const TABLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The longest answer of the token endpoint, in bytes.
const TOKEN_ANSWER_BYTES_MAX: usize = 128 * 1024;

/// How long rights are kept.
const RIGHTS_KEPT: Duration = Duration::from_secs(5);

/// Subjects whose rights are kept.
const SUBJECTS_MAX: u64 = 1_000;

/// How often the table of revocations and the keys are asked for.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The same, until there are any: nobody can sign in before.
const FIRST_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long `auth-server` may take to start beside this server before that is worth a warning.
const STARTING: Duration = Duration::from_secs(3);

/// What is known of `auth-server`; clones share it.
#[derive(Clone)]
pub(crate) struct AuthClient(Arc<Shared>);

struct Shared {
    place: Place,
    link: Arc<Link>,
    keys: Keys,
    /// The table of raised counters.
    revocations: Polled<Revocations>,
    /// Subjects' rights as they are now, for the two questions that a token cannot answer.
    rights: Cache<String, Arc<Rights>>,
    standing: Standing,
}

impl AuthClient {
    /// A client of the server at `place` that keeps its last good answers in `directory`.
    ///
    /// # Errors
    /// When what the link needs cannot be read.
    pub(crate) fn open(place: Place, directory: &Path) -> Result<Self, LinkError> {
        let link = Arc::new(Link::open(&place)?);
        let table = Document {
            path: REVOCATIONS_PATH,
            read: |json| serde_json::from_slice(json).map_err(|error| error.to_string()),
            behind: |table: Revocations, before| table.behind(before),
            kept: |table| serde_json::to_vec(table).ok(),
        };
        let revoked = directory.join("revocations.json");
        Ok(Self(Arc::new(Shared {
            place,
            keys: Keys::load(Arc::clone(&link), directory.join("keys.json")),
            revocations: Polled::load(Arc::clone(&link), table, revoked),
            link,
            rights: Cache::builder().max_capacity(SUBJECTS_MAX).time_to_live(RIGHTS_KEPT).build(),
            standing: Standing::default(),
        })))
    }

    /// Whether `auth-server` answered when it was last asked for revocations and keys.
    pub(crate) fn is_up(&self) -> bool {
        self.0.standing.is_up()
    }

    /// What tokens are verified with.
    pub(crate) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// The table of raised counters; nothing while it was never received.
    pub(crate) fn revocations(&self) -> &Polled<Revocations> {
        &self.0.revocations
    }

    /// The subject's rights, a few seconds old at most; `None` when nobody answers.
    pub(crate) async fn rights(&self, subject: &Subject) -> Option<Arc<Rights>> {
        let claim = subject.claim();
        let rights = self.0.rights.try_get_with_by_ref(claim, self.ask_for_rights(claim));
        // Large, and every request that waits would have room for it.
        let rights = Box::pin(rights).await;
        rights.inspect_err(|error| tracing::warn!(%error, "asking auth-server for rights")).ok()
    }

    async fn ask_for_rights(&self, claim: &str) -> Result<Arc<Rights>, String> {
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("subject", claim).finish();
        let asked = ask(&self.0.link, &format!("{RIGHTS_PATH}?{query}"), None).await;
        let answer = asked.map_err(|error| chain(&error))?;
        let rights = serde_json::from_slice(answer.ok_or("no rights came")?.body());
        rights.map(Arc::new).map_err(|error| format!("auth-server's rights: {error}"))
    }

    /// Passes on a token request of somebody in `network`, whose body is there whole, and gives the whole
    /// answer: nobody who sends or reads slowly holds a connection to `auth-server`.
    pub(crate) async fn forward(
        &self,
        request: Request<Bytes>,
        network: Network,
    ) -> Result<Response<Bytes>, Error> {
        self.0.link.forward(request, network, TOKEN_ANSWER_BYTES_MAX).await
    }

    /// Whether `auth-server` answers, or has ever answered: pulls go on without it. One that refuses the
    /// link's secret, or shows another certificate, will not answer by itself again.
    pub(crate) fn check(&self) -> Result<(), String> {
        let failed = self.0.standing.failed();
        if let Some(Failed { error, stays: true }) = failed {
            return Err(error);
        }
        if self.has_answered() {
            return Ok(());
        }
        let why = failed.map(|failed| format!(" ({})", failed.error)).unwrap_or_default();
        let place = &self.0.place;
        Err(format!("auth-server has not answered yet at {place}{why}: is it running?"))
    }

    fn has_answered(&self) -> bool {
        self.0.keys.current().is_some() && self.0.revocations.current().is_some()
    }

    /// Polls until `shutdown`: each document for itself, so that what is wrong with the one holds up the other
    /// by nothing.
    pub(crate) async fn keep_fresh(self, shutdown: CancellationToken) {
        let revocations = self.keep(Asked::Revocations, &shutdown);
        let keys = self.keep(Asked::Keys, &shutdown);
        tokio::join!(revocations, keys, self.0.link.follow(&shutdown));
    }

    async fn keep(&self, asked: Asked, shutdown: &CancellationToken) {
        let started = Instant::now();
        loop {
            let began = Instant::now();
            let polled = match asked {
                Asked::Revocations => self.0.revocations.poll().await,
                Asked::Keys => self.0.keys.poll().await,
            };
            // Both servers may be starting: it need not have come first.
            let is_starting = !self.has_answered() && started.elapsed() < STARTING;
            let stays = polled.as_ref().is_err_and(Error::stays);
            self.0.standing.note(asked, polled.err().as_ref(), is_starting);
            let is_new = !self.has_answered() && !stays;
            let wait = if is_new { FIRST_POLL_INTERVAL } else { POLL_INTERVAL };
            if shutdown.run_until_cancelled(sleep_until(began + wait)).await.is_none() {
                return;
            }
        }
    }
}

/// Asks `auth-server` for a document. `None` when it is the one that `etag` names.
async fn ask(
    link: &Link,
    path_and_query: &str,
    etag: Option<&str>,
) -> Result<Option<Response<Bytes>>, Error> {
    let mut request = Request::get(path_and_query).header(header::HOST, "auth-server");
    if let Some(etag) = etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    let request = request.body(Bytes::new()).map_err(|error| Error::Answer(error.to_string()))?;
    let is_table = path_and_query == REVOCATIONS_PATH;
    let bytes_max = if is_table { TABLE_BYTES_MAX } else { ANSWER_BYTES_MAX };
    let response = link.ask(request, bytes_max).await.map_err(|error| match error {
        Error::Client(ClientError::Body(_)) => Error::Answer(format!(
            "auth-server's {path_and_query}: {} (at most {bytes_max} bytes are read)",
            chain(&error)
        )),
        error => error,
    })?;
    match response.status() {
        StatusCode::OK => Ok(Some(response)),
        StatusCode::NOT_MODIFIED => Ok(None),
        status => Err(Error::Answer(format!("auth-server answered {status} to {path_and_query}"))),
    }
}

/// Keeps an answer for the next start; a failure costs only that.
async fn keep(path: PathBuf, bytes: Bytes) {
    let shown = path.display().to_string();
    let kept = tokio::task::spawn_blocking(move || replace(&path, &bytes)).await;
    if let Err(error) = kept.map_err(io::Error::other).and_then(|kept| kept) {
        tracing::warn!(%error, path = shown, "keeping the last good answer of auth-server");
    }
}
