//! What the link between the servers needs: a certificate of a CA of its own, and the secret.
//!
//! They lie in one directory. `auth-server` needs the certificate, its key and the secret, the
//! registry-servers `ca.pem` and the secret.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use berth_shared::{
    clock::Clock,
    link_secret::{LinkSecretError, LinkSecrets},
};

use zeroize::Zeroizing;

use crate::{
    certs::{CertError, CertificateFiles},
    files::{self, FileError},
    host::Host,
};

/// How the name of the directory begins in which they are made anew.
const FRESH: &str = ".fresh-";

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
    /// The certificate of the CA is gone, and only the one that registry-servers have is of the others.
    #[error(
        "{} is missing: put it back (registry-servers have it too), or make everything anew: \
         authctl link init --force", .0.display()
    )]
    CaLost(PathBuf),
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

    /// Makes those that are missing, the certificate for `hosts`; with `anew` all of them: whoever has the old CA
    /// or the old secret is answered no longer then. They are made beside their places, and put there one by one;
    /// where that breaks off, what is missing can be made as ever.
    ///
    /// # Errors
    /// When something cannot be written, or the certificate there is its owner's.
    pub fn make(&self, hosts: &[Host], anew: bool, clock: &Clock) -> Result<(), LinkFilesError> {
        files::make_directory(&self.0)?;
        self.remove_fresh()?;
        if anew { self.make_anew(hosts, clock) } else { self.make_missing(hosts, clock) }
    }

    fn make_missing(&self, hosts: &[Host], clock: &Clock) -> Result<(), LinkFilesError> {
        let certificates = self.certificates();
        if is_there(&certificates.server_pem()) && !is_there(&certificates.ca_pem()) {
            return Err(LinkFilesError::CaLost(certificates.ca_pem()));
        }
        if self.is_without_certificate() {
            certificates.issue(hosts, clock)?;
        }
        if !is_there(&self.secret()) {
            write(&self.secret(), &LinkSecrets::generate()?)?;
        }
        Ok(())
    }

    fn make_anew(&self, hosts: &[Host], clock: &Clock) -> Result<(), LinkFilesError> {
        let certificates = self.certificates();
        if self.is_owners()? {
            return Err(CertError::Owned(certificates.server_pem()).into());
        }
        let staged = {
            let _assumed = files::as_owner(&self.0)?;
            let staged = tempfile::Builder::new().prefix(FRESH).tempdir_in(&self.0);
            staged.map_err(|source| FileError::new("making a directory in", &self.0, source))?
        };
        let fresh = Self::at(staged.path());
        fresh.certificates().issue(hosts, clock)?;
        write(&fresh.secret(), &LinkSecrets::generate()?)?;
        // A server that runs goes on with what it has. Of what does not fit together nothing is left meanwhile.
        for old in [certificates.server_pem(), certificates.ca_pem()] {
            remove(&self.0, &old, |path| fs::remove_file(path))?;
        }
        for ((place, mode), (made, _)) in self.all().into_iter().zip(fresh.all()) {
            files::replace(&place, &Zeroizing::new(files::read(&made)?), mode)?;
        }
        let _assumed = files::as_owner(&self.0)?;
        drop(staged);
        Ok(())
    }

    /// Whether the certificate there is not of what Berth made: of another CA, or of none that is there.
    fn is_owners(&self) -> Result<bool, CertError> {
        let certificates = self.certificates();
        let is_berths = !is_there(&certificates.server_pem())
            || certificates.is_signed()?
            || !is_there(&certificates.ca_pem()) && is_there(&certificates.ca_key());
        Ok(!is_berths)
    }

    /// Takes away what another left that broke off, with keys that nobody uses.
    fn remove_fresh(&self) -> Result<(), FileError> {
        let listed = fs::read_dir(&self.0).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in listed.map_err(|source| FileError::new("reading", &self.0, source))? {
            if entry.file_name().as_encoded_bytes().starts_with(FRESH.as_bytes()) {
                remove(&self.0, &entry.path(), |path| fs::remove_dir_all(path))?;
            }
        }
        Ok(())
    }

    /// Whether `auth-server` cannot serve the link for want of a file. The CA's key may have been taken away.
    pub fn is_incomplete(&self) -> bool {
        self.is_without_certificate() || !is_there(&self.secret())
    }

    fn is_without_certificate(&self) -> bool {
        let certificates = self.certificates();
        let needed = [certificates.server_pem(), certificates.server_key(), certificates.ca_pem()];
        !needed.iter().all(|path| is_there(path))
    }

    /// Their places, each with the mode of a new one; a key is there before what it is the key of.
    fn all(&self) -> [(PathBuf, u32); 5] {
        let certificates = self.certificates();
        [
            (certificates.ca_key(), files::PRIVATE),
            (certificates.ca_pem(), files::READABLE),
            (certificates.server_key(), files::PRIVATE),
            (certificates.server_pem(), files::READABLE),
            (self.secret(), files::PRIVATE),
        ]
    }
}

/// Removes what lies at `path` in `directory`, as whose that is. What is gone already is no failure.
fn remove(
    directory: &Path,
    path: &Path,
    remove: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), FileError> {
    let _assumed = files::as_owner(directory)?;
    match remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::new("removing", path, error))
        }
        _ => Ok(()),
    }
}

/// What may not be looked at is not taken for missing.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

