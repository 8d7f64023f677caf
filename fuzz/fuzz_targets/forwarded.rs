//! A line with the peer's address, one with the networks that are trusted, and a line for each
//! `X-Forwarded-For` header.
//!
//! Limits go by whom a request comes from. A peer that is not trusted is believed nothing, and what
//! stands left of the first stranger was written by that stranger and changes nothing.
#![no_main]

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use registry_server::fuzzing::client_address;

const FORWARDED: &str = "x-forwarded-for";

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let Some(peer) = lines.next().and_then(|line| line.parse::<IpAddr>().ok()) else { return };
    let trusted: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let Ok(headers) = lines.map(HeaderValue::from_str).collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let find = |headers: &[HeaderValue]| {
        let named = headers.iter().map(|value| (FORWARDED.parse().expect("a name"), value.clone()));
        client_address(peer, &HeaderMap::from_iter(named), &trusted)
    };
    let Some(found) = find(&headers) else { return };
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| contains(net, address));
    assert_eq!(found, expected(peer, &headers, is_trusted), "{peer} {trusted:?} {headers:?}");

    let forged = [&[HeaderValue::from_static("203.0.113.9, ::1, x")], &headers[..]].concat();
    assert_eq!(find(&forged), Some(found), "{peer} {trusted:?} {headers:?}");
});

/// From the right: whoever is no proxy of ours is the client, and so is the last who is known.
fn expected(peer: IpAddr, headers: &[HeaderValue], is_trusted: impl Fn(&IpAddr) -> bool) -> IpAddr {
    let texts = headers.iter().filter_map(|value| value.to_str().ok());
    let joined = texts.collect::<Vec<_>>().join(",");
    let mut known = peer;
    for hop in joined.rsplit(',') {
        match hop.trim().parse::<IpAddr>() {
            Ok(next) if is_trusted(&known) => known = next.to_canonical(),
            _ => return known,
        }
    }
    known
}

/// Whether the first bits of a network's address are those of this one.
fn contains(net: &str, address: &IpAddr) -> bool {
    let Some((first, length)) = net.split_once('/') else {
        return net.parse() == Ok(*address);
    };
    let first: IpAddr = first.parse().expect("an address");
    let length: u32 = length.parse().expect("a length");
    match (first, address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => {
            (first.to_bits() ^ address.to_bits()).leading_zeros() >= length
        }
        (IpAddr::V6(first), IpAddr::V6(address)) => {
            (first.to_bits() ^ address.to_bits()).leading_zeros() >= length
        }
        _ => false,
    }
}
