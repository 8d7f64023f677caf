//! Secrets that Berth makes itself: a beginning that says of which kind, 30 random letters and
//! digits, and six that check them.
//!
//! The beginning lets secret scanners find one that leaked; the checksum tells a cut or mistyped
//! secret from a wrong one without asking anybody. 30 characters of 62 are 178 random bits, so that
//! a single SHA-256 is as good as a slow hash.
//!
//! [`robot`] is what a robot signs in with, [`refresh`] what a client may keep in place of a password.

pub mod refresh;
pub mod robot;

use std::{marker::PhantomData, str::FromStr};

use crc::{CRC_32_ISO_HDLC, Crc};
use data_encoding::HEXLOWER;
use ring::{digest, error::Unspecified};
use zeroize::Zeroizing;

use crate::random;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_LENGTH: usize = 30;
const CHECKSUM_LENGTH: usize = 6;
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// What a secret is for.
pub trait Kind {
    /// What every secret of this kind begins with; no secret of another kind does.
    const PREFIX: &'static str;
}

/// A secret in the right form. Has no `Debug`, and is wiped when dropped.
pub struct Secret<K> {
    text: Zeroizing<String>,
    kind: PhantomData<K>,
}

/// The text is no secret of this kind, or not a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a secret of this kind")]
pub struct Malformed;

impl<K: Kind> Secret<K> {
    /// A new secret.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, Unspecified> {
        let random = random::text(ALPHABET, RANDOM_LENGTH)?;
        let text = Zeroizing::new(format!("{}{}{}", K::PREFIX, *random, checksum(&random)));
        Ok(Self { text, kind: PhantomData })
    }

    /// The secret itself, to be shown once.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What the database keeps: SHA-256, as hex.
    pub fn hash(&self) -> String {
        HEXLOWER.encode(digest::digest(&digest::SHA256, self.text.as_bytes()).as_ref())
    }
}

impl<K: Kind> FromStr for Secret<K> {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let rest = text.strip_prefix(K::PREFIX).ok_or(Malformed)?;
        let is_whole = rest.len() == RANDOM_LENGTH + CHECKSUM_LENGTH
            && rest.bytes().all(|byte| ALPHABET.contains(&byte));
        let (random, check) = is_whole.then(|| rest.split_at(RANDOM_LENGTH)).ok_or(Malformed)?;
        if checksum(random) != check {
            return Err(Malformed);
        }
        Ok(Self { text: Zeroizing::new(text.to_owned()), kind: PhantomData })
    }
}

/// CRC-32 in base 62, most significant digit first.
fn checksum(random: &str) -> String {
    let mut rest = CHECKSUM.checksum(random.as_bytes());
    let mut digits = ['0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = char::from(ALPHABET[(rest % 62) as usize]);
        rest /= 62;
    }
    digits.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::robot::RobotSecret;

    #[test]
    fn a_secret_is_read_as_it_was_made_and_any_slip_is_noticed() {
        let secret = RobotSecret::generate().unwrap();
        let text = secret.expose();
        let again: RobotSecret = text.parse().unwrap();
        assert_eq!(again.hash(), secret.hash());
        assert_ne!(RobotSecret::generate().unwrap().hash(), secret.hash());
        for position in "berth_".len()..text.len() {
            let other = if text.as_bytes()[position] == b'x' { 'y' } else { 'x' };
            let mut slip = text.to_owned();
            slip.replace_range(position..=position, &other.to_string());
            assert!(slip.parse::<RobotSecret>().is_err(), "{position}");
        }
        let longer = format!("{text}0");
        for bad in ["", "berth_", &text[1..], &text[..text.len() - 1], &longer, "berth_é"] {
            assert!(bad.parse::<RobotSecret>().is_err(), "{bad}");
        }
    }
}
