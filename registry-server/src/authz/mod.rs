//! From a request's credentials to a [`Permit`]: the proof, inside the server, that a subject may
//! do something to a repository.
//!
//! Nothing here looks at what the registry holds, so the answer is the same whether or not a
//! repository exists (auth R6).

pub(crate) mod access;
pub(crate) mod permit;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use berth_shared::{
    action::Action,
    clock::Clock,
    keys::KeySet,
    name::RepositoryName,
    rights::Rights,
    scope::Scope,
    subject::Subject,
    token::{Refusal, VerifiedToken, Verifier},
};
use metrics::counter;
use moka::sync::Cache;
use ring::digest::{SHA256, digest};

use crate::{issuer::Issuer, reach::Reach};
use access::Access;
use permit::{Permit, SessionGrant};

/// What verified tokens that are kept take, in bytes: some ten thousand of the usual ones. Whoever
/// asks for many scopes has long ones.
const TOKENS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How much a token takes in memory besides its text, and how often its text is there at most: as
/// names and actions, each with a place of its own.
const TOKEN_BYTES: u32 = 512;
const TOKEN_COPIES: u32 = 3;

/// How long a verified token is kept; its expiry is checked at every use anyway.
const TOKEN_KEPT: Duration = Duration::from_secs(15 * 60);

/// What came of a request's credentials.
#[derive(Debug)]
pub(crate) struct Authorized {
    pub(crate) token: Arc<VerifiedToken>,
    /// For endpoints of a repository.
    pub(crate) permit: Option<Permit>,
}

/// A request is not let through.
#[derive(Debug)]
pub(crate) struct Denied {
    /// What a token is needed for.
    pub(crate) scopes: Vec<Scope>,
    pub(crate) reason: Reason,
}

/// Why a request is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No token came along.
    NoToken,
    /// User name and password came along, and are wrong, in the words of the token endpoint.
    BadPassword(String),
    /// The token is not good.
    BadToken(Refusal),
    /// The token is good and does not cover this for its subject.
    InsufficientScope(Subject),
    /// Tokens cannot be verified before `auth-server` has given its keys.
    Unavailable,
}

impl Reason {
    /// The word for it in metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::BadPassword(_) => "bad_password",
            Self::BadToken(refusal) => refusal.word(),
            Self::InsufficientScope(_) => "insufficient_scope",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        Self::BadToken(refusal)
    }
}

/// A token that was verified, and the set of keys that it was verified with: by any other set it is
/// verified anew, so that a key that was dropped takes its tokens along.
#[derive(Clone)]
struct Verified {
    token: Arc<VerifiedToken>,
    keys: Arc<KeySet>,
    /// Of its text.
    length: usize,
}

/// Judges credentials. Clones share what is cached.
#[derive(Clone)]
pub(crate) struct Authorizer {
    verifier: Verifier,
    issuer: Issuer,
    verified: Cache<[u8; 32], Verified>,
    /// How often a token was found there.
    hits: Arc<AtomicU64>,
    clock: Clock,
}

impl Authorizer {
    pub(crate) fn new(verifier: Verifier, issuer: Issuer, clock: Clock) -> Self {
        let verified = Cache::builder()
            .max_capacity(TOKENS_BYTES_MAX)
            .weigher(|_, verified: &Verified| {
                let length = u32::try_from(verified.length).unwrap_or(u32::MAX);
                length.saturating_mul(TOKEN_COPIES).saturating_add(TOKEN_BYTES)
            })
            .time_to_live(TOKEN_KEPT)
            .build();
        Self { verifier, issuer, verified, hits: Arc::default(), clock }
    }

