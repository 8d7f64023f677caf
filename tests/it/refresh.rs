//! Refresh tokens: off unless turned on, given to who asks, and ended with what they rest on.

use std::{fs, time::Duration};

use auth_server::{
    database::policy::robots::Robot,
    secrets::{
        refresh::{RefreshToken, USER_NAME},
        robot::RobotSecret,
    },
};
use berth_shared::{rights::Effect, subject::Subject};
use harness::{
    Raw, Response, Stack,
    client::Call,
    eventually,
    image::Image,
    stack::{Options, PASSWORD, read_rule},
};

const LOGIN: &str = "/token?account=andrew&client_id=docker&offline_token=true&service=berth";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const IDLE_DAYS: u32 = 5;

/// Refresh tokens are on, and end after five unused days. `andrew` may push to `app`.
async fn stack() -> Stack {
    let auth = format!("refresh_tokens = true\nrefresh_token_idle_days = {IDLE_DAYS}\n");
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    stack.grant("andrew", "app:push").await;
    stack.grant("anonymous", "open:pull").await;
    stack
}

/// What `docker login` asks for, and the refresh token that comes with the answer.
async fn log_in(stack: &Stack) -> String {
    let answer = stack.client.call("GET", LOGIN).basic("andrew", PASSWORD).send().await.expect(200);
    refresh_token(&answer).expect("a refresh token")
}

fn refresh_token(answer: &Response) -> Option<String> {
    let token = &answer.json()["refresh_token"];
    assert!(token.is_null() || token.is_string(), "{answer:?}");
    token.as_str().map(ToOwned::to_owned)
}

fn form(stack: &Stack, form: &str) -> Call {
    let call = stack.client.call("POST", "/token");
    call.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned())
}

fn refresh(stack: &Stack, token: &str) -> Call {
    let grant = "grant_type=refresh_token&client_id=docker&service=berth";
    form(stack, &format!("{grant}&scope=repository:app:pull,push&refresh_token={token}"))
}

fn scope(answer: &Response) -> String {
    answer.json()["scope"].as_str().expect("a scope").to_owned()
}

fn token(answer: &Response) -> String {
    answer.json()["token"].as_str().expect("a token").to_owned()
}

async fn is_void(stack: &Stack, refresh_token: &str) {
    let void = refresh(stack, refresh_token).send().await.expect(401);
    let wrong = refresh(stack, "nonsense").send().await.expect(401);
    assert_eq!(void.comparable(), wrong.comparable());
}

#[tokio::test]
async fn while_it_is_off_none_is_issued_and_every_refresh_grant_refused() {
    let stack = Stack::start().await;
    stack.grant("anonymous", "open:pull").await;
    let answer = stack.client.call("GET", LOGIN).basic("andrew", PASSWORD).send().await.expect(200);
    assert_eq!(refresh_token(&answer), None);
    let offline =
        format!("grant_type=password&access_type=offline&username=andrew&password={PASSWORD}");
    let answer = form(&stack, &offline.replace(' ', "+")).send().await.expect(200);
    assert_eq!(refresh_token(&answer), None);
    let generated = RefreshToken::generate().expect("a token");
    for shown in [generated.expose(), "x", ""] {
        let answer = refresh(&stack, shown).send().await.expect_error(401, "UNAUTHORIZED");
        let message = answer.json()["errors"][0]["message"].clone();
        assert_eq!(message, "refresh tokens are not issued here: sign in again");
    }
    let basic = stack.client.call("GET", "/token?scope=repository:open:pull");
    basic.basic(USER_NAME, generated.expose()).send().await.expect(401);
    assert!(stack.auth_database().await.refresh_tokens(None).await.expect("the rows").is_empty());
}

