//! An hour of this process's running time, as far as marks for counters go by it.

use std::sync::atomic::{AtomicI64, Ordering};

/// It is known by the mark that was the last when it began.
#[derive(Debug, Default)]
pub(super) struct Hour(AtomicI64);

impl Hour {
    /// Begins with this mark as the last.
    pub(super) fn begin(&self, last: i64) {
        self.0.store(last, Ordering::Relaxed);
    }

    /// The mark that was the last when it began.
    pub(super) fn seen(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
