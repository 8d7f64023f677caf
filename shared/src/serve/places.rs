//! Who may hold a connection: so many at once, so many of one network, and who goes first when they
//! are all taken.
//!
//! What is ended to make room is a connection that keeps the server waiting, the longest first. Where
//! none does, it is one of the site that has most, for one of a site that has fewer: of those that are
//! there for a while the one that carries least. So nobody keeps others out by asking for ever, or by
//! taking a byte now and then.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Limits, PeerAddress,
    progress::{Progress, Standing},
    refusals,
};
use crate::claimant::{network_of, site_of};

/// How long a connection without a request has at least, so that a client comes to its first one
/// even while others connect as fast as they can.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// How long a request keeps its connection although its client stands still.
const STALLED_MIN: Duration = Duration::from_secs(10);

/// How long a connection that keeps nobody waiting is there at least, before it makes room for a site
/// that has fewer.
const SHARED_MIN: Duration = Duration::from_secs(10);

/// How often one such connection is told to leave, at most, while somebody waits for a place.
const SHARED_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked again for a connection that can go, when there was none.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The places of one listener.
pub(super) struct Places {
    limits: Limits,
    room: Arc<Semaphore>,
    held: Arc<Mutex<Held>>,
}

/// Who holds places, without those that were told to leave.
#[derive(Default)]
struct Held {
    next: u64,
    holders: HashMap<u64, Holder>,
    /// How many of each network; of none, who has no share.
    per_network: HashMap<Option<IpNet>, usize>,
}

struct Holder {
    network: Option<IpNet>,
    progress: Arc<Progress>,
    leave: CancellationToken,
}

/// A place, held until this is dropped.
pub(super) struct Place {
    id: u64,
    held: Arc<Mutex<Held>>,
    pub(super) progress: Arc<Progress>,
    /// Cancelled when another is to have the place.
    pub(super) leave: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        let room = Arc::new(Semaphore::new(limits.connections_max));
        Self { limits: limits.clone(), room, held: Arc::default() }
    }

    /// A place for a connection that was accepted, once there is one. `None` when its network has
    /// its share, and needs all of it.
    pub(super) async fn take(&self, peer: PeerAddress) -> Option<Place> {
        let network = peer.0.and_then(|peer| self.network_with_a_share(peer));
        let mut is_on_its_way = false;
        if let Some(network) = network
            && self.held.lock().is_at_share(network, self.limits.connections_per_network_max)
        {
            refusals::note("connections_per_network_max");
            is_on_its_way = self.held.lock().free_one(Some(network));
            is_on_its_way.then_some(())?;
        }
        let permit = self.permit(network, is_on_its_way).await?;
        Some(self.seat(network, permit))
    }

    /// Room for one more. Where a place `is_on_its_way` already, nobody else's is taken before it had
    /// time to come.
    async fn permit(
        &self,
        network: Option<IpNet>,
        is_on_its_way: bool,
    ) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            return Some(permit);
        }
        if is_on_its_way
            && let Ok(permit) = timeout(LOOK_INTERVAL, Arc::clone(&self.room).acquire_owned()).await
        {
            return permit.ok();
        }
        refusals::note("connections_max");
        let mut shared = None;
        loop {
            let is_due = shared.is_none_or(|at: Instant| at.elapsed() >= SHARED_INTERVAL);
            if !self.held.lock().free_one(None) && is_due && self.held.lock().free_of_most(network)
            {
                shared = Some(Instant::now());
            }
            if let Ok(permit) = timeout(LOOK_INTERVAL, Arc::clone(&self.room).acquire_owned()).await
            {
                // It is never closed.
                return permit.ok();
            }
        }
    }

    fn seat(&self, network: Option<IpNet>, permit: OwnedSemaphorePermit) -> Place {
        let progress = Progress::new(self.limits.answer_rate());
        let leave = CancellationToken::new();
        let holder = Holder { network, progress: Arc::clone(&progress), leave: leave.clone() };
        let id = self.held.lock().insert(holder);
        Place { id, held: Arc::clone(&self.held), progress, leave, _permit: permit }
    }

    /// The network that a peer's connections count for; `None` for this machine's own and for
    /// proxies, behind which there are many.
    fn network_with_a_share(&self, peer: IpAddr) -> Option<IpNet> {
        let is_proxy = self.limits.trusted_proxies.iter().any(|net| net.contains(&peer));
        (!peer.is_loopback() && !is_proxy).then(|| network_of(peer))
    }
}

