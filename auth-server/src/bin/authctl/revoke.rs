//! `authctl revoke` and `deny --remove`: taking rules back.

use auth_server::admin::{Admin, rules};
use berth_shared::{
    rights::{Effect, Rule},
    subject::Grantee,
};
use clap::Args;
use serde_json::json;

use crate::{
    grant_text::{GrantText, json_rules, show_rules, write},
    report::{Failure, Report},
};

#[derive(Args)]
pub(crate) struct RevokeArguments {
    /// A user name, `robot.NAME`, `group:NAME`, `everyone` or `anonymous`.
    #[arg(value_name = "SUBJECT")]
    grantee: Grantee,
    /// What is taken back, with the pattern as it was granted; `authctl grants` shows it.
    #[arg(required = true, value_name = "REPO:ACTIONS")]
    grants: Vec<GrantText>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What came of taking rules back.
#[derive(Default)]
struct Taken {
    lines: Vec<String>,
    rules: Vec<Rule>,
}

pub(crate) async fn run(arguments: &RevokeArguments, admin: &Admin) -> Result<Report, Failure> {
    let RevokeArguments { grantee, grants, dry_run } = arguments;
    let mut taken = Taken::default();
    let mut still = Vec::new();
    for text in grants {
        take(admin, grantee, text, Effect::Allow, *dry_run, &mut taken).await?;
        let GrantText { pattern, actions } = text;
        let allowing = rules::still_allowing(admin, grantee, pattern, *actions, *dry_run);
        for rule in allowing.await? {
            let kept = rule.decides().intersection(text.actions);
            let line = format!("{grantee} still holds {kept} through the grant {}", write(&rule));
            taken.lines.push(line);
            still.push(rule);
        }
    }
    let missing = taken.rules.len() < grants.len();
    if missing {
        taken.lines.push(what_is_held(admin, grantee).await?);
    }
    let json = json!({ "revoked": json_rules(&taken.rules), "still_held": json_rules(&still) });
    Ok(Report { text: taken.lines.join("\n"), json, is_no: missing || !still.is_empty() })
}

/// `authctl deny --remove`.
pub(crate) async fn remove_denies(
    grantee: &Grantee,
    denies: &[GrantText],
    dry_run: bool,
    admin: &Admin,
) -> Result<Report, Failure> {
    let mut taken = Taken::default();
    for text in denies {
        take(admin, grantee, text, Effect::Deny, dry_run, &mut taken).await?;
    }
    let is_no = taken.rules.len() < denies.len();
    if is_no {
        taken.lines.push(what_is_held(admin, grantee).await?);
    }
    let json = json!({ "removed": json_rules(&taken.rules) });
    Ok(Report { text: taken.lines.join("\n"), json, is_no })
}

async fn take(
    admin: &Admin,
    grantee: &Grantee,
    text: &GrantText,
    effect: Effect,
    dry_run: bool,
    taken: &mut Taken,
) -> Result<(), Failure> {
    let (noun, did, would) = match effect {
        Effect::Allow => ("grant", "revoked", "would revoke"),
        Effect::Deny => ("deny", "removed the deny", "would remove the deny"),
    };
    let GrantText { pattern, actions } = text;
    let lost = rules::take(admin, grantee, pattern, effect, *actions, dry_run).await?;
    if lost.is_empty() {
        taken.lines.push(format!("there is no {noun} {grantee} {pattern}:{actions}"));
    } else {
        let verb = if dry_run { would } else { did };
        taken.lines.push(format!("{verb} {grantee} {pattern}:{lost}"));
        taken.rules.push(text.rule(grantee, effect, None));
    }
    Ok(())
}

async fn what_is_held(admin: &Admin, grantee: &Grantee) -> Result<String, Failure> {
    let held = rules::naming(admin, grantee).await?;
    Ok(if held.is_empty() {
        format!("no rule names {grantee}")
    } else {
        format!("the rules for {grantee}:\n{}", show_rules(&held, admin))
    })
}
