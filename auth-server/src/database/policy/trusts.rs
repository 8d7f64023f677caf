//! The trusts, as the policy knows them.

use std::collections::BTreeMap;

use berth_shared::subject::RobotName;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::super::{Error, row::parse};
use crate::trust::{InlineKeys, KeySource, Remote, RequiredClaims, Trust, url::IssuerUrl};

/// Every trust, by its name.
#[derive(Debug, Default)]
pub struct Trusts(BTreeMap<RobotName, Trust>);

impl Trusts {
    /// Every trust, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Trust> {
        self.0.values()
    }

    /// The trust of this name.
    #[must_use]
    pub fn get(&self, name: &RobotName) -> Option<&Trust> {
        self.0.get(name)
    }

    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, Error> {
        let rows = sqlx::query(
            "SELECT name, issuer, audience, subject, claims, keys_url, keys, ca, created, last_used
             FROM trusts",
        );
        let mut trusts = BTreeMap::new();
        for row in rows.fetch_all(connection).await? {
            let trust = read_trust(&row)?;
            trusts.insert(trust.name.clone(), trust);
        }
        Ok(Self(trusts))
    }
}

fn read_trust(row: &SqliteRow) -> Result<Trust, Error> {
    let issuer: IssuerUrl = parse(row, "issuer")?;
    let keys = if row.try_get::<Option<String>, _>("keys")?.is_some() {
        KeySource::Inline(parse::<InlineKeys>(row, "keys")?)
    } else {
        let keys_url: Option<String> = row.try_get("keys_url")?;
        let keys_url = keys_url.map(|url| url.parse().map_err(|_| Error::Row(url)));
        let ca: Option<String> = row.try_get("ca")?;
        let (issuer, keys_url) = (issuer.clone(), keys_url.transpose()?);
        KeySource::Remote(Box::new(Remote { issuer, keys_url, ca: ca.map(Into::into) }))
    };
    let claims: String = row.try_get("claims")?;
    Ok(Trust {
        name: parse(row, "name")?,
        issuer,
        audience: parse(row, "audience")?,
        subject: parse(row, "subject")?,
        claims: RequiredClaims::from_json(&claims).ok_or(Error::Row(claims))?,
        keys,
        created: row.try_get("created")?,
        last_used: row.try_get("last_used")?,
    })
}
