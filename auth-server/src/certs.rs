//! The server's certificate: issued by a CA of Berth's own, or put there by its owner.
//!
//! A certificate counts as Berth's when Berth's own CA, whose key lies here, has signed it. Any
//! other is its owner's: it is used, and never touched. Every key is written before the
//! certificate that belongs to it, and a renewal keeps the key, so that a crash at any point leaves
//! a pair that matches or a gap that the next run fills.

use std::{
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    serve::expiry::Validity,
};
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, SigningKey,
};
use serde::Deserialize;
use x509_parser::{
    extensions::GeneralName,
    pem::{Pem, parse_x509_pem},
};
use zeroize::Zeroizing;

use crate::{
    files::{self, FileError},
    host::Host,
    random,
};

/// How long the CA holds. It is trusted by hand on every client, so it should outlive the machine.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long a server certificate holds: the longest that no client finds too long.
const SERVER_LIFE: Duration = Duration::from_secs(397 * 24 * 60 * 60);

/// A certificate of Berth's is renewed by `auth-server` and `authctl init` when it holds for less
/// than this: before anybody is warned of its end.
const RENEW_BEFORE: Duration = Duration::from_secs(45 * 24 * 60 * 60);

/// How far certificates begin in the past, for clients whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// The set-group-ID bit of a directory that its group may list and enter.
const GROUPS: u32 = 0o2050;

/// The mode of a key that the registry reads by a group.
const KEY_OF_GROUP: u32 = 0o640;

/// The certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what it should be.
    #[error(
        "{} holds no {what} that can be read: put it back from a copy, or take it away and run \
         authctl cert init",
        path.display()
    )]
    Unreadable {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// One file of a pair is there without the other.
    #[error("{} is there without {}: put both there, or take the first away", .0.display(), .1.display())]
    Half(PathBuf, PathBuf),
    /// The certificate is its owner's.
    #[error("{} was not made by Berth: renew it where it came from", .0.display())]
    Owned(PathBuf),
    /// Making a key or a certificate failed.
    #[error("making a certificate")]
    Making(#[from] rcgen::Error),
}

/// Where certificates and keys lie.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The directory that the registry reads: `server.pem`, `server.key`, `ca.pem`.
    #[serde(rename = "directory")]
    pub certs: PathBuf,
    /// The directory of `ca.key` and `ca.pem`; the same, unless the registry is kept from it.
    #[serde(default)]
    pub ca: PathBuf,
}

/// What certificate there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// None.
    Missing,
    /// Its owner's.
    Own {
        /// The names and addresses that it holds for.
        hosts: Vec<Host>,
    },
    /// Berth's own.
    Berths {
        /// The names and addresses that it holds for.
        hosts: Vec<Host>,
        /// Whether it holds for so little longer that it should be made again; also when it does
        /// not hold yet, since it was made under a clock that was ahead.
        is_ending: bool,
        /// Whether it belongs to the key beside it; else it should be made again too.
        is_of_key: bool,
    },
}

impl Found {
    /// The names and addresses that it holds for.
    pub fn hosts(&self) -> &[Host] {
        match self {
            Self::Missing => &[],
            Self::Own { hosts } | Self::Berths { hosts, .. } => hosts,
        }
    }
}

impl CertificateFiles {
    /// The server's certificate.
    pub fn server_pem(&self) -> PathBuf {
        self.certs.join("server.pem")
    }

    /// The server's key.
    pub fn server_key(&self) -> PathBuf {
        self.certs.join("server.key")
    }

    /// The CA's certificate, which clients are told to trust.
    pub fn ca_pem(&self) -> PathBuf {
        self.ca.join("ca.pem")
    }

    /// The CA's key.
    pub fn ca_key(&self) -> PathBuf {
        self.ca.join("ca.key")
    }

