//! A token as it stands, or, on two lines, the header and the claims of one that is signed here.
//!
//! Whatever a token says, it is taken only when it was signed with the key of the set, by the
//! algorithm of that key, and says what it must.
#![no_main]

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use berth_fuzz::shared::{
    claims::LEEWAY_SECS,
    clock::UnixSeconds,
    crypto,
    keys::KeySet,
    subject::{RobotName, Subject, UserName},
    token::{VerifiedToken, Verifier},
};
use libfuzzer_sys::fuzz_target;
use ring::{
    hmac,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde_json::{Value, json};

const KEY_ID: &str = "fuzz";
const ISSUER: &str = "https://auth.example.org";
const SERVICE: &str = "berth";
const NOW: UnixSeconds = UnixSeconds::new(1_800_000_000);

/// A certificate of `OURS`, which signs others, and is valid at `NOW`.
const CERTIFICATE: &[u8] = include_bytes!("jwt_header.pem");

static OURS: LazyLock<Ed25519KeyPair> = LazyLock::new(|| key_pair(7));
static STRANGERS: LazyLock<Ed25519KeyPair> = LazyLock::new(|| key_pair(8));
static KEY_SETS: LazyLock<[KeySet; 2]> = LazyLock::new(|| {
    crypto::install();
    let x = URL_SAFE_NO_PAD.encode(OURS.public_key());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": KEY_ID, "x": x });
    let jwks = json!({ "keys": [jwk] }).to_string();
    [
        KeySet::from_json(jwks.as_bytes()).expect("a key set"),
        KeySet::from_certificates(CERTIFICATE).expect("a bundle"),
    ]
});

fuzz_target!(|text: &str| {
    match text.split_once('\n') {
        Some((header, claims)) => check_parts(header, claims),
        None => check_token(text),
    }
    let _ = KeySet::from_json(text.as_bytes());
});

fn key_pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed of 32 bytes")
}

fn verify(keys: &KeySet, token: &str, foreign_subjects: bool) -> Option<VerifiedToken> {
    let (issuer, service) = (ISSUER.to_owned(), SERVICE.to_owned());
    Verifier { issuer, service, foreign_subjects }.verify(keys, token, NOW).ok()
}

/// Takes nothing that another reader finds no signature of ours on.
fn check_token(token: &str) {
    for keys in KEY_SETS.iter() {
        if let Some(verified) = verify(keys, token, true) {
            assert!(is_ours(token), "{token}");
            check_claims(&verified);
        }
    }
}

fn is_ours(token: &str) -> bool {
    let Some((message, signature)) = token.rsplit_once('.') else { return false };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    let key = UnparsedPublicKey::new(&ED25519, OURS.public_key());
    key.verify(message.as_bytes(), &signature).is_ok()
}

fn check_parts(header: &str, claims: &str) {
    let encoded_header = URL_SAFE_NO_PAD.encode(header);
    let message = format!("{encoded_header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let with = |message: &str, signature: &[u8]| {
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let signature = OURS.sign(message.as_bytes());
    let other_message =
        format!("{encoded_header}.{}", URL_SAFE_NO_PAD.encode(format!("{claims} ")));
    let shared_secret = hmac::Key::new(hmac::HMAC_SHA256, OURS.public_key().as_ref());
    let forged = [
        with(&message, STRANGERS.sign(message.as_bytes()).as_ref()),
        with(&message, hmac::sign(&shared_secret, message.as_bytes()).as_ref()),
        with(&message, b""),
        with(&message, &signature.as_ref()[..63]),
        with(&other_message, signature.as_ref()),
    ];
    for keys in KEY_SETS.iter() {
        for token in &forged {
            assert!(verify(keys, token, true).is_none(), "{header} {claims}");
        }
        let token = with(&message, signature.as_ref());
        let Some(verified) = verify(keys, &token, true) else { continue };
        check_header(header);
        check_claims(&verified);
        check_subject(&verified, verify(keys, &token, false).as_ref());
    }
}

/// The same token, with a foreign issuer and with Berth's own: neither takes the other's users for
/// its own.
fn check_subject(foreign: &VerifiedToken, own: Option<&VerifiedToken>) {
    assert!(!matches!(foreign.subject, Subject::User(_) | Subject::Robot(_)));
    let sub = &foreign.claims.sub;
    let is_known = sub.parse::<UserName>().is_ok() || sub.parse::<RobotName>().is_ok();
    assert_eq!(own.is_some(), sub.is_empty() || is_known, "{sub}");
    if let Some(own) = own {
        assert!(!matches!(own.subject, Subject::Foreign(_)));
        check_claims(own);
    }
}

/// Of a token that was taken. Where a member stands twice in it, this reader may see the other one.
fn check_header(text: &str) {
    let header: Value = serde_json::from_str(text).expect("a header of JSON");
    assert!(header.is_object(), "{text}");
    assert_eq!(header["alg"], "EdDSA", "{text}");
    assert!(header["crit"].is_null(), "{text}");
    assert!(header["typ"].as_str().is_none_or(|typ| typ.eq_ignore_ascii_case("JWT")), "{text}");
    assert!(header["kid"].is_string() || header["x5c"].is_array(), "{text}");
}

fn check_claims(token: &VerifiedToken) {
    let claims = &token.claims;
    assert_eq!(claims.iss, ISSUER);
    assert!(claims.aud.contains(SERVICE));
    assert!(!claims.jti.is_empty());
    assert_eq!(claims.sub, token.subject.claim());
    let leeway = i128::from(LEEWAY_SECS);
    for now in [UnixSeconds::new(0), NOW, UnixSeconds::new(1 << 40)] {
        let wide = i128::from(now.get());
        let begun = i128::from(claims.nbf.max(claims.iat).get()) - leeway <= wide;
        let ended = i128::from(claims.exp.get()) + leeway <= wide;
        assert_eq!(token.in_time(now).is_ok(), begun && !ended, "{claims:?} at {wide}");
    }
}
