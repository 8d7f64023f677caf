//! What this process keeps from other processes of its own user.

use nix::sys::prctl::set_dumpable;

/// Lets nobody but root read this process's memory, look at its files through `/proc`, or trace it,
/// and lets it leave no core: keys, passwords and tokens are in there. What the process is started
/// with is open until this is called, so it is called first.
///
/// # Errors
/// When the system refuses, which Linux never does.
pub fn close_process() -> Result<(), nix::Error> {
    set_dumpable(false)
}

#[cfg(test)]
mod tests {
    use nix::sys::prctl::get_dumpable;

    use super::*;

    #[test]
    fn a_closed_process_leaves_no_core_and_is_not_traced() {
        assert_eq!(get_dumpable(), Ok(true));
        close_process().unwrap();
        assert_eq!(get_dumpable(), Ok(false));
    }
}
