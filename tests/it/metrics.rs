//! Metrics, on a listener of their own.
//!
//! All stacks of this program share one recorder. What is counted can be more than a test did; what
//! is looked up at a scrape is that of the stack that was asked.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path};

use harness::{
    Stack, eventually,
    forger::Forger,
    image::{Image, start_upload},
    stack::Options,
};
use registry_server::{data::CONTROL_SOCKET, jobs::Job};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) async fn read(address: SocketAddr) -> String {
    let mut connection = TcpStream::connect(address).await.expect("the metrics");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await.expect("asking");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// Both servers, with metrics.
async fn measured() -> Stack {
    let listen = "metrics = { listen = \"127.0.0.1:0\" }\n".to_owned();
    Stack::with(Options { auth: listen.clone(), registry: listen, ..Options::default() }).await
}

/// The value of a series, written as the exposition format writes it.
fn find(answer: &str, series: &str) -> Option<f64> {
    let line = answer.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("a number"))
}

pub(crate) fn value(answer: &str, series: &str) -> f64 {
    find(answer, series).unwrap_or_else(|| panic!("no {series} in {answer}"))
}

async fn collect(stack: &Stack) {
    let socket = stack.root().join("registry").join(CONTROL_SOCKET);
    let job = Job::Collect { dry_run: false };
    let mut events = job.ask(&socket).await.expect("the control socket");
    while events.recv().await.is_some() {}
}

#[tokio::test]
async fn a_collection_shows_in_the_metrics() {
    let stack = measured().await;
    collect(&stack).await;
    let answer = read(stack.metrics_address()).await;
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    assert!(value(&answer, "berth_collection_runs_total") > 0.0);
    assert!(value(&answer, "berth_collection_last_seconds") >= 0.0);
    assert!(find(&answer, "berth_collection_removed_total{kind=\"blob\"}").is_some());
}

#[tokio::test]
async fn tokens_and_refusals_show_in_the_metrics() {
    let stack = measured().await;
    stack.grant("andrew", "app:pull").await;
    stack.token("andrew", &["repository:app:pull"]).await;
    stack.token("andrew", &["repository:app:pull"]).await;
    stack.token("andrew", &["repository:app:pull,push"]).await;
    stack.token("andrew", &["repository:other:pull"]).await;
    for _ in 0..2 {
        stack.client.call("GET", "/token").basic("andrew", "wrong").send().await.expect(401);
    }
    stack.client.call("GET", "/token").send().await.expect(401);
    let answer = read(stack.auth_metrics_address()).await;
    for series in [
        "berth_tokens_issued_total{method=\"password\"}",
        "berth_tokens_denied_total{withheld=\"part\"}",
        "berth_tokens_denied_total{withheld=\"everything\"}",
        "berth_tokens_refused_total{reason=\"wrong_credentials\"}",
        "berth_tokens_refused_total{reason=\"no_credentials\"}",
        "berth_password_checks_total{outcome=\"right\"}",
        "berth_password_checks_total{outcome=\"remembered_right\"}",
        "berth_password_checks_total{outcome=\"wrong\"}",
        "berth_password_checks_total{outcome=\"remembered_wrong\"}",
        "berth_bcrypt_runs_total",
        "berth_policy_looks_total",
        "berth_policy_reads_total",
        "berth_token_signing_duration_seconds_count",
        "berth_requests_total{server=\"auth\",endpoint=\"token\",method=\"read\",status=\"200\"}",
        "berth_requests_total{server=\"auth\",endpoint=\"token\",method=\"read\",status=\"401\"}",
        "berth_sent_bytes_total{server=\"auth\",endpoint=\"token\"}",
    ] {
        assert!(value(&answer, series) > 0.0, "{series}");
    }
    for (series, expected) in [
        ("berth_users", 1.0),
        ("berth_robots", 0.0),
        ("berth_groups", 0.0),
        ("berth_rules{effect=\"allow\"}", 1.0),
        ("berth_rules{effect=\"deny\"}", 0.0),
        ("berth_signing_keys", 2.0),
        ("berth_htpasswd_usable", 1.0),
        ("berth_bcrypt_running", 0.0),
        ("berth_bcrypt_waiting", 0.0),
    ] {
        assert_eq!(value(&answer, series), expected, "{series}");
    }
}

#[tokio::test]
async fn an_htpasswd_file_that_cannot_be_used_shows_in_the_metrics() {
    let stack = measured().await;
    fs::write(stack.root().join("htpasswd"), "").expect("emptying it");
    eventually("it shows", async || {
        let answer = read(stack.auth_metrics_address()).await;
        (value(&answer, "berth_htpasswd_usable") == 0.0).then_some(())
    })
    .await;
    let answer = read(stack.auth_metrics_address()).await;
    assert_eq!(value(&answer, "berth_users"), 1.0, "the old users stay");
}

