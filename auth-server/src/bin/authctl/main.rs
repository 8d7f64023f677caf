//! `authctl` administers Berth: first set-up, users, grants, certificates.
//!
//! It works on the files and the database that `auth-server` uses, beside the running server, which
//! sees every change with the next token. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

mod audit;
mod backup;
mod cert;
mod explain;
mod grant_text;
mod grants;
mod group;
mod init;
mod instance;
mod key;
mod link;
mod policy_file;
mod refresh_tokens;
mod report;
mod revoke_tokens;
mod robot;
mod secret;
mod times;
mod trust;
mod user;

use std::{iter, path::PathBuf, process::ExitCode};

use auth_server::{audit::Author, config};
use berth_shared::{clock::Clock, secrecy, unix_owner::Identity};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use report::{Failure, Report, Told};
use serde_json::Value;

/// Administers Berth: users, grants, certificates, and the first set-up.
///
/// Changes take effect with the next token; the servers are not restarted.
#[derive(Parser)]
#[command(name = "authctl", version, after_help = include_str!("help/authctl.txt"))]
struct Arguments {
    /// The settings of auth-server [default: $BERTH_DATA/auth.toml, else data/auth.toml if it is
    /// there, else /etc/berth/auth.toml]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Write JSON for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make what is missing: settings, keys, certificate, database and a first user.
    Init(init::Arguments),
    /// Add, change, remove and list users.
    #[command(subcommand)]
    User(user::Verb),
    /// Put users and robots into groups.
    #[command(subcommand)]
    Group(group::Verb),
    /// Make, list and revoke secrets for machines.
    #[command(subcommand)]
    Robot(robot::Verb),
    /// Let machines sign in with tokens of their own issuer, such as GitHub Actions or Kubernetes.
    #[command(subcommand)]
    Trust(trust::Verb),
    #[command(flatten)]
    Rules(grants::Verb),
    /// Say whether somebody may do something, and which rule decides.
    Explain(explain::Arguments),
    /// Write all rules and groups to a file, or make them those of a file.
    #[command(subcommand)]
    Policy(policy_file::Verb),
    /// See and end the refresh tokens that clients keep, where those are on.
    #[command(subcommand)]
    RefreshTokens(refresh_tokens::Verb),
    /// Make every token void that is out for somebody, refresh tokens too.
    RevokeTokens(revoke_tokens::Arguments),
    /// Say what happened: sign-ins, tokens, and who changed what.
    Audit(audit::Arguments),
    Backup(backup::BackupArguments),
    Restore(backup::RestoreArguments),
    /// Make or renew the server's certificate.
    #[command(subcommand)]
    Cert(cert::Verb),
    /// Rotate, list and export the keys that sign tokens.
    #[command(subcommand)]
    Key(key::Verb),
    /// Let registry-servers on other machines ask auth-server.
    #[command(subcommand)]
    Link(link::Verb),
    /// Print the completion script for a shell: `authctl completion bash`.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let matches = Arguments::command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let is_json = arguments.json;
    match run(arguments, &verb_of(&matches)).await {
        Ok(report) => report.print(is_json),
        Err(failure) => failure.print(is_json),
    }
}

/// The names of the verb, such as `user add`, and nothing that was typed behind them.
fn verb_of(matches: &ArgMatches) -> String {
    let verbs = iter::successors(matches.subcommand(), |(_, below)| below.subcommand());
    verbs.map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

async fn run(arguments: Arguments, verb: &str) -> Told {
    secrecy::close_process()?;
    berth_shared::crypto::install();
    // Read by hand, since an argument parser would offer arguments for them as well.
    let sudo_user = std::env::var_os("SUDO_USER").and_then(|name| name.into_string().ok());
    let data = std::env::var_os("BERTH_DATA");
    // Before anything makes this process another user's.
    let author = Author::person(Clock::system(), verb, sudo_user.as_deref());
    let is_named = arguments.config.is_some();
    let path = arguments.config.unwrap_or_else(|| config::default_file(data));
    let admin = || instance::find(&path, author.clone());
    match arguments.verb {
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "authctl", &mut script);
            Ok(Report::done(String::from_utf8_lossy(&script).trim_end(), Value::Null))
        }
        Verb::Init(_) if is_named => Err(Failure::usage(
            "init makes the settings itself: say where with --data DIR, not with --config",
        )),
        Verb::Init(arguments) => {
            Identity::of(&arguments.data())?.become_for_good()?;
            init::run(&arguments, author).await
        }
        Verb::Cert(verb) => cert::run(&verb, instance::find_if_any(&path, author)?.as_ref()),
        Verb::Key(key::Verb::Seal { out, add }) => {
            // As the owner of the data, who is to read the file, where there is any.
            instance::find_if_any(&path, author)?;
            key::seal(&out, add)
        }
        Verb::Key(verb) => key::run(&verb, &admin()?).await,
        Verb::Link(verb) => link::run(&verb, &admin()?).await,
        Verb::User(verb) => user::run(verb, &admin()?).await,
        Verb::Group(verb) => group::run(verb, &admin()?).await,
        Verb::Robot(verb) => robot::run(verb, &admin()?).await,
        Verb::Trust(verb) => trust::run(verb, &admin()?).await,
        Verb::Rules(verb) => grants::run(verb, &admin()?).await,
        Verb::Explain(arguments) => explain::run(&arguments, &admin()?).await,
        Verb::Policy(verb) => policy_file::run(verb, &admin()?).await,
        Verb::RefreshTokens(verb) => refresh_tokens::run(verb, &admin()?).await,
        Verb::RevokeTokens(arguments) => revoke_tokens::run(&arguments, &admin()?).await,
        Verb::Audit(arguments) => audit::run(&arguments, &admin()?).await,
        Verb::Backup(arguments) => backup::backup(&arguments, &admin()?).await,
        Verb::Restore(arguments) => backup::restore(&arguments, &admin()?).await,
    }
}