/// Puts a new secret in front of the one in the file at `path`: it is shown from now on, and both are
/// taken. Whether there was one alone.
///
/// # Errors
/// When the file cannot be read or written.
pub fn add_secret(path: &Path) -> Result<bool, LinkFilesError> {
    let _lock = lock(path)?;
    let secrets = LinkSecrets::read(path)?;
    let is_one = !secrets.are_two();
    if is_one {
        write(path, &secrets.rotated()?)?;
    }
    Ok(is_one)
}

/// Has the second secret in the file at `path` be taken no longer. Whether there was one.
///
/// # Errors
/// When the file cannot be read or written.
pub fn drop_secret(path: &Path) -> Result<bool, LinkFilesError> {
    let _lock = lock(path)?;
    let secrets = LinkSecrets::read(path)?;
    let are_two = secrets.are_two();
    if are_two {
        write(path, &secrets.finished())?;
    }
    Ok(are_two)
}

/// Keeps two who change the secret apart.
fn lock(path: &Path) -> Result<fs::File, FileError> {
    files::lock(&path.with_extension("lock"))
}

fn write(path: &Path, secrets: &LinkSecrets) -> Result<(), LinkFilesError> {
    Ok(files::replace(path, secrets.to_text().as_bytes(), files::PRIVATE)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use berth_shared::serve::tls::Tls;

    use super::*;

    #[test]
    fn what_is_made_fits_together_is_completed_and_is_made_anew_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let files = LinkFiles::at(&directory.path().join("link"));
        let (clock, host) = (Clock::system(), || ["auth.lan".parse().unwrap()]);
        assert!(files.is_incomplete());
        files.make(&host(), false, &clock).unwrap();
        assert!(!files.is_incomplete());
        let certificates = files.certificates();
        let load = || Tls::load_for_link(&certificates.server_pem(), &certificates.server_key());
        load().unwrap();
        for private in [files.secret(), certificates.server_key(), certificates.ca_key()] {
            assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let read = || files.all().map(|(path, _)| fs::read(path).unwrap());
        let first = read();
        // What is lost is made again, and nothing else.
        fs::remove_file(files.secret()).unwrap();
        files.make(&host(), false, &clock).unwrap();
        assert_eq!(read()[..4], first[..4]);
        fs::remove_file(certificates.server_pem()).unwrap();
        files.make(&host(), false, &clock).unwrap();
        assert_eq!(read()[..3], first[..3], "of the same CA and key");
        files.make(&host(), true, &clock).unwrap();
        load().unwrap();
        assert!(read().iter().zip(&first).all(|(new, old)| new != old));
        assert_eq!(fs::read_dir(directory.path().join("link")).unwrap().count(), 5);
    }

    #[test]
    fn what_broke_off_is_made_again_at_whichever_step_and_what_is_its_owners_stays() {
        let (clock, host) = (Clock::system(), || ["auth.lan".parse().unwrap()]);
        let made = || {
            let directory = tempfile::tempdir().unwrap();
            let files = LinkFiles::at(directory.path());
            files.make(&host(), false, &clock).unwrap();
            (directory, files)
        };
        let (_kept, other) = made();
        let whole = |files: &LinkFiles| {
            let certificates = files.certificates();
            Tls::load_for_link(&certificates.server_pem(), &certificates.server_key()).unwrap();
            assert!(certificates.is_signed().unwrap() && !files.is_incomplete());
        };
        // Both certificates are gone, and so many of the files are others already.
        for step in 0..=other.all().len() {
            let (directory, files) = made();
            for old in [files.certificates().server_pem(), files.certificates().ca_pem()] {
                fs::remove_file(old).unwrap();
            }
            for ((place, _), (from, _)) in files.all().iter().zip(other.all()).take(step) {
                fs::copy(from, place).unwrap();
            }
            fs::create_dir(directory.path().join(".fresh-left")).unwrap();
            files.make(&host(), false, &clock).unwrap();
            whole(&files);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 5, "{step}");
        }
        // Any file may be lost, and the CA's key taken away.
        for (lost, _) in other.all() {
            let (_directory, files) = made();
            let lost = files.0.join(lost.file_name().unwrap());
            fs::remove_file(&lost).unwrap();
            files.make(&host(), true, &clock).unwrap();
            whole(&files);
        }
        let (_directory, files) = made();
        fs::remove_file(files.certificates().ca_pem()).unwrap();
        let told = files.make(&host(), false, &clock);
        assert!(matches!(told, Err(LinkFilesError::CaLost(_))), "{told:?}");
        fs::copy(other.certificates().ca_pem(), files.certificates().ca_pem()).unwrap();
        let told = files.make(&host(), true, &clock);
        assert!(matches!(told, Err(LinkFilesError::Certificate(CertError::Owned(_)))), "{told:?}");
    }

    #[test]
    fn a_secret_is_changed_in_two_steps() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write(&path, &LinkSecrets::generate().unwrap()).unwrap();
        let old = LinkSecrets::read(&path).unwrap().shown();
        assert!(!drop_secret(&path).unwrap());
        assert!(add_secret(&path).unwrap() && !add_secret(&path).unwrap());
        let both = LinkSecrets::read(&path).unwrap();
        assert!(both.take(old.as_bytes()) && both.shown() != old);
        assert!(drop_secret(&path).unwrap());
        let new = LinkSecrets::read(&path).unwrap();
        assert!(!new.take(old.as_bytes()) && new.take(both.shown().as_bytes()));
    }
}
