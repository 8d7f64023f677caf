//! Tokens as no honest issuer writes them: any header, any claims, any key.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

use crate::stack::Stack;

/// Signs whatever header and claims a test makes up.
pub struct Forger {
    pair: EcdsaKeyPair,
    /// The key id that it claims.
    pub id: String,
}

impl Forger {
    /// With the auth server's own key.
    ///
    /// # Panics
    /// When that cannot be read.
    #[must_use]
    pub fn of(stack: &Stack) -> Self {
        let keys = stack.signing_keys();
        let (path, _) = keys.files().next().expect("the key that signs");
        let pem = std::fs::read_to_string(path).expect("a key");
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(base64).expect("a key");
        Self::from_der(&der, keys.active_id())
    }

    /// With a key of the attacker's own.
    ///
    /// # Panics
    /// When the system gives no randomness.
    #[must_use]
    pub fn attacker(id: &str) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).expect("a key");
        Self::from_der(der.as_ref(), id)
    }

    /// With a PKCS#8 key on P-256.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn from_der(der: &[u8], id: &str) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).expect("a key");
        Self { pair, id: id.to_owned() }
    }

    /// The header that an honest issuer writes.
    #[must_use]
    pub fn header(&self) -> Value {
        json!({ "typ": "JWT", "alg": "ES256", "kid": self.id })
    }

    /// A token with the signature that this key makes, whatever the header says of it.
    ///
    /// # Panics
    /// When the system gives no randomness.
    #[must_use]
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature.expect("a signature"));
        format!("{message}.{signature}")
    }

    /// The public key as a point, uncompressed.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public key as a JSON Web Key.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let (x, y) = self.point()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.id, "x": x, "y": y })
    }
}

/// A token that is "signed" with a shared secret.
#[must_use]
pub fn hs256(id: &str, claims: &Value, secret: &[u8]) -> String {
    let message = message(&json!({ "typ": "JWT", "alg": "HS256", "kid": id }), claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// What a signature is made over.
#[must_use]
pub fn message(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

/// `value` with the members of `more` put in.
///
/// # Panics
/// When either is no object.
#[must_use]
pub fn merge(mut value: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("not an object") };
    value.as_object_mut().expect("an object").extend(more);
    value
}
