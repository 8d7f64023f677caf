//! The token endpoint: who gets which token for what, and how refusals read.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use harness::{
    Raw, Response, Stack,
    client::Call,
    stack::{Options, PASSWORD},
};
use serde_json::{Value, json};

const FORM: &str = "application/x-www-form-urlencoded";

/// `andrew` may push to `a` and pull from `b`, nobody in particular may pull from `open`.
async fn with_grants() -> Stack {
    let stack = Stack::start().await;
    stack.grant("andrew", "a:push").await;
    stack.grant("andrew", "b:pull").await;
    stack.grant("anonymous", "open:pull").await;
    stack
}

fn get(stack: &Stack, query: &str) -> Call {
    stack.client.call("GET", format!("/token{query}"))
}

fn post(stack: &Stack, form: &str) -> Call {
    let call = stack.client.call("POST", "/token").header("content-type", FORM);
    call.body(form.to_owned())
}

/// What the token in the answer says.
fn claims(answer: &Response) -> Value {
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    let claims = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON")
}

fn subject(answer: &Response) -> String {
    claims(answer)["sub"].as_str().expect("a subject").to_owned()
}

fn granted(answer: &Response) -> String {
    let scope = answer.json()["scope"].as_str().expect("a scope").to_owned();
    let access = claims(answer)["access"].as_array().expect("a list").len();
    assert_eq!(access, scope.split_whitespace().count(), "scope and token say the same");
    scope
}

#[tokio::test]
async fn scopes_come_in_every_form_and_what_is_strange_is_dropped() {
    let stack = with_grants().await;
    let many: String = (0..51)
        .fold("scope=".into(), |text, n| format!("{text}repository:b:pull+repository:c{n}:pull+"));
    for (query, expected) in [
        ("scope=repository:a:pull,push", "repository:a:pull,push"),
        ("scope=repository:a:push,pull", "repository:a:pull,push"),
        ("scope=repository:a:*", "repository:a:pull,push"),
        ("scope=repository:b:*", "repository:b:pull"),
        ("scope=repository:b:push,pull,delete", "repository:b:pull"),
        ("scope=repository:b:push", ""),
        ("scope=repository:c:pull", ""),
        ("scope=repository:a:pull&scope=repository:b:pull", "repository:a:pull repository:b:pull"),
        ("scope=repository:a:pull%20repository:b:pull", "repository:a:pull repository:b:pull"),
        ("scope=repository:a:pull++repository:b:pull", "repository:a:pull repository:b:pull"),
        ("scope=repository:a:pull+repository:a:push", "repository:a:pull,push"),
        ("scope=", ""),
        ("scope=+", ""),
        ("", ""),
        ("scope=repository(plugin):a:pull", "repository:a:pull"),
        ("scope=plugin:a:pull+repository:b:pull", "repository:b:pull"),
        ("scope=repository:host:5000/x:pull", ""),
        ("scope=repository:A:pull+repository:../b:pull+repository::pull", ""),
        ("scope=repository:a:pull,admin,", "repository:a:pull"),
        ("scope=repository:a", ""),
        ("scope=registry:catalog:*", ""),
        ("scope=%ff%fe%00", ""),
        ("scope=repository:a:pull&offline_token=true&client_id=docker&x=y", "repository:a:pull"),
        (many.as_str(), "repository:b:pull"),
    ] {
        let call = get(&stack, &format!("?service=berth&{query}")).basic("andrew", PASSWORD);
        assert_eq!(granted(&call.send().await.expect(200)), expected, "GET {query}");
        let form = format!(
            "grant_type=password&service=berth&username=andrew&password={PASSWORD}&{query}"
        );
        let answer = post(&stack, &form.replace(' ', "+")).send().await.expect(200);
        assert_eq!(granted(&answer), expected, "POST {query}");
    }
}

