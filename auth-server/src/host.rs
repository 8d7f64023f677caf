//! The names and addresses by which clients reach the registry.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use rustls::pki_types::DnsName;
use serde::Serialize;

/// The port that URLs leave out.
const HTTPS_PORT: u16 = 443;

/// A DNS name in lower case, or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// A DNS name.
    Name(String),
}

/// The text is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host: write a name such as reg.homelab.lan or an address such as 192.168.1.5, \
     without scheme and port"
)]
pub struct InvalidHost(String);

impl Host {
    /// Whether it is an IPv6 address.
    pub fn is_ipv6(&self) -> bool {
        matches!(self, Self::Address(IpAddr::V6(_)))
    }

    /// The origin of the host on `port`, as clients write it: the port of HTTPS is left out.
    pub fn origin(&self, port: u16) -> String {
        let host = match self {
            Self::Address(IpAddr::V6(address)) => format!("[{address}]"),
            host => host.to_string(),
        };
        if port == HTTPS_PORT {
            format!("https://{host}")
        } else {
            format!("https://{host}:{port}")
        }
    }

    /// Whether docker takes any certificate from this host, or none at all.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == "localhost",
        }
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let invalid = || InvalidHost(text.to_owned());
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address: Option<IpAddr> = match bare {
            Some(v6) => Some(v6.parse::<Ipv6Addr>().map_err(|_| invalid())?.into()),
            None => text.parse().ok(),
        };
        if let Some(address) = address {
            // One that means every address is for listening on; nobody is reached at it.
            let is_one = !address.is_unspecified();
            return is_one.then_some(Self::Address(address)).ok_or_else(invalid);
        }
        // Some resolvers take underscores and a dot at the end; URLs of a registry have neither.
        let is_plain = !text.contains('_') && !text.ends_with('.');
        match DnsName::try_from(text.to_ascii_lowercase()) {
            Ok(name) if is_plain => Ok(Self::Name(name.as_ref().to_owned())),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_without_port() {
        for (text, origin) in [
            ("reg.homelab.lan", "https://reg.homelab.lan:5000"),
            ("Reg.Homelab.LAN", "https://reg.homelab.lan:5000"),
            ("localhost", "https://localhost:5000"),
            ("192.168.1.5", "https://192.168.1.5:5000"),
            ("::1", "https://[::1]:5000"),
            ("[::1]", "https://[::1]:5000"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().origin(5000), origin);
        }
        assert_eq!("a.b".parse::<Host>().unwrap().origin(443), "https://a.b");
        for bad in [
            "",
            "a:5000",
            "https://a",
            "a/b",
            "a b",
            "-a",
            "a..b",
            "*.a",
            "1.2.3",
            "[a]",
            "0.0.0.0",
            "::",
            "[::]",
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }
}
