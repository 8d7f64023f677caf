//! The registry with somebody else's tokens: as docker_auth, GitLab and stock registries do it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use berth_shared::{claims::ClaimSet, keys::bundle::libtrust_id};
use harness::{Options, Stack, image::Image};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const REALM: &str = "https://auth.example.org/token";

/// Made for these tests: nothing in the tree can make RSA keys.
const RSA_KEY: &str = include_str!("../golden/foreign-issuer-rsa.key");

/// A key of the foreign issuer, and the certificate over it.
pub(crate) struct Signer {
    pub(crate) key: KeyPair,
    pub(crate) algorithm: &'static str,
}

impl Signer {
    pub(crate) fn es256() -> Self {
        Self { key: KeyPair::generate().unwrap(), algorithm: "ES256" }
    }

    pub(crate) fn rs256() -> Self {
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(RSA_KEY, &rcgen::PKCS_RSA_SHA256).unwrap();
        Self { key, algorithm: "RS256" }
    }

    pub(crate) fn libtrust_id(&self) -> String {
        libtrust_id(&self.key.subject_public_key_info())
    }

    pub(crate) fn self_signed(&self) -> rcgen::Certificate {
        CertificateParams::new(Vec::new()).unwrap().self_signed(&self.key).unwrap()
    }

    /// The token with these header fields beside `typ` and `alg`.
    pub(crate) fn sign(&self, mut header: Value, claims: &ClaimSet) -> String {
        header["typ"] = "JWT".into();
        header["alg"] = self.algorithm.into();
        let claims = serde_json::to_vec(claims).unwrap();
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let der = self.key.serialize_der();
        let random = SystemRandom::new();
        let signature = if self.algorithm == "ES256" {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random);
            key.unwrap().sign(&random, message.as_bytes()).unwrap().as_ref().to_vec()
        } else {
            let key = RsaKeyPair::from_pkcs8(&der).unwrap();
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
            signature
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A registry that takes the tokens of whoever is in the file.
pub(crate) struct Registry {
    pub(crate) stack: Stack,
    _folder: TempDir,
}

impl Registry {
    pub(crate) async fn trusting(kind: &str, file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, file).unwrap();
        let registry =
            format!("[foreign_issuer]\nrealm = '{REALM}'\n{kind} = '{}'\n", path.display());
        let stack = Stack::with(Options { registry, ..Options::default() }).await;
        Self { stack, _folder: folder }
    }

    pub(crate) fn claims(&self, subject: &str, scopes: &[&str]) -> ClaimSet {
        ClaimSet { counter: 0, ..self.stack.good_claims(subject, scopes) }
    }

    pub(crate) async fn ping(&self, token: &str) -> u16 {
        self.stack.client.call("GET", "/v2/").bearer(token).send().await.status.as_u16()
    }
}

#[tokio::test]
async fn tokens_by_a_certificate_bundle_are_taken_under_both_key_ids_and_algorithms() {
    let (ec, rsa, stranger) = (Signer::es256(), Signer::rs256(), Signer::es256());
    let bundle = format!("{}{}", ec.self_signed().pem(), rsa.self_signed().pem());
    let registry = Registry::trusting("certificates", &bundle).await;
    let claims = registry.claims("gitlab-ci-token", &[]);
    for signer in [&ec, &rsa] {
        let token = signer.sign(json!({ "kid": signer.libtrust_id() }), &claims);
        assert_eq!(registry.ping(&token).await, 200, "{}", signer.algorithm);
    }
    // Somebody else's signature under a known id, and a known key under the other's algorithm.
    let forged = stranger.sign(json!({ "kid": ec.libtrust_id() }), &claims);
    assert_eq!(registry.ping(&forged).await, 401);
    let confused = rsa.sign(json!({ "kid": ec.libtrust_id() }), &claims);
    assert_eq!(registry.ping(&confused).await, 401);
}

#[tokio::test]
async fn a_chain_in_the_token_must_end_in_the_bundle() {
    let (ca_key, leaf, stranger) = (Signer::es256(), Signer::es256(), Signer::es256());
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key.key).unwrap();
    let issuer = Issuer::from_params(&params, &ca_key.key);
    let names = || CertificateParams::new(vec!["token.test".to_owned()]).unwrap();
    let issued = names().signed_by(&leaf.key, &issuer).unwrap();
    let chain =
        |certificate: &rcgen::Certificate| json!({ "x5c": [STANDARD.encode(certificate.der())] });

