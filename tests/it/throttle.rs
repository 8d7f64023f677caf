//! Who guesses passwords is slowed down; who has a stale one, or the right one, is not locked out.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use harness::{
    Client, Response, Stack,
    events::Recording,
    eventually,
    stack::{Options, PASSWORD},
};
use tokio::{sync::Semaphore, task::JoinSet};

/// Clients say where they are, and the longest delay is a second.
async fn stack() -> Stack {
    let stack = Stack::with(Options {
        auth: "[limits]\nsign_in_delay_secs_max = 1\n".to_owned(),
        registry: "trusted_proxies = ['127.0.0.1/32']\n".to_owned(),
        ..Options::default()
    })
    .await;
    stack.set_password("bea", PASSWORD);
    stack
}

async fn sign_in(client: Client, user: &str, password: &str, from: &str) -> Response {
    let call = client.call("GET", "/token").header("x-forwarded-for", from);
    call.basic(user, password).send().await
}

/// Connections that are opened at once: a slow machine is not to spend the time that a handshake may
/// take on those of others.
const CONNECTIONS_MAX: usize = 100;

/// Signs in with each of these, as many at once as may be: the statuses.
async fn all(stack: &Stack, logins: impl Iterator<Item = (String, String)>) -> Vec<u16> {
    let mut tasks = JoinSet::new();
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for (password, from) in logins {
        let (client, connections) = (stack.client.clone(), Arc::clone(&connections));
        tasks.spawn(async move {
            let _held = connections.acquire().await.expect("it is never closed");
            let answer = sign_in(client, "andrew", &password, &from).await;
            let status = answer.status.as_u16();
            assert_eq!(status == 429, answer.find_header("retry-after").is_some(), "{answer:?}");
            status
        });
    }
    tasks.join_all().await
}

#[tokio::test]
async fn a_hundred_kubelets_with_a_stale_secret_cost_one_check_and_lock_nobody_out() {
    let stack = stack().await;
    let runs = stack.auth.bcrypt_runs();
    for _ in 0..3 {
        // Half of them behind one address, the others each in a network of its own.
        let kubelets = (0..100).map(|n| {
            let from = if n < 50 { "192.0.2.1".to_owned() } else { format!("198.51.{n}.7") };
            ("the password before".to_owned(), from)
        });
        assert!(all(&stack, kubelets).await.into_iter().all(|status| status == 401));
    }
    assert_eq!(stack.auth.bcrypt_runs() - runs, 1);
    for from in ["192.0.2.1", "203.0.113.9"] {
        sign_in(stack.client.clone(), "andrew", PASSWORD, from).await.expect(200);
    }
    assert_eq!(stack.auth.bcrypt_runs() - runs, 2);
}

#[tokio::test]
async fn a_thousand_passwords_are_not_checked_and_their_owner_signs_in_meanwhile() {
    let stack = stack().await;
    let home = "203.0.113.9";
    sign_in(stack.client.clone(), "andrew", PASSWORD, home).await.expect(200);
    // The next sign-in is to need a check.
    stack.set_password("andrew", "a new one");
    let (runs, begun) = (stack.auth.bcrypt_runs(), Instant::now());
    let guesses = (0..1000).map(|n| (format!("guess {n}"), "192.0.2.1".to_owned()));
    let (statuses, owner) = tokio::join!(
        all(&stack, guesses),
        sign_in(stack.client.clone(), "andrew", "a new one", home)
    );
    owner.expect(200);
    assert!(statuses.iter().all(|status| [401, 429].contains(status)));
    let checked = stack.auth.bcrypt_runs() - runs;
    // The first ones, and then one a second.
    let checked_max = 8 + begun.elapsed().as_secs();
    assert!((4..checked_max).contains(&checked), "{checked} of 1000 passwords were checked");
    assert_eq!(statuses.iter().filter(|status| **status == 401).count() as u64, checked - 1);
    sign_in(stack.client.clone(), "bea", PASSWORD, "192.0.2.1").await.expect(200);
}

