//! The server with its listeners: one on the private socket, and if asked one for other registries, and one
//! for registry-servers on other machines.

use std::{fs::File, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::Router;
use berth_shared::{
    claims::LEEWAY_SECS,
    clock::Clock,
    config::ConfigError,
    files::raise_open_files,
    link_secret::LinkSecretFile,
    serve::{self, Limits, Listener, Name, expiry, metrics, tls::Tls},
    telemetry::chain,
};
use nix::unistd::Group;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Link, Public},
    database::counters::MARK_INTERVAL,
    files, http,
    metrics::{SERIES, SERVER},
    renewal,
    server::AuthServer,
    start_error::StartError,
};

/// How often the htpasswd file and the signing keys are looked at when nobody signs in, so that an
/// edit voids tokens all the same, and keys go when their time is over.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How often the database's clock is heard.
const HEARD_EVERY: Duration = Duration::from_secs(10);

/// Files that are open beside those of connections, with room to spare.
const OTHER_FILES_MAX: usize = 64;

/// Connections of the link at once; a network has half of them.
const LINK_CONNECTIONS_MAX: usize = 1024;

/// The longest head of a request there: what registry-servers pass on is a credential at most.
const LINK_HEADER_BYTES_MAX: u32 = 24 * 1024;

/// The link, which is not served yet.
type Opened = (Listener, Arc<Tls>, LinkSecretFile);

/// A server whose sockets are open and which does not serve yet.
pub struct Bound {
    server: Arc<AuthServer>,
    private: Listener,
    public: Option<(Listener, Arc<Tls>)>,
    link: Option<Opened>,
    metrics: Option<(Listener, Router)>,
    /// Held for as long as the server may write.
    lock: File,
}

impl Bound {
    /// Locks the data directory, opens what `config` names, and then the sockets.
    ///
    /// # Errors
    /// When anything of that cannot be used.
    pub async fn open(config: Config, clock: Clock) -> Result<Self, StartError> {
        config.check()?;
        files::make_directory(&config.data)?;
        let lock = lock(&config.data)?;
        raise_open_files(files_needed(&config));
        if config.metrics.is_some() {
            // From here on what happens is counted.
            metrics::record(SERVER, env!("CARGO_PKG_VERSION"), &clock, &SERIES)
                .map_err(io::Error::other)?;
            crate::metrics::begin();
        }
        let server = AuthServer::open(config, clock).await?;
        let config = server.config();
        if let Some(folder) = config.socket.parent() {
            files::make_directory(folder)?;
        }
        let public = config.public.as_ref().map(listen).transpose()?;
        let link = config.link.as_ref().map(listen_for_link).transpose()?;
        let metrics =
            config.metrics.map(|it| listen_for_metrics(it.listen, &server)).transpose()?;
        let group = config.socket_group.as_deref().map(number_of_group).transpose()?;
        let private = Listener::unix(&config.socket, group)?;
        server.watch(private.socket_file());
        Ok(Self { server, private, public, link, metrics, lock })
    }

    /// The server itself.
    pub fn server(&self) -> &Arc<AuthServer> {
        &self.server
    }

    /// Where the public listener listens, if there is one.
    pub fn public_address(&self) -> Option<SocketAddr> {
        self.public.as_ref().and_then(|(listener, _)| listener.local_addr())
    }

    /// Where registry-servers on other machines are answered, if they are.
    pub fn link_address(&self) -> Option<SocketAddr> {
        self.link.as_ref().and_then(|(listener, ..)| listener.local_addr())
    }

    /// Where metrics are read, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|(listener, _)| listener.local_addr())
    }

    /// Serves until `shutdown`, then lets open requests finish.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { server, private, public, link, metrics, lock } = self;
        let limits = Limits::default();
        let name = |listener| Name { server: SERVER, listener };
        let (routes, stop) = (http::private(Arc::clone(&server)), shutdown.clone());
        let private = serve::serve(private, name("private"), routes, limits.clone(), stop);
        let public = public.map(|(listener, tls)| {
            tokio::spawn(tls.keep_fresh(shutdown.clone()));
            let (routes, stop) = (http::public(Arc::clone(&server)), shutdown.clone());
            let limits = server.config().limits.of_connections();
            serve::serve(listener, name("public"), routes, limits, stop)
        });
        let link = link.map(|(listener, tls, secret)| {
            tokio::spawn(tls.keep_fresh(shutdown.clone()));
            let routes = http::link(Arc::clone(&server), secret);
            serve::serve(listener, name("link"), routes, link_limits(), shutdown.clone())
        });
        if let Some((listener, routes)) = metrics {
            tokio::spawn(metrics::keep_up(shutdown.clone()));
            let stop = shutdown.clone();
            tokio::spawn(serve::serve(listener, name("metrics"), routes, limits, stop));
        }
        // Ends after the last request, whose entry it writes.
        let audit_end = CancellationToken::new();
        let audit = tokio::spawn(server.audit_writer().run(audit_end.clone()));
        let (config, clock) = (server.config(), &server.clock);
        tokio::join!(
            private,
            async {
                if let Some(public) = public {
                    public.await;
                }
            },
            async {
                if let Some(link) = link {
                    link.await;
                }
            },
            look_at_files(&server, &shutdown),
            follow_clock(&server, &shutdown),
            clear_counters(&server, &shutdown),
            renewal::keep(renewal::renewed(config), clock, &shutdown),
            expiry::count_down(renewal::countdowns(config, clock), shutdown.clone()),
        );
        audit_end.cancel();
        if let Err(error) = audit.await {
            tracing::error!(error = chain(&error), "the audit broke off");
        }
        drop(lock);
    }
}

