//! The origins by which clients reach the registry, chosen from the configured list and never
//! derived from a request (auth R5).

use std::{fmt, net::IpAddr};

use axum::http::{HeaderMap, Uri, header, uri::Authority};

/// Scheme, host and port, such as `https://reg.example.org:5000`. As browsers write it: a port that
/// the scheme has anyway is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    authority: String,
}

impl Origin {
    /// Reads an absolute URI without path and query. `None` when it has more, or less.
    #[must_use]
    pub fn from_uri(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?;
        let authority = uri.authority()?.as_str();
        let alone = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let plain = matches!(scheme, "http" | "https") && !authority.contains(['@', '"', '\\']);
        let authority = shortest(scheme, authority).to_ascii_lowercase();
        (alone && plain).then(|| Self { scheme: scheme.to_owned(), authority })
    }

    /// Whether it is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether its host is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Its host, in lower case, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        match self.authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => self.authority.split(':').next().unwrap_or_default(),
        }
    }

    /// Where clients get tokens: the `realm` of the challenge.
    #[must_use]
    pub fn realm(&self) -> String {
        format!("{self}/token")
    }

    fn is_at(&self, authority: &str) -> bool {
        shortest(&self.scheme, authority).eq_ignore_ascii_case(&self.authority)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

fn shortest<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let usual = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(usual).unwrap_or(authority)
}

/// The origin that the request was sent to, if it is one of `origins`; else the first.
pub(crate) fn choose<'o>(origins: &'o [Origin], uri: &Uri, headers: &HeaderMap) -> &'o Origin {
    // HTTP/2 names the host in the request target, HTTP/1.1 in a header.
    let named = uri.authority().map(Authority::as_str);
    let host = named.or_else(|| headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
    origins.iter().find(|origin| origin.is_at(host)).unwrap_or(&origins[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Option<Origin> {
        Origin::from_uri(&text.parse().ok()?)
    }

    #[test]
    fn the_port_that_a_scheme_has_anyway_makes_no_other_origin() {
        for (with, without) in [
            ("https://r.example.org:443", "https://r.example.org"),
            ("HTTPS://R.example.org:443/", "https://r.example.org"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(origin(with), origin(without));
            assert_eq!(origin(with).unwrap().realm(), format!("{without}/token"));
        }
        assert_ne!(origin("http://r.example.org:443"), origin("http://r.example.org"));
        let origins = ["https://other.example.org", "https://r.example.org:443"];
        let origins = origins.map(|text| origin(text).unwrap());
        for (host, chosen) in [
            ("r.example.org", 1),
            ("R.example.org:443", 1),
            ("r.example.org:80", 0),
            ("r.example.org:4430", 0),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
            let uri = Uri::from_static("/v2/");
            assert_eq!(choose(&origins, &uri, &headers), &origins[chosen], "{host}");
        }
    }

    /// What readers of URLs mend without a word.
    #[test]
    fn nothing_is_put_right() {
        for text in [
            "https:r.example.org",
            "https:/r.example.org",
            "https:///r.example.org",
            "https:\\\\r.example.org",
            "https://r.example.org\\",
            "https://r.example.org\\@evil.example.org",
            " https://r.example.org",
            "https://r.exa\tmple.org",
            "https://r.example.org\n",
            "https://user@r.example.org",
            "https://user:secret@r.example.org",
            "https://@r.example.org",
            "https://r%2eexample.org",
            "https://r%00.example.org",
            "https://b\u{fc}cher.example.org",
            "https://r.example.org/.",
            "https://r.example.org?",
        ] {
            assert_eq!(origin(text), None, "{text:?}");
        }
        // A name that ends in a dot is another one, and these are names and no addresses.
        for text in ["https://r.example.org.", "https://127.1", "https://0x7f000001"] {
            assert_eq!(origin(text).unwrap().to_string(), text);
            assert!(!origin(text).unwrap().is_loopback(), "{text}");
        }
    }
}
