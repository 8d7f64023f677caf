//! Starting the servers, and ending them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use auth_server::AuthServer;
use berth_shared::clock::Clock;
use registry_server::{config::Config, registry::Registry, server::Server};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{auth, client::Client, settings::settings_of};

/// A server that runs.
pub(crate) struct Running {
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) public: Option<SocketAddr>,
    /// Of the auth server's link.
    pub(crate) link: Option<SocketAddr>,
    /// Of a registry-server.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) registry: Option<Registry>,
}

impl Running {
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.expect("a server panicked");
    }
}

pub(crate) async fn start_auth(root: &Path, clock: Clock) -> (Arc<AuthServer>, Running) {
    let config = auth::config(root);
    let bound = auth_server::Bound::open(config, clock).await.expect("starting auth-server");
    let server = Arc::clone(bound.server());
    let shutdown = CancellationToken::new();
    let (metrics, public) = (bound.metrics_address(), bound.public_address());
    let link = bound.link_address();
    let task = tokio::spawn(bound.serve(shutdown.clone()));
    let (address, registry) = (None, None);
    (server, Running { shutdown, task, metrics, public, link, address, registry })
}

pub(crate) async fn start_registries(
    root: &Path,
    number: usize,
    clock: &Clock,
    ca: &CertificateDer<'static>,
) -> (Client, Vec<Running>) {
    // At once, as where a cluster starts them.
    let start = |replica| tokio::spawn(start_registry(root.to_owned(), replica, clock.clone()));
    let (starting, mut started) = ((0..number).map(start).collect::<Vec<_>>(), Vec::new());
    for starting in starting {
        started.push(starting.await.expect("a registry-server that starts"));
    }
    let addresses: Vec<_> = started.iter().filter_map(|it| it.address).collect();
    (Client::new(addresses[0], ca, &[]).of(addresses), started)
}

async fn start_registry(root: PathBuf, replica: usize, clock: Clock) -> Running {
    let config = Config::read(&root.join(settings_of(replica))).expect("registry.toml");
    let server = Server::start(config, clock).await.expect("starting registry-server");
    let (address, metrics) = (server.local_addr(), server.metrics_addr());
    let (registry, shutdown) = (Some(server.registry()), CancellationToken::new());
    let task = tokio::spawn(server.serve(shutdown.clone()));
    Running { shutdown, task, metrics, public: None, link: None, address, registry }
}
