//! A file system in memory that forgets what was not synced, for tests of what a power cut leaves.
//!
//! It mounts (as root), says `mounted`, and serves until SIGTERM, SIGINT or the end of its input. At each
//! line `cut` on its input it forgets all that was not synced, and says `cut N`: how many pages
//! and names that was. End the programs that use it before, as a power cut would.

mod attributes;
mod content;
mod filesystem;
mod model;
#[cfg(test)]
mod model_tests;

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    thread,
};

use clap::Parser;
use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use nix::mount::{MntFlags, umount2};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::filesystem::{Forgetful, Shared};

/// A file system in memory that forgets what was not synced.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to mount it: an empty directory.
    mountpoint: PathBuf,
    /// Lets each unsynced page survive a cut with an even chance, drawn from this seed.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let filesystem = Forgetful::new();
    let shared = filesystem.shared();
    let session = fuser::spawn_mount(filesystem, &arguments.mountpoint, &options())?;
    println!("mounted");

    let mut rng = arguments.seed.map(fastrand::Rng::with_seed);
    let mut lines = lines();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        match line.as_deref() {
            Some("cut") => println!("cut {}", cut(&shared, &session, rng.as_mut())?),
            Some(other) => eprintln!("not understood: {other:?}; there is only \"cut\""),
            None => break,
        }
    }
    unmount(session, &arguments.mountpoint)?;
    Ok(())
}

/// Options of the mount: the kernel checks rights, for every user.
fn options() -> Config {
    let mut options = Config::default();
    options.mount_options =
        vec![MountOption::FSName("powercut".to_owned()), MountOption::DefaultPermissions];
    options.acl = SessionACL::All;
    options
}

/// The lines of the input. Read by a thread of its own, which does not hold up the end as a task
/// of the runtime would.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Forgets, and makes the kernel forget. Gives the number of forgotten pages and names.
fn cut(
    shared: &Shared,
    session: &BackgroundSession,
    mut rng: Option<&mut fastrand::Rng>,
) -> io::Result<usize> {
    let known = shared.inos();
    let forgotten = shared.cut(&mut || rng.as_mut().is_some_and(|rng| rng.bool()));
    let notifier = session.notifier();
    for ino in known {
        notifier.inval_inode(ino, 0, 0)?;
    }
    Ok(forgotten)
}

/// Unmounts; what is still in use goes when its last user does, or this program.
fn unmount(session: BackgroundSession, mountpoint: &Path) -> io::Result<()> {
    session.umount_and_join().or_else(|_| Ok(umount2(mountpoint, MntFlags::MNT_DETACH)?))
}
