//! Renewing the certificate that Berth made, before it expires.
//!
//! It keeps the CA, the key and the names, so that no client notices; whoever serves the
//! certificate looks at its file and takes the new one into use. A certificate that is its owner's
//! is never touched. Why this server does it is in decision 8.

use std::time::Duration;

use berth_shared::{
    clock::{Clock, UnixSeconds, rfc3339},
    serve::expiry::Countdown,
    telemetry::chain,
};
use tokio_util::sync::CancellationToken;

use crate::{
    certs::{CertificateFiles, Found},
    config::{Config, Link, Public},
};

/// How often the certificate is looked at: its three small files are read, which costs less than a
/// millisecond.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How often the same failure is reported.
const REPORT_INTERVAL_SECS: i64 = 24 * 60 * 60;

/// What to do about a certificate that is about to expire.
const SERVER_ADVICE: &str =
    "renew it where it came from, or with authctl cert renew if Berth made it";
const LINK_ADVICE: &str = "renew it where it came from; if Berth made it, authctl link init --force \
     makes it anew with its CA, which the registry-servers need then";
const CA_ADVICE: &str = "make another CA, as OPERATING.md says, and have the clients trust it";

/// The certificate of an installation, looked after.
struct Renewal {
    files: CertificateFiles,
    clock: Clock,
    /// What was reported last, and when.
    complaint: Option<(String, UnixSeconds)>,
}

impl Renewal {
    /// Says what is not looked after, so that a wrong path is noticed before the certificate ends.
    fn introduce(&self) {
        let (shown, key) = (self.files.server_pem(), self.files.ca_key());
        let (shown, key) = (shown.display(), key.display());
        match self.files.find(&self.clock) {
            Ok(Found::Missing) => tracing::warn!(
                "there is no certificate {shown}: see [certificates] in the settings"
            ),
            Ok(Found::Own { .. }) => tracing::info!(
                "the certificate {shown} is not renewed here: it is not signed by {key}"
            ),
            // Whatever cannot be read is told when it is looked at.
            Ok(Found::Berths { .. }) | Err(_) => {}
        }
    }

    /// Renews the certificate if that is due.
    fn look(&mut self) {
        let shown = self.files.server_pem().display().to_string();
        match self.files.renew_if_due(&self.clock) {
            Ok(None) => self.complaint = None,
            Ok(Some(end)) => {
                self.complaint = None;
                tracing::info!("renewed the certificate {shown}: it holds until {}", rfc3339(end));
            }
            Err(error) => self.complain(chain(&error)),
        }
    }

    fn complain(&mut self, error: String) {
        let now = self.clock.now();
        let is_told = self.complaint.as_ref().is_some_and(|(told, at)| {
            *told == error && (0..REPORT_INTERVAL_SECS).contains(&(now - *at))
        });
        if !is_told {
            tracing::error!(error, "looking after the certificate");
            self.complaint = Some((error, now));
        }
    }
}

/// The certificates that are looked after: the one that the settings name, and that of the link, if Berth
/// made it.
pub(crate) fn renewed(config: &Config) -> Vec<CertificateFiles> {
    let link = config.link.as_ref().and_then(Link::made_here);
    config.certificates.clone().into_iter().chain(link).collect()
}

/// Looks after certificates until `shutdown`.
pub(crate) async fn keep(
    certificates: Vec<CertificateFiles>,
    clock: &Clock,
    shutdown: &CancellationToken,
) {
    let renewal = |files| Renewal { files, clock: clock.clone(), complaint: None };
    let mut renewals: Vec<_> = certificates.into_iter().map(renewal).collect();
    if renewals.is_empty() {
        return;
    }
    renewals.iter().for_each(Renewal::introduce);
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let looked = tokio::task::spawn_blocking(move || {
            renewals.iter_mut().for_each(Renewal::look);
            renewals
        });
        // It only ends early when the process does.
        let Ok(looked) = looked.await else { return };
        renewals = looked;
    }
}

