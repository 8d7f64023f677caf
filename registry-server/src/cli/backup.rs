//! `registry-server backup`: everything that is stored, while the server runs.

use std::path::PathBuf;

use berth_shared::clock::Clock;
use clap::Args;
use registry_server::{
    config::Config,
    data::Home,
    jobs::event::tell,
    transfer::backup::{Summary, backup},
};

use crate::output::{self, Ended, bytes, count};

/// Back up everything that is stored, while pushes go on.
///
/// Run as root or as the server's user. A second backup into the same directory adds what is new
/// and removes what is gone; if it is broken off, the one before stays whole. On the same file
/// system objects are hard links, which take no room and guard against deletion but not against
/// the loss of the disk. Exit status 1 when objects are missing; the rest is backed up.
///
/// Users, grants and keys are auth-server's, and not part of it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The directory of the backup: new, empty, or with an earlier backup.
    #[arg(value_name = "DIR")]
    to: PathBuf,
}

pub(crate) async fn run(arguments: Arguments, config: Config, json: bool) -> Ended {
    let events = tell(|events| backup(Home::of(&config), arguments.to, Clock::system(), events));
    let ended = |summary: &Summary| Some((summarise(summary), summary.missing > 0));
    output::follow(events, json, ended).await
}

fn summarise(summary: &Summary) -> String {
    format!(
        "backed up {}, {} and {} ({}): {} added ({}), {} removed, {} missing, in {:.1} s",
        count(summary.repositories, "repository", "repositories"),
        count(summary.manifests, "manifest", "manifests"),
        count(summary.blobs, "blob", "blobs"),
        bytes(summary.bytes),
        summary.added,
        bytes(summary.added_bytes),
        summary.removed,
        summary.missing,
        summary.millis as f64 / 1000.0,
    )
}
