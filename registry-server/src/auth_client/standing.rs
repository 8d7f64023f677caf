//! How it stands with `auth-server`: what the last polls came to, and what was told of it.

use berth_shared::telemetry::chain;
use parking_lot::Mutex;

use super::error::Error;

/// What is asked for again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Revocations,
    Keys,
}

/// Why a poll was in vain.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) error: String,
    /// Whether it stays so until somebody does something.
    pub(super) stays: bool,
}

/// What the last poll of each came to; nothing has been asked for at first.
#[derive(Default)]
pub(super) struct Standing(Mutex<Polls>);

#[derive(Default)]
struct Polls {
    revocations: Option<Result<(), Failed>>,
    keys: Option<Result<(), Failed>>,
    /// Whether what was told last stays, where it was no good news.
    told: Option<bool>,
}

impl Standing {
    /// Whether both were had the last time.
    pub(super) fn is_up(&self) -> bool {
        let polls = self.0.lock();
        [&polls.revocations, &polls.keys].iter().all(|it| matches!(it, Some(Ok(()))))
    }

    /// Why one of them was not; what stays before what may pass.
    pub(super) fn failed(&self) -> Option<Failed> {
        self.0.lock().failed().cloned()
    }

    /// Notes what a poll came to, and tells a change, unless both servers may be starting.
    pub(super) fn note(&self, asked: Asked, error: Option<&Error>, is_starting: bool) {
        let polled = match error {
            None => Ok(()),
            Some(error) => Err(Failed { error: chain(error), stays: error.stays() }),
        };
        let has_failed = polled.is_err();
        let mut polls = self.0.lock();
        match asked {
            Asked::Revocations => polls.revocations = Some(polled),
            Asked::Keys => polls.keys = Some(polled),
        }
        let failed = polls.failed().cloned();
        match failed {
            // What the other's poll came to it tells itself.
            Some(Failed { error, stays })
                if has_failed && polls.told != Some(stays) && !is_starting =>
            {
                let what = "auth-server gives no answer: known tokens go on, sign-in waits";
                tracing::warn!(error, "{what}");
                polls.told = Some(stays);
            }
            None if polls.told.is_some() => {
                tracing::info!("auth-server answers again");
                polls.told = None;
            }
            _ => {}
        }
    }
}

impl Polls {
    fn failed(&self) -> Option<&Failed> {
        let both = [&self.revocations, &self.keys].into_iter().flatten();
        both.filter_map(|polled| polled.as_ref().err()).max_by_key(|failed| failed.stays)
    }
}
