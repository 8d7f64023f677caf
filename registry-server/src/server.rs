//! The server: its listeners, what is started and in which order, and how all of it ends.

use std::{fs::File, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use berth_shared::{
    clock::Clock,
    crypto,
    files::raise_open_files,
    serve::{
        Limits, Listener, Name,
        expiry::{self, Countdown},
        health::Audience,
        metrics, serve,
        tls::Tls,
    },
    token::Verifier,
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth_client::AuthClient,
    authz::Authorizer,
    config::{Config, TlsFiles},
    data::{CONTROL_SOCKET, Home, Opening, StartError, lock, open_registry, preparing},
    http::{self, App, basic::Exchange},
    issuer::{Foreign, Issuer},
    jobs, maintenance,
    metrics::{Lookup, SERIES, SERVER},
    registry::{BLOB_FILES_MAX, Registry, lease::Standing},
};

/// Files besides those of connections, uploads that move and blobs: the database's, the requests to
/// `auth-server`, which are 512 at most, the 256 of uploads whose clients think, and what is open
/// for a moment.
const OTHER_FILES: usize = 1024;

/// How long another server on the same database is waited for, which may be about to end, or have died with
/// its machine.
const OTHERS_TIME: Duration = Duration::from_secs(30);

/// What to do about a certificate that is about to expire.
const CERTIFICATE_ADVICE: &str = "renew it where it came from; one that Berth made is renewed by \
     auth-server, if [certificates] in auth.toml says where it lies, or by authctl cert renew";

/// How long uploads whose clients have left, or whose time is over, may still go on at the end.
const UPLOADS_TIME: Duration = Duration::from_millis(1500);

/// A server that has bound its addresses and is ready to serve.
pub struct Server {
    app: Arc<App>,
    public: Listener,
    control: Listener,
    tls: Option<Arc<Tls>>,
    countdown: Option<Countdown>,
    limits: Limits,
    metrics: Option<(Listener, Router)>,
    // Held until the end: the data directory is this server's alone, and the database.
    _lock: File,
    standing: Standing,
}

impl Server {
    /// Opens the data directory and binds the addresses.
    ///
    /// # Errors
    /// What cannot be used, and why.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        crypto::install();
        let lock = lock(&config.data)?;
        let (registry, _) = open_registry(&config, clock.clone(), Opening::Server).await?;
        let registry = registry.with_blob_files(blob_files(&config));
        let standing = Home::of(&config).stand(&registry, OTHERS_TIME).await?;
        let foreign_subjects = config.foreign_issuer.is_some();
        let issuer = match config.foreign_issuer {
            None => Issuer::Berth(AuthClient::open(config.auth_server, &config.data)?),
            Some(foreign) => {
                Issuer::Foreign(Foreign::open(foreign).map_err(StartError::ForeignIssuer)?)
            }
        };
        let verifier =
            Verifier { issuer: config.issuer, service: config.service.clone(), foreign_subjects };
        let basic = match &issuer {
            Issuer::Berth(client) if config.basic => {
                let exchange = Exchange::new(client.clone(), &config.service);
                Some(exchange.map_err(|_| StartError::Randomness)?)
            }
            _ => None,
        };
        let control = Listener::unix(&config.data.join(CONTROL_SOCKET), None);
        let control = control.map_err(preparing("the control socket"))?;
        let app = Arc::new(App {
            registry,
            authorizer: Authorizer::new(verifier, issuer.clone(), clock.clone()),
            issuer,
            service: config.service.into(),
            origins: config.public_urls.into(),
            trusted_proxies: Arc::clone(&config.connections.trusted_proxies),
            basic,
            cors: config.cors.into(),
            uploads: TaskTracker::new(),
            control: control.socket_file(),
        });
        let countdown = config.tls.as_ref().map(|tls| {
            Countdown::new("server", tls.certificate.clone(), CERTIFICATE_ADVICE, clock.clone())
        });
        let tls = config.tls.map(|files| load_tls(&files, &app)).transpose()?;
        let public = Listener::tcp(config.listen, tls.clone());
        let metrics = config.metrics.map(|it| listen_for_metrics(it.listen, &app, &clock));
        let metrics = metrics.transpose()?;
        Ok(Self {
            app,
            public: public.map_err(preparing("the public address"))?,
            control,
            tls,
            countdown,
            limits: config.connections,
            metrics,
            _lock: lock,
            standing,
        })
    }

    /// The public address that was bound.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.public.local_addr()
    }

    /// The address on which metrics are read, if there is one.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|(listener, _)| listener.local_addr())
    }

    /// The registry that is served.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.app.registry.clone()
    }

    /// The public routes, for benches that do without connections.
    #[cfg(feature = "fuzzing")]
    pub fn routes(&self) -> Router {
        http::router(Arc::clone(&self.app))
    }

    /// Serves until `shutdown`, then lets open requests finish, and closes the database before the
    /// data directory is anybody's again: within seconds, whatever is under way.
    pub async fn serve(self, shutdown: CancellationToken) {
        if let Some(tls) = self.tls {
            tokio::spawn(tls.keep_fresh(shutdown.clone()));
        }
        tokio::spawn(expiry::count_down(self.countdown.into_iter().collect(), shutdown.clone()));
        tokio::spawn(self.app.issuer.clone().keep_fresh(shutdown.clone()));
        let (registry, uploads) = (self.app.registry.clone(), self.app.uploads.clone());
        let collection = tokio::spawn(maintenance::collect(registry.clone(), shutdown.clone()));
        maintenance::follow(&registry, &shutdown);
        let standing = tokio::spawn(maintenance::hold_registry(
            self.standing,
            registry.clone(),
            shutdown.clone(),
        ));
        let verification = tokio::spawn(maintenance::verify(registry.clone(), shutdown.clone()));
        let routes = http::health_routes(self.app.clone(), Audience::Private)
            .merge(jobs::server::routes(registry.clone()));
        let name = |listener| Name { server: SERVER, listener };
        let (limits, stop) = (Limits::default(), shutdown.clone());
        let control = serve(self.control, name("control"), routes, limits.clone(), stop);
        if let Some((listener, routes)) = self.metrics {
            tokio::spawn(metrics::keep_up(shutdown.clone()));
            tokio::spawn(serve(listener, name("metrics"), routes, limits, shutdown.clone()));
        }
        let routes = http::router(self.app);
        let public = serve(self.public, name("public"), routes, self.limits, shutdown);
        // A task that panicked has said so.
        let (_, _, _, _, presence) =
            tokio::join!(public, control, collection, verification, standing);
        uploads.close();
        if timeout(UPLOADS_TIME, uploads.wait()).await.is_err() {
            tracing::warn!(open = uploads.len(), "uploads still under way at the end");
        }
        if let Ok(Some(presence)) = presence {
            presence.end().await;
        }
        registry.close().await;
    }
}