    /// Looks at what is there.
    ///
    /// # Errors
    /// When a file cannot be read, or a certificate is there without its key.
    pub fn find(&self, clock: &Clock) -> Result<Found, CertError> {
        let pem = self.server_pem();
        if !is_there(&pem)? {
            return Ok(Found::Missing);
        }
        if !is_there(&self.server_key())? {
            return Err(CertError::Half(pem, self.server_key()));
        }
        let text = read_certificate(&pem)?;
        let certificate = text.parse_x509().map_err(|_| no_certificate(&pem))?;
        let names = certificate.subject_alternative_name().map_err(|_| no_certificate(&pem))?;
        let hosts = names.map_or_else(Vec::new, |names| {
            names.value.general_names.iter().filter_map(read_host).collect()
        });
        if !is_there(&self.ca_key())? || !self.is_signed()? {
            return Ok(Found::Own { hosts });
        }
        let ca = read_certificate(&self.ca_pem())?;
        let ca = ca.parse_x509().map_err(|_| no_certificate(&self.ca_pem()))?;
        let (own, ca) = (Validity::of(&certificate), Validity::of(&ca));
        // One that ends with its CA would not hold any longer if it were made again, and one that
        // begins before its CA holds would not be taken any sooner.
        let is_over = own.not_after - RENEW_BEFORE < clock.now() && own.not_after < ca.not_after;
        let is_early = clock.now() < own.not_before && ca.not_before <= clock.now();
        let key = read_key(&self.server_key())?;
        let certified = &certificate.public_key().subject_public_key.data;
        let is_of_key = certified.as_ref() == key.der_bytes();
        Ok(Found::Berths { hosts, is_ending: is_over || is_early, is_of_key })
    }

    /// Whether the certificate is signed by the CA that is there, whose key may have been taken away.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn is_signed(&self) -> Result<bool, CertError> {
        let (pem, ca) = (self.server_pem(), self.ca_pem());
        if !is_there(&pem)? || !is_there(&ca)? {
            return Ok(false);
        }
        let (text, ca_text) = (read_certificate(&pem)?, read_certificate(&ca)?);
        let certificate = text.parse_x509().map_err(|_| no_certificate(&pem))?;
        let ca = ca_text.parse_x509().map_err(|_| no_certificate(&ca))?;
        Ok(certificate.verify_signature(Some(ca.public_key())).is_ok())
    }

    /// Makes Berth's certificate again if it is about to expire or does not hold yet, for the same
    /// names and key, and says until when the new one holds. Any other certificate, and none, is
    /// left as it is.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn renew_if_due(&self, clock: &Clock) -> Result<Option<UnixSeconds>, CertError> {
        // One of another key: somebody may be putting a pair of their own there, key first.
        let Found::Berths { hosts, is_ending: true, is_of_key: true } = self.find(clock)? else {
            return Ok(None);
        };
        self.issue(&hosts, clock)?;
        end_of(&self.server_pem()).map(Some)
    }

    /// Makes a certificate for `hosts`, and the CA and the keys where they are missing.
    ///
    /// # Errors
    /// [`CertError::Owned`] when the certificate there is its owner's; else when something cannot
    /// be read or written.
    pub fn issue(&self, hosts: &[Host], clock: &Clock) -> Result<(), CertError> {
        if let Found::Own { .. } = self.find(clock)? {
            return Err(CertError::Owned(self.server_pem()));
        }
        files::make_directory(&self.certs)?;
        files::make_directory(&self.ca)?;
        let ca = self.ca(clock)?;
        let key = key_at(&self.server_key(), self.mode_of_server_key())?;
        let names: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        // A common name has at most 64 characters; clients go by the alternative names.
        let common: String = names.first().map_or("berth", |name| name).chars().take(64).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let ca_left = end_of(&self.ca_pem())? - clock.now();
        let ca_left = Duration::from_secs(u64::try_from(ca_left).unwrap_or(0));
        set_life(&mut params, clock.now(), SERVER_LIFE.min(ca_left))?;
        let certificate = params.signed_by(&key, &ca)?;
        files::replace(&self.server_pem(), certificate.pem().as_bytes(), files::READABLE)?;
        Ok(())
    }

    /// The mode of a new server key. Where the registry runs as another user, its group has the
    /// directory, and by the set-group-ID bit what is made there; the CA's key lies elsewhere then.
    fn mode_of_server_key(&self) -> u32 {
        let directory = std::fs::metadata(&self.certs);
        let is_groups = directory.is_ok_and(|meta| meta.mode() & GROUPS == GROUPS);
        if is_groups && self.ca != self.certs { KEY_OF_GROUP } else { files::PRIVATE }
    }

    /// Berth's CA, made first when there is none.
    fn ca(&self, clock: &Clock) -> Result<Issuer<'static, KeyPair>, CertError> {
        if is_there(&self.ca_pem())? && !is_there(&self.ca_key())? {
            return Err(CertError::Half(self.ca_pem(), self.ca_key()));
        }
        let key = key_at(&self.ca_key(), files::PRIVATE)?;
        if !is_there(&self.ca_pem())? {
            let suffix = HEXLOWER.encode(&random::<4>()?);
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, format!("Berth CA {suffix}"));
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            set_life(&mut params, clock.now(), CA_LIFE)?;
            let pem = params.self_signed(&key)?.pem();
            files::replace(&self.ca_pem(), pem.as_bytes(), files::READABLE)?;
        }
        let pem = files::read(&self.ca_pem())?;
        let copy = self.certs.join("ca.pem");
        if files::read(&copy).ok().as_ref() != Some(&pem) {
            files::replace(&copy, &pem, files::READABLE)?;
        }
        let pem = String::from_utf8_lossy(&pem).into_owned();
        Ok(Issuer::from_ca_cert_pem(&pem, key)?)
    }
}

