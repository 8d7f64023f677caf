//! The rules, groups, robots and counters as they were at one moment.

pub mod robots;
mod trusts;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use berth_shared::{
    auth_api::Revocations,
    database::{Connection, Statements},
    rights::{Effect, Rights, Rule},
    subject::{Grantee, GroupName, RobotName, Subject},
};
use sqlx::{Connection as _, SqliteConnection};

use self::robots::Robots;
use super::{
    Error,
    row::{Grant, Member},
    sealed_key::SealedKey,
    user_hashes::UserHashes,
};
use crate::trust::Trust;

/// Everything that the database says, read in one transaction.
#[derive(Debug, Default)]
pub struct Policy {
    /// How often something was taken away from anybody; see [`crate::database`].
    pub sequence: u64,
    /// The counters to publish.
    pub revocations: Revocations,
    /// Who is in each group.
    pub groups: BTreeMap<GroupName, BTreeSet<Subject>>,
    /// The robots that can sign in.
    pub robots: Robots,
    /// The machines that sign in with tokens of other issuers.
    pub trusts: BTreeMap<RobotName, Trust>,
    /// The users with their hashes, as they stand in an htpasswd file, where the database has them.
    pub users: Option<UserHashes>,
    /// The signing keys, where the database has them.
    pub signing_keys: Vec<SealedKey>,
    rules: HashMap<Grantee, Vec<Rule>>,
}

impl Policy {
    /// What `subject` may do: every rule that names it, one of its groups, `everyone` or
    /// `anonymous`, with its own name where `${user}` stands.
    #[must_use]
    pub fn rights(&self, subject: &Subject) -> Rights {
        let rules = self.rules_for(subject);
        Rights { rules: rules.filter_map(|rule| rule.for_user(subject.user())).collect() }
    }

    /// The rules that [`rights`](Self::rights) are made of, as they were written.
    pub fn rules_for(&self, subject: &Subject) -> impl Iterator<Item = &Rule> {
        let grantees: Vec<_> = subject.grantees().chain(self.groups_of(subject)).collect();
        grantees.into_iter().filter_map(|grantee| self.rules.get(&grantee)).flatten()
    }

    /// The rules that name exactly `grantee`.
    #[must_use]
    pub fn rules_naming(&self, grantee: &Grantee) -> &[Rule] {
        self.rules.get(grantee).map_or(&[], Vec::as_slice)
    }

    /// Every rule, in the order of grantee and pattern.
    #[must_use]
    pub fn rules(&self) -> Vec<&Rule> {
        let mut rules: Vec<_> = self.rules.values().flatten().collect();
        rules.sort();
        rules
    }

    /// How many rules have this effect.
    #[must_use]
    pub fn rule_count(&self, effect: Effect) -> usize {
        self.rules.values().flatten().filter(|rule| rule.effect == effect).count()
    }

    /// The groups that `subject` is in.
    pub fn groups_of(&self, subject: &Subject) -> impl Iterator<Item = Grantee> {
        let is_in =
            move |(_, members): &(&GroupName, &BTreeSet<Subject>)| members.contains(subject);
        self.groups.iter().filter(is_in).map(|(group, _)| Grantee::Group(group.clone()))
    }

    /// Reads everything in one transaction, so that rules and counters belong together.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, Error> {
        let mut transaction = connection.begin().await?;
        let policy = Self::within(&mut Connection::Sqlite(&mut transaction)).await?;
        transaction.commit().await?;
        Ok(policy)
    }

    /// Reads everything within a transaction that has begun.
    pub(super) async fn within(connection: &mut Connection<'_>) -> Result<Self, Error> {
        let sequence = sequence(connection).await?;
        let revocations = Revocations { sequence, ..Revocations::default() };
        let mut policy = Self { sequence, revocations, ..Self::default() };
        let counters = "SELECT grantee, counter FROM counters";
        let counters: Vec<(Grantee, u64)> = connection.all(counters, ()).await?;
        policy.revocations.counters.extend(counters);
        let grants = "SELECT grantee, pattern, effect, actions, expires FROM grants";
        for Grant(rule) in connection.all(grants, ()).await? {
            policy.rules.entry(rule.grantee.clone()).or_default().push(rule);
        }
        let members = "SELECT group_name, member FROM group_members";
        let members: Vec<(GroupName, Member)> = connection.all(members, ()).await?;
        for (group, Member(member)) in members {
            policy.groups.entry(group).or_default().insert(member);
        }
        policy.robots = Robots::read(connection).await?;
        policy.trusts = trusts::read(connection).await?;
        Ok(policy)
    }
}

/// How often something was taken away from anybody.
pub(super) async fn sequence(connection: &mut Connection<'_>) -> Result<u64, Error> {
    Ok(connection.one("SELECT value FROM sequence", ()).await?)
}
