//! Metrics in Prometheus' text format, on a listener of their own.
//!
//! They are not secret and not for everybody: the listener asks for no credentials, so it is bound
//! to a loopback address. Labels are words of the program's own, so that no client can make
//! series, and nothing in them names a user, a repository or an address.
//!
//! Requests and connections are counted here, for both servers. What must be looked up, such as the
//! size of a database, a server sets when it is asked for its metrics.

use std::{net::SocketAddr, path::Path, sync::OnceLock, time::Duration};

use axum::{Router, routing::get};
use http::{Method, header};
use metrics::{Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Name, budget::Budget};
use crate::{clock::Clock, config::ConfigError};

/// Where the metrics are read.
pub const METRICS_PATH: &str = "/metrics";

/// What the exposition format calls itself.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// The upper bounds of every histogram, in seconds: from a signature to a push of a large layer.
const BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0,
];

/// How long a scrape waits for what must be looked up. After that the last values are told:
/// Prometheus gives up after ten seconds.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// How often observations are put into their buckets when nobody scrapes, which frees the memory
/// that they take.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The series of both servers.
const COMMON: [Series; 13] = [
    Series::gauge("berth_build_info", "Always 1; the version that runs is a label."),
    Series::gauge("berth_process_start_time_seconds", "When the server started, in Unix time."),
    Series::gauge("berth_connections_open", "Connections that are open."),
    Series::gauge("berth_connections_max", "Connections that may be open."),
    Series::counter("berth_connections_ended_total", "Connections that the server ended."),
    Series::counter("berth_requests_total", "Requests that were answered, or given up."),
    Series::histogram(
        "berth_request_duration_seconds",
        "From the head of a request to the last byte of its answer.",
    ),
    Series::counter("berth_received_bytes_total", "Bytes of request bodies."),
    Series::counter("berth_sent_bytes_total", "Bytes of the bodies of answers."),
    Series::gauge(
        "berth_certificate_remaining_seconds",
        "What is left of a certificate; below zero it has expired.",
    ),
    Series::gauge("berth_database_bytes", "Bytes of the database's files."),
    Series::gauge("berth_memory_bytes", "Bytes under way from clients and to them."),
    Series::gauge("berth_memory_max_bytes", "How many of them there may be; further ones wait."),
];

/// The `[metrics]` table of both servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address to serve metrics on; a loopback one.
    #[serde(deserialize_with = "crate::config::address")]
    pub listen: SocketAddr,
}

impl Config {
    /// Whether the address makes sense.
    ///
    /// # Errors
    /// When others than this machine could read the metrics.
    pub fn check(self) -> Result<Self, ConfigError> {
        if self.listen.ip().is_loopback() {
            return Ok(self);
        }
        let reason = format!(
            "{} is no loopback address, and nobody is asked for credentials there: use \
             127.0.0.1, or put a proxy in front",
            self.listen.ip()
        );
        Err(ConfigError::value("metrics.listen", reason))
    }
}

/// One name among the metrics, and what a reader is told about it.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    name: &'static str,
    help: &'static str,
    describe: fn(&'static str, &'static str),
}

impl Series {
    /// Something that only grows.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, describe: |name, help| describe_counter!(name, help) }
    }

    /// Something as it stands.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, describe: |name, help| describe_gauge!(name, help) }
    }

    /// How long something took.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, describe: |name, help| describe_histogram!(name, help) }
    }
}

/// Which server it is, in the labels of what both count.
pub type Server = &'static str;

/// How the requests of a server are told apart.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Which server.
    pub server: Server,
    /// The word for what a request's method and path ask for: one of a fixed set.
    pub endpoint: fn(&Method, &str) -> &'static str,
}

/// Records metrics from now on, and tells what `series` are.
///
/// # Errors
/// When something else records metrics already.
pub fn record(
    server: Server,
    version: &'static str,
    clock: &Clock,
    series: &[Series],
) -> Result<(), String> {
    recorder()?;
    for Series { name, help, describe } in COMMON.iter().chain(series) {
        describe(name, help);
    }
    gauge!("berth_build_info", "server" => server, "version" => version).set(1.0);
    gauge!("berth_process_start_time_seconds", "server" => server).set(clock.now().get() as f64);
    Ok(())
}

