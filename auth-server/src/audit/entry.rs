//! What a client caused: one entry per request for a token.

use std::net::IpAddr;

use berth_shared::{clock::UnixSeconds, scope::Scope, subject::Subject};
use serde_json::{Map, Value};

use crate::issue::Withheld;

/// How much of a `User-Agent` is kept, in bytes.
const USER_AGENT_BYTES_MAX: usize = 128;

/// How much of a `client_id` is kept, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 64;

/// How much of a list of scopes is kept, in bytes, so that nobody fills the disk with the longest
/// requests; how many were left out is told.
const SCOPES_BYTES_MAX: usize = 1024;

/// A row that is to be written. Nobody acted on the machine, so it has no actor.
#[derive(Debug, Clone)]
pub struct Entry {
    at: UnixSeconds,
    event: &'static str,
    subject: Option<String>,
    /// What else is known, as an object of JSON.
    detail: Map<String, Value>,
}

/// Where a request came from, as far as it says so. What the client says of itself is cut to a
/// bound, and to what a terminal may be shown.
#[derive(Debug, Clone, Default)]
pub struct Source(Map<String, Value>);

impl Source {
    /// From the client's address, the parameter `client_id` and the header `User-Agent`.
    pub fn new(client: Option<IpAddr>, client_id: Option<&str>, user_agent: Option<&str>) -> Self {
        Self::default()
            .with("client", client.map(|client| client.to_canonical().to_string()))
            .with("client_id", client_id.map(shown_client_id))
            .with("user_agent", user_agent.map(|agent| printable(agent, USER_AGENT_BYTES_MAX)))
    }

    /// What is known beside it; nothing where `value` is none.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.0.insert(name.to_owned(), value);
        }
        self
    }
}

impl Entry {
    /// `token.issue`, or `token.deny` when less was given than asked for: `detail` says what was.
    pub fn token(at: UnixSeconds, subject: &Subject, withheld: Withheld, detail: Source) -> Self {
        let event = match withheld {
            Withheld::Nothing => "token.issue",
            Withheld::Part | Withheld::Everything => "token.deny",
        };
        Self { at, event, subject: Some(subject.to_string()), detail: detail.0 }
    }

    /// `login.fail`. `known` is the user or robot of the name that was shown, `name_tag` stands for
    /// a name that nobody has.
    pub fn login_fail(
        at: UnixSeconds,
        reason: &'static str,
        known: Option<&Subject>,
        name_tag: Option<String>,
        source: Source,
    ) -> Self {
        let detail = source.with("reason", reason).with("name_tag", name_tag).0;
        Self { at, event: "login.fail", subject: known.map(ToString::to_string), detail }
    }

    /// The same, where a password was checked for it, and not only looked up: such a row is kept apart
    /// from those that cost nothing to cause.
    #[must_use]
    pub fn checked(mut self, is_checked: bool) -> Self {
        if is_checked {
            self.detail.insert("checked".to_owned(), true.into());
        }
        self
    }

    /// `login.busy`: a sign-in that was turned away before its password was looked at.
    pub fn login_busy(
        at: UnixSeconds,
        known: Option<&Subject>,
        name_tag: Option<String>,
        source: Source,
    ) -> Self {
        let reason = "too many password checks, or guesses, are waiting";
        Self { event: "login.busy", ..Self::login_fail(at, reason, known, name_tag, source) }
    }

    /// `refresh.issue`: a refresh token was given out; `id` is what `authctl refresh-tokens` calls
    /// it.
    pub fn refresh_issue(at: UnixSeconds, subject: &Subject, id: i64, source: Source) -> Self {
        let detail = source.with("refresh_token", id).0;
        Self { at, event: "refresh.issue", subject: Some(subject.to_string()), detail }
    }

    /// `audit.gap`: so many entries before this one were lost.
    pub fn gap(at: UnixSeconds, lost: u64) -> Self {
        let detail = Source::default().with("lost", lost).0;
        Self { at, event: "audit.gap", subject: None, detail }
    }

    /// What its row has: when it happened, what, whom it is about, and as an object of JSON what else is
    /// known.
    pub(crate) fn values(&self) -> serde_json::Result<(UnixSeconds, &str, Option<&str>, String)> {
        let detail = serde_json::to_string(&self.detail)?;
        Ok((self.at, self.event, self.subject.as_deref(), detail))
    }

    /// Whether a password was checked for it.
    pub(crate) fn is_checked(&self) -> bool {
        self.detail.contains_key("checked")
    }

    /// Whether everything was as the client asked for it.
    pub(crate) fn is_issue(&self) -> bool {
        self.event == "token.issue"
    }
}

/// What is kept of a list of scopes.
pub(crate) fn list(scopes: &[Scope]) -> Vec<String> {
    let mut list = Vec::with_capacity(scopes.len().min(4));
    let mut bytes = 0;
    for (index, scope) in scopes.iter().enumerate() {
        let text = scope.to_string();
        bytes += text.len();
        if bytes > SCOPES_BYTES_MAX {
            list.push(format!("and {} more", scopes.len() - index));
            break;
        }
        list.push(text);
    }
    list
}

/// What is kept of the name that a client gives itself: it is shown to people, and used for nothing.
pub(crate) fn shown_client_id(id: &str) -> String {
    printable(id, CLIENT_ID_BYTES_MAX)
}

fn printable(text: &str, bytes_max: usize) -> String {
    let shown = |byte: u8| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' };
    text.bytes().take(bytes_max).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_say_is_bounded_and_harmless_to_show() {
        assert_eq!(printable("docker/28 \u{1b}[2J\n", 128), "docker/28 ?[2J?");
        assert_eq!(printable(&"x".repeat(200), USER_AGENT_BYTES_MAX).len(), USER_AGENT_BYTES_MAX);
        assert_eq!(shown_client_id("a\u{202e}b"), "a???b");
        assert_eq!(shown_client_id(&"x".repeat(65)), "x".repeat(64));
        let scope = |n| Scope::parse(&format!("repository:{}{n:02}:pull", "a".repeat(200)));
        let scopes: Vec<_> = (0..50).filter_map(scope).collect();
        let list = list(&scopes);
        assert_eq!((list.len(), list[4].as_str()), (5, "and 46 more"));
    }
}
