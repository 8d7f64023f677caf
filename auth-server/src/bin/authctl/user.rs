//! `authctl user`: who may sign in.

use std::path::{Path, PathBuf};

use auth_server::{
    admin::{
        Admin,
        users::{self, User},
    },
    database::user_table::UserChanges,
    files,
    users::Password,
};
use berth_shared::{
    rights::Effect,
    subject::{Grantee, UserName},
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    grant_text::{GrantText, rules, show_rules},
    report::{Failure, Report, Told, removal, table},
    secret,
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
    /// Bring the users of an htpasswd file into the database that auth.toml names.
    ///
    /// Those who are there already get the hashes of the file, and others stay. Passwords are kept.
    Import {
        /// The htpasswd file (bcrypt).
        file: PathBuf,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Make the database's users those of an htpasswd file, such as one in git.
    Apply {
        /// The htpasswd file (bcrypt).
        file: PathBuf,
        /// Remove the users who are not in the file, with their grants.
        #[arg(long)]
        prune: bool,
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

pub(crate) async fn run(verb: Verb, admin: &Admin) -> Told {
    match verb {
        Verb::Add { name, how, grant } => add(&name, &how, &grant, admin).await,
        Verb::Passwd { name, how } => set_password(&name, &how, admin).await,
        Verb::Remove { name, dry_run } => remove(&name, dry_run, admin).await,
        Verb::Import { file, dry_run } => apply(&file, false, dry_run, admin).await,
        Verb::Apply { file, prune, dry_run } => apply(&file, prune, dry_run, admin).await,
        Verb::List => list(admin).await,
    }
}

async fn add(name: &UserName, how: &How, grants: &[GrantText], admin: &Admin) -> Told {
    // Asked before the prompt, and again when it is done.
    users::check_new(admin, name).await?;
    let file = admin.place_of_users();
    if how.dry_run {
        let text = format!("would add {name} to {file}");
        return Ok(Report::done(text, json!({ "user": name.as_str(), "dry_run": true })));
    }
    let password = how.password(name).await?;
    let grantee = Grantee::User(name.clone());
    let rules = rules(grants, &grantee, Effect::Allow, None);
    let held = users::add(admin, name, &password, &rules).await?;
    let mut text = format!("added {name} to {file}");
    if held.is_empty() {
        text.push_str(&format!(
            "\n{name} holds no grants of their own; to give one: authctl grant {name} 'team/**:pull,push'"
        ));
    } else {
        text.push_str(&format!("\n{}", show_rules(&held, admin)));
    }
    Ok(Report::done(text, json!({ "user": name.as_str(), "added": true })))
}

async fn set_password(name: &UserName, how: &How, admin: &Admin) -> Told {
    users::check_there(admin, name).await?;
    if how.dry_run {
        let text =
            format!("would set a new password for {name}, and void the tokens of the old one");
        return Ok(Report::done(text, json!({ "user": name.as_str(), "dry_run": true })));
    }
    let password = how.password(name).await?;
    users::set_password(admin, name, &password).await?;
    let text = format!("{name} has a new password; tokens of the old one are void within seconds");
    Ok(Report::done(text, json!({ "user": name.as_str(), "changed": true })))
}

async fn remove(name: &UserName, dry_run: bool, admin: &Admin) -> Told {
    let grants = users::remove(admin, name, dry_run).await?;
    let [verb, be] = removal(dry_run);
    let text = format!(
        "{verb} {name} and the grants of that name ({grants}); tokens of {name} {be} void within \
         seconds"
    );
    let json = json!({ "user": name.as_str(), "removed": !dry_run, "grants": grants });
    Ok(Report::done(text, json))
}

async fn apply(file: &Path, prune: bool, is_dry: bool, admin: &Admin) -> Told {
    let shown = file.display().to_string();
    let text = files::read(file)?;
    let UserChanges { added, changed, removed } =
        users::apply(admin, &shown, &text, prune, is_dry).await?;
    let names = |users: &[UserName]| users.iter().map(UserName::to_string).collect::<Vec<_>>();
    let (added, changed, removed) = (names(&added), names(&changed), names(&removed));
    let would = if is_dry { "would be " } else { "" };
    let line = |what: &str, users: &[String]| {
        (!users.is_empty()).then(|| format!("{would}{what}: {}", users.join(", ")))
    };
    let lines = [
        line("added", &added),
        line("given another password", &changed),
        line("removed, with their grants", &removed),
    ];
    let mut lines: Vec<_> = lines.into_iter().flatten().collect();
    if lines.is_empty() {
        lines.push(format!("{} has the users of {shown} already", admin.place_of_users()));
    }
    let json = json!({ "added": added, "changed": changed, "removed": removed, "dry_run": is_dry });
    Ok(Report::done(lines.join("\n"), json))
}

async fn list(admin: &Admin) -> Told {
    let (users, problems) = users::list(admin).await?;
    let object = |User { name, rules, cost }: &User| json!({ "name": name.as_str(), "grants": rules, "cost": cost });
    let users: Vec<_> = users.iter().map(object).collect();
    let keys = ["name", "grants", "cost"];
    let mut text = table(["USER", "GRANTS", "BCRYPT COST"], keys, "", &users);
    for problem in &problems {
        text.push_str(&format!("\n{}, {problem}", admin.place_of_users()));
    }
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Ok(Report::done(text, json!({ "users": users, "problems": problems })))
}
