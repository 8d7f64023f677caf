//! What the link between the servers needs: a certificate of a CA of its own, and the secret.
//!
//! They lie in one directory. `auth-server` needs the certificate, its key and the secret, the
//! registry-servers `ca.pem` and the secret.

use std::path::{Path, PathBuf};

use berth_shared::{
    clock::Clock,
    link_secret::{LinkSecretError, LinkSecrets},
};

use crate::{
    certs::{CertError, CertificateFiles},
    files::{self, FileError},
    host::Host,
};

/// They cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum LinkFilesError {
    /// The certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// A file cannot be written, or taken away.
    #[error(transparent)]
    File(#[from] FileError),
    /// The secret cannot be read.
    #[error(transparent)]
    Secret(#[from] LinkSecretError),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
}

impl From<ring::error::Unspecified> for LinkFilesError {
    fn from(_: ring::error::Unspecified) -> Self {
        Self::Randomness
    }
}

/// Where they lie.
#[derive(Debug, Clone)]
pub struct LinkFiles(PathBuf);

impl LinkFiles {
    /// Those in a directory, which need not be there yet.
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The certificate, its key and the CA.
    pub fn certificates(&self) -> CertificateFiles {
        CertificateFiles { certs: self.0.clone(), ca: self.0.clone() }
    }

    /// The file of the secret.
    pub fn secret(&self) -> PathBuf {
        self.0.join("secret")
    }

    /// Those of them that are there.
    pub fn there(&self) -> Vec<PathBuf> {
        let certificates = self.certificates();
        let mut all = vec![certificates.server_pem(), certificates.server_key()];
        all.extend([certificates.ca_pem(), certificates.ca_key(), self.secret()]);
        // What may not be looked at is not taken for missing.
        all.retain(|path| path.try_exists().unwrap_or(true));
        all
    }

    /// Makes all of them anew, the certificate for `hosts`: whoever has the old CA or the old secret is
    /// answered no longer.
    ///
    /// # Errors
    /// When something cannot be written; what was there before may be gone then.
    pub fn make(&self, hosts: &[Host], clock: &Clock) -> Result<(), LinkFilesError> {
        for path in self.there() {
            let removed = std::fs::remove_file(&path);
            removed.map_err(|source| FileError::new("deleting", &path, source))?;
        }
        self.certificates().issue(hosts, clock)?;
        write(&self.secret(), &LinkSecrets::generate()?)
    }
}

/// Puts a new secret in front of the one in the file at `path`: it is shown from now on, and both are
/// taken.
///
/// # Errors
/// When the file cannot be read or written.
pub fn add_secret(path: &Path) -> Result<(), LinkFilesError> {
    write(path, &LinkSecrets::read(path)?.rotated()?)
}

/// Has the second secret in the file at `path` be taken no longer. Whether there was one.
///
/// # Errors
/// When the file cannot be read or written.
pub fn drop_secret(path: &Path) -> Result<bool, LinkFilesError> {
    let secrets = LinkSecrets::read(path)?;
    let are_two = secrets.are_two();
    if are_two {
        write(path, &secrets.finished())?;
    }
    Ok(are_two)
}

fn write(path: &Path, secrets: &LinkSecrets) -> Result<(), LinkFilesError> {
    Ok(files::replace(path, secrets.to_text().as_bytes(), files::PRIVATE)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use berth_shared::serve::tls::Tls;

    use super::*;

    #[test]
    fn what_is_made_fits_together_and_is_made_anew_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let files = LinkFiles::at(&directory.path().join("link"));
        let (clock, host) = (Clock::system(), "auth.lan".parse().unwrap());
        assert!(files.there().is_empty());
        files.make(&[host], &clock).unwrap();
        let certificates = files.certificates();
        Tls::load_for_link(&certificates.server_pem(), &certificates.server_key()).unwrap();
        let first = LinkSecrets::read(&files.secret()).unwrap();
        for private in [files.secret(), certificates.server_key(), certificates.ca_key()] {
            assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(files.there().len(), 5);
        let ca = fs::read(certificates.ca_pem()).unwrap();
        files.make(&["other.lan".parse().unwrap()], &clock).unwrap();
        assert_ne!(fs::read(certificates.ca_pem()).unwrap(), ca);
        assert!(
            !LinkSecrets::read(&files.secret())
                .unwrap()
                .take(first.to_text().trim_end().as_bytes())
        );
    }

    #[test]
    fn a_secret_is_changed_in_two_steps() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write(&path, &LinkSecrets::generate().unwrap()).unwrap();
        let old = LinkSecrets::read(&path).unwrap().shown();
        assert!(!drop_secret(&path).unwrap());
        add_secret(&path).unwrap();
        let both = LinkSecrets::read(&path).unwrap();
        assert!(both.take(old.as_bytes()) && both.shown() != old);
        assert!(drop_secret(&path).unwrap());
        let new = LinkSecrets::read(&path).unwrap();
        assert!(!new.take(old.as_bytes()) && new.take(both.shown().as_bytes()));
    }
}
