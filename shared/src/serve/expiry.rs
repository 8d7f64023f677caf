//! Counting down to the end of certificates: a metric, and a warning a day when the end is near, or
//! when one does not hold yet, as when it was made under a clock that was ahead.
//!
//! It looks at files alone, so it says the same of certificates that Berth made and of others.

use std::{io, path::PathBuf, time::Duration};

use metrics::gauge;
use tokio_util::sync::CancellationToken;
use x509_parser::{certificate::X509Certificate, pem::parse_x509_pem};

use crate::{
    clock::{Clock, UnixSeconds, rfc3339},
    file_stamp::Stamp,
    files::{SMALL_FILE_BYTES_MAX, read_at_most},
};

/// A warning is given when a certificate holds for less than this.
const WARN_BEFORE_SECS: i64 = 30 * DAY_SECS;

const DAY_SECS: i64 = 24 * 60 * 60;

/// How often the files are looked at; one that has not changed is not read.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// One certificate that is counted down.
#[derive(Debug)]
pub struct Countdown {
    name: &'static str,
    path: PathBuf,
    advice: &'static str,
    clock: Clock,
    seen: Option<Seen>,
    warned: Option<UnixSeconds>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    stamp: Stamp,
    validity: Validity,
}

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: UnixSeconds,
    /// The last second.
    pub not_after: UnixSeconds,
}

impl Validity {
    /// That of the first certificate of a PEM text; `None` when there is none.
    pub fn of_pem(pem: &[u8]) -> Option<Self> {
        let (_, pem) = parse_x509_pem(pem).ok()?;
        pem.parse_x509().ok().map(|certificate| Self::of(&certificate))
    }

    /// That of a certificate.
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            not_before: UnixSeconds::new(validity.not_before.timestamp()),
            not_after: UnixSeconds::new(validity.not_after.timestamp()),
        }
    }
}

impl Countdown {
    /// Counts down the first certificate in the PEM file at `path`. `name` is its label in the
    /// metric, and `advice` what to do when the end is near.
    pub fn new(name: &'static str, path: PathBuf, advice: &'static str, clock: Clock) -> Self {
        Self { name, path, advice, clock, seen: None, warned: None }
    }

    /// Looks at the file and tells what is left: in the metric always, in the log once a day when
    /// it is little, or has not begun.
    fn look(&mut self) {
        // While the file cannot be read, which is for others to report, what was read last is what
        // is served.
        let seen = self.seen.map(|seen| seen.validity);
        let Some(Validity { not_before, not_after }) = self.validity().ok().or(seen) else {
            return;
        };
        let now = self.clock.now();
        let left = not_after - now;
        #[expect(clippy::cast_precision_loss, reason = "seconds fit for a hundred million years")]
        gauge!("berth_certificate_remaining_seconds", "certificate" => self.name).set(left as f64);
        let is_early = now < not_before;
        // What was told by a clock that was ahead is told again.
        let is_told = self.warned.is_some_and(|warned| (0..DAY_SECS).contains(&(now - warned)));
        if left >= WARN_BEFORE_SECS && !is_early || is_told {
            return;
        }
        self.warned = Some(now);
        let (path, end) = (self.path.display(), rfc3339(not_after));
        if is_early {
            let begin = rfc3339(not_before);
            tracing::warn!(
                "the certificate {path} does not hold before {begin}: if the clock is right, {}",
                self.advice
            );
        } else if left <= 0 {
            tracing::warn!("the certificate {path} expired at {end}: {}", self.advice);
        } else {
            let days = left / DAY_SECS;
            tracing::warn!(
                "the certificate {path} expires in {days} days, at {end}: {}",
                self.advice
            );
        }
    }

    fn validity(&mut self) -> io::Result<Validity> {
        let stamp = Stamp::of(&self.path)?;
        if let Some(seen) = self.seen
            && !seen.stamp.may_differ_from(&stamp)
        {
            return Ok(seen.validity);
        }
        let validity = Validity::of_pem(&read_at_most(&self.path, SMALL_FILE_BYTES_MAX)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no certificate"))?;
        if self.seen.is_some_and(|seen| seen.validity != validity) {
            self.warned = None;
        }
        self.seen = Some(Seen { stamp, validity });
        Ok(validity)
    }
}

/// Counts down until `shutdown`.
pub async fn count_down(mut certificates: Vec<Countdown>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        certificates.iter_mut().for_each(Countdown::look);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::Debug,
        fs,
        sync::{Arc, Mutex},
    };

    use metrics_exporter_prometheus::PrometheusBuilder;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tracing::field::{Field, Visit};
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::*;

    /// The texts of all events.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber> Layer<S> for Log {
        fn on_event(
            &self,
            event: &tracing::Event<'_>,
            _: tracing_subscriber::layer::Context<'_, S>,
        ) {
            event.record(&mut self.clone());
        }
    }

    impl Visit for Log {
        fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }

    type Day = (i32, u8, u8);

    fn write(path: &std::path::Path, end: Day) -> UnixSeconds {
        write_from(path, (2026, 1, 1), end)
    }

    fn write_from(path: &std::path::Path, begin: Day, end: Day) -> UnixSeconds {
        let date = |(year, month, day)| date_time_ymd(year, month, day);
        let mut params = CertificateParams::new(vec!["reg.test".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date(begin), date(end));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        fs::write(path, certificate.pem()).unwrap();
        UnixSeconds::new(params.not_after.unix_timestamp())
    }

    #[test]
    fn the_days_are_counted_down_and_a_warning_comes_once_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.pem");
        let end = write(&path, (2027, 3, 1));
        let clock = Clock::set(end - 31 * DAY_SECS);
        let mut countdown = Countdown::new("server", path.clone(), "renew it", clock.clone());
        let (log, recorder) = (Log::default(), PrometheusBuilder::new().build_recorder());
        let handle = recorder.handle();
        let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(log.clone()));
        let mut look = || {
            tracing::dispatcher::with_default(&dispatch, || {
                metrics::with_local_recorder(&recorder, || countdown.look());
            });
            log.0.lock().unwrap().drain(..).collect::<Vec<_>>()
        };
        let shows = |seconds: i64| {
            let line =
                format!("berth_certificate_remaining_seconds{{certificate=\"server\"}} {seconds}");
            assert!(handle.render().lines().any(|it| it == line), "{}", handle.render());
        };
        let advance = |secs: i64| clock.advance(Duration::from_secs(secs.unsigned_abs()));

        assert!(look().is_empty());
        shows(31 * DAY_SECS);
        advance(DAY_SECS);
        assert!(look().is_empty(), "30 days are not fewer than 30");
        advance(1);
        let said = look();
        assert!(said.len() == 1 && said[0].contains("expires in 29 days"), "{said:?}");
        assert!(said[0].contains("2027-03-01T00:00:00Z: renew it"), "{said:?}");
        advance(DAY_SECS - 1);
        assert!(look().is_empty(), "once a day");
        shows(29 * DAY_SECS);
        advance(1);
        assert_eq!(look().len(), 1);
        advance(40 * DAY_SECS);
        assert!(look()[0].contains("expired at 2027-03-01T00:00:00Z"));

        let end = write(&path, (2028, 3, 1));
        assert!(look().is_empty());
        shows(end - clock.now());
        fs::write(&path, "no certificate").unwrap();
        assert!(look().is_empty());

        // Made under a clock that was ahead.
        write_from(&path, (2027, 6, 1), (2028, 3, 1));
        let said = look();
        assert!(said[0].contains("does not hold before 2027-06-01T00:00:00Z"), "{said:?}");
        assert!(look().is_empty(), "once a day");
    }
}