#[tokio::test]
async fn at_most_fifty_scopes_go_into_a_token() {
    let stack = Stack::start().await;
    stack.grant("andrew", "**:pull").await;
    let scopes: Vec<String> = (0..51).map(|n| format!("repository:r{n}:pull")).collect();
    let call = get(&stack, &format!("?scope={}", scopes.join("+"))).basic("andrew", PASSWORD);
    assert_eq!(granted(&call.send().await.expect(200)), scopes[..50].join(" "));
    let call = get(&stack, "?scope=registry:catalog:*").basic("andrew", PASSWORD);
    let answer = call.send().await.expect(200);
    assert_eq!(granted(&answer), "registry:catalog:*");
    let access = json!([{ "type": "registry", "name": "catalog", "actions": ["*"] }]);
    assert_eq!(claims(&answer)["access"], access);
}

#[tokio::test]
async fn an_answer_has_the_fields_that_clients_read() {
    let stack = with_grants().await;
    let query = "?service=berth&scope=repository:a:pull&offline_token=true";
    let answer = get(&stack, query).basic("andrew", PASSWORD).send().await.expect(200);
    let body = answer.json();
    let mut keys: Vec<_> = body.as_object().expect("an object").keys().collect();
    keys.sort();
    assert_eq!(keys, ["access_token", "expires_in", "issued_at", "scope", "token"]);
    assert_eq!(body["token"], body["access_token"]);
    assert_eq!(body["expires_in"], 900);
    let now = stack.clock.now();
    assert_eq!(body["issued_at"], berth_shared::clock::rfc3339(now));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    let mut claims = claims(&answer);
    let id = claims.as_object_mut().expect("an object").remove("jti").expect("a jti");
    assert!(id.as_str().expect("text").len() >= 22);
    let access = json!([{ "type": "repository", "name": "a", "actions": ["pull"] }]);
    let expected = json!({ "iss": "berth", "sub": "andrew", "aud": "berth", "iat": now,
        "nbf": now - 10, "exp": now + 900, "access": access, "counter": 0 });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn who_one_is_comes_from_the_credentials_alone() {
    let stack = with_grants().await;
    for query in ["account=bea", "account=andrew&account=bea", "username=bea&password=x", "sub=bea"]
    {
        let call = get(&stack, &format!("?service=berth&{query}")).basic("andrew", PASSWORD);
        assert_eq!(subject(&call.send().await.expect(200)), "andrew", "{query}");
    }
    for query in ["account=andrew", "username=andrew&password=correct+horse"] {
        let call = get(&stack, &format!("?scope=repository:open:pull&{query}"));
        assert_eq!(subject(&call.send().await.expect(200)), "", "{query}");
    }
}

#[tokio::test]
async fn a_service_is_one_of_the_configured_or_none() {
    let auth = "services = ['berth', 'other']".to_owned();
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    for (query, audience) in [
        ("", "berth"),
        ("?service=", "berth"),
        ("?service=&service=other", "other"),
        ("?service=berth", "berth"),
        ("?service=other", "other"),
    ] {
        let answer = get(&stack, query).basic("andrew", PASSWORD).send().await.expect(200);
        assert_eq!(claims(&answer)["aud"], audience, "{query}");
    }
    let call = get(&stack, "?service=elsewhere").basic("andrew", PASSWORD);
    call.send().await.expect_error(400, "UNSUPPORTED");
}

#[tokio::test]
async fn without_credentials_one_is_anonymous_if_one_asks_for_something() {
    let stack = with_grants().await;
    for (scope, expected) in [
        ("repository:open:pull,push", "repository:open:pull"),
        ("repository:a:pull", ""),
        ("repository:a:pull+repository:open:pull", "repository:open:pull"),
        ("registry:catalog:*", ""),
    ] {
        let form = format!("grant_type=authorization_code&scope={scope}");
        post(&stack, &form).send().await.expect(400);
        for call in
            [get(&stack, &format!("?scope={scope}")), post(&stack, &format!("scope={scope}"))]
        {
            let answer = call.send().await.expect(200);
            assert_eq!((subject(&answer).as_str(), granted(&answer).as_str()), ("", expected));
        }
    }
    for query in ["", "?service=berth", "?scope=", "?scope=+&account=andrew"] {
        let answer = get(&stack, query).send().await.expect_error(401, "UNAUTHORIZED");
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"berth\"", "{query}");
        post(&stack, query.trim_start_matches('?')).send().await.expect(401);
    }
}

