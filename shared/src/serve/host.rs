//! A request says which host it is for, once (RFC 9112 §3.2).

use axum::{extract::Request, response::Response};
use http::{StatusCode, Version, header, uri::Authority};

use super::refusal;
use crate::error::Code;

/// Lets a request through that says so.
///
/// # Errors
/// The answer, 400, to one without a `Host`, with more than one or with none that can be meant.
// The answer is what is passed on, and seldom made.
#[expect(clippy::result_large_err)]
pub fn check(request: &Request) -> Result<(), Response> {
    if is_told(request) {
        return Ok(());
    }
    let message = "a request must have one Host header, with a host";
    Err(refusal(StatusCode::BAD_REQUEST, Code::Unsupported, message))
}

fn is_told(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(is_host),
        // HTTP/1.0 knows no such header, and HTTP/2 has `:authority` in its place.
        (None, _) => request.version() != Version::HTTP_11,
        _ => false,
    }
}

fn is_host(text: &str) -> bool {
    let has_user = text.contains('@');
    !has_user && text.parse().is_ok_and(|authority: Authority| !authority.host().is_empty())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_host_that_can_be_meant_is_told() {
        for (version, hosts, told) in [
            (Version::HTTP_11, &["reg.test"][..], true),
            (Version::HTTP_11, &["reg.test:5000"], true),
            (Version::HTTP_11, &["[2001:db8::1]:5000"], true),
            (Version::HTTP_11, &["192.0.2.1"], true),
            (Version::HTTP_11, &[], false),
            (Version::HTTP_11, &["reg.test", "reg.test"], false),
            (Version::HTTP_11, &[""], false),
            (Version::HTTP_11, &[":5000"], false),
            (Version::HTTP_11, &["a b"], false),
            (Version::HTTP_11, &["reg.test/v2"], false),
            (Version::HTTP_11, &["user@reg.test"], false),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_10, &["reg.test", "other.test"], false),
            (Version::HTTP_2, &[], true),
            (Version::HTTP_2, &["reg.test"], true),
            (Version::HTTP_2, &["reg.test", "other.test"], false),
        ] {
            let mut request = Request::new(Body::empty());
            *request.version_mut() = version;
            for host in hosts {
                request.headers_mut().append(header::HOST, HeaderValue::from_static(host));
            }
            assert_eq!(is_told(&request), told, "{version:?} {hosts:?}");
        }
    }
}
