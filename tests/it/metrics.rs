//! Metrics, on a listener of their own.

use harness::{Stack, stack::Options};
use registry_server::control::Job;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn a_collection_shows_in_the_metrics() {
    let registry = "metrics = { listen = \"127.0.0.1:0\" }\n".to_owned();
    let stack = Stack::with(Options { registry, ..Options::default() }).await;
    let job = Job::Collect { dry_run: false };
    let socket = stack.root().join("registry").join(registry_server::CONTROL_SOCKET);
    let mut events = job.ask(&socket).await.expect("the control socket");
    while events.recv().await.is_some() {}

    let mut connection = TcpStream::connect(stack.metrics_address()).await.expect("the metrics");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await.expect("asking");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    let runs = answer.lines().find_map(|line| line.strip_prefix("berth_collection_runs_total "));
    assert!(runs.is_some_and(|runs| runs != "0"), "{answer}");
}
