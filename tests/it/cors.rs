//! Pages of other origins, as a browser asks for them (Fetch, CORS).

use harness::{
    Response, Stack,
    client::Call,
    image::Image,
    stack::{Options, PASSWORD},
};

const PAGE: &str = "https://ui.example.org";

async fn with_pages() -> Stack {
    let registry = format!("cors.allowed_origins = ['http://localhost:8080', '{PAGE}']\n");
    Stack::with(Options { registry, ..Options::default() }).await
}

fn preflight(stack: &Stack, target: &str, origin: &str, headers: &str) -> Call {
    let call = stack.client.call("OPTIONS", target).header("origin", origin);
    call.header("access-control-request-method", "GET")
        .header("access-control-request-headers", headers)
}

fn is_said_nothing(answer: &Response) {
    for name in ["access-control-allow-origin", "access-control-allow-credentials"] {
        assert_eq!(answer.find_header(name), None, "{answer:?}");
    }
}

#[tokio::test]
async fn a_browser_is_told_what_a_page_may_before_anybody_signs_in() {
    let stack = with_pages().await;
    for target in ["/v2/", "/v2/_catalog", "/v2/app/manifests/v1", "/token?scope=x"] {
        for origin in [PAGE, "http://localhost:8080"] {
            let answer = preflight(&stack, target, origin, "authorization,accept").send().await;
            let answer = answer.expect(200);
            assert_eq!(answer.header("access-control-allow-origin"), origin);
            assert!(answer.header("access-control-allow-headers").contains("authorization"));
            assert!(answer.header("access-control-allow-methods").contains("PATCH"));
            assert_eq!(answer.find_header("access-control-allow-credentials"), None);
            assert!(answer.body.is_empty());
        }
        for origin in ["https://evil.example.org", "null", "http://ui.example.org", ""] {
            is_said_nothing(&preflight(&stack, target, origin, "authorization").send().await);
        }
        // Nothing of it comes back.
        let long = "x-a,".repeat(2500);
        let answer = preflight(&stack, target, PAGE, &long).send().await;
        let length: usize = answer.headers.iter().map(|(_, value)| value.len()).sum();
        assert!(length < 2000, "{length} bytes");
    }
}

#[tokio::test]
async fn a_page_reads_the_challenge_and_what_describes_content() {
    let stack = with_pages().await;
    let token = stack.full_token("app").await;
    Image::new("seen").push(&stack.client, &token, "app", "v1").await;
    let manifest = "/v2/app/manifests/v1";
    for (call, status) in [
        (stack.client.call("GET", "/v2/"), 401),
        (
            stack.client.call("GET", "/token?scope=repository:app:pull").basic("andrew", PASSWORD),
            200,
        ),
        (stack.client.call("GET", "/token").basic("andrew", "wrong"), 401),
        (stack.client.call("GET", manifest).bearer(&token), 200),
    ] {
        let answer = call.header("origin", PAGE).send().await.expect(status);
        assert_eq!(answer.header("access-control-allow-origin"), PAGE);
        assert_eq!(answer.find_header("access-control-allow-credentials"), None);
        let exposed = answer.header("access-control-expose-headers");
        for name in ["docker-content-digest", "link", "www-authenticate"] {
            assert!(exposed.contains(name), "{exposed}");
        }
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert!(vary.iter().any(|it| *it == "Authorization"), "{vary:?}");
        assert!(vary.iter().any(|it| it.to_str().unwrap().contains("origin")), "{vary:?}");
    }
    let other = stack.client.call("GET", manifest).bearer(&token).header("origin", "https://x.org");
    is_said_nothing(&other.send().await.expect(200));
}

#[tokio::test]
async fn without_the_setting_browsers_are_told_nothing() {
    let stack = Stack::start().await;
    is_said_nothing(&preflight(&stack, "/v2/", PAGE, "authorization").send().await.expect(401));
    is_said_nothing(&preflight(&stack, "/token", PAGE, "authorization").send().await.expect(405));
    let call = stack.client.call("GET", "/v2/").header("origin", PAGE);
    is_said_nothing(&call.send().await.expect(401));
}
