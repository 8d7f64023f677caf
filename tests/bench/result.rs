//! The figures of a run.

use std::{collections::HashMap, io};

use crate::{
    peer::{Memory, Name, Peer},
    work::Work,
};

/// All figures, by what was measured where, and whether beside a busy loop.
#[derive(Default)]
pub(crate) struct Results {
    figures: HashMap<(Work, Name, bool), Vec<f64>>,
    failures: Vec<String>,
    memory: HashMap<Name, Memory>,
}

/// The middle of several figures, and how far they lie apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Middle {
    pub(crate) median: f64,
    /// Half of the distance of the least and the largest, in parts of the median.
    pub(crate) spread: f64,
}

impl Middle {
    /// That of these, if there are any.
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        let mut figures = figures.to_vec();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let upper = *figures.get(middle)?;
        let lower = if figures.len().is_multiple_of(2) { *figures.get(middle - 1)? } else { upper };
        let median = f64::midpoint(lower, upper);
        let spread = (figures.last()? - figures.first()?) / 2.0 / median;
        Some(Self { median, spread })
    }
}

impl Results {
    pub(crate) fn note(&mut self, work: Work, peer: Name, is_busy: bool, figure: f64) {
        self.figures.entry((work, peer, is_busy)).or_default().push(figure);
    }

    pub(crate) fn note_failure(&mut self, work: Work, peer: Name, error: &io::Error) {
        let failure = format!("{}, {peer}: {error}", work.words());
        if !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    pub(crate) fn note_memory(&mut self, peer: &Peer) {
        self.memory.insert(peer.name, peer.memory());
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    pub(crate) fn memory(&self, peer: Name) -> Option<Memory> {
        self.memory.get(&peer).copied()
    }

    /// Of what was measured, if it was.
    pub(crate) fn middle(&self, work: Work, peer: Name, is_busy: bool) -> Option<Middle> {
        Middle::of(self.figures.get(&(work, peer, is_busy))?)
    }

    /// The best of several peers.
    pub(crate) fn best(&self, work: Work, peers: &[Name], is_busy: bool) -> Option<(Name, f64)> {
        let measured = peers
            .iter()
            .filter_map(|peer| Some((*peer, self.middle(work, *peer, is_busy)?.median)));
        measured.reduce(
            |best, next| {
                if work.unit().lead(next.1, best.1) > 1.0 { next } else { best }
            },
        )
    }
}
