//! What a request shows of who sends it: the one place that reads `Authorization`.

use axum::http::{HeaderMap, HeaderValue, header};

/// What `Authorization` holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credentials<'h> {
    /// There is none, or one of a scheme that Berth has no use for.
    Nothing,
    /// A token.
    Bearer(&'h str),
    /// User name and password; the header as it came.
    Basic(&'h HeaderValue),
    /// There are several, or one that cannot be read.
    Malformed,
}

impl<'h> Credentials<'h> {
    pub(super) fn read(headers: &'h HeaderMap) -> Self {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::Nothing };
        let text = value.to_str().ok().filter(|_| values.next().is_none());
        match text.and_then(|text| text.split_once(' ')) {
            None => Self::Malformed,
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Self::Bearer(token.trim())
            }
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("basic") => Self::Basic(value),
            Some(_) => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_one_header_of_a_known_scheme() {
        let headers = |values: &[&'static str]| -> HeaderMap {
            let value = |text: &&'static str| HeaderValue::from_static(text);
            values.iter().map(|text| (header::AUTHORIZATION, value(text))).collect()
        };
        for basic in ["Basic YTpi", "basic YTpi", "Basic !"] {
            let shown = HeaderValue::from_static(basic);
            let expected = Credentials::Basic(&shown);
            assert_eq!(Credentials::read(&headers(&[basic])), expected, "{basic}");
        }
        for bearer in ["Bearer x", "bearer x ", "BEARER  x"] {
            let expected = Credentials::Bearer("x");
            assert_eq!(Credentials::read(&headers(&[bearer])), expected, "{bearer}");
        }
        for nothing in [vec![], vec!["Digest x"], vec![" x"]] {
            assert_eq!(Credentials::read(&headers(&nothing)), Credentials::Nothing, "{nothing:?}");
        }
        for bad in [vec!["Basic"], vec!["Bearer"], vec![""], vec!["Basic YTpi", "Basic YTpi"]] {
            assert_eq!(Credentials::read(&headers(&bad)), Credentials::Malformed, "{bad:?}");
        }
    }
}
