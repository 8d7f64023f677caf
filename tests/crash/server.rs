//! One server as a process: started, killed, its log kept.

use std::{
    fs::OpenOptions,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    sync::oneshot,
    time::timeout,
};

use crate::tally::Violation;

/// How long a server may take to start on what it finds.
const START_SECS_MAX: u64 = 30;

/// How to start a server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its settings; `log_format` is `json`.
    pub(crate) config: PathBuf,
    /// Where its log goes.
    pub(crate) log: PathBuf,
}

/// A server that runs, until it is killed or dropped.
pub(crate) struct Running(Child);

impl Server {
    /// Starts the server. Gives where it serves, for one that serves TCP, once it does.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(
        &self,
    ) -> Result<(Running, oneshot::Receiver<SocketAddr>), Violation> {
        let mut child = Command::new(&self.program)
            .arg("--config")
            .arg(&self.config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.failed(error))?;
        let lines = child.stderr.take().ok_or_else(|| self.failed("it has no standard error"))?;
        let (address, serves) = oneshot::channel();
        tokio::spawn(keep_log(BufReader::new(lines).lines(), self.log.clone(), address));
        Ok((Running(child), serves))
    }

    /// Waits until the running server says that it is ready.
    ///
    /// # Errors
    /// When it ends, or does not say so in time.
    pub(crate) async fn ready(&self, running: &mut Running) -> Result<(), Violation> {
        let asking = async {
            loop {
                let asked = Command::new(&self.program)
                    .arg("--config")
                    .arg(&self.config)
                    .arg("health")
                    .env_clear()
                    .stderr(Stdio::null())
                    .status();
                if asked.await.map_err(|error| self.failed(error))?.success() {
                    return Ok(());
                }
                if let Some(status) = running.0.try_wait().map_err(|error| self.failed(error))? {
                    return Err(self.failed(format!("it ended by itself: {status}")));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(START_SECS_MAX), asking)
            .await
            .map_err(|_| self.failed("it does not become ready"))?
    }

    fn failed(&self, error: impl std::fmt::Display) -> Violation {
        Violation::new(format!(
            "{}: {error}; its log is {}",
            self.program.display(),
            self.log.display()
        ))
    }
}

impl Running {
    /// SIGKILL.
    ///
    /// # Errors
    /// When the process had ended before: it must not do that.
    pub(crate) async fn kill(mut self) -> Result<(), Violation> {
        if let Ok(Some(status)) = self.0.try_wait() {
            return Err(Violation::new(format!("a server ended by itself: {status}")));
        }
        self.0.kill().await.map_err(|error| Violation::new(format!("killing a server: {error}")))
    }
}

/// Appends what the server writes to the file, and tells the address once it is in there.
async fn keep_log(
    mut lines: Lines<BufReader<ChildStderr>>,
    path: PathBuf,
    address: oneshot::Sender<SocketAddr>,
) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut address = Some(address);
    while let Some(line) = lines.next_line().await? {
        writeln!(file, "{line}")?;
        if address.is_some()
            && let Some(found) = address_in(&line)
            && let Some(address) = address.take()
        {
            let _ = address.send(found);
        }
    }
    Ok(())
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let event: Value = serde_json::from_str(line).ok()?;
    event["message"].as_str().filter(|message| message.ends_with("is serving"))?;
    event["address"].as_str()?.parse().ok()
}

/// The last lines of a log that tell of something wrong.
pub(crate) fn warnings_in(log: &Path) -> Vec<String> {
    const LINES: usize = 20;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let is_warning = |line: &&str| !line.contains("\"level\":\"INFO\"");
    let lines: Vec<_> = text.lines().filter(is_warning).map(str::to_owned).collect();
    lines[lines.len().saturating_sub(LINES)..].to_vec()
}
