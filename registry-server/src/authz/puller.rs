//! What a token's subject may pull beyond what the token says, for mounts.

use berth_shared::{action::Action, name::RepositoryName, token::VerifiedToken};

use super::{Authorizer, permit::Permit};
use crate::reach::Reach;

/// Decides whether a subject may pull from a repository that its token does not mention.
pub(crate) struct Puller<'a> {
    pub(super) authorizer: &'a Authorizer,
    pub(super) token: &'a VerifiedToken,
}

impl Puller<'_> {
    /// The permit to pull from this one, if the subject may.
    pub(crate) async fn permit(&self, repository: &RepositoryName) -> Option<Permit> {
        let permit = || Permit::new(self.token.subject.clone(), repository.clone());
        self.may(repository).await.then(permit)
    }

    async fn may(&self, repository: &RepositoryName) -> bool {
        if self.token.claims.allows(repository, Action::Pull) {
            return true;
        }
        let now = self.authorizer.clock.now();
        let rights = self.authorizer.issuer.rights(&self.token.subject).await;
        rights.is_some_and(|rights| rights.actions_on(repository, now).contains(Action::Pull))
    }

    /// What the subject may pull anywhere, by its token and by its rights as they are now; where
    /// nobody can say those, by the token alone.
    pub(crate) async fn reach(&self) -> Reach {
        let rights = self.authorizer.issuer.rights(&self.token.subject).await;
        let now = self.authorizer.clock.now();
        let reach = rights.map_or_else(Reach::default, |rights| Reach::of(&rights, now));
        reach.with(self.token.claims.pullable())
    }
}
