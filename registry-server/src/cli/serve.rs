//! `registry-server serve`: the server itself, and the signals that it hears.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use berth_shared::{
    clock::Clock,
    serve::shutdown,
    telemetry::{self, LogControl, chain},
};
use registry_server::{config::Config, registry::Registry, server::Server};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::{Ended, Failure};

pub(crate) async fn run(path: &Path, config: Config) -> Ended {
    let log = telemetry::init(&config.log, config.log_format).map_err(Failure)?;
    let shutdown = shutdown::on_signal()?;
    let reload = Reload { path: path.to_owned(), at_start: config.clone(), log };
    let server = Server::start(config, Clock::system()).await?;
    tokio::spawn(hear_signals(reload, server.registry()));
    if let Some(address) = server.local_addr() {
        tracing::info!(%address, "registry-server is serving");
    }
    server.serve(shutdown).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// What reading the configuration again needs.
struct Reload {
    path: PathBuf,
    at_start: Config,
    log: LogControl,
}

impl Reload {
    /// Puts in force what can be changed while the server runs, and names what cannot.
    fn run(&self, registry: &Registry) -> Result<(), String> {
        let config = Config::read(&self.path).map_err(|error| chain(&error))?;
        self.log.set(&config.log)?;
        registry.change_settings(config.settings);
        tracing::info!("the configuration was read again");
        for key in self.at_start.fixed_differences(&config) {
            tracing::warn!("{key} changed: it takes effect at the next start");
        }
        Ok(())
    }
}

/// SIGHUP reads the configuration again; SIGUSR1 and SIGUSR2 make the registry read-only, and not.
async fn hear_signals(reload: Reload, registry: Registry) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut read_only = signal(SignalKind::user_defined1())?;
    let mut writable = signal(SignalKind::user_defined2())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                if let Err(error) = reload.run(&registry) {
                    tracing::error!(error, "the configuration stays as it was");
                }
            }
            _ = read_only.recv() => {
                registry.set_read_only(true);
                tracing::info!("read-only: pulls go on");
            }
            _ = writable.recv() => {
                registry.set_read_only(false);
                match registry.is_read_only() {
                    true => tracing::warn!("pushes are refused: all servers were told to"),
                    false => tracing::info!("pushes are taken again"),
                }
            }
        }
    }
}
