//! Attacks: what strangers can make of signing in.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use auth_server::{
    Bound,
    audit::entry::{Entry, Source},
    config::Config,
    database::audit::Filter,
    issue::Withheld,
};
use berth_shared::{clock::UnixSeconds, subject::Subject};
use harness::{
    Client, Stack, eventually,
    stack::{Options, PASSWORD},
};
use tokio::task::JoinSet;

async fn sign_in(client: &Client, user: &str, password: &str, from: &str) -> u16 {
    let call = client.call("GET", "/token").header("x-forwarded-for", from);
    call.basic(user, password).send().await.status.as_u16()
}

/// Every user is a stranger in a new installation. The budget of strangers was one, and one address
/// used it up with names that it made up: each has its first guesses free.
#[tokio::test]
async fn guesses_at_random_names_from_one_network_hold_up_no_stranger_from_another() {
    let stack = Stack::with(Options {
        auth: "[limits]\nsign_in_delay_secs_max = 1\n".to_owned(),
        registry: "trusted_proxies = ['127.0.0.1/32']\n".to_owned(),
        ..Options::default()
    })
    .await;
    let newcomers: Vec<_> = (0..12).map(|n| format!("carol{n}")).collect();
    for name in &newcomers {
        stack.set_password(name, PASSWORD);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut attack = JoinSet::new();
    for connection in 0..50 {
        let (client, is_over) = (stack.client.clone(), Arc::clone(&is_over));
        attack.spawn(async move {
            let mut statuses = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let name = format!("nobody{connection}x{}", statuses.len());
                let from = format!("203.0.113.{connection}");
                statuses.push(sign_in(&client, &name, "a guess", &from).await);
            }
            statuses
        });
    }
    // Their share is used up.
    let (from, tries) = ("203.0.113.200", AtomicUsize::new(0));
    eventually("the attackers are turned away", async || {
        let name = format!("nobody{}", tries.fetch_add(1, Ordering::Relaxed));
        (sign_in(&stack.client, &name, "a guess", from).await == 429).then_some(())
    })
    .await;
    for (n, name) in newcomers.iter().enumerate() {
        let from = format!("198.51.{n}.7");
        assert_eq!(sign_in(&stack.client, name, PASSWORD, &from).await, 200, "{name}");
    }
    is_over.store(true, Ordering::Relaxed);
    let statuses = attack.join_all().await.concat();
    assert!(statuses.contains(&429) && !statuses.contains(&200), "{statuses:?}");
}

/// The ids in a file of JSON lines and in the one that it was before.
fn ids(path: &Path) -> Vec<i64> {
    let before = path.with_extension("jsonl.1");
    let texts = [before.as_path(), path].map(|path| fs::read_to_string(path).unwrap_or_default());
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["id"].as_i64();
    texts.concat().lines().filter_map(id).collect()
}

/// Anonymous tokens came at 4,786 a second, and pushed a failed sign-in out of the table in minutes.
#[tokio::test]
async fn what_costs_nothing_to_cause_washes_no_guess_out_of_the_audit() {
    let settings =
        "rows_max = 1000\nfailure_rows_max = 1000\nfile_bytes_max = 65536\nfiles_max = 2";
    let auth = format!("[audit]\n{settings}\n");
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    let fail = async || {
        let answer = stack.client.call("GET", "/token").basic("andrew", "wrong").send().await;
        answer.expect(401);
    };
    fail().await;
    let store = stack.auth_database().await;
    let all = async || store.list_rows(&Filter::default(), 100_000).await.expect("the rows");
    let guess = eventually("the guess is written down", async || {
        all().await.into_iter().find(|row| row.event == "login.fail")
    })
    .await;
    assert_eq!(guess.subject.as_deref(), Some("andrew"));
    assert_eq!(guess.detail["checked"], true);
    // The same wrong password once more, names that nobody has, and what everybody may ask for.
    fail().await;
    let again = eventually("the same password is written down apart", async || {
        all().await.into_iter().rfind(|row| row.event == "login.fail" && row.id != guess.id)
    })
    .await;
    assert!(!again.detail.contains_key("checked"), "{again:?}");
    let nobody = Entry::login_fail(UnixSeconds::new(0), "wrong", None, None, Source::default());
    let exported = store.exported_row().await.expect("how far the file is");
    for _ in 0..3 {
        store.append_entries(&vec![nobody.clone(); 2_000], exported).await.expect("rows");
        store
            .append_entries(&vec![Entry::gap(UnixSeconds::new(0), 1); 2_000], exported)
            .await
            .expect("rows");
    }
    let rows = eventually("the rings are cleared", async || {
        let rows = all().await;
        (rows.len() < 2_100).then_some(rows)
    })
    .await;
    assert!(rows.contains(&guess), "the guess is still there");
    assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id), "all are shown in their order");
    let last = rows.last().expect("a row").id;
    let file = stack.root().join("auth/audit.jsonl");
    eventually("the file has caught up", async || ids(&file).contains(&last).then_some(())).await;
    assert!(!ids(&file).contains(&guess.id), "it was rotated away");
    assert_eq!(ids(&stack.root().join("auth/audit-failures.jsonl")), [guess.id]);
}

