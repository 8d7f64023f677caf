//! The network of a client, as far as one person has it.

use std::net::IpAddr;

/// A /24 of IPv4, a /64 of IPv6, or the machine's own sockets.
pub(super) type Network = [u8; 8];

/// The network that `client` is in.
pub(super) fn network(client: Option<IpAddr>) -> Network {
    let mut network = [0; 8];
    match client.map(|client| client.to_canonical()) {
        None => {}
        Some(IpAddr::V4(v4)) => {
            network[0] = 4;
            network[1..4].copy_from_slice(&v4.octets()[..3]);
        }
        Some(IpAddr::V6(v6)) => network.copy_from_slice(&v6.octets()[..8]),
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_of_a_size_that_one_person_has() {
        let of = |text: &str| network(Some(text.parse().unwrap()));
        assert_eq!(of("192.0.2.1"), of("192.0.2.254"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.9"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(network(None), of("0.0.0.0"));
    }
}
