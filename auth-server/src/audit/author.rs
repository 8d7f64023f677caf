//! Who acts on the database: a person with access to the machine, or the server itself.

use berth_shared::clock::Clock;
use nix::unistd::{Uid, User, getuid};
use serde_json::{Map, Value, json};

/// The longest name of an operating system's user that is written down.
const NAME_BYTES_MAX: usize = 64;

/// What the server calls itself where it has noticed something.
const SERVER: &str = "auth-server";

/// Who acts, and by which clock that is written down.
#[derive(Debug, Clone)]
pub struct Author {
    pub(crate) clock: Clock,
    /// What stands as actor.
    pub(crate) name: String,
    /// What is known of a person beside the name.
    pub(crate) more: Map<String, Value>,
}

impl Author {
    /// The running server.
    pub fn server(clock: Clock) -> Self {
        Self { clock, name: SERVER.to_owned(), more: Map::new() }
    }

    /// Whoever started this process, by number alone.
    pub fn process(clock: Clock) -> Self {
        let uid = getuid();
        let more = Map::from_iter([("uid".to_owned(), json!(uid.as_raw()))]);
        Self { clock, name: format!("uid {uid}"), more }
    }

    /// Who started this process, which carries out `verb`. To be asked before the process becomes
    /// another user. Who called sudo is what the environment claims, and stands beside the name.
    pub fn person(clock: Clock, verb: &str, sudo_user: Option<&str>) -> Self {
        let mut author = Self::process(clock);
        if let Some(name) = name_of(getuid()) {
            author.name = name;
        }
        author.more.insert("verb".to_owned(), verb.into());
        if let Some(claimed) = sudo_user.filter(|name| is_writable(name)) {
            author.more.insert("sudo_user".to_owned(), claimed.into());
        }
        author
    }
}

/// What the system calls this user, if it does.
fn name_of(uid: Uid) -> Option<String> {
    let user = User::from_uid(uid).ok().flatten()?;
    Some(user.name).filter(|name| is_writable(name))
}

/// Whether a name is one that a terminal may be shown.
fn is_writable(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_shared::clock::UnixSeconds;

    #[test]
    fn who_called_sudo_is_written_down_when_it_is_a_name() {
        for (claimed, expected) in [
            (Some("andrew"), Some("andrew")),
            (Some(""), None),
            (Some("a\u{1b}[2J"), None),
            (Some(&*"a".repeat(NAME_BYTES_MAX + 1)), None),
            (None, None),
        ] {
            let author = Author::person(Clock::set(UnixSeconds::new(0)), "grant", claimed);
            assert_eq!(author.more.get("sudo_user").and_then(Value::as_str), expected);
            assert_eq!((&author.more["verb"], author.name.is_empty()), (&json!("grant"), false));
        }
    }
}
