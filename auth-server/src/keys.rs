//! The signing keys: made at the first start, kept in one directory, published as a JWKS.
//!
//! Signing is done here, with ring directly, and nowhere else: what both servers share can only
//! verify. Each file is one private key (PKCS#8 PEM) named after its algorithm and the time it was
//! made; the newest of the configured algorithm signs, all are published, so that tokens signed
//! before a change stay good. A key's id is its RFC 7638 thumbprint, or that of libtrust for old
//! registries.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use berth_shared::{
    bundle::libtrust_id,
    claims::ClaimSet,
    clock::{Clock, UnixSeconds},
};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    config::{KeyAlgorithm, KeyIds},
    files::{self, FileError},
};

/// The keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or the directory cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds no key of the kind that its name says.
    #[error("{0} holds no usable signing key")]
    Unusable(String),
    /// The system gave no randomness, or ring refused.
    #[error("making a signing key")]
    Making,
    /// A token could not be signed.
    #[error("signing a token")]
    Signing,
}

/// All signing keys, one of which signs.
pub struct SigningKeys {
    /// The one that signs comes first.
    keys: Vec<SigningKey>,
    jwks: String,
}

struct SigningKey {
    pair: Pair,
    id: String,
    made: UnixSeconds,
    file: PathBuf,
}

enum Pair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl SigningKeys {
    /// Reads the keys in `directory`, and makes one first when there is none for `algorithm`.
    ///
    /// # Errors
    /// When the directory cannot be read or written, or a key in it is not usable.
    pub fn open(
        directory: &Path,
        algorithm: KeyAlgorithm,
        clock: &Clock,
    ) -> Result<Self, KeyError> {
        files::make_directory(directory)?;
        let mut keys = read_all(directory)?;
        if !keys.iter().any(|key| key.pair.algorithm() == algorithm) {
            let made = clock.now();
            let der = generate(algorithm)?;
            let name = format!("{}-{made}.pem", prefix(algorithm));
            files::replace(&directory.join(&name), pem(&der).as_bytes(), files::PRIVATE)?;
            keys.push(SigningKey::from_der(algorithm, made, &der, &directory.join(name))?);
        }
        keys.sort_by_key(|key| (key.pair.algorithm() != algorithm, -key.made, key.id.clone()));
        Ok(Self { jwks: jwks(&keys), keys })
    }

    /// Names the keys in another way.
    #[must_use]
    pub fn with_ids(mut self, ids: KeyIds) -> Self {
        for key in &mut self.keys {
            key.id = key.pair.id(ids);
        }
        Self { jwks: jwks(&self.keys), keys: self.keys }
    }

    /// Where each key lies and when it was made, the one that signs first.
    pub fn files(&self) -> impl Iterator<Item = (&Path, UnixSeconds)> {
        self.keys.iter().map(|key| (key.file.as_path(), key.made))
    }

    fn active(&self) -> &SigningKey {
        // Opening makes one where there is none.
        &self.keys[0]
    }

    /// The public halves, as a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The id of the key that signs.
    #[must_use]
    pub fn active_id(&self) -> &str {
        &self.active().id
    }

    /// Signs `claims` as a JWT (RFC 7515 compact form).
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn sign(&self, claims: &ClaimSet) -> Result<String, KeyError> {
        let key = self.active();
        let header = json!({ "typ": "JWT", "alg": key.pair.algorithm_name(), "kid": key.id });
        let claims = serde_json::to_vec(claims).map_err(|_| KeyError::Signing)?;
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = key.pair.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }
}

impl SigningKey {
    fn from_der(
        algorithm: KeyAlgorithm,
        made: UnixSeconds,
        der: &[u8],
        file: &Path,
    ) -> Result<Self, KeyError> {
        let unusable = |_| KeyError::Unusable(file.display().to_string());
        let random = SystemRandom::new();
        let pair = match algorithm {
            KeyAlgorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
                    .map(Pair::Es256)
            }
            KeyAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(der).map(Pair::EdDsa),
        }
        .map_err(unusable)?;
        let id = pair.id(KeyIds::default());
        Ok(Self { pair, id, made, file: file.to_owned() })
    }

    fn jwk(&self) -> Value {
        let mut jwk = self.pair.public_parameters();
        jwk["alg"] = self.pair.algorithm_name().into();
        jwk["use"] = "sig".into();
        jwk["kid"] = self.id.as_str().into();
        jwk
    }
}

impl Pair {
    fn algorithm(&self) -> KeyAlgorithm {
        match self {
            Self::Es256(_) => KeyAlgorithm::Es256,
            Self::EdDsa(_) => KeyAlgorithm::EdDsa,
        }
    }

