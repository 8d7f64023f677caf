//! `registry-server serve`: the server itself, and the signals that it hears.

use std::{path::Path, process::ExitCode};

use berth_shared::{clock::Clock, serve::shutdown, telemetry, telemetry::chain};
use registry_server::{Server, config::Config, registry::Registry};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::Failure;

pub(crate) async fn run(path: &Path, config: Config) -> Result<ExitCode, Failure> {
    telemetry::init(&config.log, config.log_format).map_err(Failure)?;
    let shutdown = shutdown::on_signal().map_err(|error| Failure(error.to_string()))?;
    let server = Server::start(config, Clock::system());
    let server = server.await.map_err(|error| Failure(chain(&error)))?;
    tokio::spawn(hear_signals(path.to_owned(), server.registry()));
    if let Some(address) = server.local_addr() {
        tracing::info!(%address, "registry-server is serving");
    }
    server.serve(shutdown).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// SIGHUP reads the configuration again; SIGUSR1 and SIGUSR2 make the registry read-only, and not.
async fn hear_signals(path: std::path::PathBuf, registry: Registry) -> std::io::Result<()> {
    let mut reload = signal(SignalKind::hangup())?;
    let mut read_only = signal(SignalKind::user_defined1())?;
    let mut writable = signal(SignalKind::user_defined2())?;
    loop {
        tokio::select! {
            _ = reload.recv() => match Config::read(&path) {
                Ok(config) => {
                    registry.change_settings(config.settings);
                    tracing::info!("the configuration was read again");
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), "the configuration stays as it was");
                }
            },
            _ = read_only.recv() => {
                registry.set_read_only(true);
                tracing::info!("read-only: pulls go on");
            }
            _ = writable.recv() => {
                registry.set_read_only(false);
                tracing::info!("pushes are taken again");
            }
        }
    }
}
