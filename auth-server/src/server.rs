//! What the server does when a token is asked for: the order of its steps.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use berth_shared::{clock::Clock, scope::Scope, subject::Subject, telemetry::chain};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    StartError, acl,
    acl::{policy::Policy, store::Store},
    audit::{self, Author, lines::Lines, writer::Writer},
    config::Config,
    files,
    issue::{Issued, Request, issue},
    keys::SigningKeys,
    sign_in::{Presented, SignedIn},
    users::{
        store::{UserSet, Users},
        verify::Verifier,
    },
};

/// How often rules and users are read again because the file was edited meanwhile. Beyond that
/// they are used as they are, and the token may be void, which is safe.
const READINGS_MAX: usize = 8;

/// The server without its listeners: everything that a request can ask for.
pub struct AuthServer {
    pub(crate) keys: SigningKeys,
    pub(crate) clock: Clock,
    pub(crate) database: Arc<Store>,
    pub(crate) verifier: Verifier,
    pub(crate) audit: Arc<audit::Queue>,
    config: Config,
    users: Users,
}

/// A request for a token.
pub(crate) struct TokenRequest<'a> {
    pub(crate) service: &'a str,
    pub(crate) scopes: &'a [Scope],
    pub(crate) presented: Option<&'a Presented>,
    /// Where the client is, where that is known.
    pub(crate) client: Option<IpAddr>,
    pub(crate) agent: Agent<'a>,
}

/// What a client says of itself.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Agent<'a> {
    /// The parameter `client_id`.
    pub(crate) id: Option<&'a str>,
    /// The header `User-Agent`.
    pub(crate) header: Option<&'a str>,
}

/// A token, and what it rests on. Has no `Debug`: the token is a credential.
pub(crate) struct Granted {
    pub(crate) signed_in: SignedIn,
    pub(crate) issued: Issued,
    pub(crate) token: String,
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) enum IssueError {
    /// The credentials are wrong; `known` is the user or robot, if there is one of that name.
    Wrong { known: Option<Subject> },
    /// Too many password checks are waiting; `known` as above.
    Busy { known: Option<Subject> },
    /// The database does not answer.
    Database(acl::Error),
    /// What should not happen.
    Broken(String),
}

impl From<acl::Error> for IssueError {
    fn from(error: acl::Error) -> Self {
        Self::Database(error)
    }
}

/// Users and rules that belong together; see [`AuthServer::current`].
pub(crate) struct Current {
    pub(crate) policy: Arc<Policy>,
    pub(crate) users: Arc<UserSet>,
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
        let keys = SigningKeys::open(&config.keys(), config.key_algorithm, &clock)?
            .with_ids(config.key_ids);
        let users = Users::load(config.htpasswd.clone(), Arc::clone(&database)).await?;
        let verifier = Verifier::new(config.limits).map_err(|_| StartError::Randomness)?;
        let audit = Arc::new(audit::Queue::new().map_err(|_| StartError::Randomness)?);
        Ok(Arc::new(Self { keys, config, clock, database, users, verifier, audit }))
    }

    /// What writes down what clients cause, while the server is served.
    pub(crate) fn audit_writer(&self) -> Writer {
        let (store, queue) = (Arc::clone(&self.database), Arc::clone(&self.audit));
        let settings = &self.config.audit;
        let lines = settings.file(&self.config.data).map(|path| Lines::new(path, settings));
        Writer::new(store, queue, settings, lines, self.clock.clone())
    }

    /// The settings that the server was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The id of the key that signs.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.keys.active_id()
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

    /// Whether requests can be served, or what a person should know.
    pub(crate) async fn ready(&self) -> Result<(), String> {
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
    pub(crate) async fn issue(&self, request: TokenRequest<'_>) -> Result<Granted, IssueError> {
        let result = self.check_and_issue(&request).await;
        self.note(&request, &result);
        result
    }

    /// Rules and counter come from the one policy that [`current`](Self::current) gave before the
    /// password was checked. What is taken away during the check (it may wait in a queue) has a
    /// larger counter, and voids the token.
    async fn check_and_issue(&self, request: &TokenRequest<'_>) -> Result<Granted, IssueError> {
        let current = self.current().await?;
        let signed_in = self.sign_in(&current, request.presented, request.client).await?;
        let policy = &current.policy;
        let rights = policy.rights(&signed_in.subject);
        let issued = issue(Request {
            subject: &signed_in.subject,
            issuer: &self.config.issuer,
            service: request.service,
            scopes: request.scopes,
            rights: &rights,
            counter: policy.sequence,
            secret_expires: signed_in.secret_expires,
            now: self.clock.now(),
            life: self.config.token_life(),
            id: token_id().ok_or_else(|| IssueError::Broken("no randomness".to_owned()))?,
        });
        let token = self.keys.sign(&issued.claims);
        let token = token.map_err(|error| IssueError::Broken(chain(&error)))?;
        Ok(Granted { signed_in, issued, token })
    }
}

