//! Metrics in Prometheus' text format, on a listener of their own.
//!
//! They are not secret and not for everybody: the listener asks for no credentials, so it is bound
//! to a loopback address.

use std::{net::SocketAddr, sync::OnceLock};

use axum::{Router, routing::get};
use http::header;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;

use crate::config::ConfigError;

/// Where the metrics are read.
pub const METRICS_PATH: &str = "/metrics";

/// What the exposition format calls itself.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// The `[metrics]` table of both servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address to serve metrics on; a loopback one.
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

/// The metrics of this process. From the first call on they are recorded.
///
/// # Errors
/// When something else records metrics already.
pub fn routes() -> Result<Router, String> {
    static RECORDED: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let install = || PrometheusBuilder::new().install_recorder().map_err(|error| error.to_string());
    let handle = RECORDED.get_or_init(install).clone()?;
    let render = move || {
        let text = handle.render();
        async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
    };
    Ok(Router::new().route(METRICS_PATH, get(render)))
}
