//! Programs that other people made: curl for large blobs, wrk for loads.

use std::{
    io,
    path::Path,
    process::{Child, Command as StdCommand, Stdio},
    time::Instant,
};

use tokio::process::Command;

use crate::{content::MANIFEST_TYPE, http::commit_url, peer::Peer};

/// Connections that ask again and again, and how many answers come in a second.
pub(crate) async fn wrk(
    url: &str,
    authorization: Option<&str>,
    connections: usize,
    secs: u64,
) -> io::Result<f64> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t2", "--timeout", "30s"]);
    wrk.arg(format!("-c{connections}")).arg(format!("-d{secs}s"));
    // Which docker-registry wants to be told.
    wrk.args(["-H", &format!("Accept: {MANIFEST_TYPE}")]);
    if let Some(authorization) = authorization {
        wrk.arg("-H").arg(format!("Authorization: {authorization}"));
    }
    let said = run(wrk.arg(url)).await?;
    if said.contains("Non-2xx") || said.contains("Socket errors") {
        return Err(io::Error::other("some requests failed"));
    }
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok()).ok_or_else(|| io::Error::other(said.clone()))
}

/// Downloads a blob and forgets it. Gives seconds.
pub(crate) async fn pull(peer: &Peer, digest: &str, protocol: &str) -> io::Result<f64> {
    let authorization = peer.authorization().await?;
    let url = format!("{}/v2/bench/app/blobs/{digest}", peer.base);
    let begun = Instant::now();
    run(curl(peer, authorization.as_deref(), protocol).args(["-o", "/dev/null"]).arg(url)).await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Uploads a file as docker does: POST, one PATCH, PUT. Gives seconds.
pub(crate) async fn push(
    peer: &Peer,
    file: &Path,
    digest: &str,
    protocol: &str,
) -> io::Result<f64> {
    let authorization = peer.authorization().await?;
    let base = &peer.base;
    let curl = || curl(peer, authorization.as_deref(), protocol);
    let begun = Instant::now();
    let uploads = format!("{base}/v2/bench/app/blobs/uploads/");
    let opened =
        run(curl().args(["-X", "POST", "-D", "-", "-o", "/dev/null"]).arg(uploads)).await?;
    let session = location(base, &opened)?;
    let mut patch = curl();
    patch.args(["-X", "PATCH", "-D", "-", "-o", "/dev/null", "-H"]);
    patch.args(["Content-Type: application/octet-stream", "-H", "Expect:", "-T"]).arg(file);
    let received = run(patch.arg(&session)).await?;
    let commit = commit_url(base, &location(base, &received).unwrap_or(session), digest);
    run(curl().args(["-X", "PUT", "-o", "/dev/null"]).arg(commit)).await?;
    Ok(begun.elapsed().as_secs_f64())
}

fn location(base: &str, head: &str) -> io::Result<String> {
    let line = head.lines().rev().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    });
    let location = line.ok_or_else(|| io::Error::other("no Location"))?;
    Ok(if location.starts_with('/') { format!("{base}{location}") } else { location })
}

fn curl(peer: &Peer, authorization: Option<&str>, protocol: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", protocol]);
    if peer.is_tls() {
        curl.arg("--cacert").arg(&peer.ca);
    }
    if let Some(authorization) = authorization {
        curl.arg("-H").arg(format!("Authorization: {authorization}"));
    }
    curl
}

/// The digest of a file.
pub(crate) async fn sha256(file: &Path) -> io::Result<String> {
    let said = run(Command::new("sha256sum").arg(file)).await?;
    Ok(format!("sha256:{}", said.split_whitespace().next().unwrap_or_default()))
}

/// Runs a program to its end and gives what it printed.
pub(crate) async fn run(command: &mut Command) -> io::Result<String> {
    let program = command.as_std().get_program().display().to_string();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| io::Error::other(format!("{program}: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("{program}: {}: {said}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A loop at normal priority that keeps the first core busy until it is dropped.
pub(crate) struct Busy(Child);

impl Busy {
    pub(crate) fn start() -> io::Result<Self> {
        let words = ["-c", "0", "sh", "-c", "while :; do :; done"];
        Ok(Self(StdCommand::new("taskset").args(words).spawn()?))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // It runs until it is killed, so that this finds it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