/// 128 random bits: the token's name in an audit, and nothing that can be guessed.
fn token_id() -> Option<String> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::*;
    use crate::users::{Password, verify::Credentials};
    use berth_shared::{
        action::Actions,
        claims::ClaimSet,
        keys::KeySet,
        rights::{Effect, Rule},
        subject::Grantee,
        token,
    };
    use zeroize::Zeroizing;

    const NOW: i64 = 1_790_000_000;

    fn line(name: &str, password: &str) -> String {
        let password = Password::new(Zeroizing::new(password.to_owned())).unwrap();
        format!("{name}:{}\n", password.hash(4).unwrap())
    }

    async fn server(dir: &Path) -> Arc<AuthServer> {
        fs::write(dir.join("htpasswd"), line("andrew", "one")).unwrap();
        let config =
            Config { htpasswd: dir.join("htpasswd"), data: dir.join("auth"), ..Config::default() };
        let server = AuthServer::open(config, Clock::set(NOW)).await.unwrap();
        let andrew = Grantee::User("andrew".parse().unwrap());
        let pattern = "team/**".parse().unwrap();
        let rule = Rule {
            grantee: andrew,
            pattern,
            effect: Effect::Allow,
            actions: Actions::ALL,
            expires: None,
        };
        server.database.add(&[rule], NOW).await.unwrap();
        server
    }

    async fn sign_in(server: &AuthServer, password: &str) -> Result<ClaimSet, IssueError> {
        let presented = Presented::Password(Credentials {
            user: Zeroizing::new("andrew".to_owned()),
            password: Zeroizing::new(password.to_owned()),
        });
        let scopes = Scope::parse_all(["repository:team/app:*"]);
        let presented = Some(&presented);
        let agent = Agent::default();
        let request =
            TokenRequest { service: "berth", scopes: &scopes, presented, client: None, agent };
        let token = server.issue(request).await?.token;
        let verifier = token::Verifier {
            issuer: "berth".to_owned(),
            service: "berth".to_owned(),
            foreign_subjects: false,
        };
        let keys = KeySet::from_json(server.keys.jwks().as_bytes()).unwrap();
        Ok(verifier.verify(&keys, &token, 0).unwrap().claims)
    }

    async fn is_void(server: &AuthServer, claims: &ClaimSet) -> bool {
        let subject = Subject::from_claim(&claims.sub).unwrap();
        let policy = server.current().await.unwrap().policy;
        claims.counter < policy.revocations.least_for(&subject)
    }

    #[tokio::test]
    async fn a_grant_counts_with_the_next_token_and_voids_none() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path()).await;
        let claims = sign_in(&server, "one").await.unwrap();
        assert_eq!(claims.access[0].actions, ["pull", "push", "delete"]);
        assert_eq!((claims.iat, claims.exp), (NOW, NOW + 900));
        let andrew = Grantee::User("andrew".parse().unwrap());
        server
            .database
            .remove(&andrew, &"team/**".parse().unwrap(), Effect::Allow, "push".parse().unwrap())
            .await
            .unwrap();
        assert!(is_void(&server, &claims).await);
        let claims = sign_in(&server, "one").await.unwrap();
        assert_eq!(claims.access[0].actions, ["pull", "delete"]);
        assert!(!is_void(&server, &claims).await);
    }

    #[tokio::test]
    async fn a_new_password_voids_old_tokens_and_gives_good_ones_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path()).await;
        let old = sign_in(&server, "one").await.unwrap();
        fs::write(dir.path().join("htpasswd"), line("andrew", "two")).unwrap();
        let new = sign_in(&server, "two").await.unwrap();
        assert!(is_void(&server, &old).await);
        assert!(!is_void(&server, &new).await);
        let refused = sign_in(&server, "one").await;
        assert!(matches!(refused, Err(IssueError::Wrong { known: Some(_) })));
    }

    #[tokio::test]
    async fn an_edit_made_while_the_server_was_down_voids_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let first = server(dir.path()).await;
        let token = sign_in(&first, "one").await.unwrap();
        let config = first.config().clone();
        drop(first);
        fs::write(dir.path().join("htpasswd"), "# nobody\n").unwrap();
        let server = AuthServer::open(config, Clock::set(NOW)).await.unwrap();
        assert!(is_void(&server, &token).await);
        assert!(sign_in(&server, "one").await.is_err());
    }

    #[tokio::test]
    async fn a_moved_database_means_no_token_for_anybody() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path()).await;
        sign_in(&server, "one").await.unwrap();
        fs::rename(dir.path().join("auth/auth.db"), dir.path().join("elsewhere")).unwrap();
        assert!(matches!(sign_in(&server, "one").await, Err(IssueError::Database(_))));
        let scopes = Scope::parse_all(["repository:public:pull"]);
        let agent = Agent::default();
        let anonymous = TokenRequest {
            service: "berth",
            scopes: &scopes,
            presented: None,
            client: None,
            agent,
        };
        assert!(server.issue(anonymous).await.is_err());
        assert!(server.ready().await.is_err());
        assert_eq!(server.config().token_life(), Duration::from_secs(900));
    }
}
