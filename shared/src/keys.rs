//! The public keys that tokens are verified with: a JSON Web Key Set (RFC 7517), each key bound to
//! one algorithm.

use std::collections::HashMap;

use jsonwebtoken::{
    Algorithm, DecodingKey, Header, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm},
};

use crate::{bundle::Bundle, clock::UnixSeconds};

/// Verification keys by key id.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, Key>,
    bundle: Option<Bundle>,
}

/// One verification key and the only algorithm it may be used with.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

/// The key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeySet {
    /// It is not a JSON Web Key Set.
    #[error("reading the key set")]
    Json(#[from] serde_json::Error),
    /// A key cannot be used for verification.
    #[error("key {id:?} of the key set cannot be used: {reason}")]
    Key {
        /// The key id, or empty.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl KeySet {
    /// Reads a JWKS document. Every key in it must be usable, so that a typo is not met later.
    ///
    /// # Errors
    /// When the document is no key set, or a key has no id or an algorithm that Berth lacks.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidKeySet> {
        let set: JwkSet = serde_json::from_slice(json)?;
        let keys = set.keys.iter().map(usable).collect::<Result<_, _>>()?;
        Ok(Self { keys, bundle: None })
    }

    /// Reads PEM certificates: their keys under both ids that issuers use, and chains that end in
    /// them.
    ///
    /// # Errors
    /// When there is none, or one has a key of a kind that Berth lacks.
    pub fn from_certificates(pem: &[u8]) -> Result<Self, InvalidKeySet> {
        let (bundle, keys) = Bundle::from_pem(pem)?;
        Ok(Self { keys: keys.into_iter().collect(), bundle: Some(bundle) })
    }

    /// How many keys are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no token could be verified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The id of the key of this set that a token names; `None` when it names none of them, or shows
    /// a certificate chain. For metrics: what a token says of itself counts for nothing.
    #[must_use]
    pub fn id_named_by(&self, token: &str) -> Option<&str> {
        let header = decode_header(token).ok().filter(|header| header.x5c.is_none())?;
        let (id, _) = self.keys.get_key_value(header.kid.as_deref()?)?;
        Some(id)
    }

    /// The key that a token's header points to: by its certificate chain where a bundle was
    /// configured, else by key id. What else a header says about keys is ignored.
    pub(crate) fn find(&self, header: &Header, now: UnixSeconds) -> Option<Key> {
        if let (Some(bundle), Some(_)) = (&self.bundle, &header.x5c) {
            return bundle.key_of_chain(&header.x5c_der().ok()??, now);
        }
        self.keys.get(header.kid.as_deref()?).cloned()
    }
}

fn usable(jwk: &Jwk) -> Result<(String, Key), InvalidKeySet> {
    let id = jwk.common.key_id.clone().unwrap_or_default();
    let refuse = |reason| InvalidKeySet::Key { id: id.clone(), reason };
    if id.is_empty() {
        return Err(refuse("it has no kid"));
    }
    let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::EllipticCurve(ec), None | Some(KeyAlgorithm::ES256))
            if ec.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        (AlgorithmParameters::OctetKeyPair(okp), None | Some(KeyAlgorithm::EdDSA))
            if okp.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        _ => return Err(refuse("its algorithm is neither ES256, EdDSA with Ed25519, nor RS256")),
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|_| refuse("its parameters are not readable"))?;
    Ok((id, Key { algorithm, key }))
}
