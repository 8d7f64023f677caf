//! Advisories on passwords, and on what stands between the servers and the network; see
//! `advisories`.

use std::fs;

use harness::{
    Stack,
    stack::{Options, PASSWORD},
};

const TOKEN: &str = "/token?scope=repository:app:pull";

async fn status(stack: &Stack, user: &str, password: &str) -> u16 {
    let answer = stack.client.call("GET", TOKEN).basic(user, password).send().await;
    answer.status.as_u16()
}

/// bcrypt looks at 72 bytes: Okta's cache took long names for passwords, and many programs take
/// whatever begins like a long password.
#[tokio::test]
async fn okta_2024_what_bcrypt_does_not_look_at_is_no_password() {
    let stack = Stack::start().await;
    let longest = "x".repeat(72);
    stack.set_password("andrew", &longest);
    assert_eq!(status(&stack, "andrew", &longest).await, 200);
    for tail in ["x", "\0", "y and more"] {
        let longer = format!("{longest}{tail}");
        assert_eq!(status(&stack, "andrew", &longer).await, 401, "{tail:?}");
    }
    // Whoever asks is told what is wrong, whatever the name: it says nothing of that.
    let longer = format!("{longest}x");
    for user in ["andrew", "nobody", "no name"] {
        for target in [TOKEN, "/v2/"] {
            let answer = stack.client.call("GET", target).basic(user, &longer).send().await;
            let answer = answer.expect_error(401, "UNAUTHORIZED").json().to_string();
            assert!(answer.contains("more than 72 bytes"), "{user} {target}: {answer}");
        }
    }
    // A user name cannot make up for what the password lacks.
    assert_eq!(status(&stack, &format!("andrew{longest}"), "").await, 401);
}

/// An empty password is nobody's, also where a directory would take it for an anonymous bind.
#[tokio::test]
async fn rfc_4513_an_empty_password_signs_nobody_in() {
    let stack = Stack::start().await;
    for user in ["andrew", "nobody", "", "anonymous", "robot.ci", "<token>"] {
        assert_eq!(status(&stack, user, "").await, 401, "{user}");
    }
}

/// Names are compared byte for byte: no case, no blanks, no look-alikes.
#[tokio::test]
async fn no_other_spelling_of_a_name_is_that_user() {
    let stack = Stack::start().await;
    assert_eq!(status(&stack, "andrew", PASSWORD).await, 200);
    for name in ["Andrew", "ANDREW", " andrew", "andrew ", "аndrew", "andrew\u{301}", "andrew\0"] {
        assert_eq!(status(&stack, name, PASSWORD).await, 401, "{name:?}");
    }
}

/// Caddy #3462 and its kin: a cache of passwords that outlives the stored hash, or takes failures
/// for successes.
#[tokio::test]
async fn caddy_3462_what_is_remembered_dies_with_the_stored_hash() {
    let stack = Stack::start().await;
    let begun = stack.auth.bcrypt_runs();
    for _ in 0..3 {
        assert_eq!(status(&stack, "andrew", PASSWORD).await, 200);
    }
    assert_eq!(stack.auth.bcrypt_runs() - begun, 1, "the success is remembered");
    // The same password under another salt is another hash.
    stack.set_password("andrew", PASSWORD);
    assert_eq!(status(&stack, "andrew", PASSWORD).await, 200);
    assert_eq!(stack.auth.bcrypt_runs() - begun, 2, "and not beyond its hash");
    stack.set_password("andrew", "another");
    assert_eq!(status(&stack, "andrew", PASSWORD).await, 401);
    assert_eq!(status(&stack, "andrew", "another").await, 200);
    // A password of one user says nothing about another's.
    stack.set_password("bea", "third");
    assert_eq!(status(&stack, "bea", "another").await, 401);
}

/// The crate for htpasswd files panics on half a line and takes passwords in plain text.
#[tokio::test]
async fn legacy_hashes_sign_nobody_in_and_the_others_go_on() {
    let stack = Stack::start().await;
    let bcrypt = bcrypt::hash("right", 4).expect("a hash");
    let lines = format!(
        "plain:secret\nsha:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\nmd5:$apr1$x$short\n\
         dear:{}\nhalf:$2y$\nbea:{bcrypt}\n",
        bcrypt.replace("$04$", "$31$")
    );
    fs::write(stack.root().join("htpasswd"), lines).expect("writing");
    for (user, password) in
        [("plain", "secret"), ("sha", "secret"), ("md5", "x"), ("dear", "right")]
    {
        assert_eq!(status(&stack, user, password).await, 401, "{user}");
    }
    assert_eq!(status(&stack, "half", "").await, 401);
    assert_eq!(status(&stack, "bea", "right").await, 200);
}

/// What administers, or tells who may do what, is on no listener that others reach.
#[tokio::test]
async fn nothing_that_administers_is_on_a_public_listener() {
    let auth = "[public]\nlisten = '127.0.0.1:0'\ncertificate = 'server.pem'\nkey = 'server.key'\n"
        .to_owned();
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    let public = stack.auth_public_client();
    public.call("GET", "/keys").send().await.expect(200);
    public.call("GET", "/token").basic("andrew", PASSWORD).send().await.expect(200);
    for client in [&public, &stack.client] {
        for path in ["/revocations", "/rights?subject=andrew", "/metrics", "/jobs", "/audit"] {
            for method in ["GET", "POST"] {
                let answer = client.call(method, path).basic("andrew", PASSWORD).send().await;
                assert_eq!(answer.status.as_u16(), 404, "{method} {path}");
            }
        }
    }
}

/// A cache in front must not give one reader what another was given.
#[tokio::test]
async fn answers_differ_by_who_asks_and_tokens_are_stored_nowhere() {
    let stack = Stack::start().await;
    let token = stack.full_token("app").await;
    for call in [
        stack.client.call("GET", "/v2/"),
        stack.client.call("GET", "/v2/app/tags/list").bearer(&token),
        stack.client.call("HEAD", "/v2/app/manifests/v1").bearer(&token),
        stack.client.call("GET", "/v2/_catalog").bearer(&token),
    ] {
        assert_eq!(call.send().await.header("vary"), "Authorization");
    }
    for password in [PASSWORD, "wrong"] {
        let answer = stack.client.call("GET", TOKEN).basic("andrew", password).send().await;
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("pragma"), "no-cache");
    }
}
