//! Where `auth-server` is: `auth_socket`, or the `[link]` table.

use std::path::{Path, PathBuf};

use berth_shared::config::{ConfigError, beside};
use serde::Deserialize;

use crate::auth_client::{LinkSettings, Place};

/// The `[link]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    url: Option<String>,
    ca: Option<PathBuf>,
    secret_file: Option<PathBuf>,
}

impl Link {
    fn check(self, path: &Path) -> Result<LinkSettings, ConfigError> {
        let missing = |key| {
            ConfigError::value(
                key,
                "is needed in [link]: authctl link init makes what belongs there",
            )
        };
        let url = self.url.ok_or_else(|| missing("link.url"))?;
        let ca = self.ca.ok_or_else(|| missing("link.ca"))?;
        let secret_file = self.secret_file.ok_or_else(|| missing("link.secret_file"))?;
        let authority = LinkSettings::authority(&url).ok_or_else(|| {
            let reason = format!(
                "{url:?} is not where an auth-server is: https, a host, and perhaps a port, but no path, such \
                 as \"https://auth.lan:5002\""
            );
            ConfigError::value("link.url", reason)
        })?;
        let [ca, secret_file] = [ca, secret_file].map(|file| beside(path, &file));
        Ok(LinkSettings { authority, ca, secret_file })
    }
}

/// The one place of them.
pub(super) fn place(
    path: &Path,
    socket: Option<PathBuf>,
    link: Option<Link>,
    is_foreign: bool,
) -> Result<Place, ConfigError> {
    let Some(link) = link else {
        return Ok(Place::Socket(beside(path, &socket.unwrap_or("run/auth.sock".into()))));
    };
    if socket.is_some() {
        let reason = "auth-server is asked at one place: take out auth_socket, or [link]";
        return Err(ConfigError::value("link", reason));
    }
    if is_foreign {
        let reason = "with [foreign_issuer] no auth-server is asked: take out one of the two";
        return Err(ConfigError::value("link", reason));
    }
    link.check(path).map(Place::Link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_their_key_and_the_place_is_one() {
        let whole = "url = 'https://auth.lan'\nca = 'ca.pem'\nsecret_file = 'secret'";
        let read = |text: &str, socket: Option<&str>, is_foreign| {
            let link = Some(text).filter(|text| !text.is_empty());
            let link = link.map(|text| toml::from_str(text).unwrap());
            let path = Path::new("/etc/berth/registry.toml");
            place(path, socket.map(Into::into), link, is_foreign).map_err(|error| error.to_string())
        };
        for (text, socket, is_foreign, key) in [
            ("url = 'https://auth.lan'\nca = 'ca.pem'", None, false, "link.secret_file: is needed"),
            ("url = 'https://auth.lan'\nsecret_file = 's'", None, false, "link.ca: is needed"),
            ("ca = 'ca.pem'", None, false, "link.url: is needed"),
            (&whole.replace("https", "http"), None, false, "is not where an auth-server is: https"),
            (whole, Some("auth.sock"), false, "take out auth_socket"),
            (whole, None, true, "with [foreign_issuer]"),
        ] {
            let error = read(text, socket, is_foreign).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
        let place = read(whole, None, false).unwrap();
        assert_eq!(place.to_string(), "https://auth.lan:5002");
        let Place::Link(link) = place else { panic!("a link") };
        assert_eq!(link.secret_file, Path::new("/etc/berth/secret"));
        let place = read("", Some("auth.sock"), true).unwrap();
        assert_eq!(place, Place::Socket("/etc/berth/auth.sock".into()));
    }
}
