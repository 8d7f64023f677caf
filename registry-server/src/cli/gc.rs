//! `registry-server gc`: garbage collection on demand.

use clap::Args;
use registry_server::{
    config::Config,
    jobs::{Job, event::Outcome},
    registry::gc::Summary,
};

use crate::{
    instance,
    output::{self, Ended, bytes, count},
};

/// Remove what nothing keeps alive, and give its space back.
///
/// A running server does this by itself ([collection] in the configuration). Pushes and pulls go
/// on meanwhile.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only list what would go, why, and how many bytes.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(arguments: &Arguments, config: &Config, json: bool) -> Ended {
    let events = instance::start(Job::Collect { dry_run: arguments.dry_run }, config).await?;
    let ended = |outcome: &Outcome| match outcome {
        Outcome::Collected(summary) => Some((summarise(summary), summary.problems > 0)),
        _ => None,
    };
    output::follow(events, json, ended).await
}

fn summarise(summary: &Summary) -> String {
    let Summary { dry_run, manifests, links, blobs, uploads, orphans, repositories, .. } = summary;
    let things = [
        count(*manifests, "manifest", "manifests"),
        count(*links, "shared blob", "shared blobs"),
        count(*blobs, "blob", "blobs"),
        count(*uploads, "upload session", "upload sessions"),
        count(*orphans, "ownerless object", "ownerless objects"),
        count(*repositories, "empty repository", "empty repositories"),
    ];
    format!(
        "{} {}: {}{} in {:.1} s",
        if *dry_run { "would remove" } else { "removed" },
        things.join(", "),
        bytes(summary.bytes),
        if summary.problems > 0 {
            format!(", {} skipped", count(summary.problems, "entry", "entries"))
        } else {
            String::new()
        },
        summary.millis as f64 / 1000.0,
    )
}
