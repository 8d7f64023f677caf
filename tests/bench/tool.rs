//! Programs that other people made: curl for large blobs, wrk for loads.

use std::{
    io::{self, Write},
    path::Path,
    process::{Child, Command as StdCommand, Stdio},
    time::Instant,
};

use tempfile::NamedTempFile;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{content::MANIFEST_TYPE, http::commit_url, peer::Peer};

/// What a load asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// One path, below the address.
    Path(&'a str),
    /// Any of the paths in a file, by this method.
    AnyOf { method: &'static str, file: &'a Path },
}

/// Connections that ask again and again, and how many answers come in a second.
pub(crate) async fn wrk(
    base: &str,
    asked: Asked<'_>,
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
    // Where it lies until wrk has read it.
    let mut script = NamedTempFile::new()?;
    match asked {
        Asked::Path(path) => wrk.arg(format!("{base}{path}")),
        Asked::AnyOf { method, file } => {
            script.write_all(include_bytes!("random.lua"))?;
            wrk.arg("-s").arg(script.path()).args([base, "--", method]).arg(file)
        }
    };
    let said = run(&mut wrk).await?;
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
    fed(command, "").await
}

/// The same with something to read.
pub(crate) async fn fed(command: &mut Command, input: &str) -> io::Result<String> {
    let program = command.as_std().get_program().display().to_string();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = command.kill_on_drop(true).spawn();
    let mut child = started.map_err(|error| io::Error::other(format!("{program}: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing may have ended by now.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
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
