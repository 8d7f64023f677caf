//! The password check: what costs a check, what is told, and when.

use std::sync::Arc;

use super::*;
use crate::{database::Database, users::store::UserFile};

async fn users(dir: &std::path::Path) -> Arc<UserSet> {
    users_of_costs(dir, &[("andrew", 4)]).await
}

/// Users whose hashes have these costs.
async fn users_of_costs(dir: &std::path::Path, costs: &[(&str, u32)]) -> Arc<UserSet> {
    let password = Password::new(Zeroizing::new("pä:ss wörd".to_owned())).ok().unwrap();
    let line = |(name, cost): &(&str, u32)| format!("{name}:{}\n", password.hash(*cost).unwrap());
    std::fs::write(dir.join("htpasswd"), costs.iter().map(line).collect::<String>()).unwrap();
    let database = Arc::new(Database::open(&dir.join("auth.db")).await.unwrap());
    let users = UserFile::load(dir.join("htpasswd"), database).await.unwrap();
    users.fresh().await.unwrap()
}

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials {
        user: Zeroizing::new(user.to_owned()),
        password: Zeroizing::new(password.to_owned()),
    }
}

#[tokio::test]
async fn every_distinct_password_costs_one_check_whoever_it_is_for() {
    let dir = tempfile::tempdir().unwrap();
    let users = users(dir.path()).await;
    let verifier = Verifier::new(Limits::default()).unwrap();
    let long = "x".repeat(73);
    for (user, password, runs) in [
        ("andrew", "wrong", 1),
        ("andrew", "", 2),
        ("andrew", "pä:ss wörd\0", 2),
        ("andrew", &long, 2),
        ("nobody", "pä:ss wörd", 3),
        ("not a name", "pä:ss wörd", 4),
        ("", "", 5),
        ("andrew", "wrong", 5),
        ("nobody", "pä:ss wörd", 5),
    ] {
        let result = verifier.verify(&users, &credentials(user, password), None).await;
        let is_wrong = matches!(result, Err(Refusal::Wrong | Refusal::StillWrong));
        assert!(is_wrong, "{user}: {result:?}");
        assert_eq!(verifier.runs(), runs, "{user}");
    }
    let right = credentials("andrew", "pä:ss wörd");
    let together = tokio::join!(
        verifier.verify(&users, &right, None),
        verifier.verify(&users, &right, None),
        verifier.verify(&users, &right, None)
    );
    assert!(together.0.is_ok() && together.1.is_ok() && together.2.is_ok());
    assert!(verifier.verify(&users, &right, None).await.is_ok());
    assert_eq!(verifier.runs(), 6);
}

#[tokio::test]
async fn beyond_the_queue_the_answer_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let users = users(dir.path()).await;
    let mut verifier = Verifier::new(Limits::default()).unwrap();
    verifier.queue = Queue::new(0, 1);
    let (a, b) = (credentials("andrew", "a"), credentials("andrew", "b"));
    let waiting = verifier.verify(&users, &a, None);
    tokio::pin!(waiting);
    assert!(futures_poll_once(waiting.as_mut()).await.is_none());
    assert_eq!(verifier.verify(&users, &b, None).await, Err(Refusal::Busy("password_queue_max")));
}

#[tokio::test]
async fn a_guess_counts_though_its_client_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let users = users(dir.path()).await;
    let verifier = Verifier::new(Limits::default()).unwrap();
    let guess = credentials("andrew", "a guess");
    {
        let leaving = verifier.verify(&users, &guess, None);
        tokio::pin!(leaving);
        assert!(futures_poll_once(leaving.as_mut()).await.is_none());
    }
    let hash = users.hashes.get(&"andrew".parse().unwrap()).unwrap().as_str();
    let tag = verifier.tag_of("andrew", hash, b"a guess");
    while !verifier.throttle.is_known_wrong(&tag) {
        tokio::task::yield_now().await;
    }
    assert_eq!(verifier.runs(), 1);
    assert_eq!(verifier.verify(&users, &guess, None).await, Err(Refusal::StillWrong));
    assert_eq!(verifier.runs(), 1, "it is known to be wrong");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_told_when_the_largest_cost_would_be_and_a_right_one_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let users = users_of_costs(dir.path(), &[("andrew", 4), ("bea", 4), ("carol", 5)]).await;
    let verifier = Verifier::new(Limits::default()).unwrap();
    verifier.pace.ran(5, Duration::from_secs(1));
    for (user, password, is_right, secs) in [
        ("andrew", "wrong", false, 2),
        ("nobody", "wrong", false, 2),
        ("not a name", "wrong", false, 2),
        ("andrew", "pä:ss wörd", true, 0),
        ("bea", "pä:ss wörd", true, 0),
    ] {
        let begun = Instant::now();
        let result = verifier.verify(&users, &credentials(user, password), None).await;
        assert_eq!((result.is_ok(), begun.elapsed().as_secs()), (is_right, secs), "{user}");
    }
}

#[tokio::test]
async fn before_the_first_wrong_password_is_told_the_largest_cost_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let verifier = Verifier::new(Limits::default()).unwrap();
    let some = [("andrew", 4), ("bea", 4), ("carol", 5), ("dora", 6)];
    // Each check, and one of each largest cost.
    for (costs, user, password, runs) in [
        (&some[..3], "bea", "pä:ss wörd", 1),
        (&some[..3], "andrew", "a", 3),
        (&some[..3], "nobody", "b", 4),
        (&some[..], "nobody", "c", 6),
        (&some[..], "andrew", "d", 7),
    ] {
        let users = users_of_costs(dir.path(), costs).await;
        let result = verifier.verify(&users, &credentials(user, password), None).await;
        assert_eq!(result.is_ok(), password == "pä:ss wörd", "{user}: {result:?}");
        assert_eq!(verifier.runs(), runs, "{user}");
        assert!(result.is_ok() || verifier.pace.has_seen(users.cost_max));
    }
}

async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
