//! Requested scopes: `repository:team/app:pull,push` (distribution's token scope documentation).
//!
//! What cannot be understood is dropped, never refused: clients send scopes of many kinds, and a
//! 400 strands them (auth R8). Names are parsed here, before any rule sees them.

use std::fmt;

use crate::{action::Actions, name::RepositoryName};

/// How many scopes one token request may ask for; the rest are dropped, since larger tokens break
/// behind proxies with ordinary header limits.
pub const SCOPES_MAX: usize = 50;

/// One thing that a client asks a token for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The literal `registry:catalog:*`.
    Catalog,
    /// Actions on a repository; a requested `*` stands here as all actions.
    Repository {
        /// Which repository.
        name: RepositoryName,
        /// What is to be done with it.
        actions: Actions,
    },
}

impl Scope {
    /// The scope for `actions` on `name`.
    pub fn repository(name: RepositoryName, actions: impl Into<Actions>) -> Self {
        Self::Repository { name, actions: actions.into() }
    }

    /// Reads one scope: the type up to the first colon, the actions behind the last, the name
    /// between. A class such as `repository(plugin)` is read as its type. Unknown actions of a
    /// repository are left out. `None` when nothing usable remains.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let kind = kind.split_once('(').map_or(kind, |(kind, _class)| kind);
        match kind {
            "registry" => (name == "catalog" && actions == "*").then_some(Self::Catalog),
            "repository" => {
                let name = name.parse().ok()?;
                let actions = Actions::of_words(actions.split(','));
                (!actions.is_empty()).then_some(Self::Repository { name, actions })
            }
            _ => None,
        }
    }

    /// Reads every scope in `values`, each of which may hold several joined by spaces. Scopes on
    /// the same repository become one with the union of their actions. At most [`SCOPES_MAX`].
    pub fn parse_all<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let mut scopes: Vec<Self> = Vec::new();
        let words = values.into_iter().flat_map(|value| value.split(' '));
        for scope in words.filter_map(Self::parse) {
            let is_known = scopes.iter_mut().any(|known| known.take_in(&scope));
            if !is_known && scopes.len() < SCOPES_MAX {
                scopes.push(scope);
            }
        }
        scopes
    }

    /// Adds what `other` asks for, if it is about the same; whether it is.
    fn take_in(&mut self, other: &Self) -> bool {
        if let Self::Repository { name, actions } = self
            && let Self::Repository { name: same, actions: more } = other
            && name == same
        {
            *actions = actions.union(*more);
            return true;
        }
        self == other
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalog => f.write_str("registry:catalog:*"),
            Self::Repository { name, actions } => write!(f, "repository:{name}:{actions}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::action::Action;

    proptest! {
        #[test]
        fn a_scope_is_read_as_it_is_written(
            name in "[a-z0-9]{1,3}(/[a-z0-9]{1,3}){0,3}", bits in 1_u8..8,
        ) {
            let chosen = |action: &Action| bits & (1 << *action as u8) != 0;
            let actions: Actions = Action::ALL.into_iter().filter(chosen).collect();
            let scope = Scope::repository(name.parse().unwrap(), actions);
            prop_assert_eq!(Scope::parse(&scope.to_string()), Some(scope));
        }

        #[test]
        fn reading_again_what_was_read_changes_nothing(
            words in prop::collection::vec("repository:[a-c]:(pull|push|\\*|x)(,pull)?", 0..9),
        ) {
            let scopes = Scope::parse_all([words.join(" ").as_str()]);
            let written: Vec<_> = scopes.iter().map(ToString::to_string).collect();
            prop_assert_eq!(Scope::parse_all(written.iter().map(String::as_str)), scopes);
        }
    }

    #[test]
    fn scopes_are_read_leniently_and_names_strictly() {
        for (text, expected) in [
            ("repository:a/b:pull", Some("repository:a/b:pull")),
            ("repository:a/b:push,pull", Some("repository:a/b:pull,push")),
            ("repository:a:*", Some("repository:a:pull,push,delete")),
            ("repository(plugin):a:pull", Some("repository:a:pull")),
            ("repository:a:pull,frob", Some("repository:a:pull")),
            ("repository:a:frob", None),
            ("repository:a:", None),
            ("repository:a", None),
            ("repository:A:pull", None),
            ("repository:../x:pull", None),
            ("repository:host:5000/x:pull", None),
            ("registry:catalog:*", Some("registry:catalog:*")),
            ("registry:catalog:pull", None),
            ("artifact:a:pull", None),
            ("", None),
            (":", None),
        ] {
            let read = Scope::parse(text).map(|scope| scope.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn scopes_on_one_repository_are_joined_and_empty_ones_ignored() {
        let scopes =
            Scope::parse_all(["repository:a:pull  repository:b:pull", "repository:a:push", ""]);
        let written: Vec<_> = scopes.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["repository:a:pull,push", "repository:b:pull"]);
        let many: Vec<_> = (0..SCOPES_MAX + 1).map(|i| format!("repository:r{i}:pull")).collect();
        assert_eq!(Scope::parse_all(many.iter().map(String::as_str)).len(), SCOPES_MAX);
    }
}