    fn algorithm_name(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    fn id(&self, ids: KeyIds) -> String {
        match ids {
            KeyIds::Thumbprint => thumbprint(&self.public_parameters()),
            KeyIds::Libtrust => libtrust_id(&self.public_key_der()),
        }
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

    /// The members of the JWK that RFC 7638 takes the thumbprint over.
    fn public_parameters(&self) -> Value {
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

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Es256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| KeyError::Signing),
            Self::EdDsa(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// RFC 7638: SHA-256 over the required members, in lexicographic order and without white space.
fn thumbprint(parameters: &Value) -> String {
    let members: std::collections::BTreeMap<_, _> =
        parameters.as_object().into_iter().flatten().collect();
    let canonical = serde_json::to_string(&members).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()))
}

fn read_all(directory: &Path) -> Result<Vec<SigningKey>, KeyError> {
    let failed = |source| FileError::new("reading", directory, source);
    let mut keys = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.display().to_string();
        let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Anything else, such as a temporary file left by a crash, is not a key.
        let Some((algorithm, made)) = read_name(stem) else { continue };
        let text = Zeroizing::new(files::read(&path)?);
        let (_, pem) = x509_parser::pem::parse_x509_pem(&text)
            .map_err(|_| KeyError::Unusable(name.clone()))?;
        let der = Zeroizing::new(pem.contents);
        keys.push(SigningKey::from_der(algorithm, made, &der, &path)?);
    }
    Ok(keys)
}

fn jwks(keys: &[SigningKey]) -> String {
    json!({ "keys": keys.iter().map(SigningKey::jwk).collect::<Vec<_>>() }).to_string()
}

fn read_name(name: &str) -> Option<(KeyAlgorithm, i64)> {
    let (prefix_read, made) = name.strip_suffix(".pem")?.split_once('-')?;
    let algorithm = [KeyAlgorithm::Es256, KeyAlgorithm::EdDsa]
        .into_iter()
        .find(|algorithm| prefix(*algorithm) == prefix_read)?;
    Some((algorithm, made.parse().ok()?))
}

fn prefix(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::Es256 => "es256",
        KeyAlgorithm::EdDsa => "eddsa",
    }
}

fn generate(algorithm: KeyAlgorithm) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let random = SystemRandom::new();
    let der = match algorithm {
        KeyAlgorithm::Es256 => {
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        }
        KeyAlgorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&random),
    };
    der.map(|der| Zeroizing::new(der.as_ref().to_vec())).map_err(|_| KeyError::Making)
}

/// RFC 7468: base64 in lines of 64 characters.
fn pem(der: &[u8]) -> Zeroizing<String> {
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
    use std::os::unix::fs::PermissionsExt;

    use berth_shared::{claims::Audience, keys::KeySet, token::Verifier};

    use super::*;

    fn claims() -> ClaimSet {
        ClaimSet {
            iss: "berth".to_owned(),
            sub: "andrew".to_owned(),
            aud: Audience::One("berth".to_owned()),
            exp: 1000,
            nbf: 0,
            iat: 0,
            jti: "x".to_owned(),
            access: Vec::new(),
            counter: 3,
            secret_expires: None,
        }
    }

    #[test]
    fn tokens_of_both_algorithms_verify_and_old_keys_stay_published() {
        berth_shared::crypto::install();
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let verifier = Verifier {
            issuer: "berth".to_owned(),
            service: "berth".to_owned(),
            foreign_subjects: false,
        };
        let first = SigningKeys::open(&keys, KeyAlgorithm::Es256, &Clock::set(1)).unwrap();
        let old = first.sign(&claims()).unwrap();
        let second = SigningKeys::open(&keys, KeyAlgorithm::EdDsa, &Clock::set(2)).unwrap();
        let new = second.sign(&claims()).unwrap();
        let set = KeySet::from_json(second.jwks().as_bytes()).unwrap();
        assert_eq!(set.len(), 2);
        for token in [old, new] {
            assert_eq!(verifier.verify(&set, &token, 0).unwrap().claims, claims());
        }
        let again = SigningKeys::open(&keys, KeyAlgorithm::Es256, &Clock::set(3)).unwrap();
        assert_eq!(again.active_id(), first.active_id());
        assert_eq!(fs::read_dir(&keys).unwrap().count(), 2);
        for entry in fs::read_dir(&keys).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_thumbprint_is_that_of_the_standards() {
        // RFC 8037, appendix A.3.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        assert_eq!(thumbprint(&jwk), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_damaged_key_stops_the_start_and_a_foreign_file_does_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".tmpXYZ"), "half").unwrap();
        SigningKeys::open(dir.path(), KeyAlgorithm::Es256, &Clock::set(1)).unwrap();
        fs::write(dir.path().join("es256-5.pem"), "nonsense").unwrap();
        let error = SigningKeys::open(dir.path(), KeyAlgorithm::Es256, &Clock::set(1));
        assert!(matches!(error, Err(KeyError::Unusable(_))));
    }
}
