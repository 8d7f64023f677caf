//! One key pair: how it is made, what its public half is called, and how it signs.
//!
//! Each pair is of one algorithm and signs with no other. It knows no files and no states.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use berth_shared::keys::bundle::libtrust_id;
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    KeyError,
    settings::{KeyAlgorithm, KeyIds},
};

/// A private key with its public half.
pub(super) enum Pair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl Pair {
    /// Reads PKCS#8; `None` when it is no key of this algorithm.
    pub(super) fn from_pkcs8(algorithm: KeyAlgorithm, der: &[u8]) -> Option<Self> {
        match algorithm {
            KeyAlgorithm::Es256 => {
                let random = SystemRandom::new();
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
                    .ok()
                    .map(Self::Es256)
            }
            KeyAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(der).ok().map(Self::EdDsa),
        }
    }

    pub(super) fn id(&self, ids: KeyIds) -> String {
        match ids {
            KeyIds::Thumbprint => self.thumbprint(),
            KeyIds::Libtrust => libtrust_id(&self.public_key_der()),
        }
    }

    pub(super) fn thumbprint(&self) -> String {
        thumbprint(&self.public_parameters())
    }

    /// The public key as X.509 writes it: a fixed beginning, then the key (RFC 5480, RFC 8410).
    fn public_key_der(&self) -> Vec<u8> {
        const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\
            \x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
        const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
        match self {
            Self::Es256(pair) => [P256, pair.public_key().as_ref()].concat(),
            Self::EdDsa(pair) => [ED25519, pair.public_key().as_ref()].concat(),
        }
    }

    /// The members of the JWK that RFC 7638 takes the thumbprint over, in lexicographic order.
    pub(super) fn public_parameters(&self) -> Value {
        match self {
            Self::Es256(pair) => {
                // An uncompressed point: 4, then x and y of 32 bytes each (SEC 1, 2.3.3).
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                json!({ "crv": "P-256", "kty": "EC", "x": x, "y": y })
            }
            Self::EdDsa(pair) => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key());
                json!({ "crv": "Ed25519", "kty": "OKP", "x": x })
            }
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Es256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| KeyError::Signing),
            Self::EdDsa(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// A new private key, as PKCS#8.
pub(super) fn generate(algorithm: KeyAlgorithm) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let random = SystemRandom::new();
    let der = match algorithm {
        KeyAlgorithm::Es256 => {
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        }
        KeyAlgorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&random),
    };
    der.map(|der| Zeroizing::new(der.as_ref().to_vec())).map_err(|_| KeyError::Making)
}

/// RFC 7638: SHA-256 over the required members, in lexicographic order and without white space.
fn thumbprint(parameters: &Value) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, parameters.to_string().as_bytes()))
}

/// RFC 7468: base64 in lines of 64 characters.
pub(super) fn pem(der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
    for start in (0..base64.len()).step_by(64) {
        text.push_str(&base64[start..base64.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_the_standards() {
        // RFC 8037, appendix A.3.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        assert_eq!(thumbprint(&jwk), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