/// The metrics of this process. `refresh` sets what must be looked up, before each answer.
///
/// # Errors
/// When something else records metrics already.
pub fn routes<F, Fut>(refresh: F) -> Result<Router, String>
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    // One scrape at a time: what is looked up costs the same however many ask, and what is told is
    // what was looked up for it.
    static TURN: Mutex<()> = Mutex::const_new(());
    let handle = recorder()?;
    let render = move || {
        let (handle, refresh) = (handle.clone(), refresh.clone());
        async move {
            let _turn = TURN.lock().await;
            if tokio::time::timeout(REFRESH_TIMEOUT, refresh()).await.is_err() {
                tracing::warn!("looking up metrics took too long: the last values are told");
            }
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], handle.render())
        }
    };
    Ok(Router::new().route(METRICS_PATH, get(render)))
}

/// Tells how large the files of an SQLite database are, by what they are: what was committed last is
/// in the log beside it.
pub fn tell_database_bytes(server: Server, path: &Path) {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    for (file, path) in [("main", path), ("wal", Path::new(&log))] {
        let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
        gauge!("berth_database_bytes", "server" => server, "file" => file).set(bytes as f64);
    }
}

/// Tells how much of what clients make large is in memory.
pub fn tell_memory(server: Server, memory: &Budget) {
    gauge!("berth_memory_bytes", "server" => server).set(memory.held() as f64);
    gauge!("berth_memory_max_bytes", "server" => server).set(memory.max() as f64);
}

/// Keeps what is recorded from growing until `shutdown`.
pub async fn keep_up(shutdown: CancellationToken) {
    let Ok(handle) = recorder() else { return };
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        handle.run_upkeep();
    }
}

/// The one recorder of the process. From the first call on metrics are recorded.
fn recorder() -> Result<PrometheusHandle, String> {
    static RECORDED: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let install = || {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS);
        builder.and_then(PrometheusBuilder::install_recorder).map_err(|error| error.to_string())
    };
    RECORDED.get_or_init(install).clone()
}

/// Whether a method reads or writes: clients can make up others.
pub(super) fn class(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "read",
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE => "write",
        _ => "other",
    }
}

/// The connections of one listener.
#[derive(Clone)]
pub(super) struct Connections {
    name: Name,
    open: Gauge,
}

impl Connections {
    pub(super) fn of(name: Name, most: usize) -> Self {
        let Name { server, listener } = name;
        gauge!("berth_connections_max", "server" => server, "listener" => listener)
            .set(most as f64);
        let open = gauge!("berth_connections_open", "server" => server, "listener" => listener);
        let connections = Self { name, open };
        ["late", "room", "share"].iter().for_each(|reason| connections.count_ended(reason, 0));
        connections
    }

    /// Counts a connection until the result is dropped.
    pub(super) fn open(&self) -> Open {
        self.open.increment(1.0);
        Open(self.open.clone())
    }

    /// Counts a connection that was ended although its client would have kept it: `late` because it
    /// took its answers too slowly, to make `room`, or since its network had its `share`.
    pub(super) fn ended(&self, reason: &'static str) {
        self.count_ended(reason, 1);
    }

    fn count_ended(&self, reason: &'static str, by: u64) {
        let Name { server, listener } = self.name;
        let labels = [("server", server), ("listener", listener), ("reason", reason)];
        counter!("berth_connections_ended_total", &labels).increment(by);
    }
}

/// A connection that is open.
pub(super) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_a_client_makes_up_is_no_label() {
        let invented = Method::from_bytes(b"ROBOT").unwrap();
        let classes = [Method::HEAD, Method::PATCH, invented].map(|method| class(&method));
        assert_eq!(classes, ["read", "write", "other"]);
    }
}
