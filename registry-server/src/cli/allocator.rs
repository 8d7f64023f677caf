//! How the system's allocator treats large blocks, in a server that runs for months.
//!
//! glibc gives a block back to the system when it is freed, if it was larger than a threshold, and
//! raises that threshold with the first such block. From then on what a large answer took stays, for
//! each thread by itself. The threshold stays where it is when the environment says so, which is
//! read before `main`.

use std::{env, io, os::unix::process::CommandExt, process::Command};

/// What glibc reads.
const THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";

/// Blocks of so many bytes and more are given back.
const LARGE_BYTES: &str = "262144";

/// Starts this program again, as the same process, where nobody has said what is to be done with
/// large blocks. Called before anything is opened.
///
/// # Errors
/// Why it could not be started; nothing has happened then.
pub(crate) fn give_back_large_blocks() -> io::Result<()> {
    if env::var_os(THRESHOLD).is_some() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    Err(again.args(arguments).env(THRESHOLD, LARGE_BYTES).exec())
}
