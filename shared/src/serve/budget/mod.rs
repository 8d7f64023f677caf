//! A budget over what clients make large, memory or open files: one bound for all, and a share of it
//! for each client.
//!
//! A reservation ends when it is dropped. One for memory travels with the bytes ([`Reservation::hold`]),
//! so that it ends with the last reference to them, wherever that is: also in the buffers of a
//! connection.
//!
//! What always holds: the reservations are no more than the budget; no client has more than a
//! quarter of it, nor more than it leaves to others; who did not sign in has half of it at most, all
//! of them together. A client's requests are served in the order in which they came, and those of one
//! client never wait for those of another that could have what they ask for.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::oneshot, time::timeout};

use crate::claimant::Claimant;

/// A client's share is the budget by this.
const SHARES: usize = 4;

/// How long a request waits for its share.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How many requests of one client wait at most: each of them holds a connection, and what has
/// arrived of its body.
const WAITING_MAX: usize = 64;

/// A client has its share in use, or all of the budget is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much is under way at once: try again in a few seconds")]
pub struct Busy {
    /// The name of the limit.
    pub limit: &'static str,
}

/// A budget; clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    limit: &'static str,
    max: usize,
    state: Mutex<State>,
}

/// Who holds how much. A client is in here while it holds something or waits for it.
#[derive(Default)]
struct State {
    held: usize,
    held_by_strangers: usize,
    accounts: HashMap<Arc<Claimant>, Account>,
    /// The clients that wait, each once, in the order of their turns.
    turns: VecDeque<Arc<Claimant>>,
}

#[derive(Default)]
struct Account {
    held: usize,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    amount: usize,
    /// Whether it gives up after a while.
    is_request: bool,
    granted: oneshot::Sender<Reservation>,
}

impl Budget {
    /// A budget of `max`, which clients know by the name of its `limit`.
    pub fn new(limit: &'static str, max: usize) -> Self {
        Self(Arc::new(Inner { limit, max: max.max(SHARES), state: Mutex::default() }))
    }

    /// The share of a client.
    pub fn share(&self, claimant: impl Into<Arc<Claimant>>) -> Share {
        Share { budget: self.clone(), claimant: claimant.into() }
    }

    /// How much is reserved.
    pub fn held(&self) -> usize {
        self.state().held
    }

    /// How much may be reserved.
    pub fn max(&self) -> usize {
        self.0.max
    }

    fn share_max(&self) -> usize {
        self.0.max / SHARES
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// How much `claimant` may take now.
    fn room(&self, state: &State, claimant: &Claimant) -> usize {
        let held = state.accounts.get(claimant).map_or(0, |account| account.held);
        let left = self.0.max - state.held;
        let room = (self.share_max() - held).min(left.saturating_sub(held) / 2);
        match claimant.is_stranger() {
            true => room.min((self.0.max / 2).saturating_sub(state.held_by_strangers)),
            false => room,
        }
    }

    fn take(&self, state: &mut State, claimant: &Arc<Claimant>, amount: usize) -> Reservation {
        state.held += amount;
        if claimant.is_stranger() {
            state.held_by_strangers += amount;
        }
        state.accounts.entry(Arc::clone(claimant)).or_default().held += amount;
        let share = Share { budget: self.clone(), claimant: Arc::clone(claimant) };
        Reservation { share, amount }
    }

    fn give_back(&self, claimant: &Arc<Claimant>, amount: usize) {
        let mut state = self.state();
        state.release(claimant, amount);
        state.forget_if_done(claimant);
        self.serve(&mut state);
    }

    /// Gives those who wait what there is, each client one reservation in turn.
    fn serve(&self, state: &mut State) {
        let mut passed = 0;
        while passed < state.turns.len() {
            let Some(claimant) = state.turns.pop_front() else { return };
            let room = self.room(state, &claimant);
            let Some(account) = state.accounts.get_mut(&claimant) else { continue };
            let next = account.waiting.pop_front_if(|first| first.amount <= room);
            passed = if next.is_some() { 0 } else { passed + 1 };
            if !account.waiting.is_empty() {
                state.turns.push_back(Arc::clone(&claimant));
            }
            let Some(next) = next else { continue };
            let granted = self.take(state, &claimant, next.amount);
            if let Err(mut unwanted) = next.granted.send(granted) {
                // It gave up. Dropping the reservation would lock again.
                state.release(&claimant, std::mem::take(&mut unwanted.amount));
            }
            state.forget_if_done(&claimant);
        }
    }
}

impl State {
    fn release(&mut self, claimant: &Claimant, amount: usize) {
        self.held -= amount;
        if claimant.is_stranger() {
            self.held_by_strangers -= amount;
        }
        if let Some(account) = self.accounts.get_mut(claimant) {
            account.held -= amount;
        }
    }

