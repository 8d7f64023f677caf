//! What the server does when a token is asked for: the order of its steps.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicI64, Ordering},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use berth_shared::{
    clock::Clock,
    serve::{budget::Budget, socket::SocketFile},
    telemetry::chain,
};
use metrics::histogram;
use tokio::time::Instant;

use crate::{
    acl::{self, sign_in_addresses::SignInAddress, store::Store},
    audit::Author,
    audit_log::{self, Export, Writer},
    config::Config,
    files,
    issue::{Request, issue},
    keys::{KeyError, LiveKeys},
    random,
    sign_in::{
        credentials::Method,
        current::Current,
        last_used::Notes,
        request::{Granted, IssueError, TokenRequest},
    },
    start_error::StartError,
    trust::keys::IssuerKeys,
    users::{store::Users, verify::Verifier},
};

mod recorder;
#[cfg(test)]
mod tests;

/// How often rules and users are read again because the file was edited meanwhile. Beyond that
/// they are used as they are, and the token may be void, which is safe.
const READINGS_MAX: usize = 8;

/// The server without its listeners: everything that a request can ask for.
pub struct AuthServer {
    pub(crate) keys: LiveKeys,
    pub(crate) clock: Clock,
    pub(crate) database: Arc<Store>,
    pub(crate) verifier: Verifier,
    pub(crate) notes: Notes,
    pub(crate) issuer_keys: IssuerKeys,
    pub(crate) audit: Arc<audit_log::Queue>,
    /// The bodies of requests, in bytes.
    pub(crate) memory: Budget,
    config: Config,
    users: Users,
    /// The latest time that a token was issued at since the start, by a clock that may have been
    /// ahead.
    latest_issue: AtomicI64,
    /// The private socket, once it is open.
    socket: OnceLock<SocketFile>,
}

impl AuthServer {
    /// Opens everything that `config` names: the database, the signing keys (made when there are
    /// none) and the users.
    ///
    /// # Errors
    /// When any of them cannot be used.
    pub async fn open(config: Config, clock: Clock) -> Result<Arc<Self>, StartError> {
        berth_shared::crypto::install();
        config.check()?;
        files::make_directory(&config.data)?;
        let database = Store::open(&config.database()).await?;
        let database = Arc::new(database.acting(Author::server(clock.clone())));
        let keys = LiveKeys::open(&config.keys(), &clock)?;
        let users = Users::load(config.htpasswd.clone(), Arc::clone(&database)).await?;
        let verifier = Verifier::new(config.limits).map_err(|_| StartError::Randomness)?;
        let known = database.sign_in_addresses(clock.now()).await?;
        for SignInAddress { user, address, .. } in &known {
            verifier.knows(user, *address);
        }
        let notes = Notes::of(&known);
        let issuer_keys = IssuerKeys::new(clock.clone());
        let audit = Arc::new(audit_log::Queue::new().map_err(|_| StartError::Randomness)?);
        Ok(Arc::new(Self {
            keys,
            clock,
            database,
            verifier,
            notes,
            issuer_keys,
            audit,
            memory: Budget::new("memory_bytes_max", config.limits.memory_bytes_max),
            config,
            users,
            latest_issue: AtomicI64::default(),
            socket: OnceLock::new(),
        }))
    }

    /// Makes readiness depend on the file of the private socket.
    pub(crate) fn watch(&self, socket: Option<SocketFile>) {
        if let Some(socket) = socket {
            // It is opened once.
            let _ = self.socket.set(socket);
        }
    }

    /// What writes down what clients cause, while the server is served.
    pub(crate) fn audit_writer(&self) -> Writer {
        let (store, queue) = (Arc::clone(&self.database), Arc::clone(&self.audit));
        let settings = &self.config.audit;
        let export = settings.file(&self.config.data).map(|path| Export::new(&path, settings));
        Writer::new(store, queue, settings, export, self.clock.clone())
    }

