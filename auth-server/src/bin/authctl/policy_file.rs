//! `authctl policy`: every rule and group as a file, for people who keep it in git.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
};

use auth_server::{
    admin::{Admin, policy},
    database::{
        apply::{Changes, Desired},
        policy::Policy,
    },
};
use berth_shared::{
    clock::{UnixSeconds, rfc3339},
    rights::Effect,
    subject::{Grantee, GroupName, Subject},
};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};
use toml::Spanned;

use crate::{
    grant_text::{GrantText, json_rules, write},
    group::member,
    report::{Failure, Report, Told, warn, warn_of},
    times,
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Write all rules and groups to standard output.
    Export,
    /// Add what a file has and the server has not; nothing is changed when the file is not valid.
    #[command(after_help = include_str!("help/policy-apply.txt"))]
    Apply {
        /// The file; - is standard input.
        file: PathBuf,
        /// Take away what the file does not have.
        #[arg(long)]
        prune: bool,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// A policy file, before its texts are read: each knows where it stands.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    groups: Table,
    allow: Table,
    deny: Table,
}

type Table = BTreeMap<Spanned<String>, Vec<Spanned<String>>>;

/// Reads a whole policy file; an error names its line.
fn parse(text: &str) -> Result<Desired, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut desired = Desired::default();
    for (group, members) in &file.groups {
        let members = members.iter().map(|name| read(text, name, member));
        desired.groups.insert(read(text, group, str::parse)?, members.collect::<Result<_, _>>()?);
    }
    for (table, effect) in [(&file.allow, Effect::Allow), (&file.deny, Effect::Deny)] {
        for (grantee, entries) in table {
            let grantee: Grantee = read(text, grantee, str::parse)?;
            for entry in entries {
                let (what, expires) = read(text, entry, entry_of_rule)?;
                desired.rules.push(what.rule(&grantee, effect, expires));
            }
        }
    }
    Ok(desired)
}

