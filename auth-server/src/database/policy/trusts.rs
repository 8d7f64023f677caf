//! The rows of trusts, read into values.

use std::collections::BTreeMap;

use berth_shared::{
    database::{self, Column, Connection, Record, Row, Statements, text},
    subject::RobotName,
};

use super::super::{Error, row::parse};
use crate::trust::{
    ExpectedAudience, InlineKeys, KeySource, Remote, Trust, pattern::SubjectPattern, url::IssuerUrl,
};

text!(IssuerUrl::as_str, ExpectedAudience::as_str, SubjectPattern::as_str);

/// Reads every trust, by its name.
pub(super) async fn read(
    connection: &mut Connection<'_>,
) -> Result<BTreeMap<RobotName, Trust>, Error> {
    let statement =
        "SELECT name, issuer, audience, subject, claims, keys_url, keys, ca, created, last_used
         FROM trusts";
    let trusts: Vec<Trust> = connection.all(statement, ()).await?;
    Ok(trusts.into_iter().map(|trust| (trust.name.clone(), trust)).collect())
}

impl Row for Trust {
    fn of(row: &Record) -> Result<Self, database::Error> {
        let issuer = IssuerUrl::at(row, "issuer")?;
        let keys = if let Some(keys) = Option::<String>::at(row, "keys")? {
            KeySource::Inline(parse::<InlineKeys>(keys)?)
        } else {
            let (issuer, keys_url) = (issuer.clone(), Column::at(row, "keys_url")?);
            let ca = Option::<String>::at(row, "ca")?.map(Into::into);
            KeySource::Remote(Box::new(Remote { issuer, keys_url, ca }))
        };
        let claims = String::at(row, "claims")?;
        Ok(Self {
            name: Column::at(row, "name")?,
            issuer,
            audience: Column::at(row, "audience")?,
            subject: Column::at(row, "subject")?,
            claims: serde_json::from_str(&claims).map_err(|_| database::Error::Corrupt(claims))?,
            keys,
            created: Column::at(row, "created")?,
            last_used: Column::at(row, "last_used")?,
        })
    }
}
