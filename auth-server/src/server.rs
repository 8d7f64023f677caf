//! What the server does when a token is asked for: the order of its steps.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use berth_shared::{
    clock::{Clock, UnixSeconds},
    scope::Scope,
    subject::{RobotName, Subject},
    telemetry::chain,
};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::{
    StartError, acl,
    acl::{policy::Policy, robots::Robot, store::Store},
    config::Config,
    files,
    issue::{Issued, Request, issue},
    keys::SigningKeys,
    robot_secret::RobotSecret,
    users::{
        store::{UserSet, Users},
        verify::{Credentials, Refusal, Verifier},
    },
};

/// How often rules and users are read again because the file was edited meanwhile. Beyond that
/// they are used as they are, and the token may be void, which is safe.
const READINGS_MAX: usize = 8;

/// How far the note of a robot's last use may be behind, in seconds: a note is a write.
const ROBOT_NOTE_SECS: i64 = 600;

/// The server without its listeners: everything that a request can ask for.
pub struct AuthServer {
    pub(crate) keys: SigningKeys,
    config: Config,
    clock: Clock,
    database: Arc<Store>,
    users: Users,
    verifier: Verifier,
}

/// A request for a token.
pub(crate) struct TokenRequest<'a> {
    pub(crate) service: &'a str,
    pub(crate) scopes: &'a [Scope],
    pub(crate) presented: Option<&'a Presented>,
    /// Where the client is, where that is known.
    pub(crate) client: Option<IpAddr>,
}

/// What a client shows to say who it is. Has no `Debug`, and is wiped when dropped.
pub(crate) enum Presented {
    /// A user's name and password, or a robot's name and secret.
    Password(Credentials),
    /// A robot's secret alone, as a bearer token.
    Secret(Zeroizing<String>),
}

impl Presented {
    /// The name that was sent along, if one was.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Password(credentials) => Some(&credentials.user),
            Self::Secret(_) => None,
        }
    }
}

/// Somebody who has shown who they are, and when what they showed ends.
struct SignedIn {
    subject: Subject,
    secret_expires: Option<UnixSeconds>,
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) enum IssueError {
    /// The credentials are wrong; `known` is the user or robot, if there is one of that name.
    Wrong { known: Option<Subject> },
    /// Too many password checks are waiting.
    Busy,
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
        let database = Arc::new(Store::open(&config.database()).await?);
        let keys = SigningKeys::open(&config.keys(), config.key_algorithm, &clock)?
            .with_ids(config.key_ids);
        let users = Users::load(config.htpasswd.clone(), Arc::clone(&database)).await?;
        let verifier = Verifier::new(config.limits).map_err(|_| StartError::Randomness)?;
        Ok(Arc::new(Self { keys, config, clock, database, users, verifier }))
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

    /// Checks the credentials and issues a token: the subject, what the token says, and the token.
    ///
    /// Rules and counter come from the one policy that [`current`](Self::current) gave before the
    /// password was checked. What is taken away during the check (it may wait in a queue) has a
    /// larger counter, and voids the token.
    pub(crate) async fn issue(
        &self,
        request: TokenRequest<'_>,
    ) -> Result<(Subject, Issued, String), IssueError> {
        let Current { policy, users } = self.current().await?;
        let SignedIn { subject, secret_expires } = match request.presented {
            None => SignedIn { subject: Subject::Anonymous, secret_expires: None },
            Some(presented) => self.sign_in(&policy, &users, presented, request.client).await?,
        };
        let rights = policy.rights(&subject);
        let issued = issue(Request {
            subject: &subject,
            issuer: &self.config.issuer,
            service: request.service,
            scopes: request.scopes,
            rights: &rights,
            counter: policy.sequence,
            secret_expires,
            now: self.clock.now(),
            life: self.config.token_life(),
            id: token_id().ok_or_else(|| IssueError::Broken("no randomness".to_owned()))?,
        });
        let token = self.keys.sign(&issued.claims);
        let token = token.map_err(|error| IssueError::Broken(chain(&error)))?;
        Ok((subject, issued, token))
    }

    async fn sign_in(
        &self,
        policy: &Policy,
        users: &UserSet,
        presented: &Presented,
        client: Option<IpAddr>,
    ) -> Result<SignedIn, IssueError> {
        let credentials = match presented {
            Presented::Secret(secret) => return self.sign_in_robot(policy, None, secret),
            Presented::Password(credentials) => credentials,
        };
        if let Ok(name) = credentials.user.parse() {
            return self.sign_in_robot(policy, Some(&name), &credentials.password);
        }
        let name = self.verifier.verify(users, credentials, client).await;
        let name = name.map_err(|refusal| match refusal {
            Refusal::Wrong => {
                let name = credentials.user.parse().ok().filter(|name| users.contains(name));
                IssueError::Wrong { known: name.map(Subject::User) }
            }
            Refusal::Busy => IssueError::Busy,
            Refusal::Broken => IssueError::Broken(refusal.to_string()),
        })?;
        Ok(SignedIn { subject: Subject::User(name), secret_expires: None })
    }

    /// The robot that has this secret, and this name if it says one. Malformed, unknown and expired
    /// secrets are all the same to the client.
    fn sign_in_robot(
        &self,
        policy: &Policy,
        name: Option<&RobotName>,
        secret: &str,
    ) -> Result<SignedIn, IssueError> {
        let now = self.clock.now();
        let secret = secret.parse::<RobotSecret>().ok();
        let robot = secret.as_ref().and_then(|secret| policy.robots.who_has(secret));
        let is_it =
            |robot: &&Robot| robot.holds_at(now) && name.is_none_or(|name| robot.name == *name);
        let Some(robot) = robot.filter(is_it) else {
            let known = name.and_then(|name| policy.robots.get(name)).or(robot);
            let known = known.map(|robot| Subject::Robot(robot.name.clone()));
            return Err(IssueError::Wrong { known });
        };
        if robot.last_used.is_none_or(|last| now - last >= ROBOT_NOTE_SECS) {
            self.note_use(robot.name.clone(), now);
        }
        let subject = Subject::Robot(robot.name.clone());
        Ok(SignedIn { subject, secret_expires: robot.expires })
    }

    /// Notes that a robot signed in, beside the request: a database that cannot be written to fails
    /// no sign-in.
    fn note_use(&self, robot: RobotName, now: UnixSeconds) {
        let database = Arc::clone(&self.database);
        tokio::spawn(async move {
            if let Err(error) = database.note_robot(&robot, now).await {
                tracing::warn!(%robot, error = chain(&error), "noting that a robot signed in");
            }
        });
    }

    /// Whether there is such a robot, and its secret still holds.
    pub(crate) fn can_sign_in(&self, current: &Current, robot: &RobotName) -> bool {
        current.policy.robots.get(robot).is_some_and(|robot| robot.holds_at(self.clock.now()))
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
    use crate::users::Password;
    use berth_shared::{
        action::Actions,
        claims::ClaimSet,
        keys::KeySet,
        rights::{Effect, Rule},
        subject::Grantee,
        token,
    };

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
        let request = TokenRequest { service: "berth", scopes: &scopes, presented, client: None };
        let (_, _, token) = server.issue(request).await?;
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
        let anonymous =
            TokenRequest { service: "berth", scopes: &scopes, presented: None, client: None };
        assert!(server.issue(anonymous).await.is_err());
        assert!(server.ready().await.is_err());
        assert_eq!(server.config().token_life(), Duration::from_secs(900));
    }
}
