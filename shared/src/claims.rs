//! The claim set of a token: RFC 7519 §4.1 and distribution's token specification.

use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, Actions},
    clock::UnixSeconds,
    name::RepositoryName,
    scope::Scope,
};

/// How far the clocks of issuer and verifier may differ, in seconds (auth R14).
pub const LEEWAY_SECS: i64 = 60;

/// How long an upload session keeps the grant that it began with, in seconds (auth R14). Its token
/// is shown for as long, so the key that signed it must be known for as long.
pub const SESSION_GRANT_SECS_MAX: i64 = 24 * 60 * 60;

/// What a token says. Every claim is required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimSet {
    /// Who issued it.
    pub iss: String,
    /// For whom: a user name, or empty for anonymous.
    pub sub: String,
    /// For which service.
    pub aud: Audience,
    /// When it expires.
    pub exp: UnixSeconds,
    /// From when on it holds.
    pub nbf: UnixSeconds,
    /// When it was issued.
    pub iat: UnixSeconds,
    /// Its own name, at least 128 random bits.
    pub jti: String,
    /// What it allows.
    pub access: Vec<Access>,
    /// The revocation counter at the time of issue: the token is void once a larger one has been
    /// published for its subject. Tokens of other issuers have none and count as zero.
    #[serde(default)]
    pub counter: u64,
    /// When the secret ends that the token was issued for, if that is soon: the registry tells the
    /// client in a `Warning` header. Only Berth's own tokens have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_expires: Option<UnixSeconds>,
}

/// The `aud` claim: RFC 7519 §4.1.3 allows one value or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One service.
    One(String),
    /// Several services.
    Several(Vec<String>),
}

impl Audience {
    /// Whether `service` is among them.
    pub fn contains(&self, service: &str) -> bool {
        match self {
            Self::One(one) => one == service,
            Self::Several(several) => several.iter().any(|one| one == service),
        }
    }
}

/// One entry of `access`, in distribution's form. Types and names of other kinds are kept as text
/// and match nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The repository's name, or `catalog`.
    pub name: String,
    /// The actions granted.
    pub actions: Vec<String>,
}

impl From<&Scope> for Access {
    fn from(scope: &Scope) -> Self {
        let (kind, name, actions) = match scope {
            Scope::Catalog => ("registry", "catalog".to_owned(), vec!["*".to_owned()]),
            Scope::Repository { name, actions } => (
                "repository",
                name.to_string(),
                actions.iter().map(|action| action.word().to_owned()).collect(),
            ),
        };
        Self { kind: kind.to_owned(), name, actions }
    }
}

impl Access {
    /// The actions on repositories of this name. A foreign issuer's `*` covers all.
    fn on_repository(&self) -> Actions {
        let words = self.actions.iter().filter(|_| self.kind == "repository");
        Actions::of_words(words.map(String::as_str))
    }
}

impl ClaimSet {
    /// The actions that the token allows on `repository`.
    pub fn actions_on(&self, repository: &RepositoryName) -> Actions {
        let named = self.access.iter().filter(|access| access.name == repository.as_str());
        named.map(Access::on_repository).fold(Actions::NONE, Actions::union)
    }

    /// The repositories that the token allows to pull.
    pub fn pullable(&self) -> impl Iterator<Item = RepositoryName> {
        let may_pull = |access: &&Access| access.on_repository().contains(Action::Pull);
        self.access.iter().filter(may_pull).filter_map(|access| access.name.parse().ok())
    }

    /// Whether the token holds the literal `registry:catalog:*`.
    pub fn allows_catalog(&self) -> bool {
        self.access.iter().any(|access| {
            access.kind == "registry"
                && access.name == "catalog"
                && access.actions.iter().any(|action| action == "*")
        })
    }

    /// Whether the token allows `action` on `repository`.
    pub fn allows(&self, repository: &RepositoryName, action: Action) -> bool {
        self.actions_on(repository).contains(action)
    }
}
