//! The audit: what is recorded, what never is, and that nothing waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use auth_server::{
    audit::{Act, Author, Row, entry::Entry},
    backup,
    config::Config,
    database::{apply::Desired, audit::Filter, policy::robots::Robot},
    secrets::robot::RobotSecret,
    users::htpasswd::Htpasswd,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use berth_shared::{
    clock::UnixSeconds,
    rights::{Effect, Rule},
    subject::{GroupName, Subject},
};
use harness::{
    Stack,
    events::Recording,
    eventually,
    stack::{Options, PASSWORD, read_rule},
};
use serde_json::{Value, json};

const PULL_AND_PUSH: &str = "/token?scope=repository:app:pull,push&client_id=docker";

async fn rows(stack: &Stack) -> Vec<Row> {
    stack.auth_database().await.list_rows(&Filter::default(), 1_000).await.expect("the rows")
}

/// Waits for the rows of an event, so many of them.
async fn rows_of(stack: &Stack, event: &str, count: usize) -> Vec<Row> {
    eventually(&format!("{count} rows of {event}"), async || {
        let rows = rows(stack).await;
        let rows: Vec<_> = rows.into_iter().filter(|row| row.event == event).collect();
        (rows.len() >= count).then_some(rows)
    })
    .await
}

fn file(stack: &Stack) -> PathBuf {
    stack.root().join("auth/audit.jsonl")
}

