//! `authctl backup` and `authctl restore`: what auth-server knows, to a directory and back.

use std::path::PathBuf;

use auth_server::{StartError, admin::Admin, backup};
use berth_shared::telemetry::chain;
use clap::Args;
use serde_json::json;

use crate::report::{Failure, Report, Told};

/// Copy database, signing keys and users to a directory, while the server runs.
///
/// A second backup into the same directory takes the place of the first once it is complete.
/// Whoever can read it can make tokens: keep it as safe as the data. The registry's images are
/// another backup: registry-server backup DIR.
#[derive(Args)]
pub(crate) struct BackupArguments {
    /// Where to; it is made, readable by the data's owner alone.
    directory: PathBuf,
}

/// Put a backup in place of database, signing keys and users; the server must not run.
///
/// Everything is checked before anything is changed. Tokens that are out become void, so clients
/// fetch new ones.
#[derive(Args)]
pub(crate) struct RestoreArguments {
    /// Where the backup lies.
    directory: PathBuf,
    /// Move aside what is there (to NAME.before-restore-1); nothing is deleted.
    #[arg(long)]
    force: bool,
    /// Only say whether the backup is whole; the server may run.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn backup(arguments: &BackupArguments, admin: &Admin) -> Told {
    let to = &arguments.directory;
    let contents = backup::backup(&admin.config, to, admin.now()).await.map_err(hint)?;
    let text = format!("backed up {} files to {}", contents.files.len(), to.display());
    Ok(Report::done(text, json!(contents)))
}

pub(crate) async fn restore(arguments: &RestoreArguments, admin: &Admin) -> Told {
    let from = &arguments.directory;
    if arguments.dry_run {
        let contents = backup::check(&admin.config, from, admin.now()).await.map_err(hint)?;
        let text = format!("the backup of {} is whole; nothing was changed", contents.made);
        return Ok(Report::done(text, json!(contents)));
    }
    let contents = backup::restore(&admin.config, from, arguments.force, &admin.author).await;
    let contents = contents.map_err(hint)?;
    let text = format!("restored the backup of {}; start auth-server now", contents.made);
    Ok(Report::done(text, json!(contents)))
}

/// Says what to do about it: a directory that root made is often not the data's owner's to use.
fn hint(error: backup::Error) -> Failure {
    let advice = match &error {
        backup::Error::File(error) if error.is_forbidden() => {
            "authctl works as the owner of the data, who needs access to the directory"
        }
        backup::Error::Locked(StartError::Locked(_)) => "stop it, restore, and start it again",
        _ => return Failure::from(error),
    };
    Failure::refused(format!("{}: {advice}", chain(&error)))
}