#[tokio::test]
async fn what_is_stored_and_who_came_for_it_shows_in_the_metrics() {
    let stack = measured().await;
    let image = Image::new("metrics");
    let token = stack.full_token("team/app").await;
    image.push(&stack.client, &token, "team/app", "v1").await;
    start_upload(&stack.client, &token, "team/app").await;
    for _ in 0..2 {
        stack.client.get(&token, "/v2/team/app/manifests/v1").await.expect(200);
    }
    stack.client.call("GET", "/v2/").send().await.expect(401);
    stack.client.call("GET", "/v2/").basic("andrew", "wrong").send().await.expect(401);
    stack.client.get(&token, "/v2/other/tags/list").await.expect(401);

    let answer = read(stack.metrics_address()).await;
    let bytes = (image.config.len() + image.layer.len()) as f64;
    for (series, expected) in [
        ("berth_store_repositories", 1.0),
        ("berth_store_manifests", 1.0),
        ("berth_store_tags", 1.0),
        ("berth_store_blobs", 2.0),
        ("berth_store_bytes", bytes),
        ("berth_store_damaged_blobs", 0.0),
        ("berth_uploads_open", 1.0),
        ("berth_uploads_receiving", 0.0),
        ("berth_uploads_receiving_max", 32.0),
        ("berth_read_only", 0.0),
        ("berth_auth_server_up", 1.0),
        ("berth_verification_keys", 2.0),
    ] {
        assert_eq!(value(&answer, series), expected, "{series}");
    }
    for series in counted(&stack.auth.key_id()) {
        assert!(value(&answer, &series) > 0.0, "{series}: {answer}");
    }
}