#[tokio::test]
async fn wrong_credentials_are_401_never_anonymous_and_tell_nothing() {
    let stack = with_grants().await;
    let mut answers = Vec::new();
    for (user, password) in [
        ("andrew", "wrong"),
        ("andrew", ""),
        ("andrew", "correct horse "),
        ("Andrew", PASSWORD),
        ("nobody", "wrong"),
        ("nobody", ""),
        ("no such/name", "x"),
        ("", ""),
        ("", PASSWORD),
        ("anonymous", ""),
        ("everyone", "x"),
    ] {
        let query = "?scope=repository:open:pull";
        answers.push(get(&stack, query).basic(user, password).send().await);
        let form = format!("grant_type=password&username={user}&password={password}");
        answers.push(post(&stack, &format!("{form}&scope=repository:open:pull")).send().await);
    }
    for answer in &answers {
        assert_eq!(answer.comparable(), answers[0].comparable());
    }
    let first = answers.swap_remove(0).expect_error(401, "UNAUTHORIZED");
    assert_eq!(first.json()["error"], "invalid_grant");
    assert_eq!(first.header("www-authenticate"), "Basic realm=\"berth\"");
}

#[tokio::test]
async fn a_header_that_is_not_one_readable_basic_is_wrong_credentials() {
    let stack = with_grants().await;
    let good = format!("Basic {}", STANDARD.encode(format!("andrew:{PASSWORD}")));
    let latin1 = format!("Basic {}", STANDARD.encode(b"andrew:p\xe4ss"));
    let no_colon = format!("Basic {}", STANDARD.encode("andrew"));
    for headers in [
        vec![latin1.as_str()],
        vec!["Basic"],
        vec!["Basic "],
        vec!["Basic !!!"],
        vec![""],
        vec![no_colon.as_str()],
        vec!["Bearer x"],
        vec!["Negotiate x"],
        vec![good.as_str(), good.as_str()],
        vec![good.as_str(), "Basic eDp5"],
    ] {
        for method in ["GET", "POST"] {
            let mut call = stack.client.call(method, "/token?scope=repository:open:pull");
            for header in &headers {
                call = call.header("authorization", *header);
            }
            let answer = call.body("scope=repository:open:pull").send().await;
            answer.expect_error(401, "UNAUTHORIZED");
        }
    }
    get(&stack, "")
        .header("authorization", good.replace("Basic", "basic"))
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn a_password_may_hold_colons_spaces_and_letters_beyond_ascii() {
    let stack = with_grants().await;
    stack.set_password("bea", "pä:ss wörd");
    let answer = get(&stack, "").basic("bea", "pä:ss wörd").send().await.expect(200);
    assert_eq!(subject(&answer), "bea");
    let form = "grant_type=password&username=bea&password=p%C3%A4%3Ass+w%C3%B6rd";
    assert_eq!(subject(&post(&stack, form).send().await.expect(200)), "bea");
}

#[tokio::test]
async fn a_form_is_read_whatever_its_headers_say() {
    let stack = with_grants().await;
    let form = format!(
        "grant_type=password&username=andrew&password={PASSWORD}&service=berth\
         &service=ignored&grant_type=password&scope=repository:a:pull"
    )
    .replace(' ', "%20");
    let call = || stack.client.call("POST", "/token").body(form.clone());
    for call in [
        call(),
        call().streamed(),
        call().header("content-type", FORM).streamed(),
        call().header("content-type", format!("{FORM}; charset=utf-8")),
        call().header("content-type", "text/plain"),
    ] {
        assert_eq!(granted(&call.send().await.expect(200)), "repository:a:pull");
    }
    let answer = post(&stack, "scope=repository:a:pull").basic("andrew", PASSWORD);
    assert_eq!(granted(&answer.send().await.expect(200)), "repository:a:pull");
}

#[tokio::test]
async fn other_grants_are_refused() {
    let stack = with_grants().await;
    for (form, status) in [
        ("grant_type=refresh_token&refresh_token=x&scope=repository:open:pull", 401),
        ("grant_type=client_credentials&scope=repository:open:pull", 400),
        ("grant_type=password&scope=repository:open:pull", 401),
        ("grant_type=password&username=andrew&scope=repository:open:pull", 401),
    ] {
        post(&stack, form).send().await.expect(status);
    }
}

#[tokio::test]
async fn a_body_may_have_64_kib() {
    let stack = with_grants().await;
    let mut form = "scope=repository:open:pull&x=".to_owned();
    form.push_str(&"x".repeat(64 * 1024 - form.len()));
    post(&stack, &form).send().await.expect(200);
    form.push('x');
    post(&stack, &form).send().await.expect_error(413, "SIZE_INVALID");
    post(&stack, &form).streamed().send().await.expect_error(413, "SIZE_INVALID");
    post(&stack, &"x".repeat(2 * 1024 * 1024)).send().await.expect_error(413, "SIZE_INVALID");
}

#[tokio::test]
async fn a_query_of_a_mebibyte_is_refused_and_the_next_client_served() {
    let stack = with_grants().await;
    let mut raw = Raw::connect(&stack.client).await;
    let _ = raw.try_send(b"GET /token?scope=").await;
    // The server may answer and close before it has been sent all.
    let _ = raw.try_send("repository:open:pull+".repeat(50_000).as_bytes()).await;
    let status = raw.unchecked_answer(false).await.status.as_u16();
    assert!([414, 431].contains(&status), "{status}");
    get(&stack, "?scope=repository:open:pull").send().await.expect(200);
}

#[tokio::test]
async fn other_methods_are_refused() {
    let stack = with_grants().await;
    for method in ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = stack.client.call(method, "/token").basic("andrew", PASSWORD).send().await;
        assert_eq!(answer.expect(405).header("allow"), "GET, POST", "{method}");
    }
}