    /// The settings that the server was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The id of the key that signs.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.keys.fresh().active_id().to_owned()
    }

    /// Drops retired signing keys whose time is over, and does what else has become due.
    ///
    /// # Errors
    /// When the keys' directory cannot be written to.
    pub fn tend_keys(&self) -> Result<(), KeyError> {
        self.keys.tend()
    }

    /// Clears away the counters that every token has outlived. To be called when the server has run
    /// for [`MARK_INTERVAL`](acl::counters::MARK_INTERVAL) since the last time.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn clear_counters(&self) -> Result<u64, acl::Error> {
        let latest_issue = self.latest_issue.load(Ordering::Relaxed);
        self.database.clear_counters(self.clock.now(), latest_issue).await
    }

    /// How many times bcrypt has run since the start.
    #[must_use]
    pub fn bcrypt_runs(&self) -> u64 {
        self.verifier.runs()
    }

    /// Reads the htpasswd file again if it has changed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refresh_users(&self) -> Result<(), acl::Error> {
        self.users.fresh().await.map(|_| ())
    }

    /// Whether the htpasswd file can be used, and the users are those in it.
    pub(crate) fn is_htpasswd_usable(&self) -> bool {
        self.users.is_usable()
    }

    /// Whether requests can be served, or what a person should know.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        self.socket.get().map_or(Ok(()), SocketFile::check)?;
        self.current().await.map(|_| ()).map_err(|error| chain(&error))
    }

    /// The service that is meant by the parameter `service`: nothing means the first.
    pub(crate) fn service(&self, asked: Option<&str>) -> Option<&str> {
        let mut services = self.config.services.iter().map(String::as_str);
        match asked {
            None => services.next(),
            Some(asked) => services.find(|service| *service == asked),
        }
    }

    /// The rules, and users that are no older than they.
    ///
    /// The order is a security property. The policy, with its sequence, is read first and the
    /// users are made fresh after it: a password that is changed or a user who is removed later
    /// raises the sequence, so a token that carries the one read here is void. If making them
    /// fresh has raised it itself, the policy is read again, since a token for the new password
    /// would be void otherwise; and the users are looked at again after that, for the same reason.
    pub(crate) async fn current(&self) -> Result<Current, acl::Error> {
        let mut tries = 0..READINGS_MAX;
        loop {
            let policy = self.database.policy().await?;
            let users = self.users.fresh().await?;
            if users.reconciled <= policy.sequence || tries.next().is_none() {
                return Ok(Current { policy, users });
            }
        }
    }

    /// Checks the credentials and issues a token, and notes what came of it for the audit.
    pub(crate) async fn issue(
        self: &Arc<Self>,
        request: TokenRequest<'_>,
    ) -> Result<Granted, IssueError> {
        let result = self.check_and_issue(&request).await;
        self.note(&request, &result);
        result
    }

    /// Rules and counter come from the one policy that [`current`](Self::current) gave before the
    /// password was checked. What is taken away during the check (it may wait in a queue) has a
    /// larger counter, and voids the token.
    async fn check_and_issue(
        self: &Arc<Self>,
        request: &TokenRequest<'_>,
    ) -> Result<Granted, IssueError> {
        let current = self.current().await?;
        let signed_in = self.sign_in(&current, request.presented, request.client).await?;
        let policy = &current.policy;
        let rights = policy.rights(&signed_in.subject);
        let now = self.clock.now();
        self.latest_issue.fetch_max(now, Ordering::Relaxed);
        let issued = issue(Request {
            subject: &signed_in.subject,
            issuer: &self.config.issuer,
            service: request.service,
            scopes: request.scopes,
            rights: &rights,
            counter: policy.sequence,
            secret_expires: signed_in.secret_expires,
            now,
            life: self.config.token_life(),
            id: token_id().ok_or_else(|| IssueError::Broken("no randomness".to_owned()))?,
        });
        let begun = Instant::now();
        let token = self.keys.fresh().sign(&issued.claims);
        histogram!("berth_token_signing_duration_seconds").record(begun.elapsed());
        let token = token.map_err(|error| IssueError::Broken(chain(&error)))?;
        let refresh_token = match request.presented {
            // The one that was shown goes on: whoever has it needs no second one.
            Some(shown) if request.is_offline && signed_in.method == Method::RefreshToken => {
                Some(shown.secret().clone())
            }
            _ if request.is_offline => {
                self.issue_refresh_token(&current, &signed_in, request).await
            }
            _ => None,
        };
        Ok(Granted { signed_in, issued, token, refresh_token })
    }
}

/// 128 random bits: the token's name in an audit, and nothing that can be guessed.
fn token_id() -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(random::bytes::<16>().ok()?))
}
