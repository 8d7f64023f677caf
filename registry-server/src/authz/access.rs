//! What a request must be allowed, and the scopes that say so in a token.

use berth_shared::{
    action::{Action, Actions},
    name::RepositoryName,
    scope::Scope,
};

/// What a request must be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access<'e> {
    /// Any good token.
    AnyToken,
    /// Any good token; the answer is filtered by rights.
    Catalog,
    /// An action on a repository, and on the side whatever else the client should ask for.
    Repository { name: &'e RepositoryName, action: Action, also: Option<(RepositoryName, Action)> },
}

impl Access<'_> {
    /// The scopes that a client needs a token for.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::AnyToken => Vec::new(),
            Self::Catalog => vec![Scope::Catalog],
            Self::Repository { name, action, also } => {
                let scope = Scope::repository((*name).clone(), with_companions(*action));
                let also = also.clone().map(Scope::from);
                std::iter::once(scope).chain(also).collect()
            }
        }
    }

    /// The repository concerned, for the log.
    pub(crate) fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::AnyToken | Self::Catalog => None,
            Self::Repository { name, .. } => Some(name),
        }
    }
}

/// The actions that a client should ask for along with the one it needs: who pushes, also reads
/// what is there already.
fn with_companions(action: Action) -> Actions {
    Actions::from(action).with_implied()
}
