//! `authctl user`: who may sign in.

use auth_server::{
    acl::store::Store,
    audit::Act,
    users::{NEW_COST, Password, edit::Editor},
};
use berth_shared::subject::{Grantee, UserName};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    grant_text::{GrantText, now, show_rules},
    report::{Failure, Report, table},
    secret,
    site::Site,
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Add a user; asks for the password.
    Add {
        /// The new user's name.
        name: UserName,
        #[command(flatten)]
        how: How,
        /// What the user may do at once, such as 'team/**:pull,push'. May be repeated.
        #[arg(long, value_name = "REPO:ACTIONS")]
        grant: Vec<GrantText>,
    },
    /// Give a user a new password; tokens of the old one are void within seconds.
    Passwd {
        /// The user's name.
        name: UserName,
        #[command(flatten)]
        how: How,
    },
    /// Remove a user and all grants of that name.
    Remove {
        /// The user's name.
        name: UserName,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the users, and the lines of the file that cannot be used.
    List,
}

#[derive(Args)]
pub(crate) struct How {
    /// Read the password as one line from standard input.
    #[arg(long)]
    password_stdin: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

impl How {
    async fn password(&self, name: &UserName) -> Result<Password, Failure> {
        if self.password_stdin { secret::from_stdin() } else { secret::prompt(name.as_str()).await }
    }
}

pub(crate) async fn run(verb: Verb, site: &Site) -> Result<Report, Failure> {
    match verb {
        Verb::Add { name, how, grant } => add(&name, &how, &grant, site).await,
        Verb::Passwd { name, how } => set_password(&name, &how, site).await,
        Verb::Remove { name, dry_run } => remove(&name, dry_run, site).await,
        Verb::List => list(site).await,
    }
}

async fn add(
    name: &UserName,
    how: &How,
    grants: &[GrantText],
    site: &Site,
) -> Result<Report, Failure> {
    let exists = || {
        Failure::refused(format!(
            "there is a line for {name} already; for a new password: authctl user passwd {name}"
        ))
    };
    // Asked before the prompt, and again under the lock.
    if site.editor()?.has_line(name) {
        return Err(exists());
    }
    if how.dry_run {
        let text = format!("would add {name} to {}", site.config.htpasswd.display());
        return Ok(Report::done(text, json!({ "user": name.as_str(), "dry_run": true })));
    }
    let hash = how.password(name).await?.hash(NEW_COST)?;
    let database = site.database().await?;
    let mut editor = site.editor()?;
    if editor.has_line(name) {
        return Err(exists());
    }
    editor.set(name, &hash);
    set(&database, &editor, name, &Act::UserAdd(name)).await?;
    let grantee = Grantee::User(name.clone());
    let rules: Vec<_> = grants.iter().map(|text| text.allow(&grantee, None)).collect();
    database.rules().add(&rules, now()).await?;
    let policy = database.policy().await?;
    let held = policy.rules_naming(&grantee);
    let mut text = format!("added {name} to {}", site.config.htpasswd.display());
    if held.is_empty() {
        text.push_str(&format!(
            "\n{name} holds no grants of their own; to give one: authctl grant {name} 'team/**:pull,push'"
        ));
    } else {
        text.push_str(&format!("\n{}", show_rules(held, site)));
    }
    Ok(Report::done(text, json!({ "user": name.as_str(), "added": true })))
}

async fn set_password(name: &UserName, how: &How, site: &Site) -> Result<Report, Failure> {
    if !site.editor()?.has_line(name) {
        return Err(site.no_such_user(name));
    }
    if how.dry_run {
        let text =
            format!("would set a new password for {name}, and void the tokens of the old one");
        return Ok(Report::done(text, json!({ "user": name.as_str(), "dry_run": true })));
    }
    let hash = how.password(name).await?.hash(NEW_COST)?;
    let database = site.database().await?;
    let mut editor = site.editor()?;
    // Asked again under the lock: somebody may have removed the user meanwhile.
    if !editor.has_line(name) {
        return Err(site.no_such_user(name));
    }
    editor.set(name, &hash);
    set(&database, &editor, name, &Act::UserPassword(name)).await?;
    let text = format!("{name} has a new password; tokens of the old one are void within seconds");
    Ok(Report::done(text, json!({ "user": name.as_str(), "changed": true })))
}

/// Saves the file with the user's new line, and writes down by which act.
async fn set(
    database: &Store,
    editor: &Editor,
    name: &UserName,
    act: &Act<'_>,
) -> Result<(), Failure> {
    let save = || editor.save().map_err(Failure::from);
    database.seen_users().set(&editor.parse().fingerprints(), name, act, save).await
}

async fn remove(name: &UserName, dry_run: bool, site: &Site) -> Result<Report, Failure> {
    let database = site.database().await?;
    let mut editor = site.editor()?;
    let grants = database.policy().await?.rules_naming(&Grantee::User(name.clone())).len();
    if !editor.has_line(name) && grants == 0 {
        return Err(Failure::refused(format!(
            "no user {name} in {}, and no grants of that name",
            site.config.htpasswd.display()
        )));
    }
    if !dry_run {
        // The user first: a crash in between leaves grants of nobody, which `grants` shows.
        editor.remove(name);
        let save = || editor.save().map_err(Failure::from);
        database.seen_users().remove(&editor.parse().fingerprints(), name, save).await?;
    }
    let (verb, void) = if dry_run { ("would remove", "would be") } else { ("removed", "are") };
    let text = format!(
        "{verb} {name} and the grants of that name ({grants}); tokens of {name} {void} void within \
         seconds"
    );
    let json = json!({ "user": name.as_str(), "removed": !dry_run, "grants": grants });
    Ok(Report::done(text, json))
}

async fn list(site: &Site) -> Result<Report, Failure> {
    let file = site.users();
    let policy = site.database().await?.policy().await?;
    let count = |name: &UserName| policy.rules_naming(&Grantee::User(name.clone())).len();
    let rows: Vec<_> = file
        .users
        .iter()
        .map(|(name, hash)| [name.to_string(), count(name).to_string(), hash.cost().to_string()])
        .collect();
    let mut text = table(["USER", "GRANTS", "BCRYPT COST"], &rows);
    for problem in &file.problems {
        text.push_str(&format!("\n{}, {problem}", site.config.htpasswd.display()));
    }
    let users: Vec<_> = file
        .users
        .iter()
        .map(|(name, hash)| json!({ "name": name.as_str(), "grants": count(name), "cost": hash.cost() }))
        .collect();
    let problems: Vec<_> = file.problems.iter().map(ToString::to_string).collect();
    Ok(Report::done(text, json!({ "users": users, "problems": problems })))
}
