//! Metrics, on a listener of their own.

use std::net::SocketAddr;

use harness::{Stack, stack::Options};
use registry_server::control::Job;
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

#[tokio::test]
async fn a_collection_shows_in_the_metrics() {
    let registry = "metrics = { listen = \"127.0.0.1:0\" }\n".to_owned();
    let stack = Stack::with(Options { registry, ..Options::default() }).await;
    let job = Job::Collect { dry_run: false };
    let socket = stack.root().join("registry").join(registry_server::CONTROL_SOCKET);
    let mut events = job.ask(&socket).await.expect("the control socket");
    while events.recv().await.is_some() {}

    let answer = read(stack.metrics_address()).await;
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    let runs = answer.lines().find_map(|line| line.strip_prefix("berth_collection_runs_total "));
    assert!(runs.is_some_and(|runs| runs != "0"), "{answer}");
}

#[tokio::test]
async fn tokens_and_refusals_show_in_the_metrics() {
    let auth = "metrics = { listen = \"127.0.0.1:0\" }\n".to_owned();
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    stack.token("andrew", &["repository:app:pull"]).await;
    stack.client.call("GET", "/token").basic("andrew", "wrong").send().await.expect(401);
    stack.client.call("GET", "/token").send().await.expect(401);
    let answer = read(stack.auth_metrics_address()).await;
    for series in [
        "berth_tokens_issued_total{method=\"password\"} ",
        "berth_tokens_refused_total{reason=\"wrong_credentials\"} ",
        "berth_tokens_refused_total{reason=\"no_credentials\"} ",
    ] {
        assert!(answer.lines().any(|line| line.starts_with(series)), "{series}: {answer}");
    }
}
