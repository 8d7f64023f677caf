//! What the budget keeps true.

use std::{future::poll_fn, pin::Pin, task::Poll};

use super::*;
use crate::subject::Subject;

const MAX: usize = 1600;
const QUARTER: usize = MAX / 4;

fn budget() -> Budget {
    Budget::new("a limit", MAX)
}

fn user(budget: &Budget, name: &str) -> Share {
    budget.share(Claimant::of(&Subject::User(name.parse().unwrap()), None))
}

fn stranger(budget: &Budget, n: u8) -> Share {
    budget.share(Claimant::stranger(Some([10, 0, n, 1].into())))
}

/// Begins to wait, and is not served yet.
async fn waits<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(is_pending(&mut future).await);
    future
}

async fn is_pending<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn a_client_has_a_quarter_and_leaves_as_much_as_it_takes() {
    let budget = budget();
    let a = user(&budget, "a");
    let held = a.reserve(QUARTER).await.unwrap();
    assert!(a.try_reserve(1).is_none());
    assert_eq!(user(&budget, "b").room(), QUARTER);
    let others: Vec<_> =
        ["b", "c"].iter().map(|name| user(&budget, name).try_reserve(QUARTER).unwrap()).collect();
    // A quarter is left: of that the fourth gets half, and the fifth half of what that leaves.
    let fourth = user(&budget, "d");
    assert_eq!(fourth.room(), QUARTER / 2);
    let taken = fourth.try_reserve(QUARTER / 2).unwrap();
    assert_eq!((fourth.room(), user(&budget, "e").room()), (0, QUARTER / 4));
    drop((held, others, taken));
    assert_eq!(budget.held(), 0);
    assert!(budget.state().accounts.is_empty());
}

#[tokio::test]
async fn strangers_have_half_of_it_together() {
    let budget = budget();
    let first = stranger(&budget, 1).try_reserve(QUARTER).unwrap();
    let second = stranger(&budget, 2).try_reserve(QUARTER - 1).unwrap();
    assert_eq!(stranger(&budget, 3).room(), 1);
    assert_eq!(user(&budget, "a").room(), QUARTER);
    drop((first, second));
    assert_eq!(stranger(&budget, 3).room(), QUARTER);
}

#[tokio::test]
async fn more_than_a_share_counts_as_one() {
    let budget = budget();
    let whole = user(&budget, "a").reserve(10 * MAX).await.unwrap();
    assert_eq!(whole.amount(), QUARTER);
}

#[tokio::test]
async fn a_client_is_served_in_order_and_holds_up_nobody_else() {
    let budget = budget();
    let (a, b) = (user(&budget, "a"), user(&budget, "b"));
    let held = a.reserve(QUARTER - 10).await.unwrap();
    let large = waits(a.reserve(100)).await;
    let small = waits(a.reserve(10)).await;
    assert!(a.try_reserve(1).is_none(), "it would overtake");
    let other = b.reserve(100).await.unwrap();
    drop(held);
    let (large, small) = (large.await.unwrap(), small.await.unwrap());
    assert_eq!(budget.held(), 210);
    drop((large, small, other));
    assert!(budget.state().accounts.is_empty() && budget.state().turns.is_empty());
}

#[tokio::test]
async fn clients_that_wait_for_the_same_room_have_it_in_turn() {
    let budget = budget();
    let strangers: Vec<_> = (0..4).map(|n| stranger(&budget, n)).collect();
    let first = strangers[0].try_reserve(QUARTER).unwrap();
    let second = strangers[1].try_reserve(QUARTER).unwrap();
    let third = [waits(strangers[2].reserve(200)).await, waits(strangers[2].reserve(200)).await];
    let fourth = waits(strangers[3].reserve(200)).await;
    drop(first);
    let [mut one, two] = third;
    let held = (fourth.await.unwrap(), (&mut one).await.unwrap());
    let mut two = two;
    assert!(is_pending(&mut two).await, "the fourth came before");
    drop((held, second));
    assert_eq!(two.await.unwrap().amount(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_while_and_what_has_begun_as_long_as_it_takes() {
    let budget = budget();
    let a = user(&budget, "a");
    let held = a.reserve(QUARTER).await.unwrap();
    let begun = waits(a.wait_for(1)).await;
    assert_eq!(a.reserve(1).await.unwrap_err(), Busy { limit: "a limit" });
    tokio::time::sleep(WAIT_MAX * 100).await;
    drop(held);
    assert_eq!(begun.await.amount(), 1);
}

#[tokio::test]
async fn only_so_many_requests_wait() {
    let budget = budget();
    let a = user(&budget, "a");
    let held = a.reserve(QUARTER).await.unwrap();
    let begun = waits(a.wait_for(1)).await;
    let mut waiting = Vec::new();
    for _ in 0..WAITING_MAX {
        waiting.push(waits(a.reserve(1)).await);
    }
    assert!(a.reserve(1).await.is_err());
    // Who leaves makes room for another.
    waiting.pop();
    waiting.push(waits(a.reserve(1)).await);
    drop((waiting, begun, held));
    assert!(budget.state().accounts.is_empty() && budget.state().turns.is_empty());
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn a_large_one_that_gives_up_lets_the_small_ones_behind_it_go() {
    let budget = budget();
    let a = user(&budget, "a");
    let _held = a.reserve(QUARTER - 10).await.unwrap();
    let large = waits(a.reserve(100)).await;
    let small = waits(a.reserve(10)).await;
    drop(large);
    assert_eq!(small.await.unwrap().amount(), 10);
}

#[tokio::test]
async fn a_grant_that_nobody_takes_any_more_is_given_back() {
    let budget = budget();
    let a = user(&budget, "a");
    let held = a.reserve(QUARTER).await.unwrap();
    let waiting = waits(a.reserve(1)).await;
    drop(held);
    assert_eq!(budget.held(), 1);
    drop(waiting);
    assert_eq!(budget.held(), 0);
    assert!(budget.state().accounts.is_empty());
}

#[tokio::test]
async fn a_reservation_ends_with_the_last_slice_of_its_bytes() {
    let budget = budget();
    let mut reservation = user(&budget, "a").reserve(100).await.unwrap();
    reservation.shrink(50);
    assert_eq!(budget.held(), 50);
    let mut bytes = reservation.hold(vec![1; 50]);
    let slice = bytes.split_to(10);
    let other = slice.slice(2..3);
    drop((bytes, slice));
    assert_eq!((budget.held(), &other[..]), (50, &[1][..]));
    drop(other);
    assert_eq!(budget.held(), 0);
}
