//! Where `auth-server` is, and what the link to it needs.

use std::{fmt, path::PathBuf};

use axum::http::uri::{Authority, Uri};
use berth_shared::link_secret::LinkSecretError;

/// Where the link is listened on, unless its URL says.
const PORT: u16 = 5002;

/// Where `auth-server` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Behind a Unix socket.
    Socket(PathBuf),
    /// At the other end of a link.
    Link(Settings),
}

/// The `[link]` table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Host and port: the certificate has to be of the host, and all its addresses are used.
    pub authority: Authority,
    /// Whose the certificate has to be, PEM.
    pub ca: PathBuf,
    /// The file of the secret.
    pub secret_file: PathBuf,
}

/// The link cannot be used as it is set.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The CA cannot be read.
    #[error(
        "link.ca: {}: {reason}; it is ca.pem in the directory link of auth-server's data, on its machine",
        path.display()
    )]
    Ca {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The secret cannot be read.
    #[error(
        "link.secret_file: {0}; it is the file secret in the directory link of auth-server's data, on its \
         machine, and has to belong to the user that registry-server runs as"
    )]
    Secret(#[from] LinkSecretError),
}

impl Settings {
    /// Reads `url`: https, a host, and a port where it is not 5002.
    pub(crate) fn authority(url: &str) -> Option<Authority> {
        let url: Uri = url.parse().ok()?;
        let authority = url.authority()?;
        let is_bare = url.path() == "/" && url.query().is_none();
        let is_it =
            url.scheme_str() == Some("https") && is_bare && !authority.as_str().contains('@');
        let host = Some(authority.host()).filter(|host| is_it && !host.is_empty())?;
        // A port that is no number is none.
        let has_port = authority.as_str().len() > host.len();
        let port = if has_port { authority.port_u16()? } else { PORT };
        format!("{host}:{port}").parse().ok()
    }

    pub(super) fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(PORT)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.display().fmt(f),
            Self::Link(link) => write!(f, "https://{}", link.authority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_https_a_host_and_perhaps_a_port() {
        for (url, authority) in [
            ("https://auth.berth.svc:5002", Some("auth.berth.svc:5002")),
            ("https://auth.lan", Some("auth.lan:5002")),
            ("https://auth.lan/", Some("auth.lan:5002")),
            ("https://192.0.2.7:443", Some("192.0.2.7:443")),
            ("https://[2001:db8::7]", Some("[2001:db8::7]:5002")),
            ("http://auth.lan", None),
            ("auth.lan:5002", None),
            ("https://auth.lan/path", None),
            ("https://auth.lan?a=b", None),
            ("https://user:word@auth.lan", None),
            ("https://auth.lan:port", None),
            ("https://", None),
        ] {
            let read = Settings::authority(url);
            assert_eq!(read.as_ref().map(Authority::as_str), authority, "{url}");
        }
    }
}
