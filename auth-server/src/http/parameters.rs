//! The parameters of a request, read leniently: from the query or from a form's body.

use std::borrow::Cow;

use zeroize::Zeroizing;

/// How many parameters are read: what a client sends has a few, and a body of 64 KiB can have
/// thirty thousand empty ones.
const PARAMETERS_MAX: usize = 512;

/// The parameters of a request, from the query or from the body. Wiped when dropped, since a
/// password may be among them.
pub(super) struct Parameters(Vec<(String, Zeroizing<String>)>);

impl Parameters {
    pub(super) fn parse(text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text);
        let owned = |(name, value): (Cow<'_, str>, Cow<'_, str>)| {
            (name.into_owned(), Zeroizing::new(value.into_owned()))
        };
        Self(pairs.take(PARAMETERS_MAX).map(owned).collect())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value that says anything: crane sends `service=` even when it has none.
    pub(super) fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).find(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_parameters_are_read() {
        let text = "a=1&".repeat(PARAMETERS_MAX - 1) + "b=2&c=3";
        let parameters = Parameters::parse(text.as_bytes());
        assert_eq!(parameters.first("b"), Some("2"));
        assert_eq!(parameters.first("c"), None);
    }
}
