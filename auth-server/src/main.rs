//! The `auth-server` binary: settings, log, lock, listeners, shutdown.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use auth_server::{
    Bound,
    config::{self, Config},
};
use berth_shared::{
    clock::Clock,
    crypto, secrecy,
    serve::{health, shutdown},
    shown,
    telemetry::{self, LogControl, chain},
    unix_owner::{Identity, Settings},
};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Checks passwords against an htpasswd file and issues tokens for Berth's registry.
///
/// It reads auth.toml and answers on a private Unix socket; registry-server passes /token on to
/// it. `authctl init` writes all that it needs.
#[derive(Parser)]
#[command(name = "auth-server", version, after_help = include_str!("help.txt"))]
struct Arguments {
    /// The settings file [default: $BERTH_DATA/auth.toml, else data/auth.toml if it is there, else
    /// /etc/berth/auth.toml]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand, Clone, Copy)]
enum Verb {
    /// Serve until SIGTERM or Ctrl-C; this is what happens without a verb.
    Serve,
    /// Ask the running server whether it is ready: exit code 0 if so, 1 with the reason if not.
    Health,
}

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(error) = secrecy::close_process() {
        eprintln!("auth-server: closing the process to others of its user: {error}");
        return ExitCode::FAILURE;
    }
    crypto::install();
    let arguments = Arguments::parse();
    // Read by hand, since an argument parser would offer an argument for it as well.
    let config =
        arguments.config.unwrap_or_else(|| config::default_file(env::var_os("BERTH_DATA")));
    let result = match arguments.verb.unwrap_or(Verb::Serve) {
        Verb::Serve => serve(&config).await,
        Verb::Health => ask(&config).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A mistake in the settings is shown in several lines.
            let reason = chain(&*error).trim_end().replace('\n', "\n  ");
            eprintln!("auth-server: {}", shown::lines(&reason));
            ExitCode::FAILURE
        }
    }
}

async fn serve(path: &Path) -> Result<(), Box<dyn Error>> {
    let config = Config::load(path)?;
    let log = telemetry::init(&config.log, config.log_format)?;
    // Before anything else: until it is asked for, SIGHUP ends a process.
    let hangup = signal(SignalKind::hangup())?;
    tokio::spawn(reload_on_hangup(hangup, path.to_owned(), config.clone(), log));
    let shutdown = shutdown::on_signal()?;
    let bound = Bound::open(config, Clock::system()).await?;
    let config = bound.server().config();
    tracing::info!(
        socket = %config.socket.display(),
        public = bound.public_address().map(tracing::field::display),
        link = bound.link_address().map(tracing::field::display),
        metrics = bound.metrics_address().map(tracing::field::display),
        key = bound.server().key_id(),
        audit = config.audit.file(&config.data).filter(|_| config.server.is_none()).map(|file| file.display().to_string()),
        "auth-server {} is ready",
        env!("CARGO_PKG_VERSION")
    );
    bound.serve(shutdown).await;
    tracing::info!("stopped");
    Ok(())
}

/// SIGHUP reads the settings again: the log's level takes effect, and what takes effect at a start
/// only is named. Users, grants and certificates need no signal.
async fn reload_on_hangup(mut hangup: Signal, path: PathBuf, at_start: Config, log: LogControl) {
    while hangup.recv().await.is_some() {
        let reloaded = Config::load(&path).map_err(|error| chain(&error));
        match reloaded.and_then(|config| log.set(&config.log).map(|()| config)) {
            Ok(config) => {
                tracing::info!("the settings were read again");
                for key in at_start.fixed_differences(&config) {
                    tracing::warn!("{key} changed: it takes effect at the next start");
                }
            }
            Err(error) => tracing::error!(error, "the settings stay as they were"),
        }
    }
}

async fn ask(path: &Path) -> Result<(), Box<dyn Error>> {
    let settings = Settings::read(path)?;
    let config = Config::of(&settings)?;
    Identity::of_server(&settings, &config.data, config::DATABASE)?.become_for_good()?;
    Ok(health::ask(&config.socket).await?)
}
