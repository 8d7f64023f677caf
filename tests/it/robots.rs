//! Robots: what their secrets open, how long, and how they end.

use std::time::Duration;

use auth_server::{database::policy::robots::Robot, secrets::robot::RobotSecret};
use berth_shared::{clock::UnixSeconds, subject::RobotName};
use harness::{
    Response, Stack, eventually,
    image::Image,
    stack::{PASSWORD, read_rule},
};

const DAY_SECS: u64 = 24 * 60 * 60;
const SCOPE: &str = "/token?scope=repository:app:pull,push";

fn ci() -> RobotName {
    "robot.ci".parse().expect("a name")
}

/// A stack with an image in `app`, and the secret of `robot.ci`, who may pull it.
async fn with_robot(life: Option<UnixSeconds>) -> (Stack, RobotSecret) {
    let stack = Stack::start().await;
    let token = stack.full_token("app").await;
    Image::new("one").push(&stack.client, &token, "app", "v1").await;
    let secret = RobotSecret::generate().expect("a secret");
    let created = stack.clock.now();
    let expires = life.map(|life| created + life.get());
    let robot = Robot { name: ci(), created, expires, last_used: None };
    let rules = [read_rule("robot.ci", "app:pull")];
    assert!(
        stack.auth_database().await.create_robot(&robot, &secret, &rules).await.expect("making")
    );
    (stack, secret)
}

async fn basic(stack: &Stack, user: &str, password: &str) -> Response {
    stack.client.call("GET", SCOPE).basic(user, password).send().await
}

fn token(answer: &Response) -> String {
    answer.json()["token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn a_secret_is_a_password_a_form_field_and_a_bearer_token() {
    let (stack, secret) = with_robot(None).await;
    let secret = secret.expose();
    let form = format!(
        "grant_type=password&username=robot.ci&password={secret}&scope=repository:app:pull"
    );
    let runs = stack.auth.bcrypt_runs();
    for answer in [
        basic(&stack, "robot.ci", secret).await,
        stack.client.call("GET", SCOPE).bearer(secret).send().await,
        stack.client.call("POST", "/token").body(form).send().await,
    ] {
        let answer = answer.expect(200);
        assert_eq!(answer.json()["scope"], "repository:app:pull");
        let pulled = stack.client.get(&token(&answer), "/v2/app/manifests/v1").await.expect(200);
        assert!(pulled.find_header("warning").is_none());
    }
    assert_eq!(stack.auth.bcrypt_runs(), runs, "no secret of a robot costs a bcrypt run");
    eventually("the use is noted", async || {
        let policy = stack.auth_database().await.policy().await.expect("the policy");
        policy.robots.get(&ci()).and_then(|robot| robot.last_used)
    })
    .await;
}

#[tokio::test]
async fn every_wrong_secret_gets_the_same_answer() {
    let (stack, secret) = with_robot(Some(UnixSeconds::new(100))).await;
    let other = RobotSecret::generate().expect("a secret");
    let right = secret.expose();
    let (cut, slip) = (&right[..right.len() - 1], right.replace("berth_", "birth_"));
    let wrong = basic(&stack, "robot.ci", other.expose()).await.expect(401);
    for (user, password) in [
        ("robot.ci", cut),
        ("robot.ci", &slip),
        ("robot.ci", ""),
        ("robot.ci", PASSWORD),
        ("robot.other", right),
        ("robot.", right),
        ("andrew", right),
    ] {
        let answer = basic(&stack, user, password).await.expect(401);
        assert_eq!(answer.comparable(), wrong.comparable(), "{user}");
    }
    for bearer in [other.expose(), cut, PASSWORD, ""] {
        let answer = stack.client.call("GET", SCOPE).bearer(bearer).send().await.expect(401);
        assert_eq!(answer.comparable(), wrong.comparable());
    }
    basic(&stack, "robot.ci", right).await.expect(200);
    stack.clock.advance(Duration::from_secs(100));
    let expired = basic(&stack, "robot.ci", right).await.expect(401);
    assert_eq!(expired.comparable(), wrong.comparable());
}

#[tokio::test]
async fn the_registry_warns_of_a_secret_that_ends_within_a_week() {
    let (stack, secret) = with_robot(Some(UnixSeconds::new(8 * 24 * 60 * 60))).await;
    let pull = async || {
        let token = token(&basic(&stack, "robot.ci", secret.expose()).await.expect(200));
        stack.client.get(&token, "/v2/app/manifests/v1").await.expect(200)
    };
    assert!(pull().await.find_header("warning").is_none());
    stack.clock.advance(Duration::from_secs(DAY_SECS));
    let warning = pull().await.header("warning").to_owned();
    assert!(warning.starts_with("299 - \"the secret of robot.ci ends at 20"), "{warning}");
}

#[tokio::test]
async fn a_token_ends_with_its_secret_and_a_removed_robot_has_neither() {
    let (stack, secret) = with_robot(Some(UnixSeconds::new(300))).await;
    let answer = basic(&stack, "robot.ci", secret.expose()).await.expect(200);
    assert_eq!(answer.json()["expires_in"], 300);
    let token = token(&answer);
    stack.client.get(&token, "/v2/app/manifests/v1").await.expect(200);
    assert!(stack.auth_database().await.remove_robot(&ci()).await.expect("removing"));
    basic(&stack, "robot.ci", secret.expose()).await.expect(401);
    eventually("the token is void", async || {
        let answer = stack.client.get(&token, "/v2/app/manifests/v1").await;
        (answer.status.as_u16() == 401).then_some(())
    })
    .await;
}