#[tokio::test]
async fn while_auth_server_is_down_nobody_gets_a_token() {
    let mut stack = with_grants().await;
    stack.stop_auth().await;
    for call in [
        get(&stack, "?scope=repository:open:pull"),
        get(&stack, "").basic("andrew", PASSWORD),
        get(&stack, "").basic("andrew", "wrong"),
        post(&stack, "scope=repository:open:pull"),
    ] {
        let answer = call.send().await.expect_error(503, "UNAVAILABLE");
        assert_eq!(answer.header("retry-after"), "2");
        assert_eq!(answer.find_header("www-authenticate"), None);
        assert!(answer.json().get("token").is_none());
    }
    stack.start_auth().await;
    get(&stack, "?scope=repository:open:pull").send().await.expect(200);
}

#[tokio::test]
async fn equal_logins_at_once_are_checked_once_and_later_ones_not_at_all() {
    let stack = with_grants().await;
    let login = |password: &'static str| {
        let call = get(&stack, "").basic("andrew", password);
        tokio::spawn(async move { call.send().await.status.as_u16() })
    };
    let before = stack.auth.bcrypt_runs();
    let logins: Vec<_> = (0..10).map(|_| login(PASSWORD)).collect();
    for login in logins {
        assert_eq!(login.await.expect("a login"), 200);
    }
    assert_eq!(stack.auth.bcrypt_runs() - before, 1);
    assert_eq!(login(PASSWORD).await.expect("a login"), 200);
    assert_eq!(stack.auth.bcrypt_runs() - before, 1);
    assert_eq!(login("wrong").await.expect("a login"), 401);
    assert_eq!(login("wrong").await.expect("a login"), 401);
    assert_eq!(stack.auth.bcrypt_runs() - before, 2, "a wrong password is checked once");
    let unknown = get(&stack, "").basic("nobody", PASSWORD);
    unknown.send().await.expect(401);
    assert_eq!(stack.auth.bcrypt_runs() - before, 3, "an unknown user costs the same");
}