#[tokio::test]
async fn one_is_issued_to_who_asks_and_to_nobody_else() {
    let stack = stack().await;
    let secret = RobotSecret::generate().expect("a secret");
    let name = "robot.ci".parse().expect("a name");
    let robot = Robot { name, created: stack.clock.now(), expires: None, last_used: None };
    assert!(stack.auth_database().await.create_robot(&robot, &secret, &[]).await.expect("making"));
    let password = PASSWORD.replace(' ', "+");
    let of_andrew = format!("grant_type=password&username=andrew&password={password}");
    let get = |query: &str| stack.client.call("GET", format!("/token?{query}"));
    for (what, call) in [
        ("nothing", get("service=berth").basic("andrew", PASSWORD)),
        ("false", get("offline_token=false").basic("andrew", PASSWORD)),
        ("the form's word", get("access_type=offline").basic("andrew", PASSWORD)),
        ("online", form(&stack, &format!("{of_andrew}&access_type=online"))),
        ("the query's word", form(&stack, &format!("{of_andrew}&offline_token=true"))),
        ("anonymous", get("scope=repository:open:pull&offline_token=true")),
        ("anonymous form", form(&stack, "scope=repository:open:pull&access_type=offline")),
    ] {
        assert_eq!(refresh_token(&call.send().await.expect(200)), None, "{what}");
    }
    let wrong = get("offline_token=true").basic("andrew", "wrong").send().await.expect(401);
    assert!(!String::from_utf8_lossy(&wrong.body).contains("refresh_token"));
    assert!(stack.auth_database().await.refresh_tokens(None).await.expect("the rows").is_empty());
    for call in [
        get("offline_token=true&client_id=docker").basic("andrew", PASSWORD),
        form(&stack, &format!("{of_andrew}&access_type=offline&client_id=docker")),
        get("offline_token=true&client_id=docker").basic("robot.ci", secret.expose()),
        get("offline_token=true&client_id=docker").bearer(secret.expose()),
    ] {
        let answer = call.send().await.expect(200);
        assert_eq!(answer.header("cache-control"), "no-store");
        let issued = refresh_token(&answer).expect("a refresh token");
        assert!(issued.starts_with("berth_rt_") && issued.len() == 45, "{issued}");
        refresh(&stack, &issued).send().await.expect(200);
    }
    let rows = stack.auth_database().await.refresh_tokens(None).await.expect("the rows");
    let subjects: Vec<_> = rows.iter().map(|row| row.subject.to_string()).collect();
    assert_eq!(subjects, ["andrew", "andrew", "robot.ci", "robot.ci"]);
    assert!(rows.iter().all(|row| row.client == "docker"));
}

/// Trace B4: docker keeps the refresh token in place of the password, and skopeo with its file sends
/// a chunked body without credentials beside it.
#[tokio::test]
async fn docker_logs_in_and_skopeo_goes_on_with_what_docker_kept() {
    let stack = stack().await;
    stack.client.call("GET", "/v2/").send().await.expect(401);
    let answer = stack.client.call("GET", LOGIN).basic("andrew", PASSWORD).send().await.expect(200);
    stack.client.get(&token(&answer), "/v2/").await.expect(200);
    let kept = refresh_token(&answer).expect("a refresh token");
    let runs = stack.auth.bcrypt_runs();
    let body = format!(
        "client_id=containers/image&grant_type=refresh_token&refresh_token={kept}\
         &scope=repository:app:pull,push&service=berth"
    );
    let mut raw = Raw::connect(&stack.client).await;
    let headers =
        [("Content-Type", "application/x-www-form-urlencoded"), ("Transfer-Encoding", "chunked")];
    raw.head("POST /token", &headers).await;
    for piece in body.as_bytes().chunks(50) {
        raw.send(format!("{:x}\r\n", piece.len()).as_bytes()).await;
        raw.send(piece).await;
        raw.send(b"\r\n").await;
    }
    raw.send(b"0\r\n\r\n").await;
    let answer = raw.answer("/token", false).await.expect(200);
    assert_eq!(scope(&answer), "repository:app:pull,push");
    assert_eq!(refresh_token(&answer), None, "it was not asked for");
    assert_eq!(answer.json()["token"], answer.json()["access_token"]);
    let pusher = token(&answer);
    Image::new("one").push(&stack.client, &pusher, "app", "v1").await;
    let repeated = format!(
        "grant_type=refresh_token&refresh_token={kept}&scope=repository:app:pull\
         &scope=repository:open:pull&access_type=offline"
    );
    let answer = form(&stack, &repeated).streamed().send().await.expect(200);
    assert_eq!(scope(&answer), "repository:app:pull repository:open:pull");
    assert_eq!(refresh_token(&answer), Some(kept), "the same one");
    assert_eq!(stack.auth.bcrypt_runs(), runs, "no refresh costs a bcrypt run");
    assert_eq!(stack.auth_database().await.refresh_tokens(None).await.expect("the rows").len(), 1);
}

