//! `registry-server import`: take over the store of registry:2 or registry:3.

use std::path::PathBuf;

use berth_shared::{clock::Clock, unix_owner::Identity};
use clap::Args;
use registry_server::{
    config::Config,
    data::{Offline, StartError},
    jobs::event::tell,
    storage::disk::How,
    transfer::import::{self, Options, Summary},
};

use crate::output::{self, Ended, Failure, bytes, count};

/// Take over a store that registry:2 or registry:3 wrote, with its repositories and tags.
///
/// No byte is copied: blobs get a second name (a hard link) in Berth's data directory, and the old
/// store stays whole. Every manifest is checked against its digest, and every blob against the
/// length that its manifest says. What is damaged is named and left behind.
///
/// The server must not run meanwhile, unless several share the registry, in PostgreSQL and a bucket.
/// An import that was broken off is run again, and goes on where it was; run later, it takes what
/// was pushed to the old registry since.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-server import /var/lib/registry            by hard link; the old store stays as it is
  registry-server import /var/lib/registry --verify   and hash every blob before it is taken
  registry-server import /mnt/old/registry --copy     from another disk
  registry-server import /var/lib/registry --adopt    give the old store up: its blobs move to Berth

Run it as root where the old files are root's. Only what the import makes changes its owner: a hard
link is the old file itself, and keeps the owner that this has.
Then start Berth under the name and port of the old registry: docker goes on as before.

Exit status: 0 everything was taken, 1 something was left behind or it broke off, 2 usage.")]
pub(crate) struct Arguments {
    /// The old registry's directory: the one that holds docker/registry/v2.
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Move the blobs, by which the old store is given up.
    #[arg(long, conflicts_with = "copy")]
    adopt: bool,

    /// Copy the blobs, as from another file system, where hard links do not reach.
    #[arg(long)]
    copy: bool,

    /// Hash every blob before it is taken.
    #[arg(long)]
    verify: bool,
}

pub(crate) async fn run(
    arguments: &Arguments,
    config: &Config,
    identity: Identity,
    json: bool,
) -> Ended {
    let offline = open(config).await?;
    let how = match arguments {
        Arguments { adopt: true, .. } => How::Adopt,
        Arguments { copy: true, .. } => How::Copy,
        _ => How::HardLink,
    };
    let options = Options { how, verify: arguments.verify, owner: identity.foreign() };
    let directory = arguments.directory.clone();
    let import = async move |events| {
        let imported = import::run(&offline, &directory, options, events).await;
        offline.end().await;
        imported
    };
    let summarised = |summary: &Summary| Some((summarise(summary), summary.problems > 0));
    let ended = output::follow(tell(import), json, summarised).await?;
    if how == How::Adopt && !json {
        let old = arguments.directory.display();
        output::line(&format!("what is left in {old} is no whole registry any more"));
    }
    Ok(ended)
}

/// Opens the registry, for this process alone where no others share it.
async fn open(config: &Config) -> Result<Offline, Failure> {
    Offline::open(config, Clock::system()).await.map_err(|error| match error {
        StartError::InUse(data) => Failure(format!(
            "a registry-server runs on {data}: stop it for the time of the import, which links \
             files that the server's user may not reach, then start it again"
        )),
        error => error.into(),
    })
}

fn summarise(summary: &Summary) -> String {
    let mut text = format!(
        "imported {}: {}, {}, {} ({}), in {:.1} s",
        count(summary.repositories, "repository", "repositories"),
        count(summary.manifests, "manifest", "manifests"),
        count(summary.tags, "tag", "tags"),
        count(summary.blobs, "blob", "blobs"),
        bytes(summary.bytes),
        summary.millis as f64 / 1000.0,
    );
    if summary.present > 0 {
        let present = count(summary.present, "manifest or tag", "manifests and tags");
        text.push_str(&format!("; {present} were there already"));
    }
    if summary.problems > 0 {
        let skipped = count(summary.skipped, "manifest or tag", "manifests and tags");
        let problems = count(summary.problems, "problem", "problems");
        text.push_str(&format!("; {skipped} left behind, {problems}"));
    }
    text
}
