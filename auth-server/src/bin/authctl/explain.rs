//! `authctl explain`: whether somebody may do something, and which rule decides.

use auth_server::admin::{Admin, rules};
use berth_shared::{
    action::Action,
    name::RepositoryName,
    rights::{Effect, Rule},
    subject::Grantee,
};
use clap::Args;
use serde_json::json;

use crate::{
    grant_text::{json_rules, write},
    report::{Report, Told, warn_of},
};

#[derive(Args)]
#[command(after_help = "Exit code 0 if it is allowed, 1 if not.")]
pub(crate) struct Arguments {
    /// A user name, `robot.NAME`, `group:NAME`, `everyone` or `anonymous`.
    #[arg(value_name = "SUBJECT")]
    grantee: Grantee,
    /// One repository and one action, such as team/app:push.
    #[arg(value_name = "REPO:ACTION", value_parser = question)]
    question: (RepositoryName, Action),
}

fn question(text: &str) -> Result<(RepositoryName, Action), String> {
    let (repository, action) = text.rsplit_once(':').ok_or_else(|| {
        format!("{text:?} names no action: write REPO:ACTION, as in team/app:push")
    })?;
    let repository = repository.parse().map_err(|error| format!("{error}"))?;
    Ok((repository, action.parse().map_err(|error| format!("{error}"))?))
}

pub(crate) async fn run(arguments: &Arguments, admin: &Admin) -> Told {
    let Arguments { grantee, question: (repository, action) } = arguments;
    warn_of(&rules::warnings(admin, grantee, &[]).await?);
    let user = if let Grantee::User(name) = grantee { Some(name) } else { None };
    let is_on_it =
        |rule: &Rule| rule.for_user(user).is_some_and(|rule| rule.pattern.matches(repository));
    let holds = |rule: &Rule| rule.holds_at(admin.now());
    let decides = |rule: &Rule| holds(rule) && rule.decides().contains(*action);
    let all = rules::holding_for(&*admin.policy().await?, grantee).into_iter().filter(is_on_it);
    let (allows, denies): (Vec<_>, Vec<_>) = all.partition(|rule| rule.effect == Effect::Allow);
    let (allowing, others): (Vec<_>, Vec<_>) = allows.into_iter().partition(decides);
    let denying: Vec<_> = denies.into_iter().filter(decides).collect();
    let is_allowed = denying.is_empty() && !allowing.is_empty();
    let mut lines = Vec::new();
    if is_allowed {
        lines.push(format!("yes: {grantee} may {action} {repository}"));
        lines.extend(allowing.iter().map(|rule| format!("  by the grant {}", write(rule))));
    } else if denying.is_empty() {
        lines.push(format!("no: nothing allows {grantee} to {action} {repository}"));
        for rule in others {
            let shown = write(&rule);
            if holds(&rule) {
                lines.push(format!("  the grant {shown} allows less"));
            } else if rule.decides().contains(*action) {
                lines.push(format!("  the grant {shown} has expired"));
            }
        }
        lines.push(format!("  to allow it: authctl grant {grantee} {repository}:{action}"));
    } else {
        lines.push(format!("no: {grantee} is denied to {action} {repository}"));
        for rule in &denying {
            let Rule { grantee, pattern, .. } = rule;
            lines.push(format!("  by the rule {}", write(rule)));
            lines.push(format!(
                "  to take it back: authctl deny {grantee} '{pattern}:{action}' --remove"
            ));
        }
    }
    let json = json!({
        "allowed": is_allowed,
        "subject": grantee,
        "repository": repository,
        "action": action,
        "rules": json_rules(if denying.is_empty() { &allowing } else { &denying }),
    });
    Ok(Report { text: lines.join("\n"), json, is_no: !is_allowed })
}