/// A certificate over a signing key, signed by itself, as stock registries are given one to verify
/// tokens by (`rootcertbundle` in distribution).
///
/// # Errors
/// When the system gives no randomness.
pub fn signing_certificate(key: &impl SigningKey, made: UnixSeconds) -> Result<String, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Berth token signing");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    set_life(&mut params, made, CA_LIFE)?;
    Ok(params.self_signed(key)?.pem())
}

/// The key in the file at `path`, made first when there is none.
fn key_at(path: &Path, mode: u32) -> Result<KeyPair, CertError> {
    if !is_there(path)? {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = Zeroizing::new(key.serialize_pem());
        files::replace(path, pem.as_bytes(), mode)?;
    }
    read_key(path)
}

fn read_key(path: &Path) -> Result<KeyPair, CertError> {
    let pem = Zeroizing::new(files::read(path)?);
    let key = str::from_utf8(&pem).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
    key.ok_or_else(|| CertError::Unreadable { what: "key", path: path.to_owned() })
}

/// The first certificate in a PEM file.
fn read_certificate(path: &Path) -> Result<Pem, CertError> {
    let bytes = files::read(path)?;
    match parse_x509_pem(&bytes) {
        Ok((_, pem)) if pem.label == "CERTIFICATE" => Ok(pem),
        _ => Err(no_certificate(path)),
    }
}

/// When the first certificate in a PEM file ends.
fn end_of(path: &Path) -> Result<UnixSeconds, CertError> {
    Validity::of_pem(&files::read(path)?)
        .map(|validity| validity.not_after)
        .ok_or_else(|| no_certificate(path))
}

fn no_certificate(path: &Path) -> CertError {
    CertError::Unreadable { what: "certificate", path: path.to_owned() }
}

/// What may not be looked at is not taken for missing.
fn is_there(path: &Path) -> Result<bool, FileError> {
    path.try_exists().map_err(|source| FileError::new("looking for", path, source))
}

/// A name that a registry can be reached by; wildcards and other kinds of names are not.
fn read_host(name: &GeneralName<'_>) -> Option<Host> {
    match name {
        GeneralName::DNSName(name) => name.parse().ok(),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(Host::Address)
        }
        _ => None,
    }
}

