//! Which pages of other origins may use the API: `[cors]`.

use axum::http::Uri;
use berth_shared::config::ConfigError;
use serde::Deserialize;

use crate::http::origin::Origin;

const KEY: &str = "cors.allowed_origins";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cors {
    #[serde(default)]
    allowed_origins: Vec<String>,
}

impl Cors {
    pub(super) fn check(&self) -> Result<Vec<Origin>, ConfigError> {
        self.allowed_origins.iter().map(|text| read(text)).collect()
    }
}

/// Reads an origin that a browser names. A pattern would let pages in that nobody thought of, and
/// `null` is the origin of whatever has none.
fn read(text: &str) -> Result<Origin, ConfigError> {
    let origin = text.parse::<Uri>().ok().and_then(|uri| Origin::from_uri(&uri));
    let is_one = |origin: &Origin| !text.ends_with('/') && !origin.to_string().contains('*');
    origin.filter(is_one).ok_or_else(|| {
        let reason =
            "is no origin: write scheme, host and port of the page, as in https://ui.example.org";
        ConfigError::value(KEY, format!("{text:?} {reason}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_and_host_and_no_pattern() {
        for (text, written) in [
            ("https://ui.example.org", "https://ui.example.org"),
            ("https://UI.example.org:443", "https://ui.example.org"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(read(text).unwrap().to_string(), written);
        }
        for text in [
            "",
            "*",
            "null",
            "https://*",
            "https://*.example.org",
            "ui.example.org",
            "file://ui",
            "ftp://ui.example.org",
            "https://ui.example.org/",
            "https://ui.example.org/x",
            "https://a@ui.example.org",
            "https://ui.example.org?x",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
