//! `registry-server restore`: put a backup back.

use std::path::PathBuf;

use berth_shared::clock::Clock;
use clap::Args;
use registry_server::{
    config::Config,
    data::Home,
    jobs::event::tell,
    transfer::restore::{Summary, restore},
};

use crate::output::{self, Ended, bytes, count};

/// Restore a backup into a data directory that has no registry yet.
///
/// The server must not run. Every object is hashed: what is damaged is named with the images that
/// need it, is not served, and pushing it again repairs it; exit status 1 then. If it is broken off
/// it goes on when it is typed again. As root, what is made belongs to the data directory's owner.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The directory of the backup.
    #[arg(value_name = "DIR")]
    from: PathBuf,
}

pub(crate) async fn run(arguments: Arguments, config: Config, json: bool) -> Ended {
    let events = tell(|events| restore(Home::of(&config), arguments.from, Clock::system(), events));
    let ended = |summary: &Summary| Some((summarise(summary), summary.damaged > 0));
    output::follow(events, json, ended).await
}

fn summarise(summary: &Summary) -> String {
    format!(
        "restored {}, {} and {} ({}) as of {}: {} damaged, in {:.1} s",
        count(summary.repositories, "repository", "repositories"),
        count(summary.manifests, "manifest", "manifests"),
        count(summary.blobs, "blob", "blobs"),
        bytes(summary.bytes),
        summary.made,
        summary.damaged,
        summary.millis as f64 / 1000.0,
    )
}
