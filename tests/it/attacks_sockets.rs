//! Attacks, or accidents: what becomes of a server whose Unix socket somebody deletes, and of one that
//! may open few files.

use std::{fs, path::Path};

use berth_shared::serve::health;
use harness::{
    Stack,
    events::Recording,
    eventually,
    stack::{Options, PASSWORD},
};

async fn is_back(socket: &Path) {
    eventually("the socket is made again", async || health::ask(socket).await.ok()).await;
}

#[tokio::test]
async fn a_deleted_socket_is_made_again_and_people_sign_in() {
    let stack = Stack::start().await;
    let auth = stack.auth.config().socket.clone();
    let control = stack.root().join("registry/registry.sock");
    for socket in [&auth, &control] {
        for _ in 0..2 {
            fs::remove_file(socket).expect("deleting");
            is_back(socket).await;
        }
    }
    let sign_in = stack.client.call("GET", "/token?service=berth").basic("andrew", PASSWORD);
    sign_in.send().await.expect(200);
    stack.client.call("GET", "/readyz").send().await.expect(200);
}

#[tokio::test]
async fn a_server_whose_socket_cannot_be_made_again_is_not_ready() {
    let stack = Stack::start().await;
    let control = stack.root().join("registry/registry.sock");
    let aside = stack.root().join("registry/aside");
    fs::rename(&control, &aside).expect("moving");
    fs::create_dir(&control).expect("something else");
    let ready = async || stack.client.call("GET", "/readyz").send().await.status.as_u16();
    let becomes = async |status| {
        let is_so = async || (ready().await == status).then_some(());
        eventually("/readyz says it", is_so).await;
    };
    becomes(503).await;
    // It is not forgotten, and nothing of others is deleted.
    assert!(
        health::ask(&aside).await.is_err_and(|reason| reason.contains("registry.sock is gone"))
    );
    fs::remove_dir(&control).expect("what lay there");
    is_back(&control).await;
    becomes(200).await;
}

/// Else nobody would know why connections are turned away.
#[tokio::test]
async fn a_server_that_may_open_fewer_files_than_it_needs_says_so() {
    let recording = Recording::start();
    let listen = "listen = '127.0.0.1:0'\ncertificate = 'server.pem'\nkey = 'server.key'";
    let auth = format!("[public]\n{listen}\n[limits]\nconnections_max = {}\n", u32::MAX);
    let _stack = Stack::with(Options { auth, link: false, ..Options::default() }).await;
    let needed = format!("needed={} ", u64::from(u32::MAX) + 1024 + 64);
    let told = recording.take().into_iter().find(|event| event.text.contains(&needed));
    assert!(told.is_some_and(|event| event.text.contains("few files may be open at once")));
}