    let registry = Registry::trusting("certificates", &ca.pem()).await;
    let claims = registry.claims("andrew", &[]);
    assert_eq!(registry.ping(&leaf.sign(chain(&issued), &claims)).await, 200);
    assert_eq!(registry.ping(&ca_key.sign(chain(&ca), &claims)).await, 200, "the bundle's own");
    assert_eq!(registry.ping(&stranger.sign(chain(&stranger.self_signed()), &claims)).await, 401);
    assert_eq!(registry.ping(&stranger.sign(chain(&issued), &claims)).await, 401, "not its key");
    // A good key id does not help a chain that is not.
    let mut header = chain(&stranger.self_signed());
    header["kid"] = ca_key.libtrust_id().into();
    assert_eq!(registry.ping(&stranger.sign(header, &claims)).await, 401);
}

#[tokio::test]
async fn by_a_key_set_a_chain_in_the_token_is_not_read() {
    let (signer, stranger) = (Signer::es256(), Signer::es256());
    let point = signer.key.public_key_raw();
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "kid": "any name", "alg": "ES256",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
    });
    let registry = Registry::trusting("jwks", &json!({ "keys": [jwk] }).to_string()).await;
    let claims = registry.claims("andrew", &[]);
    let x5c = json!([STANDARD.encode(stranger.self_signed().der())]);
    let good = signer.sign(json!({ "kid": "any name", "x5c": x5c.clone() }), &claims);
    assert_eq!(registry.ping(&good).await, 200);
    let forged = stranger.sign(json!({ "kid": "any name", "x5c": x5c }), &claims);
    assert_eq!(registry.ping(&forged).await, 401);
}

#[tokio::test]
async fn the_token_alone_says_what_is_allowed() {
    let signer = Signer::es256();
    let registry = Registry::trusting("certificates", &signer.self_signed().pem()).await;
    let client = &registry.stack.client;
    let token = |subject: &str, scopes: &[&str]| {
        let header = json!({ "kid": signer.libtrust_id() });
        signer.sign(header, &registry.claims(subject, scopes))
    };
    // A subject that could not be one of Berth's users, through a whole push and pull.
    let push = token("ci job #7", &["repository:team/app:pull,push"]);
    let image = Image::new("foreign");
    image.push(client, &push, "team/app", "v1").await;
    let pull = token("(anonymous)", &["repository:team/app:pull"]);
    let manifest = client.call("GET", "/v2/team/app/manifests/v1");
    assert_eq!(manifest.bearer(&pull).send().await.expect(200).body, image.manifest);

    // Without rights to ask for, a mount needs its source in the token.
    let digest = harness::image::digest_of(&image.layer);
    let mount = format!("/v2/other/blobs/uploads/?mount={digest}&from=team/app");
    let blind = token("ci", &["repository:other:pull,push"]);
    client.call("POST", &mount).bearer(&blind).send().await.expect(202);
    let seeing = token("ci", &["repository:other:pull,push", "repository:team/app:pull"]);
    client.call("POST", &mount).bearer(&seeing).send().await.expect(201);

    // The catalog is all or nothing.
    let refused = client.call("GET", "/v2/_catalog").bearer(&pull).send().await.expect(401);
    let challenge = format!(
        "Bearer realm=\"{REALM}\",service=\"berth\",scope=\"registry:catalog:*\",\
         error=\"insufficient_scope\""
    );
    assert_eq!(refused.header("www-authenticate"), challenge);
    let lists = token("admin", &["registry:catalog:*"]);
    let listed = client.call("GET", "/v2/_catalog").bearer(&lists).send().await.expect(200);
    assert_eq!(listed.json()["repositories"], json!(["team/app"]));

    // Tokens are not to be had here.
    client.call("GET", "/token").send().await.expect_error(404, "UNSUPPORTED");
}
