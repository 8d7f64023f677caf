//! The public keys that tokens are verified with: a JSON Web Key Set (RFC 7517), each key bound to
//! one algorithm; [`bundle`] takes them from certificates.

pub mod bundle;
mod key;

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, Header, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;

use self::{bundle::Bundle, key::Key};
use crate::clock::UnixSeconds;

pub use self::key::InvalidKeySet;

/// The sizes of RSA keys that signatures are verified with.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Verification keys by key id.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, Key>,
    bundle: Option<Bundle>,
}

/// A key set of which no key has been looked at.
#[derive(Deserialize)]
struct Unread {
    keys: Vec<serde_json::Value>,
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

    /// Reads the JWKS document of somebody else, who may publish keys for others too: what Berth
    /// has no use for is passed over. Of two keys with one id the first counts.
    ///
    /// # Errors
    /// When the document is no key set, holds more than `keys_max` keys, or none that is usable.
    pub fn from_issuer(json: &[u8], keys_max: usize) -> Result<Self, InvalidKeySet> {
        let Unread { keys: all } = serde_json::from_slice(json)?;
        if all.len() > keys_max {
            return Err(InvalidKeySet::TooMany { count: all.len(), max: keys_max });
        }
        let mut keys = HashMap::new();
        for jwk in all.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()) {
            let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
            if let (true, Ok((id, key))) = (signs, usable(&jwk)) {
                keys.entry(id).or_insert(key);
            }
        }
        if keys.is_empty() {
            return Err(InvalidKeySet::NoneUsable);
        }
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
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no token could be verified.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The id of the key of this set that a token names; `None` when it names none of them, or shows
    /// a certificate chain. For metrics: what a token says of itself counts for nothing.
    pub fn id_named_by(&self, token: &str) -> Option<&str> {
        let header = decode_header(token).ok().filter(|header| header.x5c.is_none())?;
        let (id, _) = self.keys.get_key_value(header.kid.as_deref()?)?;
        Some(id)
    }

    /// Whether a key of this id is in the set.
    pub fn has(&self, id: &str) -> bool {
        self.keys.contains_key(id)
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
        (AlgorithmParameters::RSA(rsa), None | Some(KeyAlgorithm::RS256)) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            // What verifies signatures takes no others, see `crypto`.
            if !RSA_MODULUS_BYTES.contains(&modulus.len()) {
                return Err(refuse("its modulus has not 2048 to 8192 bits"));
            }
            Algorithm::RS256
        }
        _ => return Err(refuse("its algorithm is neither ES256, EdDSA with Ed25519, nor RS256")),
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|_| refuse("its parameters are not readable"))?;
    Ok((id, Key { algorithm, key }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_an_issuers_keys_those_are_kept_that_verify_signatures() {
        let ed = |id: &str| {
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x })
        };
        let mut encrypts = ed("encrypts");
        encrypts["use"] = "enc".into();
        let mut confused = ed("confused");
        confused["alg"] = "HS256".into();
        let secret = json!({ "kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256" });
        let mut nameless = ed("x");
        nameless["kid"] = serde_json::Value::Null;
        let small = json!({ "kty": "RSA", "kid": "small", "e": "AQAB", "n": "A".repeat(171) });
        let new = json!({ "kty": "new" });
        let others = [encrypts, confused, secret, nameless, small, new, json!(7)];
        let mut all = vec![ed("one"), ed("one")];
        all.extend(others.clone());
        let text = json!({ "keys": all }).to_string();
        let set = KeySet::from_issuer(text.as_bytes(), all.len()).unwrap();
        assert_eq!((set.len(), set.has("one")), (1, true));
        let too_many = KeySet::from_issuer(text.as_bytes(), all.len() - 1);
        assert!(matches!(too_many, Err(InvalidKeySet::TooMany { .. })));
        let text = json!({ "keys": others }).to_string();
        let none = KeySet::from_issuer(text.as_bytes(), all.len());
        assert!(matches!(none, Err(InvalidKeySet::NoneUsable)));
        for bad in ["", "[]", "{}", "{\"keys\": 1}"] {
            assert!(KeySet::from_issuer(bad.as_bytes(), 9).is_err(), "{bad}");
        }
    }
}