/// Reads one text of the file.
fn read<T, E: Display>(
    file: &str,
    text: &Spanned<String>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, String> {
    parse(text.get_ref()).map_err(|error| {
        let line = 1 + file[..text.span().start].matches('\n').count();
        format!("line {line}: {:?}: {error}", text.get_ref())
    })
}

/// `REPO:ACTIONS`, or that with ` until ` and a day or a time of RFC 3339.
fn entry_of_rule(text: &str) -> Result<(GrantText, Option<UnixSeconds>), String> {
    let Some((grant, end)) = text.split_once(" until ") else { return Ok((text.parse()?, None)) };
    let end = times::moment(end)
        .ok_or_else(|| format!("{end:?} is no time such as 2027-01-31T00:00:00Z"))?;
    Ok((grant.parse()?, Some(end)))
}

pub(crate) async fn run(verb: Verb, admin: &Admin) -> Told {
    match verb {
        Verb::Export => {
            let (text, json) = export(&*admin.policy().await?, admin.now());
            Ok(Report::done(text.trim_end(), json))
        }
        Verb::Apply { file, prune, dry_run } => apply(&file, prune, dry_run, admin).await,
    }
}

async fn apply(path: &Path, prune: bool, dry_run: bool, admin: &Admin) -> Told {
    let text = if path == Path::new("-") {
        io::read_to_string(io::stdin())
    } else {
        fs::read_to_string(path)
    };
    let shown = path.display();
    let text = text.map_err(|error| Failure::refused(format!("reading {shown}: {error}")))?;
    let mut desired = parse(&text)
        .map_err(|error| Failure::refused(format!("{shown}: nothing was changed: {error}")))?;
    for rule in policy::leave_out_ended(admin, &mut desired) {
        warn(&format!("{shown}: left out, since it has ended: {}", write(&rule)));
    }
    warn_of(&policy::warnings(admin, &desired).await?);
    let changes = policy::apply(admin, &desired, prune, dry_run).await?;
    let mut lines = show(&changes);
    lines.push(match (changes.is_empty(), dry_run) {
        (true, _) => "nothing to change".to_owned(),
        (false, true) => "nothing was changed: this was a dry run".to_owned(),
        (false, false) => "applied".to_owned(),
    });
    let pair = |(group, member): &(GroupName, Subject)| json!({ "group": group, "member": member.to_string() });
    let json = json!({
        "added": json_rules(&changes.added),
        "removed": json_rules(&changes.removed),
        "joined": changes.joined.iter().map(pair).collect::<Value>(),
        "left": changes.left.iter().map(pair).collect::<Value>(),
        "dry_run": dry_run,
    });
    Ok(Report::done(lines.join("\n"), json))
}

/// The difference, a line each, as `diff` marks it.
fn show(changes: &Changes) -> Vec<String> {
    let mut lines = Vec::new();
    for (sign, pairs) in [("-", &changes.left), ("+", &changes.joined)] {
        lines.extend(
            pairs.iter().map(|(group, member)| format!("{sign} {member} in group:{group}")),
        );
    }
    for (sign, rules) in [("-", &changes.removed), ("+", &changes.added)] {
        lines.extend(rules.iter().map(|rule| format!("{sign} {}", write(rule))));
    }
    lines
}

/// The whole policy as a file that `apply` reads, in one order, and as JSON of the same form. An
/// entry is on a line of its own, so that a change is a line in a diff.
fn export(policy: &Policy, now: UnixSeconds) -> (String, Value) {
    let mut tables: [BTreeMap<String, Vec<String>>; 3] = Default::default();
    let [groups, allow, deny] = &mut tables;
    for (group, members) in &policy.groups {
        groups.insert(group.to_string(), members.iter().map(ToString::to_string).collect());
    }
    for rule in policy.rules().into_iter().filter(|rule| rule.holds_at(now)) {
        let table = if rule.effect == Effect::Allow { &mut *allow } else { &mut *deny };
        let end = rule.expires.map(|end| format!(" until {}", rfc3339(end))).unwrap_or_default();
        let entry = format!("{}:{}{end}", rule.pattern, rule.actions);
        table.entry(rule.grantee.to_string()).or_default().push(entry);
    }
    let json = json!({ "groups": groups, "allow": allow, "deny": deny });
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut text = String::new();
    for (name, table) in ["groups", "allow", "deny"].iter().zip(&tables) {
        text.push_str(&format!("[{name}]\n"));
        for (key, entries) in table {
            let lines: String =
                entries.iter().map(|entry| format!("    {},\n", quoted(entry))).collect();
            text.push_str(&format!("{} = [\n{lines}]\n", quoted(key)));
        }
        text.push('\n');
    }
    (text, json)
}

#[cfg(test)]
mod tests {
    use auth_server::{audit::Author, config::Config};
    use berth_shared::clock::Clock;

    use super::*;

    #[test]
    fn a_file_that_is_not_valid_is_refused_with_its_line() {
        for (text, line, hint) in [
            ("[allow]\nandrew = [\"team/app\"]", "line 2", "names no actions"),
            ("[allow]\n\nandrew = [\"a:pull\",\n\"Team:pull\"]", "line 4", "lower case"),
            ("[allow]\nandrew = [\"a:pull until friday\"]", "line 2", "no time"),
            ("[allow]\n\"a b\" = [\"a:pull\"]", "line 2", "not a name"),
            ("[groups]\ndevs = [\"anonymous\"]", "line 2", "reserved"),
            ("[grants]\nandrew = [\"a:pull\"]", "line 1", "grants"),
            ("[allow\n", "line 1", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(line) && error.contains(hint), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn a_file_with_one_bad_line_changes_nothing_and_a_good_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("auth");
        let htpasswd = dir.path().join("htpasswd");
        let config = Config { data, htpasswd, ..Config::default() };
        let admin = Admin::new(config, Author::process(Clock::system()));
        let file = dir.path().join("policy.toml");
        let rules = async || {
            let policy = admin.database().await.unwrap().policy().await.unwrap();
            policy.rules().into_iter().map(write).collect::<Vec<_>>()
        };
        let apply_text = async |text: &str| {
            fs::write(&file, text).unwrap();
            apply(&file, true, false, &admin).await
        };
        apply_text("[allow]\nandrew = [\"a:pull\"]\n").await.unwrap();
        let refused = apply_text("[allow]\nnobody = [\"b:pull\"]\nandrew = [\"a**:pull\"]\n").await;
        let Err(Failure { reason, .. }) = refused else { panic!("it was taken") };
        assert!(reason.contains("nothing was changed") && reason.contains("line 3"), "{reason}");
        assert!(reason.contains("for any depth"), "{reason}");
        assert_eq!(rules().await, ["andrew a:pull"]);
        // What has ended would be added anew with every run.
        apply_text("[allow]\nandrew = [\"a:pull\", \"b:pull until 2020-01-01\"]\n").await.unwrap();
        assert_eq!(rules().await, ["andrew a:pull"]);
        // Nobody is called that, which is for a warning only.
        apply_text("[allow]\nnobody = [\"b:pull\"]\n").await.unwrap();
        assert_eq!(rules().await, ["nobody b:pull"]);
    }
}