#[tokio::test]
async fn after_a_restart_during_an_attack_from_everywhere_the_owner_signs_in_at_once() {
    let mut stack = Stack::with(Options {
        auth: "[limits]\npassword_failures_per_sec_max = 1\nsign_in_delay_secs_max = 1\n"
            .to_owned(),
        registry: "trusted_proxies = ['127.0.0.1/32']\n".to_owned(),
        ..Options::default()
    })
    .await;
    let home = "203.0.113.9";
    sign_in(stack.client.clone(), "andrew", "wrong", "203.0.113.8").await.expect(401);
    sign_in(stack.client.clone(), "nobody", PASSWORD, "203.0.113.8").await.expect(401);
    sign_in(stack.client.clone(), "andrew", PASSWORD, home).await.expect(200);
    let now = stack.clock.now();
    let known = eventually("the address is noted", async || {
        let known =
            stack.auth_database().await.sign_in_addresses(now).await.expect("the addresses");
        (!known.is_empty()).then_some(known)
    })
    .await;
    assert_eq!(known.len(), 1, "{known:?}");
    assert_eq!((known[0].user.as_str(), known[0].address.to_string().as_str()), ("andrew", home));
    stack.stop_auth().await;
    stack.start_auth().await;
    let attack = |wave: usize| {
        (0..60).map(move |n| (format!("guess {wave} {n}"), format!("198.{wave}.{n}.7")))
    };
    // Five failures may come at once here, and one a second follows.
    let (runs, begun) = (stack.auth.bcrypt_runs(), Instant::now());
    let statuses = all(&stack, attack(0)).await;
    let checked = stack.auth.bcrypt_runs() - runs;
    let checked_max = 8 + begun.elapsed().as_secs();
    assert!((5..checked_max).contains(&checked), "{checked} of 60 passwords were checked");
    assert_eq!(statuses.iter().filter(|status| **status == 401).count() as u64, checked);
    let (_, owner) = tokio::join!(
        all(&stack, attack(250)),
        sign_in(stack.client.clone(), "andrew", PASSWORD, home)
    );
    owner.expect(200);
}

/// Every name has its first guesses free, so names that nobody has could fill the queue.
#[tokio::test]
async fn strangers_of_many_names_fill_no_queue_that_the_owner_stands_in() {
    let limits = "[limits]\npassword_queue_max = 4\npassword_failures_per_sec_max = 1000\n";
    let stack = Stack::with(Options {
        auth: format!("{limits}password_cache_secs = 0\n"),
        registry: "trusted_proxies = ['127.0.0.1/32']\n".to_owned(),
        ..Options::default()
    })
    .await;
    // A check is to take long enough for many to come meanwhile.
    let line = format!("andrew:{}\n", bcrypt::hash(PASSWORD, 8).expect("a hash"));
    fs::write(stack.root().join("htpasswd"), line).expect("the users");
    let home = "203.0.113.9";
    sign_in(stack.client.clone(), "andrew", PASSWORD, home).await.expect(200);
    let mut strangers = JoinSet::new();
    for n in 0..200 {
        let client = stack.client.clone();
        strangers.spawn(async move {
            let (name, from) = (format!("nobody{n}"), format!("198.51.{n}.7"));
            sign_in(client, &name, "a guess", &from).await.status.as_u16()
        });
    }
    for _ in 0..5 {
        sign_in(stack.client.clone(), "andrew", PASSWORD, home).await.expect(200);
    }
    let statuses = strangers.join_all().await;
    assert!(statuses.contains(&429) && statuses.contains(&401), "{statuses:?}");
}

