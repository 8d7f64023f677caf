//! Those who make a load: many clients at once, each a task, and what became of them.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::StatusCode;
use tokio::task::JoinSet;

/// How often the crowd was answered, and how.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    answered: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

impl Tally {
    /// Somebody got what they asked for.
    pub(crate) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody was turned away.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody got no answer, or a part of one.
    pub(crate) fn broken(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody got no connection: was turned away, where the server took it and ended it.
    pub(crate) fn unconnected(&self, error: &io::Error) {
        use io::ErrorKind as K;
        match error.kind() {
            K::UnexpectedEof | K::ConnectionReset | K::BrokenPipe => self.refused(),
            _ => self.broken(),
        }
    }

    /// Somebody got an answer of this status, or none.
    pub(crate) fn count(&self, status: Option<StatusCode>) {
        match status {
            Some(status) if status.is_success() => self.answered(),
            Some(_) => self.refused(),
            None => self.broken(),
        }
    }
}

type Member = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Clients that are ready to begin.
#[derive(Default)]
pub(crate) struct Crowd {
    members: Vec<Member>,
    tally: Arc<Tally>,
}

impl Crowd {
    /// So many clients, made by number.
    pub(crate) fn of<F>(count: usize, make: impl Fn(usize, Arc<Tally>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tally = Arc::<Tally>::default();
        let member = |number| Box::pin(make(number, Arc::clone(&tally))) as Member;
        Self { members: (0..count).map(member).collect(), tally }
    }

    /// All of them begin at once.
    pub(crate) fn start(self) -> Standing {
        let size = self.members.len();
        Standing { size, tasks: self.members.into_iter().collect(), tally: self.tally }
    }
}

/// Clients that are at it, until they are done or this is dropped.
pub(crate) struct Standing {
    size: usize,
    tasks: JoinSet<()>,
    tally: Arc<Tally>,
}

impl Standing {
    /// How many of them still are.
    pub(crate) fn count(&mut self) -> usize {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.len()
    }

    /// Whether there were any, and all are done.
    pub(crate) fn is_over(&mut self) -> bool {
        self.size > 0 && self.count() == 0
    }

    /// What became of them.
    pub(crate) fn outcome(&mut self) -> Outcome {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Outcome {
            size: self.size,
            standing: self.count(),
            answered: read(&self.tally.answered),
            refused: read(&self.tally.refused),
            broken: read(&self.tally.broken),
        }
    }
}

/// What became of a crowd.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    size: usize,
    standing: usize,
    answered: u64,
    refused: u64,
    broken: u64,
}

impl Outcome {
    /// Whether a load stood: where there are members, somebody was answered or turned away, or
    /// nobody was cut off and some are still at it.
    pub(crate) fn has_stood(&self) -> bool {
        let is_heard = self.answered > 0 || self.refused > 0;
        self.size == 0 || is_heard || (self.standing > 0 && self.broken == 0)
    }

    /// Whether everybody came to their end and got all that they asked for.
    pub(crate) fn is_whole(&self) -> bool {
        self.standing == 0 && self.refused == 0 && self.broken == 0 && self.answered > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.size == 0 {
            return f.write_str("–");
        }
        write!(f, "{} of {} at it", self.standing, self.size)?;
        for (count, what) in
            [(self.answered, "answered"), (self.refused, "refused"), (self.broken, "broken off")]
        {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_has_stood_when_the_servers_had_something_of_it() {
        for (size, standing, answered, refused, broken, has_stood) in [
            (0, 0, 0, 0, 0, true),
            (4, 0, 0, 0, 4, false),
            (4, 1, 0, 0, 3, false),
            (4, 0, 0, 0, 0, false),
            (4, 4, 0, 0, 0, true),
            (4, 0, 1, 0, 3, true),
            (4, 0, 0, 1, 3, true),
        ] {
            let outcome = Outcome { size, standing, answered, refused, broken };
            assert_eq!(outcome.has_stood(), has_stood, "{outcome:?}");
        }
    }
}
