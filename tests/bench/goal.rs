//! What Berth is to reach, as ratios in one run.

use crate::{
    peer::Name::{
        self, BerthPlain, BerthS3, BerthTls, DistributionS3, NginxRegistry, Zot, ZotCommit, ZotTls,
    },
    result::Results,
    work::Work,
};

/// By how much one is to be ahead of the best of others.
pub(crate) struct Goal {
    pub(crate) work: Work,
    pub(crate) ours: Name,
    pub(crate) than: &'static [Name],
    pub(crate) least: f64,
}

const fn goal(work: Work, ours: Name, than: &'static [Name], least: f64) -> Goal {
    Goal { work, ours, than, least }
}

pub(crate) const GOALS: &[Goal] = &[
    goal(Work::Manifest, BerthTls, &[NginxRegistry, ZotTls], 80.0),
    goal(Work::Manifest, BerthTls, Name::PLAIN, 3.0),
    goal(Work::Blob10K, BerthTls, Name::PLAIN, 3.0),
    goal(Work::Blob1M, BerthTls, &[ZotTls], 3.5),
    goal(Work::Blob1M, BerthTls, &[Zot], 0.75),
    goal(Work::Blob1M, BerthPlain, &[Zot], 1.2),
    goal(Work::PullHttp1, BerthTls, &[NginxRegistry], 2.5),
    goal(Work::PullHttp1, BerthTls, &[ZotTls], 1.8),
    goal(Work::PullHttp1, BerthPlain, Name::PLAIN, 1.1),
    goal(Work::PushHttp1, BerthTls, &[NginxRegistry], 4.0),
    goal(Work::PushHttp1, BerthTls, &[ZotTls], 1.5),
    goal(Work::PushHttp1, BerthPlain, &[ZotCommit], 1.5),
    goal(Work::Manifest, BerthS3, &[DistributionS3], 5.0),
    goal(Work::Blob10K, BerthS3, &[DistributionS3], 5.0),
    goal(Work::SmallBlobs, BerthS3, &[DistributionS3], 5.0),
    goal(Work::PushHttp1, BerthS3, &[DistributionS3], 1.5),
];

/// Rows in which HTTP/2 is to take at most so many times as long as HTTP/1.1.
pub(crate) const HTTP2: &[(Work, Work, f64)] =
    &[(Work::PullHttp2, Work::PullHttp1, 1.1), (Work::PushHttp2, Work::PushHttp1, 1.1)];

/// What both servers may hold, in MiB: at rest, and at most.
pub(crate) const MEMORY_MIB: (f64, f64) = (20.0, 40.0);

/// By how much a larger store may be behind the smallest.
pub(crate) const FLAT: f64 = 0.1;

/// Within how many milliseconds the server is to answer on a large store.
pub(crate) const START_MILLIS: f64 = 100.0;

impl Goal {
    /// How far ahead one is, and of whom, where both were measured.
    pub(crate) fn reached(&self, results: &Results, is_busy: bool) -> Option<(Name, f64)> {
        let ours = results.middle(self.work, self.ours, is_busy)?.median;
        let (than, theirs) = results.best(self.work, self.than, is_busy)?;
        Some((than, self.work.unit().lead(ours, theirs)))
    }
}
