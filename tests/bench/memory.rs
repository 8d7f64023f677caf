//! What both servers hold in memory: at rest, while many pull and push at once, and with thousands of
//! connections that say nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use ::http::StatusCode;
use tokio::{net::TcpStream, process::Command, task::JoinSet, time::sleep};
use tokio_rustls::client::TlsStream;

use crate::{
    Options,
    berth::{Installation, REGISTRY},
    content::{BLOB_TYPE, Content},
    peer::{Memory, Name, Peer},
    start::Place,
    tool::run,
};

/// How many pull, and how many push, at once.
const TRANSFERS: usize = 200;

/// Among whom they are: of one user eight pushes have a place, and the others wait.
const USERS: usize = 25;

/// Connections that say nothing, and how many are opened at once.
const IDLE: usize = 5000;
const HANDSHAKES: usize = 100;

/// Reads memory in each state, and prints the table.
pub(crate) async fn measure(options: &Options, bin: &Path, root: &Path) -> io::Result<()> {
    let berth = Installation::make(bin, root, Name::BerthTls, &Place::default()).await?;
    let users: Vec<String> = (0..USERS).map(|number| format!("user{number}")).collect();
    for user in &users {
        berth.add_user(user, "bench/**:pull,push").await?;
    }
    let mut peer = berth.start().await?;
    sleep(Duration::from_secs(options.rest_secs)).await;
    let rest = held(&peer, |memory| memory.now);
    let mut content = Content::make(root, options.blob_mib, 0)?;
    content.push_to(&peer).await?;
    transfers(&peer, &users, &content, root).await?;
    let loaded = held(&peer, |memory| memory.most);
    peer.end().await;
    berth.set(REGISTRY, |registry| {
        let most = i64::try_from(2 * IDLE).unwrap_or(i64::MAX);
        let limits = ["connections_max", "connections_per_network_max"];
        let limits = limits.map(|limit| (limit.to_owned(), most.into()));
        registry.insert("limits".to_owned(), toml::Table::from_iter(limits).into());
    })?;
    let mut peer = berth.start().await?;
    let idle = connections(&peer).await?;
    let idled = held(&peer, |memory| memory.now);
    println!("\nResident memory of Berth, TLS:\n");
    println!("| when | auth-server | registry-server |\n|---|---|---|");
    println!("| at rest, {} s after the start | {rest} |", options.rest_secs);
    println!(
        "| at most, with {TRANSFERS} pulls and {TRANSFERS} pushes of {} MiB by {USERS} users at once | {loaded} |",
        options.blob_mib
    );
    println!("| with {} idle connections, where settings allow as many | {idled} |", idle.len());
    drop(idle);
    peer.end().await;
    Ok(())
}

/// What each of the servers holds, as cells of a table.
fn held(peer: &Peer, which: impl Fn(Memory) -> f64) -> String {
    let of = peer.servers.iter().map(|server| format!("{:.0} MiB", which(Memory::of(server))));
    of.collect::<Vec<_>>().join(" | ")
}

/// All users pull and push at once.
async fn transfers(
    peer: &Peer,
    users: &[String],
    content: &Content,
    root: &Path,
) -> io::Result<()> {
    let (digest, file) = (&content.large, &content.file);
    let blobs = format!("{}/v2/bench/app/blobs", peer.base);
    let (mut pulls, mut pushes) = (Vec::new(), Vec::new());
    for number in 0..TRANSFERS {
        let bearer = peer.bearer(&users[number % users.len()]).await?;
        pulls.push(transfer(peer, &bearer, &format!("{blobs}/{digest}")));
        let session = format!("{blobs}/uploads/");
        let session = peer.http.send("POST", &session, Some(&bearer), None, "").await?;
        let session = session.expect(&[StatusCode::ACCEPTED])?.location(&peer.base, digest)?;
        let push = transfer(peer, &bearer, &session);
        let body = format!("header = \"Content-Type: {BLOB_TYPE}\"\nupload-file = {file:?}");
        pushes.push(format!("{push}\n{body}"));
    }
    tokio::try_join!(
        curls(root.join("pulls"), &pulls, "200"),
        curls(root.join("pushes"), &pushes, "201")
    )
    .map(drop)
}

/// A transfer as curl reads it, which prints the status.
fn transfer(peer: &Peer, authorization: &str, url: &str) -> String {
    format!(
        r#"url = "{url}"
header = "Authorization: {authorization}"
cacert = {:?}
http1.1
silent
output = /dev/null
write-out = "%{{http_code}}\n""#,
        peer.ca
    )
}

/// Transfers by one curl, all at once, which must all be answered by this status.
async fn curls(config: PathBuf, transfers: &[String], status: &str) -> io::Result<()> {
    fs::write(&config, transfers.join("\nnext\n"))?;
    let mut curl = Command::new("curl");
    curl.args(["--parallel", "--parallel-immediate", "--parallel-max"]).arg(TRANSFERS.to_string());
    let said = run(curl.arg("--config").arg(config)).await?;
    match said.lines().filter(|line| *line == status).count() {
        count if count == transfers.len() => Ok(()),
        count => Err(io::Error::other(format!("{count} of {TRANSFERS} answered {status}"))),
    }
}

/// Connections on which nothing is asked.
async fn connections(peer: &Peer) -> io::Result<Vec<TlsStream<TcpStream>>> {
    let mut opened = Vec::new();
    while opened.len() < IDLE {
        let mut shaking = JoinSet::new();
        for _ in 0..HANDSHAKES {
            let (http, base) = (peer.http.clone(), peer.base.clone());
            shaking.spawn(async move { http.connect(&base).await });
        }
        while let Some(connection) = shaking.join_next().await {
            opened.push(connection.map_err(io::Error::other)??);
        }
    }
    Ok(opened)
}