fn lines(stack: &Stack) -> Vec<Value> {
    let text = fs::read_to_string(file(stack)).unwrap_or_default();
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Waits until the file says what the table does: the ids, in their order.
async fn exported(stack: &Stack) -> Vec<i64> {
    eventually("the file has caught up", async || {
        let rows = rows(stack).await;
        let lines = lines(stack);
        let is_all = lines == rows.iter().map(|row| json!(row)).collect::<Vec<_>>();
        is_all.then(|| rows.iter().map(|row| row.id).collect())
    })
    .await
}

#[tokio::test]
async fn a_token_and_a_refusal_say_who_asked_from_where_and_for_what() {
    let stack = Stack::start().await;
    stack.grant("andrew", "app:pull").await;
    let ask = |target| stack.client.call("GET", target).header("user-agent", "docker/28 \tx");
    ask(PULL_AND_PUSH).basic("andrew", PASSWORD).send().await.expect(200);
    ask("/token?scope=repository:app:pull").send().await.expect(200);
    let form = format!(
        "grant_type=password&username=andrew&password={}&scope=repository:app:*&client_id=oras",
        PASSWORD.replace(' ', "+")
    );
    stack.client.call("POST", "/token").body(form).send().await.expect(200);

    let denied = rows_of(&stack, "token.deny", 2).await;
    let [less, nothing] = denied.as_slice() else { panic!("{denied:?}") };
    let detail = |row: &Row| {
        let mut detail = row.detail.clone();
        let jti = detail.remove("jti").expect("a token's name");
        assert_eq!(jti.as_str().map(str::len), Some(22));
        Value::Object(detail)
    };
    let expected = json!({
        "method": "password", "service": "berth", "client": "127.0.0.1", "client_id": "docker",
        "user_agent": "docker/28 ?x",
        "requested": ["repository:app:pull,push"], "granted": ["repository:app:pull"],
    });
    assert_eq!((less.subject.as_deref(), detail(less)), (Some("andrew"), expected));
    assert_eq!(nothing.subject.as_deref(), Some("anonymous"));
    assert_eq!(detail(nothing)["granted"], json!([]));
    let issued = rows_of(&stack, "token.issue", 1).await;
    let held = &issued[0].detail;
    assert_eq!(
        (&held["client_id"], &held["granted"]),
        (&json!("oras"), &json!(["repository:app:pull"]))
    );
    assert!(denied.iter().chain(&issued).all(|row| row.actor.is_none()));
}

#[tokio::test]
async fn a_failed_sign_in_names_who_is_there_and_tags_who_is_not() {
    let stack = Stack::start().await;
    for (user, password) in
        [("andrew", "wrong"), ("hunter2", "x"), ("hunter2", "y"), ("robot.gone", "x")]
    {
        stack.client.call("GET", "/token").basic(user, password).send().await.expect(401);
    }
    stack.client.call("GET", "/token").header("authorization", "Basic !").send().await.expect(401);
    stack.client.call("POST", "/token").body("grant_type=password").send().await.expect(401);
    let failed = rows_of(&stack, "login.fail", 6).await;
    let tag =
        |row: &Row| row.detail.get("name_tag").map(|tag| tag.as_str().expect("text").to_owned());
    assert_eq!((failed[0].subject.as_deref(), tag(&failed[0])), (Some("andrew"), None));
    assert!(failed[1..].iter().all(|row| row.subject.is_none()));
    assert!(tag(&failed[1]).is_some_and(|tag| tag.len() == 16));
    assert_eq!(tag(&failed[1]), tag(&failed[2]), "the same name is told by its tag");
    assert_ne!(tag(&failed[1]), tag(&failed[3]));
    for row in &failed[4..] {
        assert_eq!(row.detail["reason"], "unreadable credentials");
    }
}

/// What `every_act_is_recorded_with_who_did_it` does, as it is recorded.
const ACTS: [&str; 16] = [
    "grant.add andrew a",
    "deny.add andrew b",
    "grant.remove andrew a",
    "deny.remove andrew b",
    "group.add bea devs",
    "group.remove bea devs",
    "robot.create robot.ci",
    "grant.add robot.ci c",
    "tokens.revoke everyone",
    "grant.add bea d",
    "group.add bea devs",
    "grant.remove robot.ci c",
    "grant.remove andrew a",
    "robot.revoke robot.ci",
    "user.passwd andrew",
    "user.remove andrew 0",
];

/// A row of an act in a line: what, whom, and what else it was about.
fn told(row: &Row) -> String {
    let about = ["pattern", "group", "rules"].map(|key| row.detail.get(key).cloned());
    let about = about.into_iter().flatten().map(|value| value.to_string().replace('"', ""));
    let subject = row.subject.clone().unwrap_or_default();
    format!("{} {subject} {}", row.event, about.collect::<String>()).trim().to_owned()
}

fn allow(subject: &str, rule: &str) -> Rule {
    read_rule(subject, rule)
}

#[tokio::test]
async fn every_act_is_recorded_with_who_did_it() {
    let stack = Stack::start().await;
    let store = stack.auth_database().await;
    let store = store.acting(Author::person(stack.clock.clone(), "some verb", Some("lena")));
    let now = stack.clock.now();
    let deny = Rule { effect: Effect::Deny, ..allow("andrew", "b:push") };
    let (andrew, bea) = ("andrew".parse().expect("a user"), "bea".parse().expect("a user"));
    let (devs, member): (GroupName, _) = ("devs".parse().expect("a group"), [Subject::User(bea)]);
    let robot = Robot {
        name: "robot.ci".parse().expect("a robot"),
        created: now,
        expires: None,
        last_used: None,
    };
    let secret = RobotSecret::generate().expect("a secret");
    let users = fs::read(stack.root().join("htpasswd")).expect("the users");
    let users = Htpasswd::parse(&users).fingerprints();
    let start = rows(&stack).await.last().map_or(0, |row| row.id);

    store.add_rules(&[allow("andrew", "a:*"), deny.clone()], now).await.expect("adding");
    for rule in [allow("andrew", "a:push"), deny] {
        store
            .take_actions(&rule.grantee, &rule.pattern, rule.effect, rule.actions)
            .await
            .expect("taking");
    }
    store.join_group(&devs, &member).await.expect("joining");
    store.join_group(&devs, &member).await.expect("joining again");
    store.leave_group(&devs, &member).await.expect("leaving");
    store.create_robot(&robot, &secret, &[allow("robot.ci", "c:pull")]).await.expect("making");
    store.void_tokens(&allow("everyone", "x:pull").grantee).await.expect("voiding");
    let desired = Desired {
        rules: vec![allow("bea", "d:pull")],
        groups: BTreeMap::from([(devs, BTreeSet::from(member))]),
    };
    store.apply(&desired, true, true, now).await.expect("a dry run");
    store.apply(&desired, true, false, now).await.expect("applying");
    store.remove_robot(&robot.name).await.expect("removing");
    let saved = || Ok::<_, auth_server::database::Error>(());
    let act = Act::UserPassword(&andrew);
    store.set_user(&users, &andrew, &act, saved).await.expect("a password");
    store.remove_user(&users, &andrew, saved).await.expect("removing");

    let rows = store.rows_after(start, 100).await.expect("the rows");
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), ACTS);
    assert_eq!(rows[2].detail["actions"], "push");
    for row in &rows {
        assert!(row.actor.as_ref().is_some_and(|actor| !actor.is_empty()), "{row:?}");
        let by = ["verb", "sudo_user"].map(|key| row.detail[key].as_str().expect("text"));
        assert_eq!(by, ["some verb", "lena"]);
        assert!(row.detail["uid"].is_u64());
    }
    assert_eq!(exported(&stack).await.last(), rows.last().map(|row| &row.id));
}

