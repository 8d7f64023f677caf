//! `authctl audit`: what happened.

use std::{
    io::{self, Write},
    slice,
    time::Duration,
};

use auth_server::{
    admin::Admin,
    audit::{EVENTS, Row},
    database::audit::Filter,
};
use berth_shared::{
    clock::{UnixSeconds, rfc3339},
    subject::Grantee,
    telemetry::chain,
};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    report::{Failure, Report, Told, table, warn},
    times,
};

/// Rows that are read at once.
const ROWS_AT_ONCE: u32 = 1000;

/// How often it is tried again while the database does not answer.
const TRY_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked for what has happened.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(after_help = include_str!("help/audit.txt"))]
pub(crate) struct Arguments {
    /// Not before this: an age such as 90m, 1h or 7d, a day, or a time.
    #[arg(long, value_name = "TIME", value_parser = times::past)]
    since: Option<UnixSeconds>,
    /// Before this.
    #[arg(long, value_name = "TIME", value_parser = times::past)]
    until: Option<UnixSeconds>,
    /// Whom it is about: a user, `robot.NAME`, `group:NAME`, `everyone` or `anonymous`.
    #[arg(long)]
    subject: Option<Grantee>,
    /// What happened, such as token.deny; * stands for anything, as in 'login.*'.
    #[arg(long, value_parser = event)]
    event: Option<String>,
    /// The newest so many.
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Every row behind the one of this number, the oldest first, as JSON lines like those of audit.jsonl. Keep
    /// the number of the last: it is where the next call goes on, and a row that is still there is told once, but for a batch whose
    /// commit the database did not confirm.
    #[arg(long, value_name = "ID", conflicts_with_all = ["since", "until", "subject", "event", "limit"])]
    after: Option<i64>,
    /// Go on with what happens from now on, until this is ended; without --after that is all.
    #[arg(long, conflicts_with_all = ["since", "until", "subject", "event", "limit"])]
    follow: bool,
}

/// Reads an event's word, or several by `*`.
fn event(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_' | b'*');
    if text.bytes().all(is_plain) && EVENTS.iter().any(|event| matches(text, event)) {
        Ok(text.to_owned())
    } else {
        Err(format!("there is no event {text:?}; there are {}", EVENTS.join(", ")))
    }
}

/// Whether `*` of the pattern, standing for anything, makes it the word.
fn matches(pattern: &str, word: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == word,
        Some((head, rest)) => word
            .strip_prefix(head)
            .is_some_and(|word| (0..=word.len()).any(|skipped| matches(rest, &word[skipped..]))),
    }
}

pub(crate) async fn run(arguments: &Arguments, admin: &Admin) -> Told {
    let Arguments { since, until, subject, event, limit, after, follow } = arguments;
    if after.is_some() || *follow {
        return tell(*after, *follow, admin).await;
    }
    let subject = subject.as_ref().map(ToString::to_string);
    let filter = Filter { since: *since, until: *until, subject, event: event.clone() };
    let database = admin.database().await?;
    // One more shows whether there are more.
    let mut rows = database.list_rows(&filter, limit.saturating_add(1)).await?;
    if rows.len() > *limit as usize {
        rows.remove(0);
        warn(&format!("there are older ones: these are the newest {limit}; see --limit, --until"));
    }
    let text = if rows.is_empty() { nothing(&filter, admin) } else { show(&rows) };
    Ok(Report::done(text, json!(rows)))
}

