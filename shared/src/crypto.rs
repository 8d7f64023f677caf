//! Signature verification for `jsonwebtoken`, over ring: the one crypto library of the tree.
//!
//! Only the algorithms that Berth's own tokens use are known, and RS256 for those of foreign
//! issuers; nothing here can sign.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, Result},
    jwk::ThumbprintHash,
    signature::{Error as SignatureError, Verifier},
};
use ring::{
    digest,
    error::Unspecified,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: refuse_to_sign,
    verifier_factory,
    key_utils: KeyUtils { compute_digest, ..KeyUtils::new_unimplemented() },
};

/// Makes ring the crypto library of rustls and of `jsonwebtoken` in this process. May be called
/// any number of times; call it first thing in `main`.
pub fn install() {
    // An error says that it is installed already, here or by another server in the same process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let _ = PROVIDER.install_default();
}

fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(Error::from(ErrorKind::UnsupportedAlgorithm))
}

/// RS256 is verified for foreign issuers; Berth itself never signs with it.
fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let with = |verification: &'static dyn VerificationAlgorithm| -> Result<Verify> {
        let key = UnparsedPublicKey::new(verification, key.try_get_as_bytes()?.to_vec());
        Ok(Box::new(move |message, signature| key.verify(message, signature)))
    };
    let verify: Verify = match (algorithm, key.family(), key.kind()) {
        (Algorithm::ES256, AlgorithmFamily::Ec, _) => with(&ECDSA_P256_SHA256_FIXED)?,
        (Algorithm::EdDSA, AlgorithmFamily::Ed, _) => with(&ED25519)?,
        (Algorithm::RS256, _, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let key = RsaPublicKeyComponents { n: n.clone(), e: e.clone() };
            Box::new(move |message, signature| {
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            })
        }
        (Algorithm::ES256 | Algorithm::EdDSA | Algorithm::RS256, ..) => {
            return Err(Error::from(ErrorKind::InvalidKeyFormat));
        }
        _ => return Err(Error::from(ErrorKind::UnsupportedAlgorithm)),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, verify }))
}

#[expect(clippy::needless_pass_by_value, reason = "the crate fixes the signature")]
fn compute_digest(data: &[u8], hash: ThumbprintHash) -> Result<Vec<u8>> {
    match hash {
        ThumbprintHash::SHA256 => Ok(digest::digest(&digest::SHA256, data).as_ref().to_vec()),
        _ => Err(Error::from(ErrorKind::UnsupportedAlgorithm)),
    }
}

/// Says of a message whether a signature is its own, by one key.
type Verify = Box<dyn Fn(&[u8], &[u8]) -> std::result::Result<(), Unspecified> + Send + Sync>;

struct RingVerifier {
    algorithm: Algorithm,
    verify: Verify,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), SignatureError> {
        (self.verify)(message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