impl Held {
    fn is_at_share(&self, network: IpNet, most: usize) -> bool {
        self.per_network.get(&Some(network)).is_some_and(|count| *count >= most)
    }

    fn insert(&mut self, holder: Holder) -> u64 {
        let id = self.next;
        self.next += 1;
        *self.per_network.entry(holder.network).or_default() += 1;
        self.holders.insert(id, holder);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Holder> {
        let holder = self.holders.remove(&id)?;
        if let Some(count) = self.per_network.get_mut(&holder.network) {
            *count -= 1;
            if *count == 0 {
                self.per_network.remove(&holder.network);
            }
        }
        Some(holder)
    }

    /// Tells the one to leave that keeps the server waiting longest, of a network or of all; whether
    /// there is one.
    fn free_one(&mut self, of: Option<IpNet>) -> bool {
        let now = Instant::now();
        let candidates = self.holders.iter().filter(|(_, it)| of.is_none() || it.network == of);
        let standing = candidates.filter_map(|(id, it)| Some((it.progress.standing()?, *id)));
        let can_go = standing.filter(|(standing, _)| {
            let least = match standing {
                Standing::Idle(_) => IDLE_MIN,
                Standing::Stalled(_) => STALLED_MIN,
            };
            now.duration_since(standing.since()) >= least
        });
        let longest = can_go.min().map(|(_, id)| id);
        longest.is_some_and(|id| self.tell_to_leave(id))
    }

    /// Tells one to leave of the site that has most, if that is more than the site of `newcomer` would
    /// have then; whether there is one. This machine's own and proxies' are let alone.
    fn free_of_most(&mut self, newcomer: Option<IpNet>) -> bool {
        let mut sites: HashMap<Option<IpNet>, usize> = HashMap::new();
        for holder in self.holders.values() {
            *sites.entry(holder.network.map(site_of)).or_default() += 1;
        }
        let own = sites.remove(&newcomer.map(site_of)).unwrap_or_default();
        let of_others = sites.into_iter().filter(|(site, _)| site.is_some());
        let most = of_others.max_by_key(|(_, count)| *count).filter(|(_, count)| *count > own + 1);
        let Some((most, _)) = most else { return false };
        let theirs = self.holders.iter().filter(|(_, it)| it.network.map(site_of) == most);
        let used = theirs.map(|(id, it)| (it.progress.use_made(), *id));
        let can_go = used.filter(|((age, _), _)| *age >= SHARED_MIN);
        let least = can_go.min_by_key(|((_, carried), id)| (*carried, *id)).map(|(_, id)| id);
        least.is_some_and(|id| self.tell_to_leave(id))
    }

    fn tell_to_leave(&mut self, id: u64) -> bool {
        let holder = self.remove(id);
        holder.inspect(|holder| holder.leave.cancel()).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections_max: usize, connections_per_network_max: usize) -> Places {
        let trusted_proxies = Arc::from(["10.0.0.0/8".parse().unwrap()]);
        Places::new(&Limits {
            connections_max,
            connections_per_network_max,
            trusted_proxies,
            ..Limits::default()
        })
    }

    async fn take(places: &Places, peer: &str) -> Option<Place> {
        let taken = places.take(PeerAddress(Some(peer.parse().unwrap())));
        timeout(Duration::from_millis(100), taken).await.ok().flatten()
    }

    async fn after(secs: u64) {
        tokio::time::advance(Duration::from_secs(secs)).await;
    }

    fn told(place: Option<&Place>) -> bool {
        place.unwrap().leave.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_has_its_share_and_others_have_theirs() {
        let places = places(100, 2);
        let first = take(&places, "192.0.2.1").await;
        let second = take(&places, "192.0.2.255").await;
        assert!(take(&places, "192.0.2.7").await.is_none(), "they are too young to go");
        let _other = take(&places, "192.0.3.1").await.unwrap();
        let _six = take(&places, "2001:db8::1").await.unwrap();
        let _six = take(&places, "2001:db8::2").await.unwrap();
        assert!(take(&places, "2001:db8::ffff:0:0:1").await.is_none());
        take(&places, "2001:db8:0:1::1").await.unwrap();
        after(1).await;
        let third = take(&places, "192.0.2.7").await;
        assert!(told(first.as_ref()) && !told(second.as_ref()) && !told(third.as_ref()));
        // Told, it counts no more, and gives nothing back twice.
        drop(first);
        assert!(take(&places, "192.0.2.8").await.is_some() && told(second.as_ref()));
        let network = Some("192.0.2.0/24".parse().unwrap());
        assert_eq!(
            places.held.lock().per_network.get(&network),
            Some(&1),
            "the third has the only one"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn this_machine_and_trusted_proxies_have_no_share() {
        let places = places(100, 1);
        for peer in ["127.0.0.1", "::1", "10.1.2.3"] {
            let held = [take(&places, peer).await, take(&places, peer).await];
            assert!(held.iter().all(Option::is_some), "{peer}");
        }
        let _one = take(&places, "11.1.2.3").await.unwrap();
        assert!(take(&places, "11.1.2.3").await.is_none());
        drop(places.take(PeerAddress(None)).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_taken_the_longest_idle_one_goes_and_nobody_who_is_served() {
        let places = places(3, 100);
        let served = take(&places, "192.0.2.1").await.unwrap();
        let _request = served.progress.begin_request().0;
        after(1).await;
        let stalled = take(&places, "192.0.2.1").await.unwrap();
        let request = stalled.progress.begin_request().0;
        request.await_body(true);
        after(1).await;
        let idle = take(&places, "192.0.2.1").await.unwrap();
        after(1).await;
        let newcomer = async { take(&places, "192.0.2.1").await };
        let (next, ()) = tokio::join!(newcomer, async {
            idle.leave.cancelled().await;
            drop(idle);
        });
        let next = next.unwrap();
        assert!(!served.leave.is_cancelled() && !stalled.leave.is_cancelled());
        let _request = next.progress.begin_request().0;
        assert!(take(&places, "192.0.2.1").await.is_none(), "all have requests");
        assert!(!stalled.leave.is_cancelled());
        after(STALLED_MIN.as_secs()).await;
        assert!(take(&places, "192.0.2.1").await.is_none(), "it has not left yet");
        assert!(stalled.leave.is_cancelled() && !served.leave.is_cancelled());
        drop(stalled);
        assert!(take(&places, "192.0.2.1").await.is_some());
    }

    /// A place whose request is always being worked on, and which has carried so many bytes.
    async fn busy(places: &Places, peer: &str, bytes: usize) -> Place {
        let place = take(places, peer).await.unwrap();
        let request = place.progress.begin_request().0;
        request.received(bytes);
        // It is under way for as long as it is not dropped.
        std::mem::forget(request);
        place
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_busy_makes_room_for_a_site_that_has_fewer() {
        let places = places(4, 100);
        let first = busy(&places, "2001:db8:1:100::1", 2_000_000).await;
        let least = busy(&places, "2001:db8:1:101::1", 1_000_000).await;
        let _other = busy(&places, "192.0.2.1", 0).await;
        let _own = busy(&places, "127.0.0.1", 0).await;
        assert!(take(&places, "192.0.9.1").await.is_none() && !told(Some(&least)), "too young");
        after(SHARED_MIN.as_secs()).await;
        assert!(take(&places, "192.0.2.9").await.is_none(), "it would have as many then");
        assert!(take(&places, "2001:db8:1:1::1").await.is_none(), "it has most itself");
        assert!(!told(Some(&first)) && !told(Some(&least)));
        assert!(take(&places, "192.0.9.1").await.is_none(), "it has not left yet");
        assert!(told(Some(&least)) && !told(Some(&first)));
        drop(least);
        let newcomer = take(&places, "192.0.9.1").await;
        assert!(newcomer.is_some() && !told(Some(&first)), "all have one");
        after(100).await;
        assert!(take(&places, "192.0.8.1").await.is_none() && !told(Some(&first)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_makes_room() {
        let places = places(8, 100);
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(busy(&places, "192.0.2.1", 0).await);
        }
        after(SHARED_MIN.as_secs()).await;
        let waited = timeout(SHARED_INTERVAL * 3 - LOOK_INTERVAL, async {
            places.take(PeerAddress(Some("192.0.3.1".parse().unwrap()))).await
        });
        assert!(waited.await.is_err());
        assert_eq!(held.iter().filter(|place| told(Some(place))).count(), 3);
    }
}
