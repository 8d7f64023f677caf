//! The rules and counters as they were at one moment.

use std::{collections::HashMap, str::FromStr};

use berth_shared::{
    link::Revocations,
    rights::{Rights, Rule},
    subject::Grantee,
};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};

use super::Error;

/// Everything that the database says, read in one transaction.
#[derive(Debug, Default)]
pub struct Policy {
    /// How often something was taken away from anybody; see [`crate::acl`].
    pub sequence: u64,
    /// The counters to publish.
    pub revocations: Revocations,
    rules: HashMap<Grantee, Vec<Rule>>,
}

impl Policy {
    /// The rules that name any of `grantees`.
    #[must_use]
    pub fn rights(&self, grantees: impl IntoIterator<Item = Grantee>) -> Rights {
        let rules = grantees.into_iter().filter_map(|grantee| self.rules.get(&grantee));
        Rights { rules: rules.flatten().cloned().collect() }
    }

    /// Every rule, in the order of grantee and pattern.
    #[must_use]
    pub fn rules(&self) -> Vec<&Rule> {
        let mut rules: Vec<_> = self.rules.values().flatten().collect();
        rules.sort_by(|a, b| {
            (&a.grantee, &a.pattern, a.expires).cmp(&(&b.grantee, &b.pattern, b.expires))
        });
        rules
    }

    /// Reads everything in one transaction, so that rules and counters belong together.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, Error> {
        let mut transaction = connection.begin().await?;
        let sequence =
            sqlx::query("SELECT value FROM sequence").fetch_one(&mut *transaction).await?;
        let mut policy = Self { sequence: count(&sequence, "value")?, ..Self::default() };
        let counters = sqlx::query("SELECT grantee, counter FROM counters");
        for row in counters.fetch_all(&mut *transaction).await? {
            let grantee = parse(&row, "grantee")?;
            policy.revocations.counters.insert(grantee, count(&row, "counter")?);
        }
        let grants = sqlx::query("SELECT grantee, pattern, actions, expires FROM grants");
        for row in grants.fetch_all(&mut *transaction).await? {
            let rule = read_rule(&row)?;
            policy.rules.entry(rule.grantee.clone()).or_default().push(rule);
        }
        transaction.commit().await?;
        Ok(policy)
    }
}

/// Reads a row of `grants`.
pub(super) fn read_rule(row: &SqliteRow) -> Result<Rule, Error> {
    Ok(Rule {
        grantee: parse(row, "grantee")?,
        pattern: parse(row, "pattern")?,
        actions: parse(row, "actions")?,
        expires: row.try_get("expires")?,
    })
}

/// Reads a value with a grammar. What does not parse stops everything: to skip a row would be to
/// guess at what somebody may do.
fn parse<T: FromStr>(row: &SqliteRow, column: &str) -> Result<T, Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| Error::Row(text))
}

/// Reads a counter; the database has signed integers only.
pub(super) fn count(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| Error::Row(value.to_string()))
}