    /// How often a kept token was used, and how many are kept.
    pub(crate) fn kept(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.verified.entry_count())
    }

    /// Whether `token` is enough for `access`. One that has expired goes on in an upload session
    /// that it began: `session` looks up that of the request, and is asked for such a token alone.
    pub(crate) async fn authorize<S, E>(
        &self,
        access: &Access<'_>,
        token: Option<&str>,
        session: S,
    ) -> Result<Authorized, E>
    where
        S: AsyncFnOnce() -> Result<Option<SessionGrant>, E>,
        E: From<Denied>,
    {
        let denied = |reason| Denied { scopes: access.scopes(), reason };
        let token = token.ok_or_else(|| denied(Reason::NoToken))?;
        let token = self.verify(token).await.map_err(denied)?;
        let now = self.clock.now();
        match token.in_time(now) {
            Err(Refusal::Expired)
                if session()
                    .await?
                    .is_some_and(|session| session.extends(access.repository(), &token, now)) => {}
            in_time => in_time.map_err(|refusal| denied(refusal.into()))?,
        }
        self.not_revoked(&token).map_err(denied)?;
        let subject = token.subject.clone();
        let is_covered = match access {
            Access::AnyToken => true,
            Access::Catalog => self.may_list(&token),
            Access::Repository { name, action, .. } => token.claims.allows(name, *action),
        };
        if !is_covered {
            return Err(denied(Reason::InsufficientScope(subject)).into());
        }
        let permit = access.repository().map(|name| Permit::new(subject, name.clone()));
        Ok(Authorized { token, permit })
    }

    async fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, Reason> {
        let mut key = [0_u8; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let mut keys = self.issuer.keys().await.ok_or(Reason::Unavailable)?;
        if let Some(verified) = self.verified.get(&key)
            && Arc::ptr_eq(&verified.keys, &keys)
        {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(verified.token);
        }
        let now = self.clock.now();
        let mut verified = self.verifier.verify(&keys, token, now);
        if matches!(verified, Err(Refusal::UnknownKey))
            && let Some(newer) = self.issuer.newer_keys(Some(&keys)).await
        {
            verified = self.verifier.verify(&newer, token, now);
            keys = newer;
        }
        count_verification(&keys, token, &verified);
        let verified = Verified { token: Arc::new(verified?), keys, length: token.len() };
        self.verified.insert(key, verified.clone());
        Ok(verified.token)
    }

    fn not_revoked(&self, token: &VerifiedToken) -> Result<(), Reason> {
        let revocations = self.issuer.revocations().ok_or(Reason::Unavailable)?;
        if token.claims.counter < revocations.least_for(&token.subject) {
            return Err(Refusal::Revoked.into());
        }
        Ok(())
    }

    /// The permit to pull from a repository that the token may not mention, if its subject may.
    pub(crate) async fn permit_to_pull(
        &self,
        token: &VerifiedToken,
        from: &RepositoryName,
    ) -> Option<Permit> {
        if !token.claims.allows(from, Action::Pull) {
            let rights = self.issuer.rights(&token.subject).await?;
            let actions = rights.actions_on(from, self.clock.now());
            actions.contains(Action::Pull).then_some(())?;
        }
        Some(Permit::new(token.subject.clone(), from.clone()))
    }

    /// What the subject may pull anywhere, by its token and by its rights as they are now; where
    /// nobody can say those, by the token alone.
    pub(crate) async fn reach(&self, token: &VerifiedToken) -> Reach {
        let rights = self.issuer.rights(&token.subject).await;
        let now = self.clock.now();
        let reach = rights.map_or_else(Reach::default, |rights| Reach::of(&rights, now));
        reach.with(token.claims.pullable())
    }

    /// Berth's own tokens list what their subject may pull; a foreign issuer says itself who may
    /// see the catalog.
    fn may_list(&self, token: &VerifiedToken) -> bool {
        self.issuer.auth_client().is_some() || token.claims.allows_catalog()
    }

    /// The rights by which the catalog is filtered. `None` when `auth-server` does not answer.
    pub(crate) async fn rights_to_list(&self, token: &VerifiedToken) -> Option<Arc<Rights>> {
        if self.issuer.auth_client().is_none() {
            return Some(Arc::new(Rights::everything()));
        }
        self.issuer.rights(&token.subject).await
    }
}

/// Counts a verification under the key that was used. Key ids are labels only where the set has
/// them: what a client writes makes no series.
fn count_verification(keys: &KeySet, token: &str, verified: &Result<VerifiedToken, Refusal>) {
    let key = keys.id_named_by(token).unwrap_or("other").to_owned();
    let result = verified.as_ref().map_or_else(|refusal| refusal.word(), |_| "good");
    counter!("berth_token_verifications_total", "key" => key, "result" => result).increment(1);
}