#[tokio::test]
async fn basic_with_the_user_token_is_a_refresh_at_both_servers() {
    let stack = stack().await;
    let kept = log_in(&stack).await;
    let query = "/token?scope=repository:app:pull,push&account=%3Ctoken%3E";
    let answer = stack.client.call("GET", query).basic(USER_NAME, &kept).send().await.expect(200);
    assert_eq!(
        (scope(&answer).as_str(), refresh_token(&answer)),
        ("repository:app:pull,push", None)
    );
    Image::new("one").push(&stack.client, &token(&answer), "app", "v1").await;
    let offline = format!("{query}&offline_token=true");
    let answer = stack.client.call("GET", offline).basic(USER_NAME, &kept).send().await.expect(200);
    assert_eq!(refresh_token(&answer).as_ref(), Some(&kept));
    let at_registry =
        |user: &str| stack.client.call("GET", "/v2/app/manifests/v1").basic(user, &kept);
    at_registry(USER_NAME).send().await.expect(200);
    // It is no password, not even that of its own user.
    at_registry("andrew").send().await.expect(401);
    stack.client.call("GET", query).basic("andrew", &kept).send().await.expect(401);
    stack.client.call("GET", query).bearer(&kept).send().await.expect(401);
}

#[tokio::test]
async fn rights_are_those_of_the_moment_and_losing_one_ends_no_refresh_token() {
    let stack = stack().await;
    let kept = log_in(&stack).await;
    let (andrew, app) = ("andrew".parse().expect("a name"), "app".parse().expect("a pattern"));
    let store = stack.auth_database().await;
    let push = "push".parse().expect("an action");
    store.take_actions(&andrew, &app, Effect::Allow, push).await.expect("revoking");
    assert_eq!(scope(&refresh(&stack, &kept).send().await.expect(200)), "");
    stack.grant("andrew", "app:pull").await;
    let answer = refresh(&stack, &kept).send().await.expect(200);
    assert_eq!(scope(&answer), "repository:app:pull");
    Image::new("one").push(&stack.client, &stack.full_token("app").await, "app", "v1").await;
    stack.client.get(&token(&answer), "/v2/app/manifests/v1").await.expect(200);
}