/// How many files blobs are read from at once: what the system gives, less what all else needs.
fn blob_files(config: &Config) -> usize {
    let uploads = config.settings.limits.uploads_max.saturating_mul(2);
    let others =
        config.connections.connections_max.saturating_add(uploads).saturating_add(OTHER_FILES);
    let open = raise_open_files(others.saturating_add(BLOB_FILES_MAX));
    open.saturating_sub(others).clamp((open / 4).min(BLOB_FILES_MAX), BLOB_FILES_MAX)
}

fn load_tls(files: &TlsFiles, app: &App) -> Result<Arc<Tls>, StartError> {
    let tls = Tls::load(&files.certificate, &files.key)?;
    Ok(Arc::new(tls.at(app.origins[0].to_string())))
}

/// From here on what happens is counted.
fn listen_for_metrics(
    address: SocketAddr,
    app: &App,
    clock: &Clock,
) -> Result<(Listener, Router), StartError> {
    let routes = || {
        metrics::record(SERVER, env!("CARGO_PKG_VERSION"), clock, &SERIES)?;
        let App { registry, issuer, authorizer, .. } = app;
        let lookup = Lookup::new(registry.clone(), issuer.clone(), authorizer.clone());
        metrics::routes(move || lookup.clone().refresh())
    };
    let routes = routes().map_err(io::Error::other).map_err(preparing("metrics"))?;
    let listener = Listener::tcp(address, None).map_err(preparing("the address for metrics"))?;
    Ok((listener, routes))
}
