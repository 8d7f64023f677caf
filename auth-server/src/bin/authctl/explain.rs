//! `authctl explain`: whether somebody may do something, and which rule decides.

use std::str::FromStr;

use auth_server::{
    admin::{Admin, rules},
    database::policy::Policy,
};
use berth_shared::{
    action::Action,
    name::RepositoryName,
    rights::{Effect, Rule},
    subject::Grantee,
};
use clap::Args;
use serde_json::json;

use crate::{
    grant_text::{json_rules, now, write},
    report::{Report, Told, warn_of},
};

#[derive(Args)]
#[command(after_help = "Exit code 0 if it is allowed, 1 if not.")]
pub(crate) struct Arguments {
    /// A user name, `robot.NAME`, `group:NAME`, `everyone` or `anonymous`.
    #[arg(value_name = "SUBJECT")]
    grantee: Grantee,
    /// One repository and one action, such as team/app:push.
    #[arg(value_name = "REPO:ACTION")]
    question: Question,
}

#[derive(Debug, Clone)]
struct Question {
    repository: RepositoryName,
    action: Action,
}

impl FromStr for Question {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (repository, action) = text.rsplit_once(':').ok_or_else(|| {
            format!("{text:?} names no action: write REPO:ACTION, as in team/app:push")
        })?;
        Ok(Self {
            repository: repository.parse().map_err(|error| format!("{error}"))?,
            action: action.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

pub(crate) async fn run(arguments: &Arguments, admin: &Admin) -> Told {
    warn_of(&rules::warnings(admin, &arguments.grantee, &[]).await?);
    let policy = admin.policy().await?;
    Ok(answer(&arguments.grantee, &arguments.question, &policy))
}

fn answer(grantee: &Grantee, question: &Question, policy: &Policy) -> Report {
    let Question { repository, action } = question;
    let user = if let Grantee::User(name) = grantee { Some(name) } else { None };
    let all = rules::holding_for(policy, grantee);
    let on_it: Vec<&Rule> = all
        .iter()
        .filter(|rule| rule.for_user(user).is_some_and(|rule| rule.pattern.matches(repository)))
        .collect();
    let deciding = |effect| {
        let decides = |rule: &&&Rule| {
            rule.effect == effect && rule.holds_at(now()) && rule.decides().contains(*action)
        };
        on_it.iter().filter(decides).map(|rule| (*rule).clone()).collect::<Vec<_>>()
    };
    let (allows, denies) = (deciding(Effect::Allow), deciding(Effect::Deny));
    let is_no = allows.is_empty() || !denies.is_empty();
    let lines = match (allows.as_slice(), denies.as_slice()) {
        (allows, []) if !allows.is_empty() => {
            let mut lines = vec![format!("yes: {grantee} may {action} {repository}")];
            lines.extend(allows.iter().map(|rule| format!("  by the grant {}", write(rule))));
            lines
        }
        ([], []) => not_allowed(grantee, question, &on_it),
        (_, denies) => denied(grantee, question, denies),
    };
    let deciding = if denies.is_empty() { allows } else { denies };
    let json = json!({
        "allowed": !is_no,
        "subject": grantee,
        "repository": repository,
        "action": action,
        "rules": json_rules(&deciding),
    });
    Report { text: lines.join("\n"), json, is_no }
}

/// Why nothing allows it, and what would.
fn not_allowed(grantee: &Grantee, question: &Question, on_it: &[&Rule]) -> Vec<String> {
    let Question { repository, action } = question;
    let mut lines = vec![format!("no: nothing allows {grantee} to {action} {repository}")];
    for rule in on_it.iter().filter(|rule| rule.effect == Effect::Allow) {
        let shown = write(rule);
        if rule.holds_at(now()) {
            lines.push(format!("  the grant {shown} allows less"));
        } else if rule.decides().contains(*action) {
            lines.push(format!("  the grant {shown} has expired"));
        }
    }
    lines.push(format!("  to allow it: authctl grant {grantee} {repository}:{action}"));
    lines
}

/// What denies it, and what would take that back.
fn denied(grantee: &Grantee, question: &Question, denies: &[Rule]) -> Vec<String> {
    let Question { repository, action } = question;
    let mut lines = vec![format!("no: {grantee} is denied to {action} {repository}")];
    for rule in denies {
        let Rule { grantee, pattern, .. } = rule;
        lines.push(format!("  by the rule {}", write(rule)));
        lines.push(format!(
            "  to take it back: authctl deny {grantee} '{pattern}:{action}' --remove"
        ));
    }
    lines
}
