//! `registry-server verify`: hash what is stored.

use clap::Args;
use registry_server::{
    config::Config,
    jobs::{Job, event::Outcome},
    registry::verify::{Options, Summary},
};

use crate::{
    instance,
    output::{self, Ended, bytes, count},
};

/// Hash everything that is stored, and say which images are damaged.
///
/// What is damaged is no longer served; pushing it again repairs it. A running server does this by
/// itself ([verification] in the configuration). Exit status 1 when something is damaged.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Serve again what has sound bytes: because its file was put right, or because another object
    /// in the store holds them.
    #[arg(long)]
    repair: bool,

    /// How many MiB to read in a second, instead of what the configuration says.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
}

pub(crate) async fn run(arguments: &Arguments, config: &Config, json: bool) -> Ended {
    let bytes_per_sec_max = arguments.rate.map(|mib| mib.saturating_mul(1024 * 1024));
    let options = Options { repair: arguments.repair, bytes_per_sec_max };
    let events = instance::start(Job::Verify { options }, config).await?;
    let ended = |outcome: &Outcome| match outcome {
        Outcome::Verified(summary) => Some((summarise(summary), summary.damaged > 0)),
        _ => None,
    };
    output::follow(events, json, ended).await
}

fn summarise(summary: &Summary) -> String {
    format!(
        "verified {} and {} ({}): {} damaged, {} repaired, {} with an incomplete index, in {:.1} s",
        count(summary.blobs, "blob", "blobs"),
        count(summary.manifests, "manifest", "manifests"),
        bytes(summary.bytes),
        summary.damaged,
        summary.repaired,
        count(summary.incomplete, "tag", "tags"),
        summary.millis as f64 / 1000.0,
    )
}