async fn look_at_files(server: &Arc<AuthServer>, shutdown: &CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = server.users.look().await {
            tracing::error!(error = chain(&error), "reading the htpasswd file again");
        }
        if let Err(error) = server.tend_keys().await {
            tracing::error!(error = chain(&error), "keeping the signing keys up to date");
        }
    }
}

/// Follows the database's clock, where others go by it too.
async fn follow_clock(server: &AuthServer, shutdown: &CancellationToken) {
    let (mut ticks, mut is_told) = (tokio::time::interval(HEARD_EVERY), false);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        match server.hear_clock().await {
            Ok(None) => {}
            Ok(Some(difference)) => {
                let is_far = difference.abs() > LEEWAY_SECS;
                if is_far && !is_told {
                    tracing::warn!(
                        difference_secs = difference,
                        "this machine's clock is not that of the database, by which tokens are issued: set it"
                    );
                }
                is_told = is_far;
            }
            Err(error) => tracing::debug!(error = chain(&error), "asking for the database's clock"),
        }
    }
}

async fn clear_counters(server: &AuthServer, shutdown: &CancellationToken) {
    let mut ticks = tokio::time::interval_at(Instant::now() + MARK_INTERVAL, MARK_INTERVAL);
    // What was missed was no time that the server ran.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        match server.clear_counters().await {
            Ok(cleared) => tracing::debug!(cleared, "counters that no token needs any more"),
            Err(error) => tracing::error!(error = chain(&error), "clearing away old counters"),
        }
    }
}

/// The connections that may be open at once, and some for the database, the keys and the audit.
fn files_needed(config: &Config) -> usize {
    let public = config.public.as_ref().map_or(0, |_| config.limits.connections_max);
    let link = config.link.as_ref().map_or(0, |_| LINK_CONNECTIONS_MAX);
    let connections = Limits::default().connections_max.saturating_add(public).saturating_add(link);
    connections.saturating_add(OTHER_FILES_MAX)
}

/// The number of a group that the settings name.
fn number_of_group(group: &str) -> Result<u32, StartError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let found = Group::from_name(group).ok().flatten();
    found.map(|group| group.gid.as_raw()).ok_or_else(|| {
        let reason = format!("there is no group {group:?} on this machine: groupadd makes one");
        ConfigError::value("socket_group", reason).into()
    })
}

fn listen(public: &Public) -> Result<(Listener, Arc<Tls>), StartError> {
    let tls = Arc::new(Tls::load(&public.certificate, &public.key)?);
    Ok((Listener::tcp(public.listen, Some(Arc::clone(&tls)))?, tls))
}

fn listen_for_link(link: &Link) -> Result<Opened, StartError> {
    let secret = LinkSecretFile::open(&link.secret_file)?;
    let tls = Tls::load_for_link(&link.certificate, &link.key).map_err(StartError::Link)?;
    let tls = Arc::new(tls);
    Ok((Listener::tcp(link.listen, Some(Arc::clone(&tls)))?, tls, secret))
}

/// The registry-servers of one network may be many, and strangers are gone with their first request.
fn link_limits() -> Limits {
    Limits {
        connections_max: LINK_CONNECTIONS_MAX,
        connections_per_network_max: LINK_CONNECTIONS_MAX / 2,
        header_bytes_max: LINK_HEADER_BYTES_MAX,
        ..Limits::default()
    }
}

fn listen_for_metrics(
    address: SocketAddr,
    server: &Arc<AuthServer>,
) -> Result<(Listener, Router), StartError> {
    let server = Arc::clone(server);
    let routes = metrics::routes(move || crate::metrics::refresh(Arc::clone(&server)));
    Ok((Listener::tcp(address, None)?, routes.map_err(io::Error::other)?))
}

/// Takes the data directory for this process alone.
pub(crate) fn lock(data: &Path) -> Result<File, StartError> {
    files::try_lock(&data.join("lock"))?.ok_or_else(|| StartError::Locked(data.to_owned()))
}
