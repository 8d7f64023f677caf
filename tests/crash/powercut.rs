//! A disk that forgets what was not synced: the program `powercut`, which mounts one.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::tally::Violation;

/// How long the disk may take to answer.
const ANSWER_SECS_MAX: u64 = 30;

/// A mounted disk.
pub(crate) struct Disk {
    process: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Disk {
    /// Mounts a disk. The program lies beside this one.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub(crate) async fn mount(at: &Path) -> Result<Self, Violation> {
        let this = std::env::current_exe().map_err(failed)?;
        let mut process = Command::new(this.with_file_name("powercut"))
            .arg(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(to), Some(from)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(failed("it has no pipes"));
        };
        let mut disk = Self { process, to, from: BufReader::new(from).lines() };
        disk.hear("mounted").await?;
        Ok(disk)
    }

    /// Cuts the power: what was not synced is gone. Nobody may have files open there.
    ///
    /// # Errors
    /// When the disk does not answer.
    pub(crate) async fn cut(&mut self) -> Result<(), Violation> {
        self.to.write_all(b"cut\n").await.map_err(failed)?;
        self.to.flush().await.map_err(failed)?;
        self.hear("cut").await
    }

    /// Takes the disk away.
    pub(crate) async fn unmount(self) {
        let Self { mut process, to, from } = self;
        drop((to, from));
        // One that does not end by itself is killed when dropped.
        let _ = timeout(Duration::from_secs(ANSWER_SECS_MAX), process.wait()).await;
    }

    async fn hear(&mut self, word: &str) -> Result<(), Violation> {
        let line = timeout(Duration::from_secs(ANSWER_SECS_MAX), self.from.next_line()).await;
        match line.map_err(failed)?.map_err(failed)? {
            Some(line) if line.split(' ').next() == Some(word) => Ok(()),
            other => Err(failed(format!("{other:?} in place of {word}"))),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Violation {
    Violation::new(format!("the disk of powercut: {error}"))
}
