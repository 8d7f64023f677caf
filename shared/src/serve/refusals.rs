//! What limits turned away, told in one line per kind and minute: a flood of refusals must not
//! become a flood of lines.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a kind is silent after its line.
const SILENCE: Duration = Duration::from_secs(60);

static KINDS: Mutex<BTreeMap<&'static str, Kind>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct Kind {
    told: Option<Instant>,
    untold: u64,
}

/// Notes that `limit`, by the name of its setting or constant, turned somebody away. The line says
/// how many there were since the one before.
pub fn note(limit: &'static str) {
    note_from(limit, None);
}

/// The same of a client at this address: the line says the last one.
pub(super) fn note_from(limit: &'static str, client: Option<IpAddr>) {
    if let Some(untold) = count(limit, Instant::now()) {
        let client = client.map(tracing::field::display);
        tracing::warn!(limit, client, since_the_last_line = untold, "a limit turns clients away");
    }
}

/// How many were turned away since the last line, where another is due.
fn count(limit: &'static str, now: Instant) -> Option<u64> {
    let mut kinds = KINDS.lock();
    let kind = kinds.entry(limit).or_default();
    kind.untold += 1;
    if kind.told.is_some_and(|told| now.duration_since(told) < SILENCE) {
        return None;
    }
    kind.told = Some(now);
    Some(std::mem::take(&mut kind.untold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_told_once_a_minute_with_its_number() {
        let began = Instant::now();
        let after = |secs| count("a limit", began + Duration::from_secs(secs));
        assert_eq!(after(0), Some(1));
        assert_eq!(after(1), None);
        assert_eq!(after(59), None);
        assert_eq!(count("another", began), Some(1));
        assert_eq!(after(60), Some(3));
        assert_eq!(after(61), None);
    }
}
