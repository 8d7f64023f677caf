//! What clients are told when something is wrong: one row per request, compared byte for byte with
//! `tests/golden/errors.tsv`.
//!
//! After a change that is meant, `BERTH_BLESS=1 cargo test -p berth-tests --test it golden` writes
//! the file anew; the diff is then read like any other.

use std::{fmt::Write, path::Path};

use bytes::Bytes;
use harness::{
    Client, Options, Response, Stack,
    client::Call,
    image::{Image, MANIFEST, digest_of},
};

use crate::attacks_writer::Held;

/// Requests by name.
type Rows = Vec<(&'static str, Call)>;

#[tokio::test]
async fn every_refusal_reads_as_in_the_golden_table() {
    let mut stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let image = Image::new("golden");
    image.push(&stack.client, &token, "app", "v1").await;
    let mut rows = paths(&stack.client, &token);
    rows.extend(challenges(&stack));
    rows.extend(contents(&stack.client, &token, &image));
    rows.extend(sign_ins(&stack.client));
    let mut table = String::from("request\tstatus\tcode\tchallenge\tmessage\n");
    for (name, call) in rows {
        write_row(&mut table, name, &call.send().await);
    }
    stack.stop_auth().await;
    let down = stack.client.call("GET", "/token?scope=repository:app:pull");
    write_row(&mut table, "sign-in while auth-server is down", &down.send().await);
    let down = stack.client.call("GET", "/v2/_catalog").bearer(&token);
    write_row(&mut table, "catalog while auth-server is down", &down.send().await);
    write_row(&mut table, "write while the database is held", &refused_write().await);
    compare(&table);
}

/// What a write gets for which there is no turn in time.
async fn refused_write() -> Response {
    let registry_limits = "write_secs_max = 1".to_owned();
    let stack = Stack::with(Options { registry_limits, ..Options::default() }).await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let _held = Held::hold(&stack).await;
    let answer = stack.client.call("POST", "/v2/app/blobs/uploads/").bearer(&token).send().await;
    assert_eq!(answer.header("retry-after"), "2");
    answer
}

fn write_row(table: &mut String, name: &str, answer: &Response) {
    assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{name}");
    let json = answer.json();
    let error = &json["errors"][0];
    let text = |key: &str| error[key].as_str().expect("text").to_owned();
    let challenge = answer.find_header("www-authenticate").unwrap_or("-");
    let status = answer.status.as_u16();
    let (code, message) = (text("code"), without_digests(&text("message")));
    writeln!(table, "{name}\t{status}\t{code}\t{challenge}\t{message}").expect("a row");
}

/// Which digest an image has is not what the table is about.
fn without_digests(message: &str) -> String {
    let is_digest = |word: &str| word.parse::<berth_shared::digest::Digest>().is_ok();
    let words = message.split(' ').map(|word| if is_digest(word) { "DIGEST" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[expect(clippy::disallowed_methods, reason = "a switch for whoever changes the table")]
fn compare(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/errors.tsv");
    if std::env::var("BERTH_BLESS").is_ok() {
        std::fs::write(&path, table).expect("writing the table");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden table");
    for (line, expected) in table.lines().zip(golden.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(table, golden);
}

fn paths(client: &Client, token: &str) -> Rows {
    let call = |method, target: &str| client.call(method, target).bearer(token);
    vec![
        ("no such path", call("GET", "/v2/app")),
        ("name in capitals", call("GET", "/v2/App/tags/list")),
        ("name with dots", call("GET", "/v2/a/../b/tags/list")),
        ("name with an escape", call("GET", "/v2/a%2fb/tags/list")),
        ("empty name", call("GET", "/v2//tags/list")),
        ("digest too short", call("GET", "/v2/app/blobs/sha256:abc")),
        ("digest of another kind", call("GET", "/v2/app/manifests/md5:00")),
        ("tag with a bad sign", call("GET", "/v2/app/manifests/-v1")),
        ("tag too long", call("GET", &format!("/v2/app/manifests/{}", "a".repeat(129)))),
        ("upload id of another form", call("GET", "/v2/app/blobs/uploads/..")),
        ("POST to ping", call("POST", "/v2/")),
        ("DELETE of the catalog", call("DELETE", "/v2/_catalog")),
        ("PUT of tags", call("PUT", "/v2/app/tags/list")),
        ("POST of referrers", call("POST", &format!("/v2/app/referrers/{}", digest_of(b"")))),
        ("PUT of a blob", call("PUT", &format!("/v2/app/blobs/{}", digest_of(b"")))),
        ("POST of a manifest", call("POST", "/v2/app/manifests/v1")),
        ("GET of uploads", call("GET", "/v2/app/blobs/uploads/")),
        ("POST to an upload", call("POST", &format!("/v2/app/blobs/uploads/{}", "0".repeat(32)))),
        ("page of a bad size", call("GET", "/v2/app/tags/list?n=x")),
    ]
}

fn challenges(stack: &Stack) -> Rows {
    let client = &stack.client;
    let nothing = stack.forged_token("bea", &[]);
    let nobody = stack.forged_token("", &[]);
    vec![
        ("ping without a token", client.call("GET", "/v2/")),
        ("catalog without a token", client.call("GET", "/v2/_catalog")),
        ("pull without a token", client.call("GET", "/v2/app/manifests/v1")),
        ("pull with a bad token", client.call("GET", "/v2/app/tags/list").bearer("x")),
        ("pull without the right", client.call("GET", "/v2/app/tags/list").bearer(&nothing)),
        ("push without the right", client.call("PUT", "/v2/app/manifests/v1").bearer(&nothing)),
        (
            "delete without the right",
            client.call("DELETE", "/v2/app/manifests/v1").bearer(&nothing),
        ),
        ("method that is not there without a token", client.call("POST", "/v2/app/manifests/v1")),
        ("pull by nobody", client.call("GET", "/v2/app/manifests/v1").bearer(&nobody)),
    ]
}

fn contents(client: &Client, token: &str, image: &Image) -> Rows {
    let call = |method, target: &str| client.call(method, target).bearer(token);
    let put = |body: &str| {
        let call = call("PUT", "/v2/app/manifests/x").header("content-type", MANIFEST);
        call.body(Bytes::from(body.to_owned()))
    };
    let missing = digest_of(b"missing");
    let layer = digest_of(&image.layer);
    let names = format!(r#"{{"schemaVersion":2,"layers":[{{"digest":"{missing}"}}]}}"#);
    let range = call("GET", &format!("/v2/app/blobs/{layer}")).header("range", "bytes=900-999");
    vec![
        ("unknown manifest", call("GET", "/v2/app/manifests/x")),
        ("unknown blob", call("GET", &format!("/v2/app/blobs/{missing}"))),
        ("unknown upload", call("GET", &format!("/v2/app/blobs/uploads/{}", "0".repeat(32)))),
        ("blob in use", call("DELETE", &format!("/v2/app/blobs/{layer}"))),
        ("range outside", range),
        ("wrong digest", call("POST", &format!("/v2/app/blobs/uploads/?digest={missing}"))),
        ("bad digest", call("POST", "/v2/app/blobs/uploads/?digest=x")),
        ("bad algorithm", call("POST", "/v2/app/blobs/uploads/?digest-algorithm=md5")),
        ("schema 1", put(r#"{"schemaVersion":1}"#)),
        ("names what is missing", put(&names)),
        ("too large", put(&" ".repeat(4 * 1024 * 1024 + 1))),
        ("contradictory", put(r#"{"schemaVersion":2,"mediaType":"a/b"}"#)),
        ("bad tag parameter", call("PUT", "/v2/app/manifests/x?tag=-")),
    ]
}

fn sign_ins(client: &Client) -> Rows {
    let form = |body: &str| {
        let kind = "application/x-www-form-urlencoded";
        let call = client.call("POST", "/token").header("content-type", kind);
        call.body(Bytes::from(body.to_owned()))
    };
    vec![
        ("wrong password", client.call("GET", "/token").basic("andrew", "wrong")),
        ("unknown user", client.call("GET", "/token").basic("nobody", "wrong")),
        ("login with blanks", client.call("GET", "/token?service=berth")),
        ("unknown service", client.call("GET", "/token?service=other&scope=x")),
        ("unknown grant", form("grant_type=device_code&scope=repository:app:pull")),
        ("refresh token", form("grant_type=refresh_token&refresh_token=x&scope=a")),
        ("body too long", form(&"x".repeat(64 * 1024 + 1))),
        ("other method", client.call("DELETE", "/token")),
    ]
}

#[tokio::test]
async fn every_answer_of_the_token_endpoint_says_which_api_this_is() {
    let mut stack = Stack::start().await;
    let mut answers = vec![
        stack.client.call("GET", "/token").send().await.expect(401),
        stack.client.call("GET", "/token?scope=repository:app:pull").send().await.expect(200),
        stack.client.call("PUT", "/token").send().await.expect(405),
    ];
    stack.stop_auth().await;
    answers.push(stack.client.call("GET", "/token").send().await.expect(503));
    for answer in answers {
        let version = answer.find_header("docker-distribution-api-version");
        assert_eq!(version, Some("registry/2.0"), "{}", answer.status);
    }
}
