//! Content digests: `algorithm:hex` (OCI image specification, "Digests").

use std::str::FromStr;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256, Sha512};

use crate::text::text_value;

/// The digest algorithms that Berth stores content under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, what every client uses.
    Sha256,
    /// SHA-512, optional in the specification.
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits follow the colon.
    pub fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// The digest of `bytes` under this algorithm.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Sha256 => Digest::from_hash(self, &Sha256::digest(bytes)),
            Self::Sha512 => Digest::from_hash(self, &Sha512::digest(bytes)),
        }
    }
}

impl FromStr for Algorithm {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(InvalidDigest),
        }
    }
}

text_value! {
    /// A digest such as `sha256:2c26b4…`, lower-case hexadecimal.
    pub struct Digest: InvalidDigest, check
}

/// The text is not a digest of an algorithm that Berth knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: use sha256: and 64, or sha512: and 128 lower-case hexadecimal digits")]
pub struct InvalidDigest;

impl Digest {
    /// Wraps a finished hash. The length of `hash` must be that of `algorithm`.
    pub fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        debug_assert_eq!(hash.len() * 2, algorithm.hex_length());
        Self(format!("{}:{}", algorithm.name(), HEXLOWER.encode(hash)))
    }

    /// The algorithm in front of the colon.
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha256:") { Algorithm::Sha256 } else { Algorithm::Sha512 }
    }

    /// The hexadecimal digits behind the colon.
    pub fn hex(&self) -> &str {
        &self.0[self.algorithm().name().len() + 1..]
    }
}

fn check(text: &str) -> Result<(), InvalidDigest> {
    let (name, hex) = text.split_once(':').ok_or(InvalidDigest)?;
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fits = hex.len() == name.parse::<Algorithm>()?.hex_length() && hex.bytes().all(is_hex);
    fits.then_some(()).ok_or(InvalidDigest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_digest_of_anything_is_read_as_it_is_written(bytes: Vec<u8>, long: bool) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = algorithm.digest(&bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest.clone()));
            let written = format!("{}:{}", algorithm.name(), digest.hex());
            prop_assert_eq!(digest.as_str(), written);
        }

        #[test]
        fn a_letter_more_less_or_other_than_a_digit_makes_no_digest(
            hex in "[0-9a-f]{64}", at in 0_usize..64, letter in "[^0-9a-f]",
        ) {
            let (before, behind) = hex.split_at(at);
            for wrong in [
                format!("sha256:{before}{letter}{behind}"),
                format!("sha256:{before}{letter}{}", &behind[1..]),
                format!("sha256:{before}{}", &behind[1..]),
            ] {
                prop_assert!(wrong.parse::<Digest>().is_err(), "{}", wrong);
            }
        }
    }

    #[test]
    fn a_digest_is_an_algorithm_and_its_exact_number_of_lower_case_digits() {
        let sha256 = format!("sha256:{}", "a".repeat(64));
        let sha512 = format!("sha512:{}", "0".repeat(128));
        assert_eq!(sha256.parse::<Digest>().unwrap().hex(), "a".repeat(64));
        assert_eq!(sha512.parse::<Digest>().unwrap().algorithm(), Algorithm::Sha512);
        for bad in [
            "",
            "sha256",
            "sha256:",
            ":",
            "sha256:abc",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha256:{}", "g".repeat(64)),
            &format!("sha256:{}", "a".repeat(63)),
            &format!("sha256:{}", "a".repeat(65)),
            &format!("sha512:{}", "a".repeat(64)),
            &format!("md5:{}", "a".repeat(32)),
            &format!("sha256:{}/", "a".repeat(63)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(
            Algorithm::Sha256.digest(b"").as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
