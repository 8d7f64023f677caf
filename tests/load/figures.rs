//! What a process holds, as the kernel counts it.

use std::{fs, io};

/// What one process holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Resident memory.
    pub(crate) resident_kib: u64,
    /// The most that was resident since the process began.
    pub(crate) peak_kib: u64,
    /// Open files, sockets among them. A process that keeps others from looking into it shows them to
    /// root alone.
    pub(crate) files: Option<usize>,
}

impl Figures {
    /// Those of the process right now.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of(process: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        Ok(Self {
            resident_kib: kib(&status, "VmRSS:")?,
            peak_kib: kib(&status, "VmHWM:")?,
            files: fs::read_dir(format!("/proc/{process}/fd")).ok().map(Iterator::count),
        })
    }

    /// These, with the larger number of files of both.
    pub(crate) fn after(self, before: Self) -> Self {
        Self { files: self.files.max(before.files), ..self }
    }

    /// The number of files, in words.
    pub(crate) fn files_told(&self) -> String {
        self.files.map_or_else(|| "?".to_owned(), |files| files.to_string())
    }

    /// The peak in the unit that bounds are given in.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.peak_kib as f64 / 1024.0
    }
}

fn kib(status: &str, name: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("the process has no {name} It has ended")))
}
