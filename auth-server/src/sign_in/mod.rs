//! Who is asking: from what a client shows to a subject.
//!
//! Each kind of credential has its own way here; all end in [`SignedIn`] or in one refusal, which
//! tells the client nothing about what was wrong.

pub(crate) mod credentials;
pub(crate) mod current;
mod exchange;
pub(crate) mod last_used;
mod refresh;
pub(crate) mod request;

use std::{net::IpAddr, sync::Arc};

use berth_shared::subject::{RobotName, Subject};

use self::{
    credentials::{Method, Presented, SignedIn},
    current::Current,
    exchange::{exchange, is_token},
    last_used::Used,
    request::IssueError,
};
use crate::{
    acl::policy::robots::Robot,
    secrets::{refresh::USER_NAME, robot::RobotSecret},
    server::AuthServer,
    users::{
        PASSWORD_BYTES_MAX,
        verify::{Credentials, Refusal},
    },
};

impl AuthServer {
    /// Whose credentials these are, or nobody's where none were shown.
    pub(crate) async fn sign_in(
        self: &Arc<Self>,
        current: &Current,
        presented: Option<&Presented>,
        client: Option<IpAddr>,
    ) -> Result<SignedIn, IssueError> {
        let credentials = match presented {
            None => {
                let (subject, method) = (Subject::Anonymous, Method::Anonymous);
                return Ok(SignedIn { subject, method, secret_expires: None });
            }
            Some(Presented::Bearer(secret)) => {
                return self.sign_in_machine(current, None, secret).await;
            }
            Some(Presented::RefreshToken(token)) => {
                return self.sign_in_by_refresh_token(current, token).await;
            }
            Some(Presented::Password(credentials)) => credentials,
        };
        if self.config().refresh_tokens && *credentials.user == USER_NAME {
            return self.sign_in_by_refresh_token(current, &credentials.password).await;
        }
        match credentials.user.parse() {
            Ok(robot) => self.sign_in_machine(current, Some(&robot), &credentials.password).await,
            Err(_) => self.sign_in_user(current, credentials, client).await,
        }
    }

    async fn sign_in_user(
        self: &Arc<Self>,
        current: &Current,
        credentials: &Credentials,
        client: Option<IpAddr>,
    ) -> Result<SignedIn, IssueError> {
        let users = &current.users;
        let known = || {
            let name = credentials.user.parse().ok().filter(|name| users.contains(name));
            name.map(Subject::User)
        };
        // It tells nothing of the name, and costs nothing: neither is a guess.
        if credentials.password.len() > PASSWORD_BYTES_MAX {
            if is_token(&credentials.password) {
                let reason = "a token is shown under the name robot.NAME, or alone".to_owned();
                return Err(IssueError::Untrusted { known: known(), reason });
            }
            return Err(IssueError::PasswordLong { known: known() });
        }
        let name = self.verifier.verify(users, credentials, client).await;
        let name = name.map_err(|refusal| match refusal {
            Refusal::Wrong => IssueError::Wrong { known: known(), is_checked: true },
            Refusal::StillWrong => IssueError::Wrong { known: known(), is_checked: false },
            Refusal::Busy(limit) => IssueError::Busy { known: known(), limit },
            Refusal::Broken => IssueError::Broken(refusal.to_string()),
        })?;
        if let Some(client) = client {
            self.note_use(Used::Address(name.clone(), client.to_canonical()), None);
        }
        let subject = Subject::User(name);
        Ok(SignedIn { subject, method: Method::Password, secret_expires: None })
    }

    /// A robot by its secret, or by the token of an issuer that is trusted: they look different.
    async fn sign_in_machine(
        self: &Arc<Self>,
        current: &Current,
        name: Option<&RobotName>,
        secret: &str,
    ) -> Result<SignedIn, IssueError> {
        if is_token(secret) {
            self.sign_in_trust(current, name, secret).await
        } else {
            self.sign_in_robot(current, name, secret)
        }
    }

    /// The robot that a token of its own issuer stands for. The token is exchanged, as a password
    /// is: what is issued here has its ordinary life.
    async fn sign_in_trust(
        self: &Arc<Self>,
        current: &Current,
        name: Option<&RobotName>,
        token: &str,
    ) -> Result<SignedIn, IssueError> {
        let now = self.clock.now();
        let trusts = &current.policy.trusts;
        let trust = exchange(trusts, &self.issuer_keys, name, token, now).await;
        let trust = trust.map_err(|refusal| {
            let known = name.and_then(|name| trusts.get(name));
            let known = known.map(|trust| Subject::Robot(trust.name.clone()));
            let reason = refusal.to_string();
            match refusal {
                exchange::Refusal::Unavailable { .. } => IssueError::IssuerDown { known, reason },
                _ => IssueError::Untrusted { known, reason },
            }
        })?;
        self.note_use(Used::Trust(trust.name.clone(), trust.created), trust.last_used);
        let subject = Subject::Robot(trust.name.clone());
        Ok(SignedIn { subject, method: Method::Trust, secret_expires: None })
    }

    /// The robot that has this secret, and this name if it says one. Malformed, unknown and expired
    /// secrets are all the same to the client.
    fn sign_in_robot(
        self: &Arc<Self>,
        current: &Current,
        name: Option<&RobotName>,
        secret: &str,
    ) -> Result<SignedIn, IssueError> {
        let now = self.clock.now();
        let robots = &current.policy.robots;
        let secret = secret.parse::<RobotSecret>().ok();
        let robot = secret.as_ref().and_then(|secret| robots.who_has(secret));
        let is_it =
            |robot: &&Robot| robot.holds_at(now) && name.is_none_or(|name| robot.name == *name);
        let Some(robot) = robot.filter(is_it) else {
            let known = name.and_then(|name| robots.get(name)).or(robot);
            let known = known.map(|robot| Subject::Robot(robot.name.clone()));
            return Err(IssueError::Wrong { known, is_checked: false });
        };
        self.note_use(Used::Robot(robot.name.clone(), robot.created), robot.last_used);
        let subject = Subject::Robot(robot.name.clone());
        Ok(SignedIn { subject, method: Method::Robot, secret_expires: robot.expires })
    }

    /// Whether there is such a robot and its secret still holds, or such a trust.
    pub(crate) fn can_sign_in(&self, current: &Current, robot: &RobotName) -> bool {
        let policy = &current.policy;
        policy.robots.get(robot).is_some_and(|robot| robot.holds_at(self.clock.now()))
            || policy.trusts.get(robot).is_some()
    }
}
