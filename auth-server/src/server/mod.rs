//! What the server does when a token is asked for: the order of its steps.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicI64, Ordering},
};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    serve::{budget::Budget, socket::SocketFile},
    telemetry::chain,
};
use zeroize::Zeroizing;

use self::{issuer::Issuer, recorder::Recorder};
use crate::{
    audit::Author,
    audit_log::{Export, Queue, Writer},
    config::Config,
    database::{self, Database, sign_in_addresses::SignInAddress},
    files,
    keys::{CurrentKeys, KeyError, SigningKeys},
    sign_in::{
        SignIn,
        credentials::{Method, SignedIn},
        current::Current,
        last_used::LastUsed,
        refresh::RefreshTokens,
        request::{Granted, IssueError, TokenRequest},
    },
    start_error::StartError,
    trust::keys::IssuerKeys,
    users::{source::Users, verify::Verifier},
};

mod issuer;
mod recorder;
#[cfg(test)]
mod tests;

/// How often the database's clock is asked, before its server is given up.
const TIMES_ASKED: u32 = 10;

const DAY_SECS: i64 = 24 * 60 * 60;

/// The server without its listeners: everything that a request can ask for.
pub struct AuthServer {
    config: Config,
    pub(crate) clock: Clock,
    pub(crate) database: Arc<Database>,
    pub(crate) users: Users,
    pub(crate) sign_in: SignIn,
    issuer: Issuer,
    pub(crate) recorder: Recorder,
    /// The bodies of requests, in bytes.
    pub(crate) memory: Budget,
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
        let (database, clock) = open(&config, clock).await?;
        let database = Arc::new(database.acting(Author::server(clock.clone())));
        let keys = CurrentKeys::open(config.keys(), &database, &clock).await?;
        let users = Users::load(&config.htpasswd, &database).await?;
        let verifier = Verifier::new(config.limits).map_err(|_| StartError::Randomness)?;
        let known = database.sign_in_addresses(clock.now()).await?;
        for SignInAddress { user, address, .. } in &known {
            verifier.knows(user, *address);
        }
        let audit = Arc::new(Queue::new().map_err(|_| StartError::Randomness)?);
        let last_used = Arc::new(LastUsed::new(Arc::clone(&database), &known, clock.clone()));
        let refresh_tokens = config.refresh_tokens.then(|| RefreshTokens {
            database: Arc::clone(&database),
            last_used: Arc::clone(&last_used),
            idle_secs: i64::from(config.refresh_token_idle_days) * DAY_SECS,
            clock: clock.clone(),
        });
        let sign_in = SignIn {
            verifier,
            issuer_keys: IssuerKeys::new(clock.clone()),
            refresh_tokens,
            last_used,
            clock: clock.clone(),
        };
        let issuer = Issuer {
            name: config.issuer.clone(),
            life: config.token_life(),
            keys,
            clock: clock.clone(),
            latest: AtomicI64::default(),
        };
        let records_issues = config.audit.issue;
        let recorder = Recorder { queue: audit, records_issues, clock: clock.clone() };
        Ok(Arc::new(Self {
            users,
            sign_in,
            issuer,
            recorder,
            memory: Budget::new("memory_bytes_max", config.limits.memory_bytes_max),
            config,
            clock,
            database,
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
        let (database, queue) = (Arc::clone(&self.database), Arc::clone(&self.recorder.queue));
        let settings = &self.config.audit;
        // Several servers would each write all of it.
        let file = settings.file(&self.config.data).filter(|_| !self.database.is_shared());
        let export = file.map(|path| Export::new(&path, settings));
        Writer::new(database, queue, settings, export, self.clock.clone())
    }

    /// The settings that the server was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The keys that sign and verify tokens, as they were used last.
    pub(crate) fn keys(&self) -> Arc<SigningKeys> {
        self.issuer.keys.last()
    }

    /// The same as they are now.
    ///
    /// # Errors
    /// When the database that they are in does not answer, or one cannot be opened.
    pub(crate) async fn fresh_keys(&self) -> Result<Arc<SigningKeys>, KeyError> {
        if !self.database.is_shared() {
            return Ok(self.keys());
        }
        let policy = self.database.policy().await?;
        self.issuer.keys.of(&policy.signing_keys)
    }

    /// The id of the key that signs.
    pub fn key_id(&self) -> String {
        self.keys().active_id().to_owned()
    }

    /// Drops retired signing keys whose time is over, and does what else has become due.
    ///
    /// # Errors
    /// When the keys cannot be written.
    pub async fn tend_keys(&self) -> Result<(), KeyError> {
        self.issuer.keys.tend(&self.database).await
    }

    /// Hears what the database's clock says, where others go by it too. Gives how far that is before the
    /// machine's, in seconds.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn hear_clock(&self) -> Result<Option<i64>, database::Error> {
        Ok(self.database.time().await?.map(|now| self.clock.hear(now)))
    }

    /// Clears away the counters that every token has outlived. To be called when the server has run
    /// for [`MARK_INTERVAL`](database::counters::MARK_INTERVAL) since the last time.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn clear_counters(&self) -> Result<u64, database::Error> {
        let latest = self.issuer.latest.load(Ordering::Relaxed);
        self.database.clear_counters(self.clock.now(), UnixSeconds::new(latest)).await
    }

