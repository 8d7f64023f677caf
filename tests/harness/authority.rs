//! Certificates of the tests' own.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::client::HOST;

/// A CA of the test's own, which the client trusts.
pub(crate) struct CertificateAuthority {
    pub(crate) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    pub(crate) fn new() -> Self {
        berth_shared::crypto::install();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Makes a server certificate and key in `root`.
    pub(crate) fn issue(&self, root: &Path) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![HOST.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(root.join("server.pem"), certificate.pem()).expect("server.pem");
        fs::write(root.join("server.key"), key.serialize_pem()).expect("server.key");
        certificate.der().clone()
    }
}