#[tokio::test]
async fn a_password_that_was_right_before_waits_for_no_guess_even_at_the_same_address() {
    let stack = Stack::with(Options {
        auth: "[limits]\nsign_in_delay_secs_max = 1\npassword_cache_secs = 0\n".to_owned(),
        registry: "trusted_proxies = ['127.0.0.1/32']\n".to_owned(),
        ..Options::default()
    })
    .await;
    let office = "203.0.113.9";
    sign_in(stack.client.clone(), "andrew", PASSWORD, office).await.expect(200);
    let runs = stack.auth.bcrypt_runs();
    let guesses = |wave| (0..50).map(move |n| (format!("guess {wave} {n}"), office.to_owned()));
    let is_over = AtomicBool::new(false);
    let attack = async {
        for wave in 0..2 {
            let statuses = all(&stack, guesses(wave)).await;
            assert!(statuses.contains(&429), "the guesses are held up");
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let owner = async {
        while !is_over.load(Ordering::Relaxed) {
            sign_in(stack.client.clone(), "andrew", PASSWORD, office).await.expect(200);
        }
    };
    tokio::join!(attack, owner);
    assert!(stack.auth.bcrypt_runs() > runs, "the password was checked again");
}

#[tokio::test]
async fn a_name_that_nobody_has_is_throttled_like_one_that_somebody_has() {
    let stack = stack().await;
    let mut seen = Vec::new();
    for user in ["andrew", "nobody"] {
        let runs = stack.auth.bcrypt_runs();
        let mut answers = Vec::new();
        for password in ["a", "b", "a", "c", "d", "a", "e"] {
            let answer = sign_in(stack.client.clone(), user, password, "192.0.2.1").await;
            answers.push(answer.comparable());
        }
        seen.push((answers, stack.auth.bcrypt_runs() - runs));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].1, 5, "each distinct password is checked once");
}

#[tokio::test]
async fn a_hundred_right_sign_ins_at_once_are_one_check_at_cost_12() {
    let stack = Stack::start().await;
    let hash = bcrypt::hash(PASSWORD, 12).expect("a hash");
    fs::write(stack.root().join("htpasswd"), format!("andrew:{hash}\n")).expect("writing");
    let runs = stack.auth.bcrypt_runs();
    let logins = (0..100).map(|_| (PASSWORD.to_owned(), "127.0.0.1".to_owned()));
    assert!(all(&stack, logins).await.into_iter().all(|status| status == 200));
    assert_eq!(stack.auth.bcrypt_runs() - runs, 1);
}

/// Whatever turned a sign-in away was told as `password_queue_max`.
#[tokio::test]
async fn the_log_names_the_limit_that_turned_a_sign_in_away() {
    let one_name = |n: usize| ("andrew".to_owned(), format!("guess {n}"), "192.0.2.1".to_owned());
    let one_network =
        |n: usize| (format!("nobody{n}"), "a guess".to_owned(), "192.0.2.1".to_owned());
    let anywhere = |n: usize| (format!("nobody{n}"), "a guess".to_owned(), format!("198.51.{n}.7"));
    type Login<'a> = &'a dyn Fn(usize) -> (String, String, String);
    let cases: [(_, Login<'_>, _); 3] = [
        ("sign_in_delay_secs_max = 1", &one_name, "sign_in_delay_secs_max"),
        (
            "sign_in_delay_secs_max = 1\npassword_failures_per_sec_max = 1",
            &one_network,
            "password_failures_per_sec_max",
        ),
        (
            "password_queue_max = 1\npassword_failures_per_sec_max = 1000",
            &anywhere,
            "password_queue_max",
        ),
    ];
    for (limits, login, expected) in cases {
        let recording = Recording::start();
        let stack = Stack::with(Options {
            auth: format!("[limits]\n{limits}\n"),
            registry: "trusted_proxies = ['127.0.0.1/32']\n".to_owned(),
            ..Options::default()
        })
        .await;
        // A check is to take long enough for many to come meanwhile.
        let line = format!("andrew:{}\n", bcrypt::hash(PASSWORD, 8).expect("a hash"));
        fs::write(stack.root().join("htpasswd"), line).expect("the users");
        let mut tasks = JoinSet::new();
        for (user, password, from) in (0..40).map(login) {
            let client = stack.client.clone();
            tasks.spawn(async move { sign_in(client, &user, &password, &from).await });
        }
        let answers = tasks.join_all().await;
        let refused = answers.iter().filter(|answer| answer.status == 429);
        let ids: Vec<_> =
            refused.map(|answer| format!("request={} ", answer.header("x-request-id"))).collect();
        assert!(ids.len() > 1, "{expected}: {} refused", ids.len());
        let mut lines = Vec::new();
        eventually("both servers have written their lines", async || {
            let is_meant = |text: &str| ids.iter().any(|id| text.contains(id));
            lines.extend(recording.take().into_iter().filter(|event| is_meant(&event.text)));
            (lines.len() == 2 * ids.len()).then_some(())
        })
        .await;
        let telling = |limit: &str| {
            let limit = format!("limit=\"{limit}\" ");
            lines.iter().filter(|event| event.text.contains(&limit)).count()
        };
        let counted = (telling(expected), telling("auth-server's limits of sign-in"));
        assert_eq!(counted, (ids.len(), ids.len()), "{expected}: {lines:?}");
    }
}
