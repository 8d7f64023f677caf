//! What all get alike who get no token: one 401 for whatever is wrong with a secret of any kind, and
//! 503 for everybody while the rights cannot be looked up.

use std::{fs, time::Duration};

use auth_server::{
    database::policy::robots::Robot,
    secrets::{refresh::RefreshToken, robot::RobotSecret},
};
use berth_shared::clock::UnixSeconds;
use harness::{
    Response, Stack,
    client::Call,
    stack::{Options, PASSWORD},
};

/// Refresh tokens are on, and end after a day. Anybody may pull `open`.
async fn stack() -> Stack {
    let auth = "refresh_tokens = true\nrefresh_token_idle_days = 1\n".to_owned();
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    stack.grant("anonymous", "open:pull").await;
    stack.grant("andrew", "open:pull").await;
    stack
}

async fn make_robot(stack: &Stack, name: &str, life: Option<UnixSeconds>) -> RobotSecret {
    let secret = RobotSecret::generate().expect("a secret");
    let created = stack.clock.now();
    let expires = life.map(|life| created + life.get());
    let name = name.parse().expect("a name");
    let robot = Robot { name, created, expires, last_used: None };
    assert!(stack.auth_database().await.create_robot(&robot, &secret, &[]).await.expect("making"));
    secret
}

/// Asks for what anybody may have.
fn get(stack: &Stack) -> Call {
    stack.client.call("GET", "/token?scope=repository:open:pull")
}

fn refresh(stack: &Stack, token: &str) -> Call {
    let scope = "scope=repository:open:pull";
    let form = format!("grant_type=refresh_token&refresh_token={token}&{scope}");
    stack.client.call("POST", "/token").body(form)
}

async fn log_in(stack: &Stack, user: &str, password: &str) -> String {
    let call = stack.client.call("GET", "/token?offline_token=true").basic(user, password);
    call.send().await.expect(200).json()["refresh_token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn expired_revoked_and_malformed_secrets_of_every_kind_get_one_401() {
    let stack = stack().await;
    for user in ["bea", "carl"] {
        stack.set_password(user, PASSWORD);
    }
    let idle = log_in(&stack, "andrew", PASSWORD).await;
    let expiring = make_robot(&stack, "robot.expired", Some(UnixSeconds::new(10))).await;
    let of_expiring = log_in(&stack, "robot.expired", expiring.expose()).await;
    let revoked = make_robot(&stack, "robot.revoked", None).await;
    stack.clock.advance(Duration::from_secs(24 * 60 * 60));
    let (of_bea, of_carl) =
        (log_in(&stack, "bea", PASSWORD).await, log_in(&stack, "carl", PASSWORD).await);
    let of_revoked = log_in(&stack, "robot.revoked", revoked.expose()).await;
    let by_hand = log_in(&stack, "andrew", PASSWORD).await;
    // All of it is good until here, but what has expired.
    get(&stack).basic("robot.revoked", revoked.expose()).send().await.expect(200);
    for token in [&of_bea, &of_carl, &of_revoked, &by_hand] {
        refresh(&stack, token).send().await.expect(200);
    }
    let store = stack.auth_database().await;
    assert!(store.remove_robot(&"robot.revoked".parse().expect("a name")).await.expect("removing"));
    store.void_tokens(&"andrew".parse().expect("a name")).await.expect("voiding");
    stack.set_password("carl", "another");
    let htpasswd = stack.root().join("htpasswd");
    let lines = fs::read_to_string(&htpasswd).expect("the users");
    let left: String = lines.split_inclusive('\n').filter(|it| !it.starts_with("bea:")).collect();
    fs::write(&htpasswd, left).expect("writing");

    let (other_robot, other_refresh) =
        (RobotSecret::generate().expect("a secret"), RefreshToken::generate().expect("a token"));
    let basic = |user, password| get(&stack).basic(user, password);
    let wrong = basic("andrew", "wrong").send().await.expect_error(401, "UNAUTHORIZED");
    assert_eq!(wrong.header("www-authenticate"), "Basic realm=\"berth\"");
    for (what, call) in [
        ("a removed user", basic("bea", PASSWORD)),
        ("a changed password", basic("carl", PASSWORD)),
        ("an expired robot", basic("robot.expired", expiring.expose())),
        ("an expired robot's bearer", get(&stack).bearer(expiring.expose())),
        ("a revoked robot", basic("robot.revoked", revoked.expose())),
        ("a revoked robot's bearer", get(&stack).bearer(revoked.expose())),
        ("no robot's secret", basic("robot.revoked", other_robot.expose())),
        ("a malformed secret", basic("robot.expired", "berth_x")),
        ("a malformed bearer", get(&stack).bearer("berth_x")),
        ("an idle refresh token", refresh(&stack, &idle)),
        ("one of an expired robot", refresh(&stack, &of_expiring)),
        ("one of a revoked robot", refresh(&stack, &of_revoked)),
        ("one of a removed user", refresh(&stack, &of_bea)),
        ("one of a changed password", refresh(&stack, &of_carl)),
        ("one that was revoked", refresh(&stack, &by_hand)),
        ("one that was revoked, as Basic", basic("<token>", &by_hand)),
        ("nobody's refresh token", refresh(&stack, other_refresh.expose())),
        ("a malformed refresh token", refresh(&stack, "berth_rt_x")),
        ("a malformed one as Basic", basic("<token>", "berth_rt_x")),
    ] {
        assert_eq!(call.send().await.comparable(), wrong.comparable(), "{what}");
    }
}

#[tokio::test]
async fn while_the_database_is_gone_everybody_gets_503_and_nobody_is_made_anonymous() {
    let stack = stack().await;
    let secret = make_robot(&stack, "robot.ci", None).await;
    let kept = log_in(&stack, "andrew", PASSWORD).await;
    let calls = || {
        [
            get(&stack).basic("andrew", PASSWORD),
            get(&stack).basic("robot.ci", secret.expose()),
            get(&stack).bearer(secret.expose()),
            get(&stack),
            stack.client.call("POST", "/token").body("scope=repository:open:pull"),
            refresh(&stack, &kept),
            get(&stack).basic("<token>", &kept),
        ]
    };
    for call in calls() {
        call.send().await.expect(200);
    }
    let database = stack.root().join("auth/auth.db");
    fs::rename(&database, database.with_extension("elsewhere")).expect("moving");
    let unavailable = |answer: Response, seconds: &str| {
        let answer = answer.expect_error(503, "UNAVAILABLE");
        assert_eq!(answer.header("retry-after"), seconds);
        assert_eq!(answer.find_header("www-authenticate"), None);
        assert!(answer.json().get("token").is_none());
        answer.comparable()
    };
    let first = unavailable(get(&stack).send().await, "5");
    let wrong = [get(&stack).basic("andrew", "wrong"), refresh(&stack, "berth_rt_x")];
    for call in calls().into_iter().chain(wrong) {
        assert_eq!(unavailable(call.send().await, "5"), first);
    }
    let at_registry = stack.client.call("GET", "/v2/open/manifests/v1").basic("andrew", PASSWORD);
    let answer = at_registry.send().await.expect_error(503, "UNAVAILABLE");
    assert!(answer.find_header("retry-after").is_some());
    fs::rename(database.with_extension("elsewhere"), &database).expect("moving back");
    for call in calls() {
        call.send().await.expect(200);
    }
}
