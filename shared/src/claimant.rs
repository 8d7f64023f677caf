//! Who claims a share: somebody who signed in, or the network that strangers come from.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::subject::Subject;

/// Where somebody is, as far as one customer of a provider has it: a /24 of IPv4, a /64 of IPv6;
/// `None` is this machine's own sockets.
pub type Network = Option<IpNet>;

/// Whose share it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Claimant {
    /// Who signed in.
    Subject(Subject),
    /// The network of somebody who did not.
    Network(Network),
}

impl Claimant {
    /// Whose share a request is counted on that `subject` makes from `address`.
    pub fn of(subject: &Subject, address: Option<IpAddr>) -> Self {
        match subject {
            Subject::Anonymous => Self::stranger(address),
            signed_in => Self::Subject(signed_in.clone()),
        }
    }

    /// Whose share a request is counted on before anybody signed in.
    pub fn stranger(address: Option<IpAddr>) -> Self {
        Self::Network(address.map(network_of))
    }

    /// Whether nobody signed in.
    pub fn is_stranger(&self) -> bool {
        matches!(self, Self::Network(_))
    }
}

/// `subject:NAME` or `network:ADDRESS/PREFIX`.
impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(subject) => write!(f, "subject:{}", subject.claim()),
            Self::Network(Some(network)) => write!(f, "network:{network}"),
            Self::Network(None) => f.write_str("network:unknown"),
        }
    }
}

/// The network that an address is in: a /24 of IPv4, a /64 of IPv6.
pub fn network_of(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    let prefix = if address.is_ipv4() { 24 } else { 64 };
    // No address is too short for its prefix.
    IpNet::new(address, prefix).unwrap_or(address.into()).trunc()
}

/// The site that a network is of, as far as one customer of a provider may have many: a /24 of IPv4,
/// a /48 of IPv6.
pub fn site_of(network: IpNet) -> IpNet {
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(v6) => IpNet::new(v6.addr().into(), 48).unwrap_or(network).trunc(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_of_one_network_are_one_claimant_and_who_signed_in_is_another() {
        let stranger = |address: &str| Claimant::stranger(Some(address.parse().unwrap()));
        assert_eq!(stranger("192.0.2.1"), stranger("192.0.2.255"));
        assert_eq!(stranger("192.0.2.1"), stranger("::ffff:192.0.2.9"));
        assert_ne!(stranger("192.0.2.1"), stranger("192.0.3.1"));
        assert_eq!(stranger("2001:db8::1"), stranger("2001:db8::ffff:1"));
        assert_ne!(stranger("2001:db8::1"), stranger("2001:db8:0:1::1"));
        let address = Some("192.0.2.1".parse().unwrap());
        let andrew = Subject::User("andrew".parse().unwrap());
        assert_eq!(Claimant::of(&Subject::Anonymous, address), stranger("192.0.2.1"));
        assert_eq!(Claimant::of(&andrew, address), Claimant::of(&andrew, None));
    }

    #[test]
    fn a_claimant_is_told_as_text() {
        for (address, text) in [
            ("192.0.2.77", "network:192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "network:2001:db8:1:2::/64"),
        ] {
            assert_eq!(Claimant::stranger(Some(address.parse().unwrap())).to_string(), text);
        }
        let eve = Subject::User("eve".parse().unwrap());
        assert_eq!(Claimant::of(&eve, None).to_string(), "subject:eve");
    }
}
