//! A certificate bundle that tokens are verified by, as stock registries are given one
//! (`rootcertbundle` in distribution).
//!
//! The key of each certificate is known under both key ids that issuers use. A token may also
//! bring its own chain (`x5c`, RFC 7515 §4.1.6): that is read only here, and must end in the
//! bundle.

use data_encoding::BASE32_NOPAD;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, ThumbprintHash},
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime, pem::PemObject};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring as algorithms};
use x509_parser::{parse_x509_certificate, public_key::PublicKey, x509::SubjectPublicKeyInfo};

use super::key::{InvalidKeySet, Key};
use crate::clock::UnixSeconds;

/// The longest chain that a token may bring.
const CHAIN_MAX: usize = 5;

/// Certificates whose keys, and whose issues, sign tokens.
#[derive(Debug, Clone)]
pub(super) struct Bundle {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Bundle {
    /// Reads PEM certificates, and gives each one's key under its ids.
    pub(super) fn from_pem(pem: &[u8]) -> Result<(Self, Vec<(String, Key)>), InvalidKeySet> {
        let refuse = |reason| InvalidKeySet::Key { id: String::new(), reason };
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| refuse("the bundle is no PEM"))?;
        if certificates.is_empty() {
            return Err(refuse("the bundle holds no certificate"));
        }
        let mut keys = Vec::new();
        let mut anchors = Vec::new();
        for certificate in &certificates {
            let (_, parsed) = parse_x509_certificate(certificate)
                .map_err(|_| refuse("a certificate of the bundle is not readable"))?;
            let key = key_of(parsed.public_key())
                .ok_or_else(|| refuse("a certificate's key is neither P-256, Ed25519 nor RSA"))?;
            keys.push((libtrust_id(parsed.public_key().raw), key.clone()));
            if let Some(id) = thumbprint(&key) {
                keys.push((id, key));
            }
            // One that is no CA can still be a token's own certificate.
            anchors.extend(anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned()));
        }
        Ok((Self { certificates, anchors }, keys))
    }

    /// The key of the first certificate of `chain`, if the chain ends in the bundle at `now`.
    pub(super) fn key_of_chain(&self, chain: &[Vec<u8>], now: UnixSeconds) -> Option<Key> {
        if chain.len() > CHAIN_MAX {
            return None;
        }
        let chain: Vec<CertificateDer<'_>> =
            chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let (leaf, intermediates) = chain.split_first()?;
        let (_, parsed) = parse_x509_certificate(leaf).ok()?;
        let validity = parsed.validity();
        let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let is_valid = (from..=until).contains(&now.get());
        let is_own = self.certificates.iter().any(|own| own == leaf);
        let is_issued = || self.issued(leaf, intermediates, now);
        if is_valid && (is_own || is_issued()) { key_of(parsed.public_key()) } else { None }
    }

    fn issued(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixSeconds,
    ) -> bool {
        const SIGNATURES: &[&dyn rustls::pki_types::SignatureVerificationAlgorithm] = &[
            algorithms::ECDSA_P256_SHA256,
            algorithms::ECDSA_P384_SHA384,
            algorithms::ED25519,
            algorithms::RSA_PKCS1_2048_8192_SHA256,
            algorithms::RSA_PKCS1_2048_8192_SHA384,
            algorithms::RSA_PKCS1_2048_8192_SHA512,
        ];
        let Ok(certificate) = EndEntityCert::try_from(leaf) else { return false };
        let now = UnixTime::since_unix_epoch(now.since_epoch());
        let usage = KeyUsage::client_auth();
        certificate
            .verify_for_usage(SIGNATURES, &self.anchors, intermediates, now, usage, None, None)
            .is_ok()
    }
}

/// The key id of libtrust, which distribution 2.x, GitLab, Harbor and docker_auth use: the first
/// 240 bits of the SHA-256 of the DER public key, in base32 groups of four.
pub fn libtrust_id(public_key_der: &[u8]) -> String {
    let hash = digest(&SHA256, public_key_der);
    let text = BASE32_NOPAD.encode(&hash.as_ref()[..30]);
    let mut id = String::with_capacity(59);
    for (index, letter) in text.chars().enumerate() {
        if index > 0 && index % 4 == 0 {
            id.push(':');
        }
        id.push(letter);
    }
    id
}

fn key_of(info: &SubjectPublicKeyInfo<'_>) -> Option<Key> {
    // The two that x509-parser does not tell apart by itself.
    const P256: &str = "1.2.840.10045.3.1.7";
    const ED25519: &str = "1.3.101.112";
    let raw = &info.subject_public_key.data;
    let (algorithm, key) = match info.parsed().ok()? {
        PublicKey::RSA(rsa) if (2048..=8192).contains(&rsa.key_size()) => {
            let modulus = without_leading_zeros(rsa.modulus);
            let exponent = without_leading_zeros(rsa.exponent);
            (Algorithm::RS256, DecodingKey::from_rsa_raw_components(modulus, exponent))
        }
        PublicKey::EC(_) => {
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
            (curve == P256).then(|| (Algorithm::ES256, DecodingKey::from_ec_der(raw)))?
        }
        _ if info.algorithm.algorithm.to_id_string() == ED25519 => {
            (Algorithm::EdDSA, DecodingKey::from_ed_der(raw))
        }
        _ => return None,
    };
    Some(Key { algorithm, key })
}

/// DER writes a number that begins with a set bit with a zero in front; JWKs and ring do not.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn thumbprint(key: &Key) -> Option<String> {
    let jwk = Jwk::from_decoding_key(&key.key, Some(key.algorithm)).ok()?;
    jwk.thumbprint(ThumbprintHash::SHA256).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libtrust_id_is_twelve_groups_of_four() {
        let id = libtrust_id(b"any key");
        let groups: Vec<&str> = id.split(':').collect();
        assert_eq!(groups.len(), 12);
        assert!(groups.iter().all(|group| group.len() == 4), "{id}");
    }
}
