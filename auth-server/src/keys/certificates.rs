//! Certificates over the signing keys, for registries that verify tokens by those.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use ring::signature::KeyPair;

use super::{SigningKeys, pair::Pair};
use crate::certs::{CertError, signing_certificate};

impl SigningKeys {
    /// Certificates over all of them, the one that signs first, as PEM.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn certificates(&self) -> Result<String, CertError> {
        self.keys.iter().map(|key| signing_certificate(&key.pair, key.info.made)).collect()
    }
}

impl PublicKeyData for Pair {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Es256(pair) => pair.public_key().as_ref(),
            Self::EdDsa(pair) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::Es256(_) => &PKCS_ECDSA_P256_SHA256,
            Self::EdDsa(_) => &PKCS_ED25519,
        }
    }
}

impl rcgen::SigningKey for Pair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = Self::sign(self, message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(match self {
            Self::Es256(_) => der(&signature),
            Self::EdDsa(_) => signature,
        })
    }
}

/// A signature of ECDSA as certificates have it (RFC 3279 §2.2.3), of the two numbers that tokens have one
/// behind the other.
fn der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let both = [integer(r), integer(s)].concat();
    tagged(0x30, &both)
}

/// A number without zeros in front, but for the one that tells it from one below nought.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let is_high = bytes.get(first).is_none_or(|byte| *byte >= 0x80);
    let sign: &[u8] = if is_high { &[0] } else { &[] };
    tagged(0x02, &[sign, &bytes[first..]].concat())
}

/// Those of P-256 are shorter than what needs a longer length.
fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [&[tag, u8::try_from(bytes.len()).unwrap_or(0x7f)], bytes].concat()
}

#[cfg(test)]
mod tests {
    use x509_parser::pem::Pem;

    use super::*;
    use crate::keys::{
        KeyAlgorithm,
        pair::{Pair, generate},
    };
    use berth_shared::clock::UnixSeconds;

    #[test]
    fn a_certificate_verifies_under_its_own_key() {
        for algorithm in [KeyAlgorithm::Es256, KeyAlgorithm::EdDsa] {
            // Some numbers of a signature begin with zeros, or need one.
            for _ in 0..300 {
                let pair = Pair::from_pkcs8(algorithm, &generate(algorithm).unwrap()).unwrap();
                let pem = signing_certificate(&pair, UnixSeconds::new(1_790_000_000)).unwrap();
                let pem = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
                let certificate = pem.parse_x509().unwrap();
                certificate.verify_signature(None).unwrap();
                let key = certificate.public_key().subject_public_key.data.clone();
                assert_eq!(key.as_ref(), pair.der_bytes());
            }
        }
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        for (bytes, expected) in [
            (&[0, 0, 1][..], &[2, 1, 1][..]),
            (&[0x7f, 0], &[2, 2, 0x7f, 0]),
            (&[0, 0x80], &[2, 2, 0, 0x80]),
            (&[0, 0], &[2, 1, 0]),
        ] {
            assert_eq!(integer(bytes), expected);
        }
    }
}