#[tokio::test]
async fn a_new_password_a_removed_user_and_revoke_tokens_end_it() {
    let stack = stack().await;
    let kept = log_in(&stack).await;
    stack.set_password("andrew", "another");
    is_void(&stack, &kept).await;
    // The old password, with another salt, does not bring it back.
    stack.set_password("andrew", PASSWORD);
    is_void(&stack, &kept).await;

    let kept = log_in(&stack).await;
    let path = stack.root().join("htpasswd");
    let file = fs::read(&path).expect("the users");
    fs::write(&path, "# nobody\n").expect("writing");
    is_void(&stack, &kept).await;
    // Nor does the very line that it was issued for.
    fs::write(&path, file).expect("writing");
    is_void(&stack, &kept).await;

    for grantee in ["andrew", "group:devs", "everyone"] {
        let devs = "devs".parse().expect("a name");
        let andrew = Subject::from_claim("andrew").expect("a subject");
        stack.auth_database().await.join_group(&devs, &[andrew]).await.expect("joining");
        let kept = log_in(&stack).await;
        let answer = refresh(&stack, &kept).send().await.expect(200);
        let grantee = grantee.parse().expect("a grantee");
        assert_eq!(stack.auth_database().await.void_tokens(&grantee).await.expect("voiding"), 1);
        is_void(&stack, &kept).await;
        eventually("the token that came from it is void", async || {
            let answer = stack.client.get(&token(&answer), "/v2/").await;
            (answer.status.as_u16() == 401).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_authctl_revokes_ends_and_so_do_the_tokens_that_came_from_it() {
    let stack = stack().await;
    let (lost, kept) = (log_in(&stack).await, log_in(&stack).await);
    let answer = refresh(&stack, &lost).send().await.expect(200);
    stack.client.get(&token(&answer), "/v2/").await.expect(200);
    let rows = stack.auth_database().await.refresh_tokens(None).await.expect("the rows");
    let ended =
        stack.auth_database().await.end_refresh_tokens(&[rows[0].id]).await.expect("ending");
    assert_eq!(ended.len(), 1);
    is_void(&stack, &lost).await;
    refresh(&stack, &kept).send().await.expect(200);
    eventually("the token that came from it is void", async || {
        let answer = stack.client.get(&token(&answer), "/v2/").await;
        (answer.status.as_u16() == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_robots_refresh_token_ends_with_the_robot_and_its_secret() {
    let stack = stack().await;
    let name: berth_shared::subject::RobotName = "robot.ci".parse().expect("a name");
    let make = async |expires| {
        let secret = RobotSecret::generate().expect("a secret");
        let created = stack.clock.now();
        let robot = Robot { name: name.clone(), created, expires, last_used: None };
        let rules = [read_rule("robot.ci", "app:pull")];
        assert!(
            stack
                .auth_database()
                .await
                .create_robot(&robot, &secret, &rules)
                .await
                .expect("making")
        );
        let call = stack.client.call("GET", "/token?offline_token=true");
        let answer = call.basic("robot.ci", secret.expose()).send().await.expect(200);
        refresh_token(&answer).expect("a refresh token")
    };
    let kept = make(Some(stack.clock.now() + 300)).await;
    let answer = refresh(&stack, &kept).send().await.expect(200);
    assert_eq!(scope(&answer), "repository:app:pull");
    assert_eq!(answer.json()["expires_in"], 300, "no token outlives the secret");
    stack.clock.advance(Duration::from_secs(300));
    is_void(&stack, &kept).await;
    assert!(stack.auth_database().await.remove_robot(&name).await.expect("removing"));
    let kept = make(None).await;
    refresh(&stack, &kept).send().await.expect(200);
    assert!(stack.auth_database().await.remove_robot(&name).await.expect("removing"));
    is_void(&stack, &kept).await;
    // A robot of that name that comes later has another secret, and inherits nothing.
    make(None).await;
    is_void(&stack, &kept).await;
}

#[tokio::test]
async fn one_that_nobody_uses_ends_and_one_in_use_goes_on() {
    let stack = stack().await;
    let (used, unused) = (log_in(&stack).await, log_in(&stack).await);
    stack.clock.advance(DAY * (IDLE_DAYS - 1));
    refresh(&stack, &used).send().await.expect(200);
    let now = stack.clock.now();
    eventually("the use is noted", async || {
        let rows = stack.auth_database().await.refresh_tokens(None).await.expect("the rows");
        rows.iter().any(|row| row.last_used == now).then_some(())
    })
    .await;
    stack.clock.advance(DAY);
    is_void(&stack, &unused).await;
    refresh(&stack, &used).send().await.expect(200);
}

#[tokio::test]
async fn whatever_is_wrong_with_one_the_answer_is_that_to_a_wrong_password() {
    let stack = stack().await;
    let kept = log_in(&stack).await;
    let other = RefreshToken::generate().expect("a token");
    let wrong =
        stack.client.call("GET", "/token").basic("andrew", "wrong").send().await.expect(401);
    let cut = &kept[..kept.len() - 1];
    let slip = kept.replace("berth_rt_", "berth_");
    let long = kept.repeat(20);
    for shown in [other.expose(), cut, &slip, &long, "", "%00", PASSWORD] {
        let shown = shown.replace(' ', "+");
        let basic = stack.client.call("GET", "/token").basic(USER_NAME, &shown);
        let scoped = stack.client.call("GET", "/token?scope=repository:open:pull");
        for answer in [
            refresh(&stack, &shown).send().await,
            form(&stack, &format!("grant_type=refresh_token&refresh_token={shown}")).send().await,
            basic.send().await,
            scoped.basic(USER_NAME, &shown).send().await,
        ] {
            assert_eq!(answer.comparable(), wrong.comparable(), "{shown}");
        }
    }
    let grant = format!("grant_type=refresh_token&refresh_token={kept}");
    let none = "grant_type=refresh_token&scope=repository:open:pull";
    for answer in [
        form(&stack, none).send().await,
        form(&stack, &grant).basic("andrew", PASSWORD).send().await,
        form(&stack, &grant).basic(USER_NAME, &kept).send().await,
        form(&stack, none).basic("andrew", PASSWORD).send().await,
    ] {
        assert_eq!(answer.comparable(), wrong.comparable());
    }
    refresh(&stack, &kept).send().await.expect(200);
}

#[tokio::test]
async fn only_its_hash_is_kept_and_it_works_after_a_restart() {
    let mut stack = stack().await;
    let kept = log_in(&stack).await;
    stack.stop_auth().await;
    let mut files = vec![stack.root().join("auth/auth.db")];
    files.push(files[0].with_extension("db-wal"));
    for file in files.iter().filter(|file| file.exists()) {
        let bytes = fs::read(file).expect("the database");
        let random = &kept["berth_rt_".len()..];
        assert!(!bytes.windows(random.len()).any(|window| window == random.as_bytes()));
    }
    stack.start_auth().await;
    refresh(&stack, &kept).send().await.expect(200);
    let settings = stack.root().join("auth.toml");
    let text = fs::read_to_string(&settings).expect("settings");
    let text = text.replace("refresh_tokens = true", "refresh_tokens = false");
    fs::write(&settings, text).expect("settings");
    stack.stop_auth().await;
    stack.start_auth().await;
    let off = refresh(&stack, &kept).send().await.expect(401);
    assert_eq!(
        off.json()["errors"][0]["message"],
        "refresh tokens are not issued here: sign in again"
    );
}
