//! What a request must be allowed, and the scopes that say so in a token.

use std::iter;

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
    /// An action on a repository, and on the side one to pull from that the client should ask for.
    Repository { name: &'e RepositoryName, action: Action, source: Option<RepositoryName> },
}

impl Access<'_> {
    /// The scopes that a client needs a token for.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::AnyToken => Vec::new(),
            Self::Catalog => vec![Scope::Catalog],
            Self::Repository { name, action, source } => {
                // Who pushes, also reads what is there already.
                let actions = Actions::from(*action).with_implied();
                let scope = Scope::repository((*name).clone(), actions);
                let source = source.clone().map(|source| Scope::repository(source, Action::Pull));
                iter::once(scope).chain(source).collect()
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
