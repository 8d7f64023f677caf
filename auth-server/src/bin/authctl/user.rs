//! `authctl user`: who may sign in.

use auth_server::{
    audit::Act,
    users::{NEW_COST, Password, edit::Editor, htpasswd::StoredHash},
};
use berth_shared::{
    rights::Effect,
    subject::{Grantee, UserName},
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    grant_text::{GrantText, rules, show_rules},
    instance::Admin,
    report::{Failure, Report, Told, refuse_if, table},
    rules::{add as add_rules, naming},
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
        Verb::List => list(admin).await,
    }
}

async fn add(name: &UserName, how: &How, grants: &[GrantText], admin: &Admin) -> Told {
    let file = admin.config.htpasswd.display();
    if !set(name, how, true, admin).await? {
        let text = format!("would add {name} to {file}");
        return Ok(Report::done(text, json!({ "user": name, "dry_run": true })));
    }
    let grantee = Grantee::User(name.clone());
    let held = add_rules(admin, &grantee, &rules(grants, &grantee, Effect::Allow, None)).await?;
    let rights = if held.is_empty() {
        format!(
            "{name} holds no grants of their own; to give one: authctl grant {name} 'team/**:pull,push'"
        )
    } else {
        show_rules(&held, admin)
    };
    let text = format!("added {name} to {file}\n{rights}");
    Ok(Report::done(text, json!({ "user": name, "added": true })))
}

async fn set_password(name: &UserName, how: &How, admin: &Admin) -> Told {
    if !set(name, how, false, admin).await? {
        let text =
            format!("would set a new password for {name}, and void the tokens of the old one");
        return Ok(Report::done(text, json!({ "user": name, "dry_run": true })));
    }
    let text = format!("{name} has a new password; tokens of the old one are void within seconds");
    Ok(Report::done(text, json!({ "user": name, "changed": true })))
}

/// Gives a user, new or not, the password that is asked for, which voids the tokens of the old one.
/// In a dry run nothing is asked or done; gives back whether it was.
async fn set(name: &UserName, how: &How, is_new: bool, admin: &Admin) -> Result<bool, Failure> {
    check(&admin.editor()?, name, is_new, admin)?;
    if how.dry_run {
        return Ok(false);
    }
    let hash = how.password(name).await?.hash(NEW_COST)?;
    let seen = admin.database().await?.seen_users();
    // Looked at again under the lock: somebody may have added or removed the user meanwhile.
    let mut editor = admin.editor()?;
    check(&editor, name, is_new, admin)?;
    editor.set(name, &hash);
    let act = if is_new { Act::UserAdd(name) } else { Act::UserPassword(name) };
    let save = || editor.save().map_err(Failure::from);
    seen.set(&editor.parse().fingerprints(), name, &act, save).await?;
    Ok(true)
}

/// Refuses a new user who is there already, and another who is not.
fn check(editor: &Editor, name: &UserName, is_new: bool, admin: &Admin) -> Result<(), Failure> {
    let (is_there, file) = (editor.has_line(name), admin.config.htpasswd.display());
    refuse_if(is_new && is_there, || {
        format!(
            "there is a line for {name} already; for a new password: authctl user passwd {name}"
        )
    })?;
    refuse_if(!is_new && !is_there, || {
        format!("no user {name} in {file}; to add one: authctl user add {name}")
    })
}

async fn remove(name: &UserName, dry_run: bool, admin: &Admin) -> Told {
    let database = admin.database().await?;
    let mut editor = admin.editor()?;
    let grants = naming(admin, &Grantee::User(name.clone())).await?.len();
    let file = admin.config.htpasswd.display();
    refuse_if(!editor.has_line(name) && grants == 0, || {
        format!("no user {name} in {file}, and no grants of that name")
    })?;
    let (verb, void) = if dry_run { ("would remove", "would be") } else { ("removed", "are") };
    if !dry_run {
        // The user first: a crash in between leaves rules of nobody, which a list shows.
        editor.remove(name);
        let save = || editor.save().map_err(Failure::from);
        database.seen_users().remove(&editor.parse().fingerprints(), name, save).await?;
    }
    let text = format!(
        "{verb} {name} and the grants of that name ({grants}); tokens of {name} {void} void within \
         seconds"
    );
    Ok(Report::done(text, json!({ "user": name, "removed": !dry_run, "grants": grants })))
}

async fn list(admin: &Admin) -> Told {
    let file = admin.users();
    let policy = admin.policy().await?;
    let object = |(name, hash): (&UserName, &StoredHash)| {
        let grants = policy.rules_naming(&Grantee::User(name.clone())).len();
        json!({ "name": name, "grants": grants, "cost": hash.cost() })
    };
    let users: Vec<_> = file.users.iter().map(object).collect();
    let mut text = table(["USER", "GRANTS", "BCRYPT COST"], ["name", "grants", "cost"], "", &users);
    let problems: Vec<_> = file.problems.iter().map(ToString::to_string).collect();
    for problem in &problems {
        text.push_str(&format!("\n{}, {problem}", admin.config.htpasswd.display()));
    }
    Ok(Report::done(text, json!({ "users": users, "problems": problems })))
}