#[tokio::test]
async fn an_htpasswd_file_edited_by_hand_is_recorded_as_found() {
    let stack = Stack::start().await;
    let path = stack.root().join("htpasswd");
    let line = fs::read_to_string(&path).expect("the users");
    let hash = line.rsplit_once(':').expect("a line").1.to_owned();
    fs::write(&path, format!("{line}bea:{hash}")).expect("adding");
    rows_of(&stack, "htpasswd.add", 2).await;
    let other = bcrypt::hash("other", 4).expect("a hash");
    fs::write(&path, format!("andrew:{other}\nbea:{hash}")).expect("changing");
    rows_of(&stack, "htpasswd.change", 1).await;
    fs::write(&path, format!("bea:{hash}")).expect("removing");
    let removed = rows_of(&stack, "htpasswd.remove", 1).await;
    assert_eq!(removed[0].subject.as_deref(), Some("andrew"));
    assert_eq!(removed[0].actor.as_deref(), Some("auth-server"));
}

#[tokio::test]
async fn a_restart_repeats_no_line_and_leaves_none_out() {
    let mut stack = Stack::start().await;
    stack.grant("andrew", "app:push").await;
    for round in 1..=3 {
        for _ in 0..5 {
            stack.token("andrew", &["repository:app:push"]).await;
        }
        // What waits is written before the server has stopped.
        stack.stop_auth().await;
        let issued = rows(&stack).await.into_iter().filter(|row| row.event == "token.issue");
        assert_eq!(issued.count(), 5 * round);
        // While no server runs.
        stack.grant("andrew", "other:push").await;
        stack.start_auth().await;
        let ids = exported(&stack).await;
        assert_eq!(ids, (1..=ids.len() as i64).collect::<Vec<_>>());
    }
    let meta = fs::metadata(file(&stack)).expect("the file");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn sign_ins_go_on_while_the_file_cannot_be_written_and_it_catches_up() {
    let mut stack = Stack::start().await;
    stack.stop_auth().await;
    fs::remove_file(file(&stack)).expect("the file");
    fs::create_dir(file(&stack)).expect("something in its place");
    let recording = Recording::start();
    stack.start_auth().await;
    stack.grant("andrew", "app:push").await;
    stack.token("andrew", &["repository:app:push"]).await;
    rows_of(&stack, "token.issue", 1).await;
    let complaint = eventually("a complaint", async || {
        let events = recording.take();
        events.into_iter().find(|event| event.text.contains("the audit waits"))
    });
    assert!(complaint.await.text.contains("audit.jsonl"));
    fs::remove_dir(file(&stack)).expect("making room");
    // Begun anew, it has what was not in the one before.
    eventually("the file catches up", async || {
        let has_token = lines(&stack).iter().any(|line| line["event"] == "token.issue");
        has_token.then_some(())
    })
    .await;
}

#[tokio::test]
async fn rows_that_are_cleared_before_the_file_has_them_are_told_in_it() {
    let auth = "[audit]\nrows_max = 1000\n".to_owned();
    let mut stack = Stack::with(Options { auth, ..Options::default() }).await;
    stack.stop_auth().await;
    fs::remove_file(file(&stack)).expect("the file");
    fs::create_dir(file(&stack)).expect("something in its place");
    stack.start_auth().await;
    let store = stack.auth_database().await;
    let exported = store.exported_row().await.expect("how far the file is");
    store
        .append_entries(&vec![Entry::gap(UnixSeconds::new(0), 1); 1_500], exported)
        .await
        .expect("rows");
    eventually("the oldest are cleared", async || {
        let oldest = store.rows_after(exported, 1).await.expect("a row");
        (oldest[0].id > exported + 1).then_some(())
    })
    .await;
    fs::remove_dir(file(&stack)).expect("making room");
    let lost = eventually("the file tells", async || {
        let lost = lines(&stack).into_iter().filter_map(|line| line["lost"].as_u64());
        lost.into_iter().find(|lost| *lost > 1)
    });
    assert_eq!(lost.await, 500);
}

#[tokio::test]
async fn rows_for_tokens_and_the_file_can_be_turned_off() {
    let auth = "[audit]\nissue = false\nfile = 'off'\n".to_owned();
    let mut stack = Stack::with(Options { auth, ..Options::default() }).await;
    stack.grant("andrew", "app:pull").await;
    for scope in ["repository:app:pull", "repository:app:push", "repository:app:pull"] {
        stack.token("andrew", &[scope]).await;
    }
    stack.stop_auth().await;
    let rows = rows(&stack).await;
    let of = |event: &str| rows.iter().filter(|row| row.event == event).count();
    assert_eq!((of("token.issue"), of("token.deny"), of("grant.add")), (0, 1, 1));
    assert!(!file(&stack).exists());
}

#[tokio::test]
async fn a_backup_brings_the_audit_along_and_a_restore_is_in_it() {
    let mut stack = Stack::start().await;
    stack.grant("andrew", "app:push").await;
    let config = Config::load(&stack.root().join("auth.toml")).expect("the settings");
    let to = stack.root().join("copy");
    backup::backup(&config, &to, UnixSeconds::new(7)).await.expect("a backup");
    let before = rows(&stack).await;
    stack.grant("andrew", "forgotten:push").await;
    stack.stop_auth().await;
    let by = Author::person(stack.clock.clone(), "restore", None);
    backup::restore(&config, &to, true, &by).await.expect("a restore");
    stack.start_auth().await;
    let after = rows(&stack).await;
    assert_eq!(after[..before.len()], before);
    let restore = after.iter().find(|row| row.event == "restore").expect("the restore");
    assert_eq!(restore.detail["made"], "1970-01-01T00:00:07Z");
    assert!(!after.iter().any(|row| row.detail.get("pattern") == Some(&json!("forgotten"))));
    // The file has what was forgotten, and goes on with what came after.
    eventually("the restore is in the file", async || {
        lines(&stack).iter().any(|line| line["event"] == "restore").then_some(())
    })
    .await;
}

const GOOD_PASSWORD: &str = "secret-password-one";
const MISTYPED: &str = "secret-password-won";
const WRONG: &str = "secret-wrong-two";
const JOINED: &str = "secret-joined-three";

/// Shows every secret in every place that one can be shown in, also in wrong ones. Gives back the
/// tokens that were issued.
async fn show_everywhere(stack: &Stack, secret: &str, unknown: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for (user, shown, status) in [
        ("bea", GOOD_PASSWORD, 200),
        ("bea", MISTYPED, 401),
        ("andrew", WRONG, 401),
        // Typed in the wrong field, also joined to the name.
        (GOOD_PASSWORD, "bea", 401),
        (MISTYPED, "", 401),
        (&format!("bea {JOINED}"), "", 401),
        ("robot.ci", secret, 200),
        ("robot.ci", unknown, 401),
        (secret, "robot.ci", 401),
        ("robot.nobody", secret, 401),
    ] {
        let answer = stack.client.call("GET", PULL_AND_PUSH).basic(user, shown).send().await;
        let answer = answer.expect(status);
        tokens.extend(answer.json()["token"].as_str().map(str::to_owned));
    }
    for (bearer, status) in [(secret, 200), (unknown, 401), (GOOD_PASSWORD, 401)] {
        stack.client.call("GET", PULL_AND_PUSH).bearer(bearer).send().await.expect(status);
    }
    for (user, shown, status) in [("bea", GOOD_PASSWORD, 200), (GOOD_PASSWORD, WRONG, 401)] {
        let form = format!("grant_type=password&username={user}&password={shown}");
        stack.client.call("POST", "/token").body(form).send().await.expect(status);
    }
    tokens
}

#[tokio::test]
async fn no_secret_is_in_the_database_the_file_or_the_log() {
    let recording = Recording::start();
    let mut stack = Stack::start().await;
    stack.set_password("bea", GOOD_PASSWORD);
    let (name, created) = ("robot.ci".parse().expect("a robot"), stack.clock.now());
    let robot = Robot { name, created, expires: None, last_used: None };
    let (secret, unknown) = (RobotSecret::generate(), RobotSecret::generate());
    let (secret, unknown) = (secret.expect("a secret"), unknown.expect("a secret"));
    stack.auth_database().await.create_robot(&robot, &secret, &[]).await.expect("making");
    let (secret, unknown) = (secret.expose(), unknown.expose());
    let tokens = show_everywhere(&stack, secret, unknown).await;
    rows_of(&stack, "login.fail", 11).await;
    exported(&stack).await;
    let database = |name: &str| fs::read(stack.root().join("auth").join(name)).unwrap_or_default();
    let mut places = vec![
        ("the log", format!("{:?}", recording.take()).into_bytes()),
        ("the file", fs::read(file(&stack)).expect("the file")),
        ("the database", database("auth.db")),
        ("what is not in it yet", database("auth.db-wal")),
    ];
    stack.stop_auth().await;
    places.push(("the database", fs::read(stack.root().join("auth/auth.db")).expect("reading")));

    let basic = STANDARD.encode(format!("bea:{GOOD_PASSWORD}"));
    let signatures = tokens.iter().map(|token| token.rsplit('.').next().expect("a signature"));
    let known = [GOOD_PASSWORD, MISTYPED, WRONG, JOINED, secret, unknown, &basic];
    for secret in known.into_iter().chain(signatures) {
        for (place, bytes) in &places {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} is in {place}");
        }
    }
    let is_told = places[1].1.windows(5).any(|window| window == b"\"bea\"");
    assert!(is_told, "nothing was recorded");
}

/// Whoever looks for the reason that a password stopped working finds it, whatever the name.
#[tokio::test]
async fn a_password_that_is_too_long_has_a_reason_of_its_own() {
    let recording = Recording::start();
    let stack = Stack::start().await;
    let long = "x".repeat(73);
    for user in ["andrew", "nobody-of-this-name"] {
        stack.client.call("GET", PULL_AND_PUSH).basic(user, &long).send().await.expect(401);
    }
    let reasons = rows_of(&stack, "login.fail", 2).await;
    for row in &reasons {
        let reason = row.detail["reason"].as_str().expect("a reason");
        assert!(reason.contains("more than 72 bytes"), "{row:?}");
    }
    assert_eq!(reasons.iter().filter(|row| row.subject.as_deref() == Some("andrew")).count(), 1);
    let events = recording.take();
    let lines =
        events.iter().filter(|event| event.text.contains("a password of more than 72 bytes"));
    assert!(lines.count() >= 2);
    assert!(events.iter().all(|event| !event.text.contains(&long)));
}
