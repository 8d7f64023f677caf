//! `authctl robot`: secrets for machines.

use auth_server::{acl::policy::robots::Robot, secrets::robot::RobotSecret};
use berth_shared::{
    clock::{UnixSeconds, rfc3339},
    subject::{Grantee, RobotName},
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    grant_text::{GrantText, now, show_rules},
    report::{Failure, Report, table},
    secret::no_randomness,
    site::Site,
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
#[command(after_help = "\
The robot signs in as robot.NAME with its secret as password, or with the secret alone as bearer
token at /token.

Examples:
  authctl robot create ci --grant team/app:pull,push --expires 90d
  authctl robot create cluster --grant '**:pull' --json
  kubectl create secret docker-registry berth --docker-server=reg.homelab.lan:5000 \\
      --docker-username=robot.cluster --docker-password=SECRET")]
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

pub(crate) async fn run(verb: Verb, site: &Site) -> Result<Report, Failure> {
    match verb {
        Verb::Create(arguments) => create(&arguments, site).await,
        Verb::List => list(site).await,
        Verb::Revoke { name, dry_run } => revoke(&name, dry_run, site).await,
    }
}

async fn create(arguments: &Create, site: &Site) -> Result<Report, Failure> {
    let Create { name, grant, expires, dry_run } = arguments;
    let robot = Robot { name: name.clone(), created: now(), expires: *expires, last_used: None };
    let grantee = Grantee::Robot(name.clone());
    let rules: Vec<_> = grant.iter().map(|text| text.allow(&grantee, None)).collect();
    let database = site.database().await?;
    let taken = || {
        Failure::refused(format!(
            "there is a {name} already; to make it anew: authctl robot revoke {name}"
        ))
    };
    let policy = database.policy().await?;
    if policy.trusts.get(name).is_some() {
        return Err(Failure::refused(format!(
            "{name} is a trust and needs no secret; to end it: authctl trust remove {name}"
        )));
    }
    if policy.robots.get(name).is_some() {
        return Err(taken());
    }
    if *dry_run {
        let text = format!("would make {name} with {}", ends(robot.expires));
        return Ok(Report::done(text, json!({ "name": name, "dry_run": true })));
    }
    let secret = RobotSecret::generate().map_err(|_| no_randomness())?;
    if !database.robots().create(&robot, &secret, &rules).await? {
        return Err(taken());
    }
    let policy = database.policy().await?;
    let held = policy.rules_naming(&grantee);
    let rights = if held.is_empty() {
        format!("It may do nothing yet; to change that: authctl grant {name} 'team/**:pull'")
    } else {
        show_rules(held, site)
    };
    let text = format!(
        "made {name} with {}\n{rights}\n\nIts secret, shown this once:\n\n  {}\n",
        ends(robot.expires),
        secret.expose()
    );
    let expires = robot.expires.map(rfc3339);
    let json = json!({ "name": name, "secret": secret.expose(), "expires": expires });
    Ok(Report::done(text, json))
}

async fn list(site: &Site) -> Result<Report, Failure> {
    let policy = site.database().await?.policy().await?;
    let rules = |robot: &Robot| policy.rules_naming(&Grantee::Robot(robot.name.clone())).len();
    let row = |robot: &Robot| {
        let remark = if robot.holds_at(now()) { "" } else { "expired" };
        [
            robot.name.to_string(),
            rules(robot).to_string(),
            rfc3339(robot.created),
            robot.expires.map_or_else(|| "never".to_owned(), rfc3339),
            robot.last_used.map_or_else(|| "never".to_owned(), rfc3339),
            remark.to_owned(),
        ]
    };
    let rows: Vec<_> = policy.robots.iter().map(row).collect();
    let text = if rows.is_empty() {
        "there are no robots; to make one: authctl robot create ci --grant team/app:pull,push"
            .to_owned()
    } else {
        table(["ROBOT", "RULES", "CREATED", "EXPIRES", "LAST USED", ""], &rows)
    };
    let json = policy.robots.iter().map(|robot| {
        json!({
            "name": robot.name,
            "rules": rules(robot),
            "created": rfc3339(robot.created),
            "expires": robot.expires.map(rfc3339),
            "last_used": robot.last_used.map(rfc3339),
        })
    });
    Ok(Report::done(text, json.collect()))
}

async fn revoke(name: &RobotName, dry_run: bool, site: &Site) -> Result<Report, Failure> {
    let database = site.database().await?;
    let policy = database.policy().await?;
    if policy.trusts.get(name).is_some() {
        return Err(Failure::refused(format!(
            "{name} is a trust and has no secret; to end it: authctl trust remove {name}"
        )));
    }
    let is_there = if dry_run {
        policy.robots.get(name).is_some()
    } else {
        database.robots().remove(name).await?
    };
    if !is_there {
        return Err(Failure::refused(format!("there is no {name}; authctl robot list shows them")));
    }
    let [verb, be] = if dry_run { ["would remove", "would be"] } else { ["removed", "are"] };
    let text = format!("{verb} {name}; its secret and its tokens {be} void within seconds");
    Ok(Report::done(text, json!({ "name": name, "removed": !dry_run })))
}

fn ends(expires: Option<UnixSeconds>) -> String {
    match expires {
        Some(end) => format!("a secret that ends at {}", rfc3339(end)),
        None => "a secret that never ends".to_owned(),
    }
}
