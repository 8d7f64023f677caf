//! Who is asking: from what a client shows to a subject.
//!
//! Each kind of credential has its own way here; all end in [`SignedIn`] or in one refusal, which
//! tells the client nothing about what was wrong.

pub(crate) mod credentials;
pub(crate) mod current;
mod exchange;
pub(crate) mod last_used;
pub(crate) mod refresh;
pub(crate) mod request;

use std::{net::IpAddr, sync::Arc};

use berth_shared::{
    clock::Clock,
    subject::{RobotName, Subject},
};

use self::{
    credentials::{Method, Presented, SignedIn},
    current::Current,
    exchange::{exchange, is_token},
    last_used::{LastUsed, Used},
    refresh::RefreshTokens,
    request::{IssueError, Why},
};
use crate::{
    database::policy::robots::Robot,
    secrets::{refresh::USER_NAME, robot::RobotSecret},
    trust::keys::IssuerKeys,
    users::{
        PASSWORD_BYTES_MAX,
        verify::{Credentials, Refusal, Verifier},
    },
};

/// Finds out who is asking.
pub(crate) struct SignIn {
    pub(crate) verifier: Verifier,
    pub(crate) issuer_keys: IssuerKeys,
    /// `None` where they are not issued, so that none is accepted.
    pub(crate) refresh_tokens: Option<RefreshTokens>,
    pub(crate) last_used: Arc<LastUsed>,
    pub(crate) clock: Clock,
}

impl SignIn {
    /// Whose credentials these are, or nobody's where none were shown.
    pub(crate) async fn subject(
        &self,
        current: &Current,
        presented: Option<&Presented>,
        client: Option<IpAddr>,
    ) -> Result<SignedIn, IssueError> {
        match presented {
            None => Ok(SignedIn::new(Subject::Anonymous, Method::Anonymous)),
            Some(Presented::Bearer(secret)) => self.machine(current, None, secret).await,
            Some(Presented::RefreshToken(token)) => match &self.refresh_tokens {
                Some(refresh_tokens) => refresh_tokens.sign_in(current, token).await,
                None => Err(IssueError::wrong(None)),
            },
            Some(Presented::Password(credentials)) => match &self.refresh_tokens {
                Some(refresh_tokens) if *credentials.user == USER_NAME => {
                    refresh_tokens.sign_in(current, &credentials.password).await
                }
                _ => match credentials.user.parse() {
                    Ok(robot) => self.machine(current, Some(&robot), &credentials.password).await,
                    Err(_) => self.user(current, credentials, client).await,
                },
            },
        }
    }

    async fn user(
        &self,
        current: &Current,
        credentials: &Credentials,
        client: Option<IpAddr>,
    ) -> Result<SignedIn, IssueError> {
        let users = &current.users;
        let refused = |why| {
            let name = credentials.user.parse().ok().filter(|name| users.hashes.contains_key(name));
            IssueError::Refused { known: name.map(Subject::User), why }
        };
        // It tells nothing of the name, and costs nothing: neither is a guess.
        if credentials.password.len() > PASSWORD_BYTES_MAX {
            if is_token(&credentials.password) {
                let reason = "a token is shown under the name robot.NAME, or alone";
                return Err(refused(Why::Untrusted(reason.to_owned())));
            }
            return Err(refused(Why::PasswordLong));
        }
        let name = self.verifier.verify(users, credentials, client).await;
        let name = name.map_err(|refusal| match refusal {
            Refusal::Wrong => refused(Why::Wrong { is_checked: true }),
            Refusal::StillWrong => refused(Why::Wrong { is_checked: false }),
            Refusal::Busy(limit) => refused(Why::Busy(limit)),
            Refusal::Broken => IssueError::Broken(refusal.to_string()),
        })?;
        if let Some(client) = client {
            self.last_used.note(Used::Address(name.clone(), client.to_canonical()), None);
        }
        Ok(SignedIn::new(Subject::User(name), Method::Password))
    }

    /// A robot by its secret, or by the token of its own issuer: they look different. The token is
    /// exchanged, as a password is: what is issued here has its ordinary life.
    async fn machine(
        &self,
        current: &Current,
        name: Option<&RobotName>,
        secret: &str,
    ) -> Result<SignedIn, IssueError> {
        if !is_token(secret) {
            return self.robot(current, name, secret);
        }
        let now = self.clock.now();
        let trusts = &current.policy.trusts;
        let trust = exchange(trusts, &self.issuer_keys, name, secret, now).await;
        let trust = trust.map_err(|refusal| {
            let known = name.and_then(|name| trusts.get(name));
            let known = known.map(|trust| Subject::Robot(trust.name.clone()));
            IssueError::Refused { known, why: refusal }
        })?;
        self.last_used.note(Used::Trust(trust.name.clone(), trust.created), trust.last_used);
        Ok(SignedIn::new(Subject::Robot(trust.name.clone()), Method::Trust))
    }

    /// The robot that has this secret, and this name if it says one. Malformed, unknown and expired
    /// secrets are all the same to the client.
    fn robot(
        &self,
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
            return Err(IssueError::wrong(known.map(|robot| Subject::Robot(robot.name.clone()))));
        };
        self.last_used.note(Used::Robot(robot.name.clone(), robot.created), robot.last_used);
        let subject = Subject::Robot(robot.name.clone());
        Ok(SignedIn { subject, method: Method::Robot, secret_expires: robot.expires })
    }
}