/// Prints rows as they are written down.
async fn tell(after: Option<i64>, follow: bool, admin: &Admin) -> Told {
    let database = admin.database().await?;
    let newest = async || {
        let rows = database.list_rows(&Filter::default(), 1).await?;
        Ok::<_, Failure>(rows.last().map_or(0, |row| row.id))
    };
    let mut last = match after {
        Some(id) => id,
        None => newest().await?,
    };
    loop {
        // The look finds whether it is the same database still: one may have been put in its place.
        let looked = database.policy().await.map(drop);
        let rows = match looked.and(database.rows_after(last, ROWS_AT_ONCE).await) {
            Err(error) if follow && !error.stays() => {
                warn(&format!("{}: it is tried again", chain(&error)));
                sleep(TRY_INTERVAL).await;
                continue;
            }
            rows => rows?,
        };
        let lines: String = rows.iter().map(Row::line).collect();
        if let Err(error) =
            io::stdout().write_all(lines.as_bytes()).and_then(|()| io::stdout().flush())
        {
            return match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(Report::done("", Value::Null)),
                _ => Err(error.into()),
            };
        }
        last = rows.last().map_or(last, |row| row.id);
        if rows.len() < ROWS_AT_ONCE as usize {
            if !follow {
                return Ok(Report::done("", Value::Null));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Says what might have been expected.
fn nothing(filter: &Filter, admin: &Admin) -> String {
    let mut parts = Vec::new();
    parts.extend(filter.event.as_ref().map(|event| format!("of {event}")));
    parts.extend(filter.subject.as_ref().map(|subject| format!("about {subject}")));
    parts.extend(filter.since.map(|since| format!("since {}", rfc3339(since))));
    parts.extend(filter.until.map(|until| format!("until {}", rfc3339(until))));
    let mut text = match parts.as_slice() {
        [] => "nothing has been recorded yet".to_owned(),
        parts => format!("nothing is recorded {}", parts.join(" ")),
    };
    let is_about_tokens = filter.event.as_ref().is_none_or(|event| matches(event, "token.issue"));
    if !admin.config.audit.issue && is_about_tokens {
        text.push_str(
            "\ntokens that were given as asked for are not: [audit] in auth.toml has issue = false",
        );
    }
    text
}

fn show(rows: &[Row]) -> String {
    let object = |row: &Row| {
        let (at, what, by) = (rfc3339(row.at), what(row), by(row));
        json!({ "at": at, "event": row.event, "subject": row.subject, "what": what, "by": by })
    };
    let objects: Vec<_> = rows.iter().map(object).collect();
    let headings = ["TIME", "EVENT", "SUBJECT", "WHAT", "BY"];
    table(headings, ["at", "event", "subject", "what", "by"], "-", &objects)
}

fn text<'a>(row: &'a Row, key: &str) -> Option<&'a str> {
    row.detail.get(key).and_then(Value::as_str)
}

/// What is known of an event, in a few words.
fn what(row: &Row) -> String {
    let mut words = Vec::new();
    if let (Some(pattern), Some(actions)) = (text(row, "pattern"), text(row, "actions")) {
        words.push(format!("{pattern}:{actions}"));
    }
    if let (Some(asked), Some(given)) = (scopes(row, "requested"), scopes(row, "granted")) {
        words.push(match (row.event.as_str(), asked.is_empty(), given.is_empty()) {
            ("token.deny", _, true) => format!("{asked}: nothing of it"),
            ("token.deny", _, false) => format!("{asked}: only {given}"),
            (_, true, _) => "a sign-in".to_owned(),
            _ => given,
        });
    }
    words.extend(text(row, "group").map(|group| format!("group:{group}")));
    words.extend(text(row, "reason").map(str::to_owned));
    words.extend(text(row, "name_tag").map(|tag| format!("(a name that nobody has, tag {tag})")));
    for (key, one, rest) in [("lost", "event", "lost"), ("rules", "rule", "of that name")] {
        let number = row.detail.get(key).and_then(Value::as_u64);
        words.extend(number.map(|n| format!("{n} {one}{} {rest}", if n == 1 { "" } else { "s" })));
    }
    for (key, before) in [
        ("key_id", "key"),
        ("issuer", "by"),
        ("made", "the backup of"),
        ("expires", "until"),
        ("step", "step"),
    ] {
        words.extend(text(row, key).map(|value| format!("{before} {value}")));
    }
    words.extend(refresh_tokens(row));
    words.join(" ")
}

/// Which refresh tokens it is about, as `authctl refresh-tokens` calls them.
fn refresh_tokens(row: &Row) -> Option<String> {
    let one = row.detail.get("refresh_token").map(slice::from_ref);
    let ids = one.or_else(|| Some(row.detail.get("refresh_tokens")?.as_array()?.as_slice()))?;
    let s = if ids.len() == 1 { "" } else { "s" };
    let ids: Vec<_> = ids.iter().map(Value::to_string).collect();
    Some(format!("refresh token{s} {}", ids.join(", ")))
}

/// Scopes, without the word that nearly all begin with.
fn scopes(row: &Row, key: &str) -> Option<String> {
    let list = row.detail.get(key)?.as_array()?;
    let short = |scope: &Value| {
        let scope = scope.as_str().unwrap_or_default();
        scope.strip_prefix("repository:").unwrap_or(scope).to_owned()
    };
    Some(list.iter().map(short).collect::<Vec<_>>().join(" "))
}

/// Who did it, or from where it was asked for.
fn by(row: &Row) -> String {
    match (&row.actor, text(row, "sudo_user")) {
        (Some(actor), Some(claimed)) => format!("{actor} (sudo by {claimed})"),
        (Some(actor), None) => actor.clone(),
        (None, _) => {
            let parts = [text(row, "client"), text(row, "client_id").or(text(row, "user_agent"))];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_in_a_few_words() {
        for (event, detail, expected) in [
            ("grant.add", json!({"pattern": "a", "actions": "pull"}), "a:pull"),
            ("token.issue", json!({"requested": [], "granted": []}), "a sign-in"),
            (
                "token.deny",
                json!({"requested": ["repository:a:pull,push"], "granted": ["repository:a:pull"]}),
                "a:pull,push: only a:pull",
            ),
            (
                "token.deny",
                json!({"requested": ["repository:a:pull"], "granted": []}),
                "a:pull: nothing of it",
            ),
            ("user.remove", json!({"rules": 2}), "2 rules of that name"),
            ("user.remove", json!({"rules": 1}), "1 rule of that name"),
            ("trust.add", json!({"issuer": "https://a.test"}), "by https://a.test"),
            ("refresh.issue", json!({"refresh_token": 3}), "refresh token 3"),
            ("refresh.revoke", json!({"refresh_tokens": [3]}), "refresh token 3"),
            ("refresh.revoke", json!({"refresh_tokens": [3, 4]}), "refresh tokens 3, 4"),
            ("user.add", json!({}), ""),
        ] {
            let detail = detail.as_object().cloned().unwrap();
            let event = event.to_owned();
            let row = Row {
                id: 1,
                at: UnixSeconds::new(0),
                event,
                subject: None,
                actor: None,
                detail,
                ring: String::new(),
            };
            assert_eq!(what(&row), expected);
        }
    }

    #[test]
    fn events_are_known_words_or_patterns_of_them() {
        for good in ["token.deny", "login.*", "*", "*.add", "*e*n*"] {
            assert_eq!(event(good), Ok(good.to_owned()));
        }
        for bad in ["", "token", "login.?", "[a-z]*", "login.*x", "Login.*"] {
            assert!(event(bad).unwrap_err().contains("token.issue"), "{bad}");
        }
    }
}
