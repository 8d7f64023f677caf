//! `authctl` as a process, on the data of one site.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use harness::{client::HOST, stack::PASSWORD};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    sync::{Mutex, OwnedMutexGuard},
};

use crate::tally::Violation;

/// The program and the data that it works on.
#[derive(Debug, Clone)]
pub(crate) struct Authctl {
    program: PathBuf,
    data: PathBuf,
    busy: Arc<Mutex<()>>,
}

/// An `authctl` that runs.
pub(crate) struct Running {
    child: Child,
    _busy: OwnedMutexGuard<()>,
}

impl Authctl {
    /// The program in `bin` for the installation in `data`.
    pub(crate) fn new(bin: &Path, data: &Path) -> Self {
        Self { program: bin.join("authctl"), data: data.to_owned(), busy: Arc::default() }
    }

    /// Makes the installation, with the user `andrew`, who may do everything.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) async fn init(&self, certs: &Path) -> Result<(), Violation> {
        let mut words = vec![OsStr::new("init"), OsStr::new("--certs"), certs.as_os_str()];
        words.extend(["--host", HOST, "--listen", "127.0.0.1:0"].map(OsStr::new));
        words.extend(["--user", "andrew", "--password-stdin"].map(OsStr::new));
        let status = self.spawn(&words, PASSWORD).await?.end(std::future::pending()).await?;
        match status {
            Some(status) if status.success() => Ok(()),
            status => Err(self.failed(format!("init: {status:?}"))),
        }
    }

    /// Runs a verb, with a line for its standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) async fn spawn<S: AsRef<OsStr>>(
        &self,
        words: &[S],
        input: &str,
    ) -> Result<Running, Violation> {
        let busy = Arc::clone(&self.busy).lock_owned().await;
        let mut child = Command::new(&self.program)
            .args(words)
            .env_clear()
            .env("BERTH_DATA", &self.data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.failed(error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A verb that wants no input may have ended by now.
            let _ = stdin.write_all(format!("{input}\n").as_bytes()).await;
        }
        Ok(Running { child, _busy: busy })
    }

    /// Waits until no `authctl` runs.
    pub(crate) async fn rest(&self) {
        drop(self.busy.lock().await);
    }

    fn failed(&self, error: impl std::fmt::Display) -> Violation {
        Violation::new(format!("{}: {error}", self.program.display()))
    }
}

impl Running {
    /// How it ends; `None` when it was killed because `reason` came first.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) async fn end(
        mut self,
        reason: impl Future<Output = ()>,
    ) -> Result<Option<ExitStatus>, Violation> {
        let failed = |error| Violation::new(format!("waiting for authctl: {error}"));
        tokio::select! {
            status = self.child.wait() => status.map(Some).map_err(failed),
            () = reason => self.child.kill().await.map(|()| None).map_err(failed),
        }
    }
}