    /// How many times bcrypt has run since the start.
    pub fn bcrypt_runs(&self) -> u64 {
        self.sign_in.verifier.runs()
    }

    /// Whether requests can be served, or what a person should know.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        self.socket.get().map_or(Ok(()), SocketFile::check)?;
        let current = self.current().await.map_err(|error| chain(&error))?;
        // A server that cannot sign lets others be asked.
        let keys = self.issuer.keys.of(&current.policy.signing_keys);
        keys.map(drop).map_err(|error| chain(&error))
    }

    /// The service that is meant by the parameter `service`: nothing means the first.
    pub(crate) fn service(&self, asked: Option<&str>) -> Option<&str> {
        let mut services = self.config.services.iter().map(String::as_str);
        match asked {
            None => services.next(),
            Some(asked) => services.find(|service| *service == asked),
        }
    }

    /// Users and rules as they are now.
    pub(crate) async fn current(&self) -> Result<Current, database::Error> {
        Current::of(&self.database, &self.users).await
    }

    /// Checks the credentials and issues a token, and notes what came of it for the audit.
    pub(crate) async fn issue(&self, request: TokenRequest<'_>) -> Result<Granted, IssueError> {
        let result = self.check_and_issue(&request).await;
        self.recorder.request(&request, &result);
        result
    }

    /// Rules and counter come from the one policy that [`current`](Self::current) gave before the
    /// password was checked. What is taken away during the check (it may wait in a queue) has a
    /// larger counter, and voids the token.
    async fn check_and_issue(&self, request: &TokenRequest<'_>) -> Result<Granted, IssueError> {
        let current = self.current().await?;
        let signed_in = self.sign_in.subject(&current, request.presented, request.client).await?;
        let (issued, token) = self.issuer.issue(&current.policy, &signed_in, request)?;
        let refresh_token = match request.presented {
            // The one that was shown goes on: whoever has it needs no second one.
            Some(shown) if request.is_offline && signed_in.method == Method::RefreshToken => {
                Some(shown.secret().clone())
            }
            _ if request.is_offline => self.refresh_token(&current, &signed_in, request).await,
            _ => None,
        };
        Ok(Granted { signed_in, issued, token, refresh_token })
    }

    /// A refresh token for somebody who has just signed in otherwise, where they are issued.
    async fn refresh_token(
        &self,
        current: &Current,
        signed_in: &SignedIn,
        request: &TokenRequest<'_>,
    ) -> Option<Zeroizing<String>> {
        let subject = &signed_in.subject;
        let refresh_tokens = self.sign_in.refresh_tokens.as_ref()?;
        let kept = refresh_tokens.issue(current, subject, request.agent.id).await?;
        self.recorder.refresh_token(kept.id, subject, request);
        Some(kept.token)
    }
}

/// Opens the database, and goes by its clock where others do too.
async fn open(config: &Config, clock: Clock) -> Result<(Database, Clock), StartError> {
    let Some(server) = &config.server else {
        return Ok((Database::open(&config.database()).await?, clock));
    };
    let database = Database::connect(server).await?;
    for _ in 0..TIMES_ASKED {
        // An answer that was long on its way is no time.
        if let Some(now) = database.time().await? {
            return Ok((database, clock.following(now)));
        }
    }
    Err(StartError::Slow(server.place().to_owned()))
}
