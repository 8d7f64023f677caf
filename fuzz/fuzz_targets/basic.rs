//! The value of an `Authorization` header, and the same bytes as the credentials within one.
//!
//! A header that is there is never taken for none; what is read is what was encoded, split at the
//! first colon.
#![no_main]

use auth_server::fuzzing::{Unreadable, authorization};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check_header(data);
    check_credentials(data);
});

fn check_header(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::from_iter([(AUTHORIZATION, value.clone())]);
    if let Ok(read) = authorization(&headers) {
        let (user, password) = read.expect("there is a header");
        let (scheme, shown) = value.to_str().expect("text").split_once(' ').expect("a scheme");
        if let Some(user) = user {
            assert!(!user.contains(':'));
            assert!(scheme.eq_ignore_ascii_case("basic"));
            assert_eq!(STANDARD.encode(format!("{user}:{password}")), shown.trim());
        } else {
            assert!(scheme.eq_ignore_ascii_case("bearer"));
            assert_eq!(password, shown.trim());
        }
    }
    headers.append(AUTHORIZATION, value);
    assert_eq!(authorization(&headers), Err(Unreadable), "two headers");
}

fn check_credentials(data: &[u8]) {
    let expected = std::str::from_utf8(data).ok().and_then(|text| text.split_once(':'));
    for scheme in ["Basic", "bAsIC"] {
        let value = format!("{scheme} {}", STANDARD.encode(data));
        let value = HeaderValue::try_from(value).expect("letters");
        let read = authorization(&HeaderMap::from_iter([(AUTHORIZATION, value)]));
        match (&read, expected) {
            (Ok(Some((Some(user), password))), Some(expected)) => {
                assert_eq!((user.as_str(), password.as_str()), expected);
            }
            (Err(Unreadable), None) => {}
            _ => panic!("{read:?} instead of {expected:?}"),
        }
    }
}
