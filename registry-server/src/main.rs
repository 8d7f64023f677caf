//! The `registry-server` program: settings, log, signals, and its verbs.

use std::{path::PathBuf, process::ExitCode};

use berth_shared::{
    clock::Clock,
    serve::{health, shutdown},
    telemetry::{self, chain},
};
use clap::{Parser, Subcommand};
use nix::sys::stat::{Mode, umask};
use registry_server::{CONTROL_SOCKET, Server, config::Config};

/// Serves the OCI distribution API from disk to holders of Berth's tokens.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  registry-server --config data/registry.toml          serve until Ctrl-C
  registry-server --config data/registry.toml health   exit 0 when the running server is ready

The configuration is described in deploy/config/registry.example.toml; `authctl init` writes one."
)]
struct Cli {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/berth/registry.toml", global = true)]
    config: PathBuf,

    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Clone, Copy, Default, Subcommand)]
enum Verb {
    /// Serve until SIGTERM or Ctrl-C. This is what happens without a verb.
    #[default]
    Serve,
    /// Ask the running server whether it is ready: exit status 0 or 1.
    Health,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // What is written here is nobody else's to read, whatever the shell's mask.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    match run(&cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("registry-server: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<(), String> {
    let config = Config::read(&cli.config).map_err(|error| chain(&error))?;
    match cli.verb.unwrap_or_default() {
        Verb::Serve => {
            telemetry::init(&config.log, config.log_format)?;
            let shutdown = shutdown::on_signal().map_err(|error| error.to_string())?;
            let server =
                Server::start(config, Clock::system()).await.map_err(|error| chain(&error))?;
            if let Some(address) = server.local_addr() {
                tracing::info!(%address, "registry-server is serving");
            }
            server.serve(shutdown).await;
            tracing::info!("stopped");
            Ok(())
        }
        Verb::Health => health::ask(&config.data.join(CONTROL_SOCKET)).await,
    }
}