    fn forget_if_done(&mut self, claimant: &Arc<Claimant>) {
        let is_done = |account: &Account| account.held == 0 && account.waiting.is_empty();
        if self.accounts.get(claimant).is_some_and(is_done) {
            self.accounts.remove(claimant);
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { limit, max, .. } = &*self.0;
        f.debug_struct("Budget").field("limit", limit).field("max", max).finish_non_exhaustive()
    }
}

/// One client's share of a budget; clones share it.
#[derive(Debug, Clone)]
pub struct Share {
    budget: Budget,
    claimant: Arc<Claimant>,
}

impl Share {
    /// Reserves `amount`; what is more than a share counts as a share. Waits for a while where the
    /// client has too much in use.
    ///
    /// # Errors
    /// When it waited long enough, or too many requests of the client wait already.
    pub async fn reserve(&self, amount: usize) -> Result<Reservation, Busy> {
        let busy = Busy { limit: self.budget.0.limit };
        match self.ask(amount, true) {
            Asked::Granted(reservation) => Ok(reservation),
            Asked::Refused => Err(busy),
            Asked::Waits(mut turn) => {
                timeout(WAIT_MAX, &mut turn.granted).await.ok().and_then(Result::ok).ok_or(busy)
            }
        }
    }

    /// As [`reserve`](Self::reserve), for what has begun and must come to its end: waits as long as
    /// it takes.
    pub async fn wait_for(&self, amount: usize) -> Reservation {
        match self.ask(amount, false) {
            Asked::Granted(reservation) => reservation,
            // The budget keeps who waits until they are served.
            Asked::Waits(mut turn) => (&mut turn.granted).await.unwrap_or_else(|_| self.nothing()),
            Asked::Refused => self.nothing(),
        }
    }

    /// Reserves `amount` if that takes no waiting.
    #[must_use]
    pub fn try_reserve(&self, amount: usize) -> Option<Reservation> {
        let mut state = self.budget.state();
        self.grant(&mut state, amount.min(self.budget.share_max()))
    }

    /// How much could be reserved now.
    pub fn room(&self) -> usize {
        self.budget.room(&self.budget.state(), &self.claimant)
    }

    /// How much the client may hold.
    pub fn max(&self) -> usize {
        self.budget.share_max()
    }

    fn nothing(&self) -> Reservation {
        Reservation { share: self.clone(), amount: 0 }
    }

    fn grant(&self, state: &mut State, amount: usize) -> Option<Reservation> {
        let waits = state.accounts.get(&self.claimant).is_some_and(|it| !it.waiting.is_empty());
        let fits = !waits && amount <= self.budget.room(state, &self.claimant);
        fits.then(|| self.budget.take(state, &self.claimant, amount))
    }

    fn ask(&self, amount: usize, is_request: bool) -> Asked<'_> {
        let amount = amount.min(self.budget.share_max());
        if amount == 0 {
            return Asked::Granted(self.nothing());
        }
        let mut state = self.budget.state();
        if let Some(reservation) = self.grant(&mut state, amount) {
            return Asked::Granted(reservation);
        }
        let account = state.accounts.entry(Arc::clone(&self.claimant)).or_default();
        let requests = account.waiting.iter().filter(|waiting| waiting.is_request);
        if is_request && requests.count() >= WAITING_MAX {
            return Asked::Refused;
        }
        let is_first = account.waiting.is_empty();
        let (sender, granted) = oneshot::channel();
        account.waiting.push_back(Waiting { amount, is_request, granted: sender });
        if is_first {
            state.turns.push_back(Arc::clone(&self.claimant));
        }
        Asked::Waits(Turn { share: self, granted })
    }

    /// Takes out those of the client who wait no longer.
    fn leave(&self) {
        let mut state = self.budget.state();
        let Some(account) = state.accounts.get_mut(&self.claimant) else { return };
        let waited = account.waiting.len();
        account.waiting.retain(|waiting| !waiting.granted.is_closed());
        if account.waiting.len() == waited {
            return;
        }
        if account.waiting.is_empty() {
            state.turns.retain(|claimant| *claimant != self.claimant);
        }
        state.forget_if_done(&self.claimant);
        // Who comes behind may want less.
        self.budget.serve(&mut state);
    }
}

enum Asked<'s> {
    Granted(Reservation),
    Waits(Turn<'s>),
    Refused,
}

/// A place among those who wait, until dropped.
struct Turn<'s> {
    share: &'s Share,
    granted: oneshot::Receiver<Reservation>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.granted.close();
        self.share.leave();
    }
}

/// A part of a share, until dropped.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    share: Share,
    amount: usize,
}

impl Reservation {
    /// How much it is.
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Gives back all but `amount`.
    pub fn shrink(&mut self, amount: usize) {
        if let Some(excess) = self.amount.checked_sub(amount).filter(|excess| *excess > 0) {
            self.amount = amount;
            self.share.budget.give_back(&self.share.claimant, excess);
        }
    }

    /// Ties the reservation to the memory that it is for: it ends with the last reference to that.
    #[must_use]
    pub fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held { bytes, _reservation: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.share.budget.give_back(&self.share.claimant, self.amount);
        }
    }
}

struct Held<B> {
    bytes: B,
    _reservation: Reservation,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}
