//! Where an issuer is asked: `https`, and plain `http` on this machine's own loopback alone.

use std::{net::IpAddr, str::FromStr};

use http::Uri;

use super::Invalid;

/// What OpenID Connect Discovery 1.0 §4 appends to an issuer.
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// The longest address, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// An address that keys may be fetched from. What was written is kept, since the `iss` of a token
/// must equal it byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IssuerUrl {
    text: String,
    uri: Uri,
}

impl IssuerUrl {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address as a request's target.
    pub(crate) fn uri(&self) -> Uri {
        self.uri.clone()
    }

    /// Where the issuer describes itself.
    ///
    /// # Errors
    /// When the issuer has a query, or is too long for something to be appended.
    pub(crate) fn discovery(&self) -> Result<Self, Invalid> {
        if self.uri.query().is_some() {
            return Err(unreadable(&self.text));
        }
        format!("{}{DISCOVERY_PATH}", self.text.trim_end_matches('/')).parse()
    }

    /// Whether both are on one host and port, by one protocol.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.origin() == other.origin()
    }

    fn origin(&self) -> (bool, String, u16) {
        let is_tls = self.uri.scheme_str() == Some("https");
        let port = self.uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        (is_tls, self.uri.host().unwrap_or_default().to_ascii_lowercase(), port)
    }
}

impl FromStr for IssuerUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unreadable = || unreadable(text);
        let uri: Uri = text.parse().map_err(|_| unreadable())?;
        let authority = uri.authority().map_or("@", |authority| authority.as_str());
        let host = uri.host().unwrap_or_default();
        let is_odd = text.len() > URL_BYTES_MAX || text.contains('#') || authority.contains('@');
        if is_odd || host.is_empty() {
            return Err(unreadable());
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) => {}
            Some("http") => {
                let reason = "is not https, and http is taken for loopback addresses alone";
                return Err(Invalid(format!("{text:?} {reason}")));
            }
            _ => return Err(unreadable()),
        }
        Ok(Self { text: text.to_owned(), uri })
    }
}

fn unreadable(text: &str) -> Invalid {
    let beginning: String = text.chars().take(URL_BYTES_MAX).collect();
    let example = "https://token.actions.githubusercontent.com";
    Invalid(format!("{beginning:?} is no address such as {example}"))
}

/// A literal address: what `localhost` stands for is another's to say.
fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    literal.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> IssuerUrl {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_https_or_on_the_loopback() {
        for good in [
            "https://token.actions.githubusercontent.com",
            "https://host:6443/openid/v1/jwks",
            "https://host/keys?app=1",
            "http://127.0.0.1:1/x",
            "http://[::1]:1",
        ] {
            assert_eq!(url(good).as_str(), good);
        }
        for bad in [
            "",
            "host",
            "/path",
            "host:443",
            "https://",
            "https://user@host",
            "https://user:password@host",
            "https://host/#x",
            "https://ho st",
            // What readers of URLs mend without a word.
            "https:host",
            "https:/host",
            "https:///host",
            "https:\\\\host",
            "https://host\\@other",
            "https://ho\tst",
            "https://host\n",
            " https://host",
            "https://@host",
            "https://h%6fst",
            "https://b\u{fc}cher.example",
            "http://127.1",
            "http://0x7f000001",
            "http://2130706433",
            "http://127.0.0.1.",
            "http://%31%32%37.0.0.1",
            "file:///etc/passwd",
            "ftp://host",
            "http://host",
            "http://localhost:1",
            "http://127.0.0.1.example.org",
            "http://0.0.0.0",
            "http://10.0.0.1",
        ] {
            assert!(bad.parse::<IssuerUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn discovery_is_below_the_issuer_and_keys_beside_it() {
        for (issuer, discovery) in [
            ("https://a", "https://a/.well-known/openid-configuration"),
            ("https://a/", "https://a/.well-known/openid-configuration"),
            ("https://a/b", "https://a/b/.well-known/openid-configuration"),
        ] {
            assert_eq!(url(issuer).discovery().unwrap().as_str(), discovery);
        }
        assert!(url("https://a/?x=1").discovery().is_err());
        for (keys, is_beside) in [
            ("https://a/keys", true),
            ("https://A:443/keys", true),
            ("https://a:444/keys", false),
            ("https://b/keys", false),
            ("https://a.b/keys", false),
            ("https://b.a/keys", false),
        ] {
            assert_eq!(url("https://a/x").is_beside(&url(keys)), is_beside, "{keys}");
        }
    }
}
