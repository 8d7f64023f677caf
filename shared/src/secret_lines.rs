//! A file of one secret, or of two in a line each while it is changed: 32 random bytes are 43 letters of
//! base64url. The first line is the one that is used; the second is taken beside it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    error::Unspecified,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

/// How many random bytes a secret has.
pub const SECRET_BYTES: usize = 32;

/// The secrets of a file. Has no `Debug`, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretLines {
    first: Zeroizing<String>,
    second: Option<Zeroizing<String>>,
}

impl SecretLines {
    /// A new secret, alone.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, Unspecified> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        SystemRandom::new().fill(&mut *bytes)?;
        Ok(Self { first: Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)), second: None })
    }

    /// A new secret, and the one that was first so far.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn rotated(self) -> Result<Self, Unspecified> {
        Ok(Self { second: Some(self.first), ..Self::generate()? })
    }

    /// The first, alone.
    #[must_use]
    pub fn finished(self) -> Self {
        Self { second: None, ..self }
    }

    /// Reads what a file says; `None` when it is something else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(bytes).ok()?.lines().filter(|line| !line.is_empty());
        let mut next = || {
            let line = lines.next()?;
            Some(decoded(line).map(|_| Zeroizing::new(line.to_owned())))
        };
        let (first, second) = (next()??, next());
        let second = match second {
            None => None,
            Some(second) => Some(second?),
        };
        next().is_none().then_some(Self { first, second })
    }

    /// What the file says.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let second = self.second().unwrap_or_default();
        let end = if self.second.is_some() { "\n" } else { "" };
        Zeroizing::new(format!("{}\n{second}{end}", *self.first))
    }

    /// The one that is used, in its letters.
    #[must_use]
    pub fn first(&self) -> &str {
        &self.first
    }

    /// The one that is taken beside it, if there is one.
    #[must_use]
    pub fn second(&self) -> Option<&str> {
        self.second.as_ref().map(|second| second.as_str())
    }

    /// The bytes of each, the first first.
    pub fn bytes(&self) -> impl Iterator<Item = Zeroizing<[u8; SECRET_BYTES]>> {
        // Each was read once, or made here.
        [Some(self.first()), self.second()].into_iter().flatten().filter_map(decoded)
    }
}

fn decoded(line: &str) -> Option<Zeroizing<[u8; SECRET_BYTES]>> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(line).ok()?);
    <[u8; SECRET_BYTES]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_or_two_are_read_and_nothing_else() {
        let (one, two) = (SecretLines::generate().unwrap(), SecretLines::generate().unwrap());
        let (a, b) = (one.first(), two.first());
        assert_eq!(a.len(), 43);
        for (text, second) in [
            (format!("{a}\n"), None),
            (a.to_owned(), None),
            (format!("{a}\r\n{b}\r\n"), Some(b)),
            (format!("{a}\n\n{b}"), Some(b)),
        ] {
            let lines = SecretLines::parse(text.as_bytes()).unwrap();
            assert_eq!((lines.first(), lines.second()), (a, second));
            assert_eq!(lines.bytes().count(), 1 + usize::from(second.is_some()));
            assert!(SecretLines::parse(lines.to_text().as_bytes()).unwrap() == lines);
        }
        for bad in
            ["", "\n", "short", &format!("{a}x"), &format!("{a}\n{b}\n{a}"), &format!("{a} ")]
        {
            assert!(SecretLines::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_changed_by_a_line_in_front_and_ends_alone() {
        let old = SecretLines::generate().unwrap();
        let both = old.clone().rotated().unwrap();
        assert_eq!(both.second(), Some(old.first()));
        assert_ne!(both.first(), old.first());
        assert_eq!(both.clone().finished().second(), None);
        assert_eq!(both.clone().finished().first(), both.first());
    }
}