/// Sign-ins that were turned away came at 2,250 a second from one network, and pushed acts and tokens
/// out of the five files in half a minute.
#[tokio::test]
async fn what_is_turned_away_pushes_nothing_out_of_the_audits_files() {
    let stack = small_audit().await;
    stack.client.call("GET", "/token").basic("andrew", "wrong").send().await.expect(401);
    let store = stack.auth_database().await;
    let files = ["audit.jsonl", "audit-failures.jsonl", "audit-busy.jsonl"];
    let files = files.map(|name| stack.root().join("auth").join(name));
    let [guess] = eventually("the guess is in the file of failures", async || {
        <[i64; 1]>::try_from(ids(&files[1])).ok()
    })
    .await;
    let busy = Entry::login_busy(UnixSeconds::new(0), None, None, Source::default());
    let exported = store.exported_row().await.expect("how far the file is");
    for _ in 0..3 {
        store.append_entries(&vec![busy.clone(); 2_000], exported).await.expect("rows");
    }
    store.append_entries(&[Entry::gap(UnixSeconds::new(0), 1)], exported).await.expect("a row");
    let filter = Filter { event: Some("audit.gap".to_owned()), ..Filter::default() };
    let last = store.list_rows(&filter, 1).await.expect("the rows").pop().expect("a row").id;
    eventually("the file has caught up", async || ids(&files[0]).contains(&last).then_some(()))
        .await;
    let has_guess = files.each_ref().map(|file| ids(file).contains(&guess));
    assert_eq!(has_guess, [true, true, false]);
    assert_eq!(ids(&files[1]), [guess]);
    let busy = ids(&files[2]);
    assert!(busy.contains(&(last - 1)) && !busy.contains(&last), "{busy:?}");
    assert!(ids(&files[0]).iter().all(|id| !busy.contains(id)));
}

/// A user's refusals, a robot's wrong secrets, unreadable credentials, and passwords that are too long cost nothing to
/// cause: one connection pushed acts and guesses out of the five files in nine minutes.
#[tokio::test]
async fn what_costs_nothing_to_cause_pushes_no_act_and_no_guess_out_of_their_files() {
    let stack = small_audit().await;
    stack.client.call("GET", "/token").basic("andrew", "wrong").send().await.expect(401);
    let store = stack.auth_database().await;
    let [all, acts, failures] = ["audit.jsonl", "audit-acts.jsonl", "audit-failures.jsonl"]
        .map(|name| stack.root().join("auth").join(name));
    let one = async |file: &Path, what: &str| {
        eventually(what, async || <[i64; 1]>::try_from(ids(file)).ok()).await
    };
    let [act] = one(&acts, "the user is in the file of acts").await;
    let [guess] = one(&failures, "the guess is in the file of failures").await;
    let robot = Some(Subject::Robot("robot.ci".parse().expect("a name")));
    let robot =
        Entry::login_fail(UnixSeconds::new(0), "wrong", robot.as_ref(), None, Source::default());
    let nobody =
        Entry::login_fail(UnixSeconds::new(0), "unreadable", None, None, Source::default());
    let exported = store.exported_row().await.expect("how far the file is");
    let user = Subject::User("dan".parse().expect("a name"));
    let now = UnixSeconds::new(0);
    let refused = Entry::token(now, &user, Withheld::Everything, Source::default());
    for entry in [robot, nobody, refused] {
        store.append_entries(&vec![entry; 2_000], exported).await.expect("rows");
    }
    let last =
        store.list_rows(&Filter::default(), 1).await.expect("the rows").pop().expect("a row").id;
    eventually("the file has caught up", async || ids(&all).contains(&last).then_some(())).await;
    assert!(!ids(&all).contains(&act) && !ids(&all).contains(&guess), "they were rotated away");
    assert_eq!((ids(&acts), ids(&failures)), (vec![act], vec![guess]));
}

/// Servers whose files of the audit are soon full.
async fn small_audit() -> Stack {
    let auth =
        "[audit]\nfailure_rows_max = 1000\nfile_bytes_max = 65536\nfiles_max = 2\n".to_owned();
    Stack::with(Options { auth, ..Options::default() }).await
}

#[tokio::test]
async fn the_private_socket_is_its_owners_or_a_groups() {
    let mode = |stack: &Stack| {
        let socket = fs::metadata(stack.root().join("run/auth.sock")).expect("the socket");
        (socket.permissions().mode() & 0o777, socket.gid())
    };
    let alone = Stack::start().await;
    let (closed, own_group) = mode(&alone);
    assert_eq!(closed, 0o600);
    let auth = format!("socket_group = '{own_group}'\n");
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    assert_eq!(mode(&stack), (0o660, own_group));

    let elsewhere = tempfile::tempdir().expect("a folder");
    let settings = elsewhere.path().join("auth.toml");
    fs::write(&settings, "socket_group = 'no-such-group'\n").expect("settings");
    fs::write(elsewhere.path().join("htpasswd"), "# nobody\n").expect("users");
    let config = Config::load(&settings).expect("a good file");
    let refused = Bound::open(config, alone.clock.clone()).await.err().expect("no start");
    assert!(refused.to_string().contains("socket_group"), "{refused}");
}