fn set_life(
    params: &mut CertificateParams,
    now: UnixSeconds,
    life: Duration,
) -> Result<(), CertError> {
    let now = now.since_epoch();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + life;
    // A renewal keeps the key, and a serial number derived from it would come twice.
    let mut serial = random::<16>()?;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N], rcgen::Error> {
    random::bytes().map_err(|_| rcgen::Error::RingUnspecified)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use berth_shared::serve::tls::Tls;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds::new(1_790_000_000);

    fn hosts(list: &[&str]) -> Vec<Host> {
        list.iter().map(|host| host.parse().unwrap()).collect()
    }

    fn files(dir: &Path) -> CertificateFiles {
        CertificateFiles { certs: dir.join("certs"), ca: dir.join("ca") }
    }

    #[test]
    fn a_certificate_is_made_found_and_renewed_under_the_same_ca() {
        let dir = tempfile::tempdir().unwrap();
        let (files, clock) = (files(dir.path()), Clock::set(NOW));
        assert_eq!(files.find(&clock).unwrap(), Found::Missing);
        files.issue(&hosts(&["reg.homelab.lan", "192.168.1.5", "::1"]), &clock).unwrap();
        let expected = hosts(&["reg.homelab.lan", "192.168.1.5", "::1"]);
        let fresh = Found::Berths { hosts: expected.clone(), is_ending: false, is_of_key: true };
        assert_eq!(files.find(&clock).unwrap(), fresh);
        Tls::load(&files.server_pem(), &files.server_key()).unwrap();
        let ca = fs::read(files.ca_pem()).unwrap();
        let old = fs::read(files.server_pem()).unwrap();
        assert_eq!(ca, fs::read(files.certs.join("ca.pem")).unwrap());
        for key in [files.ca_key(), files.server_key()] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        clock.advance(Duration::from_secs(370 * 24 * 60 * 60));
        let worn = Found::Berths { hosts: expected, is_ending: true, is_of_key: true };
        assert_eq!(files.find(&clock).unwrap(), worn);
        files.issue(&hosts(&["other.lan"]), &clock).unwrap();
        assert_eq!(ca, fs::read(files.ca_pem()).unwrap());
        assert_ne!(old, fs::read(files.server_pem()).unwrap());
        Tls::load(&files.server_pem(), &files.server_key()).unwrap();
    }

    #[test]
    fn a_key_is_its_owners_alone_but_in_a_directory_of_the_registrys_group() {
        let mode = |certs_mode: Option<u32>, is_split: bool| {
            let dir = tempfile::tempdir().unwrap();
            let mut files = files(dir.path());
            if !is_split {
                files.ca = files.certs.clone();
            }
            fs::create_dir(&files.certs).unwrap();
            if let Some(mode) = certs_mode {
                fs::set_permissions(&files.certs, fs::Permissions::from_mode(mode)).unwrap();
            }
            files.issue(&hosts(&["a.lan"]), &Clock::set(NOW)).unwrap();
            let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(files.ca_key()), 0o600);
            mode(files.server_key())
        };
        assert_eq!(mode(Some(0o2750), true), 0o640);
        for (certs_mode, is_split) in
            [(None, true), (Some(0o755), true), (Some(0o2700), true), (Some(0o2750), false)]
        {
            assert_eq!(mode(certs_mode, is_split), 0o600, "{certs_mode:?} {is_split}");
        }
    }

    #[test]
    fn an_owners_certificate_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (files, clock) = (files(dir.path()), Clock::set(NOW));
        let other = CertificateFiles { certs: files.certs.clone(), ca: dir.path().join("other") };
        other.issue(&hosts(&["own.lan"]), &clock).unwrap();
        let own = fs::read(files.server_pem()).unwrap();
        let found = Found::Own { hosts: hosts(&["own.lan"]) };
        assert_eq!(files.find(&clock).unwrap(), found);
        let refused = files.issue(&hosts(&["reg.lan"]), &clock);
        assert!(matches!(refused, Err(CertError::Owned(_))));
        fs::copy(other.ca_pem(), dir.path().join("ca.pem")).unwrap();
        assert_eq!(own, fs::read(files.server_pem()).unwrap());
    }

    #[test]
    fn a_run_that_was_cut_off_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let (files, clock) = (files(dir.path()), Clock::set(NOW));
        files.issue(&hosts(&["a.lan"]), &clock).unwrap();
        let key = fs::read(files.server_key()).unwrap();
        fs::remove_file(files.server_pem()).unwrap();
        fs::remove_file(files.ca_pem()).unwrap();
        files.issue(&hosts(&["a.lan"]), &clock).unwrap();
        assert_eq!(key, fs::read(files.server_key()).unwrap());
        let found = files.find(&clock).unwrap();
        assert_eq!(
            found,
            Found::Berths { hosts: hosts(&["a.lan"]), is_ending: false, is_of_key: true }
        );
        fs::remove_file(files.server_key()).unwrap();
        assert!(matches!(files.find(&clock), Err(CertError::Half(..))));
    }
}
