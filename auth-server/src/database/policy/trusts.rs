//! The rows of trusts, read into values.

use std::collections::BTreeMap;

use berth_shared::subject::RobotName;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::super::{Error, row::parse};
use crate::trust::{InlineKeys, KeySource, Remote, Trust, url::IssuerUrl};

/// Reads every trust, by its name.
pub(super) async fn read(
    connection: &mut SqliteConnection,
) -> Result<BTreeMap<RobotName, Trust>, Error> {
    let rows = sqlx::query(
        "SELECT name, issuer, audience, subject, claims, keys_url, keys, ca, created, last_used
         FROM trusts",
    );
    let rows = rows.fetch_all(connection).await?;
    rows.iter().map(|row| read_trust(row).map(|trust| (trust.name.clone(), trust))).collect()
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
        claims: serde_json::from_str(&claims).map_err(|_| Error::Row(claims))?,
        keys,
        created: row.try_get("created")?,
        last_used: row.try_get("last_used")?,
    })
}