/// What a push, two pulls and three refusals count, with tokens signed by `key`.
fn counted(key: &str) -> Vec<String> {
    let at = |endpoint: &str, method: &str, status: u16| {
        format!(
            "berth_requests_total{{server=\"registry\",endpoint=\"{endpoint}\",\
             method=\"{method}\",status=\"{status}\"}}"
        )
    };
    vec![
        at("read_manifest", "read", 200),
        at("put_manifest", "write", 201),
        at("start_upload", "write", 202),
        at("ping", "read", 401),
        at("token", "read", 200),
        format!("berth_token_verifications_total{{key=\"{key}\",result=\"good\"}}"),
        "berth_token_cache_hits_total".to_owned(),
        "berth_requests_denied_total{reason=\"no_token\"}".to_owned(),
        "berth_requests_denied_total{reason=\"bad_password\"}".to_owned(),
        "berth_requests_denied_total{reason=\"insufficient_scope\"}".to_owned(),
        "berth_metadata_cache_total{result=\"hit\"}".to_owned(),
        "berth_metadata_cache_total{result=\"miss\"}".to_owned(),
        "berth_store_free_bytes".to_owned(),
        "berth_database_bytes{server=\"registry\",file=\"main\"}".to_owned(),
        "berth_database_bytes{server=\"registry\",file=\"wal\"}".to_owned(),
        "berth_received_bytes_total{server=\"registry\",endpoint=\"start_upload\"}".to_owned(),
        "berth_sent_bytes_total{server=\"registry\",endpoint=\"read_manifest\"}".to_owned(),
        "berth_request_duration_seconds_count{server=\"registry\",endpoint=\"ping\"}".to_owned(),
        format!(
            "berth_build_info{{server=\"registry\",version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        ),
    ]
}

#[tokio::test]
async fn a_lost_auth_server_shows_in_the_metrics() {
    let mut stack = measured().await;
    stack.stop_auth().await;
    let age = eventually("the registry notices", async || {
        let answer = read(stack.metrics_address()).await;
        let age = value(&answer, "berth_revocations_age_seconds");
        (value(&answer, "berth_auth_server_up") == 0.0).then_some(age)
    })
    .await;
    eventually("the word on revocations gets older", async || {
        let answer = read(stack.metrics_address()).await;
        (value(&answer, "berth_revocations_age_seconds") > age).then_some(())
    })
    .await;
    stack.start_auth().await;
    eventually("the registry notices that too", async || {
        let answer = read(stack.metrics_address()).await;
        let is_young = value(&answer, "berth_revocations_age_seconds") < 2.0;
        (value(&answer, "berth_auth_server_up") == 1.0 && is_young).then_some(())
    })
    .await;
}

#[tokio::test]
async fn clients_make_no_series_and_nobody_is_named() {
    let stack = measured().await;
    let token = stack.full_token("secret/project").await;
    Image::new("named").push(&stack.client, &token, "secret/project", "v1").await;
    stack.client.call("INVENTED", "/v2/secret/project/manifests/v1").send().await;
    stack.client.call("GET", "/invented/path").send().await.expect(404);
    stack.client.call("GET", "/v2/invented/manifests/invented").bearer(&token).send().await;
    stack.client.call("GET", "/token").basic("invented", "wrong").send().await.expect(401);
    let forger = Forger::attacker("invented-key");
    let claims = json!({ "iss": "berth", "sub": "invented" });
    let forged = forger.sign(&forger.header(), &claims);
    stack.client.get(&forged, "/v2/").await.expect(401);
    // The id of the true key under another signature counts as what it is.
    let forger = Forger::attacker(&stack.auth.key_id());
    let forged = forger.sign(&forger.header(), &claims);
    stack.client.get(&forged, "/v2/").await.expect(401);

    let answer = read(stack.metrics_address()).await + &read(stack.auth_metrics_address()).await;
    for series in [
        "berth_token_verifications_total{key=\"other\",result=\"unknown_key\"}".to_owned(),
        format!(
            "berth_token_verifications_total{{key=\"{}\",result=\"signature\"}}",
            stack.auth.key_id()
        ),
    ] {
        assert!(value(&answer, &series) > 0.0, "{series}");
    }
    let series: String = answer.lines().filter(|line| !line.starts_with('#')).collect();
    for name in ["invented", "INVENTED", "secret", "project", "andrew", "127.0.0.1", "localhost"] {
        assert!(!series.contains(name), "{name}: {answer}");
    }
}

#[tokio::test]
async fn metrics_are_on_no_other_listener() {
    let stack = measured().await;
    let token = stack.full_token("app").await;
    for path in ["/metrics", "/v2/metrics", "/metrics/"] {
        let plain = stack.client.call("GET", path).send().await.expect(404);
        let signed_in = stack.client.get(&token, path).await.expect(404);
        for answer in [plain, signed_in] {
            assert!(!answer.comparable().contains("berth_"), "{path}");
        }
    }
    assert!(stack.metrics_address().ip().is_loopback());
    assert!(stack.auth_metrics_address().ip().is_loopback());
}

fn text(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every word of Berth's metrics in `text`.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("berth_"));
    words.map(ToOwned::to_owned).collect()
}

/// The series that both servers tell once each of them has something to tell.
async fn told() -> BTreeSet<String> {
    let stack = measured().await;
    let token = stack.full_token("app").await;
    Image::new("told").push(&stack.client, &token, "app", "v1").await;
    collect(&stack).await;
    // Until one of them is held up.
    for n in 0..5 {
        let call = stack.client.call("GET", "/token").basic("andrew", &format!("wrong {n}"));
        call.send().await.expect(401);
    }
    let answer = read(stack.metrics_address()).await + &read(stack.auth_metrics_address()).await;
    let kinds = answer.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let told: BTreeSet<_> =
        kinds.filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect();
    for name in &told {
        assert!(answer.contains(&format!("# HELP {name} ")), "{name} is not explained");
    }
    told
}

#[tokio::test]
async fn what_the_documents_and_the_dashboard_name_is_what_the_servers_tell() {
    let told = told().await;
    let operating = text("docs/OPERATING.md");
    let (_, section) = operating.split_once("\n## Metrics\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("an end");
    let rows: String = section.lines().filter(|line| line.starts_with("| `")).collect();
    let of_postgres =
        ["connections", "connections_max", "repeats_total", "clock_difference_seconds"];
    let of_postgres = of_postgres.map(|name| format!("berth_database_{name}"));
    for name in &of_postgres {
        assert!(operating.contains(&format!("`{name}")), "{name} is not in docs/OPERATING.md");
    }
    let told: BTreeSet<_> = told.into_iter().filter(|name| !of_postgres.contains(name)).collect();
    assert_eq!(names(&rows), told, "docs/OPERATING.md and the servers");

    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/berth.json")).expect("JSON");
    let mut asked = String::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query");
            assert!(!names(query).is_empty(), "{query}");
            asked.push_str(query);
            asked.push('\n');
        }
    }
    let rules = text("deploy/prometheus/berth.rules.yml");
    let queries = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    asked.extend(queries.flat_map(|line| [line, "\n"]));
    for name in names(&asked) {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part))
            .unwrap_or(&name);
        assert!(told.contains(&name) || told.contains(base), "{name} is asked for and not told");
    }
    assert!(names(&asked).len() > 40, "the queries were found");
}
