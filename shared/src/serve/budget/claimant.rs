//! Who claims a share: somebody who signed in, or the network that strangers come from.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::subject::Subject;

/// Whose share it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Claimant {
    /// Who signed in.
    Subject(Subject),
    /// The network of somebody who did not: a /24 of IPv4, a /64 of IPv6; `None` is this machine's
    /// own sockets.
    Network(Option<IpNet>),
}

impl Claimant {
    /// Whose share a request is counted on that `subject` makes from `address`.
    #[must_use]
    pub fn of(subject: &Subject, address: Option<IpAddr>) -> Self {
        match subject {
            Subject::Anonymous => Self::stranger(address),
            signed_in => Self::Subject(signed_in.clone()),
        }
    }

    /// Whose share a request is counted on before anybody signed in.
    #[must_use]
    pub fn stranger(address: Option<IpAddr>) -> Self {
        let network = address.map(|address| {
            let address = address.to_canonical();
            let prefix = if address.is_ipv4() { 24 } else { 64 };
            // No address is too short for its prefix.
            IpNet::new(address, prefix).unwrap_or(address.into()).trunc()
        });
        Self::Network(network)
    }

    pub(super) fn is_stranger(&self) -> bool {
        matches!(self, Self::Network(_))
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
}
