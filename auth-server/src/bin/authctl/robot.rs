//! `authctl robot`: secrets for machines.

use auth_server::admin::{Admin, robots};
use berth_shared::{
    clock::{UnixSeconds, rfc3339},
    rights::Effect,
    subject::{Grantee, RobotName},
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    grant_text::{GrantText, first_rights, rules},
    report::{Report, Told, removal},
    times,
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a robot, and print its secret once.
    Create(Create),
    /// List robots with their last use; their secrets are not kept.
    List,
    /// Remove a robot with its grants; its secret and its tokens are void within seconds.
    Revoke {
        /// The robot's name, with or without robot. in front.
        #[arg(value_parser = RobotName::from_typed)]
        name: RobotName,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Args)]
#[command(after_help = include_str!("help/robot-create.txt"))]
pub(crate) struct Create {
    /// The robot's name, with or without robot. in front.
    #[arg(value_parser = RobotName::from_typed)]
    name: RobotName,
    /// What the robot may do, such as team/app:pull,push. May be repeated.
    #[arg(long, value_name = "REPO:ACTIONS")]
    grant: Vec<GrantText>,
    /// How long the secret holds, such as 90d, or until when, such as 2030-01-31; for good unless
    /// given.
    #[arg(long, value_name = "TIME", value_parser = times::end, allow_hyphen_values = true)]
    expires: Option<UnixSeconds>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(verb: Verb, admin: &Admin) -> Told {
    match verb {
        Verb::Create(arguments) => create(&arguments, admin).await,
        Verb::List => list(admin).await,
        Verb::Revoke { name, dry_run } => revoke(&name, dry_run, admin).await,
    }
}

async fn create(arguments: &Create, admin: &Admin) -> Told {
    let Create { name, grant, expires, dry_run } = arguments;
    if *dry_run {
        robots::check_new(admin, name).await?;
        let text = format!("would make {name} with {}", ends(*expires));
        return Ok(Report::done(text, json!({ "name": name, "dry_run": true })));
    }
    let grantee = Grantee::Robot(name.clone());
    let rules = rules(grant, &grantee, Effect::Allow, None);
    let (secret, held) = robots::create(admin, name, &rules, *expires).await?;
    let rights = first_rights(name, &held, admin);
    let text = format!(
        "made {name} with {}\n{rights}\n\nIts secret, shown this once:\n\n  {}\n",
        ends(*expires),
        secret.expose()
    );
    let expires = expires.map(rfc3339);
    let json = json!({ "name": name, "secret": secret.expose(), "expires": expires });
    Ok(Report::done(text, json))
}

async fn list(admin: &Admin) -> Told {
    let robots = robots::list(admin).await?;
    let objects = robots.iter().map(|(robot, rules)| {
        json!({
            "name": robot.name,
            "rules": rules,
            "created": rfc3339(robot.created),
            "expires": robot.expires.map(rfc3339),
            "last_used": robot.last_used.map(rfc3339),
            "remark": if robot.holds_at(admin.now()) { "" } else { "expired" },
        })
    });
    Ok(Report::list(
        objects.collect(),
        ["ROBOT", "RULES", "CREATED", "EXPIRES", "LAST USED", ""],
        ["name", "rules", "created", "expires", "last_used", "remark"],
        "there are no robots; to make one: authctl robot create ci --grant team/app:pull,push",
    ))
}

async fn revoke(name: &RobotName, dry_run: bool, admin: &Admin) -> Told {
    robots::remove(admin, name, dry_run).await?;
    let [verb, be] = removal(dry_run);
    let text = format!("{verb} {name}; its secret and its tokens {be} void within seconds");
    Ok(Report::done(text, json!({ "name": name, "removed": !dry_run })))
}

fn ends(expires: Option<UnixSeconds>) -> String {
    match expires {
        Some(end) => format!("a secret that ends at {}", rfc3339(end)),
        None => "a secret that never ends".to_owned(),
    }
}