/// The certificates that the settings name, to be counted down.
pub(crate) fn countdowns(config: &Config, clock: &Clock) -> Vec<Countdown> {
    let countdown = |name, path, advice| Countdown::new(name, path, advice, clock.clone());
    let mut all = Vec::new();
    if let Some(files) = &config.certificates {
        all.push(countdown("server", files.server_pem(), SERVER_ADVICE));
        all.push(countdown("ca", files.ca_pem(), CA_ADVICE));
    }
    if let Some(Public { certificate, .. }) = &config.public {
        // Often both servers show the same certificate, and one warning is enough.
        let is_same = |files: &CertificateFiles| {
            files.server_pem().canonicalize().ok() == certificate.canonicalize().ok()
        };
        if !config.certificates.as_ref().is_some_and(is_same) {
            all.push(countdown("public", certificate.clone(), SERVER_ADVICE));
        }
    }
    if let Some(Link { certificate, .. }) = &config.link {
        all.push(countdown("link", certificate.clone(), LINK_ADVICE));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn berths_certificate_is_renewed_before_it_expires_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (certs, ca) = (dir.path().join("certs"), dir.path().join("ca"));
        let files = CertificateFiles { certs, ca };
        let clock = Clock::set(moment(1_790_000_000));
        let hosts = ["reg.lan", "192.168.1.5"].map(|host| host.parse().unwrap()).to_vec();
        files.issue(&hosts, &clock).unwrap();
        let read = || std::fs::read(files.server_pem()).unwrap();
        let key = std::fs::read(files.server_key()).unwrap();
        let (first, ca) = (read(), std::fs::read(files.ca_pem()).unwrap());
        let mut renewal = Renewal { files: files.clone(), clock: clock.clone(), complaint: None };
        clock.advance(351 * DAY);
        renewal.look();
        assert_eq!(read(), first, "46 days are left");
        clock.advance(2 * DAY);
        renewal.look();
        let second = read();
        assert_ne!(second, first, "44 days were left");
        assert_eq!(
            files.find(&clock).unwrap(),
            Found::Berths { hosts, is_ending: false, is_of_key: true }
        );
        assert_eq!(std::fs::read(files.server_key()).unwrap(), key);
        assert_eq!(std::fs::read(files.ca_pem()).unwrap(), ca);

        // Without the CA's key the certificate is as good as somebody else's.
        std::fs::rename(files.ca_key(), dir.path().join("away")).unwrap();
        clock.advance(390 * DAY);
        renewal.look();
        assert_eq!(read(), second);
        std::fs::rename(dir.path().join("away"), files.ca_key()).unwrap();
        // A new key is not Berth's to certify: its owner may be about to bring a certificate.
        std::fs::write(files.server_key(), rcgen::KeyPair::generate().unwrap().serialize_pem())
            .unwrap();
        renewal.look();
        assert_eq!(read(), second);
        std::fs::write(files.server_key(), key).unwrap();
        renewal.look();
        assert_ne!(read(), second);
    }

    #[test]
    fn a_certificate_made_under_a_clock_that_was_ahead_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles { certs: dir.path().to_owned(), ca: dir.path().to_owned() };
        let now = 1_790_000_000;
        let right = Clock::set(moment(now));
        files.issue(&["reg.lan".parse().unwrap()], &right).unwrap();
        for ahead_days in [353, 20 * 365] {
            let ahead = Clock::set(moment(now));
            ahead.advance(ahead_days * DAY);
            assert!(files.renew_if_due(&ahead).unwrap().is_some(), "by a clock that is ahead");
            assert_eq!(files.renew_if_due(&right).unwrap(), Some(moment(now + 397 * 24 * 60 * 60)));
            assert_eq!(files.renew_if_due(&right).unwrap(), None);
        }
        // No certificate of a CA that does not hold yet is any better.
        let behind = Clock::set(moment(now - 24 * 60 * 60));
        assert_eq!(files.renew_if_due(&behind).unwrap(), None);
    }

    #[test]
    fn a_certificate_does_not_outlive_its_ca_and_is_not_renewed_in_vain() {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles { certs: dir.path().to_owned(), ca: dir.path().to_owned() };
        let clock = Clock::set(moment(1_790_000_000));
        let hosts = vec!["reg.lan".parse().unwrap()];
        files.issue(&hosts, &clock).unwrap();
        clock.advance(3640 * DAY);
        assert_eq!(files.renew_if_due(&clock).unwrap(), Some(clock.now() + 10 * 24 * 60 * 60));
        assert_eq!(files.renew_if_due(&clock).unwrap(), None);
    }

    #[test]
    fn a_failure_is_reported_once_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles { certs: dir.path().to_owned(), ca: dir.path().to_owned() };
        std::fs::write(files.server_pem(), "nonsense").unwrap();
        let clock = Clock::set(moment(1_790_000_000));
        let mut renewal = Renewal { files, clock: clock.clone(), complaint: None };
        renewal.look();
        let told = renewal.complaint.clone().unwrap();
        assert_eq!(told.1, clock.now());
        clock.advance(DAY / 2);
        renewal.look();
        assert_eq!(renewal.complaint.clone().unwrap(), told);
        clock.advance(DAY / 2);
        renewal.look();
        assert_eq!(renewal.complaint.unwrap().1, clock.now());
    }
}
