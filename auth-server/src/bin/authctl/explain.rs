//! `authctl explain`: whether somebody may do something, and which grant decides.

use std::str::FromStr;

use auth_server::acl::policy::Policy;
use berth_shared::{action::Action, name::RepositoryName, rights::Rule, subject::Grantee};
use clap::Args;
use serde_json::json;

use crate::{
    grants::{json_rules, now, with_everyone, write},
    report::{Failure, Report},
    site::Site,
};

#[derive(Args)]
#[command(after_help = "Exit code 0 if it is allowed, 1 if not.")]
pub(crate) struct Arguments {
    /// A user name, `everyone` or `anonymous`.
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

pub(crate) async fn run(arguments: &Arguments, site: &Site) -> Result<Report, Failure> {
    site.must_exist(&arguments.grantee)?;
    let policy = site.database().await?.policy().await?;
    Ok(answer(&arguments.grantee, &arguments.question, &policy))
}

fn answer(grantee: &Grantee, question: &Question, policy: &Policy) -> Report {
    let Question { repository, action } = question;
    let rights = policy.rights(with_everyone(grantee));
    let deciding: Vec<Rule> = rights
        .deciding(repository, now())
        .filter(|rule| rule.actions.with_implied().contains(*action))
        .cloned()
        .collect();
    let is_no = deciding.is_empty();
    let mut lines = Vec::new();
    if is_no {
        lines.push(format!("no: nothing allows {grantee} to {action} {repository}"));
        for rule in rights.deciding(repository, now()) {
            lines.push(format!("  the grant {} allows less", write(rule)));
        }
        let expired = rights.rules.iter().filter(|rule| {
            !rule.holds_at(now())
                && rule.pattern.matches(repository)
                && rule.actions.with_implied().contains(*action)
        });
        for rule in expired {
            lines.push(format!("  the grant {} has expired", write(rule)));
        }
        lines.push(format!("  to allow it: authctl grant {grantee} {repository}:{action}"));
    } else {
        lines.push(format!("yes: {grantee} may {action} {repository}"));
        for rule in &deciding {
            lines.push(format!("  by the grant {}", write(rule)));
        }
    }
    let json = json!({
        "allowed": !is_no,
        "subject": grantee,
        "repository": repository,
        "action": action,
        "grants": json_rules(&deciding),
    });
    Report { text: lines.join("\n"), json, is_no }
}
