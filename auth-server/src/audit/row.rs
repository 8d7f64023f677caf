//! A row of the audit as it is read back, and its line of JSON.

use berth_shared::{
    clock::{UnixSeconds, as_rfc3339},
    shown,
};
use serde::Serialize;
use serde_json::{Map, Value};

/// What happened, and when. As JSON its detail stands beside the rest, not in an object of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its place in the order of what happened.
    pub id: i64,
    /// When.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: UnixSeconds,
    /// What: one of [`EVENTS`](super::EVENTS), or a word of a later version.
    pub event: String,
    /// Whom it is about; nobody's name where a client showed one that nobody has.
    pub subject: Option<String>,
    /// Who did it, where somebody with access to the machine did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// What else is known.
    #[serde(flatten)]
    pub detail: Map<String, Value>,
    /// The ring that it is kept in: what the table says, and nobody is told. `act` is for acts of
    /// administration, which no client can cause; `guess` for guesses at a user's password, which
    /// come no faster than passwords are checked: all other failures come as often as somebody likes.
    /// `busy` is for sign-ins that were turned away, for which nothing was looked at.
    #[serde(skip)]
    pub ring: String,
}

impl Row {
    /// The row as a line of JSON, with its end.
    pub fn line(&self) -> String {
        format!("{}\n", shown::json(&serde_json::to_string(self).unwrap_or_default()))
    }
}
