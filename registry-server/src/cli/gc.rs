//! `registry-server gc`: garbage collection on demand.

use std::process::ExitCode;

use clap::Args;
use registry_server::{
    config::Config,
    control::Job,
    registry::{
        collect::Summary,
        event::{Event, Kind},
    },
};

use crate::{
    output::{self, Failure, bytes, count},
    site,
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

pub(crate) async fn run(
    arguments: &Arguments,
    config: &Config,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut events = site::start(Job::Collect { dry_run: arguments.dry_run }, config).await?;
    while let Some(event) = events.recv().await {
        if json {
            output::json(&event);
        }
        match event {
            Event::Gone { kind, repository, name, bytes, why } if !json => {
                output::line(&gone(kind, repository.as_deref(), &name, bytes, &why));
            }
            Event::Problem { message } if !json => eprintln!("skipped: {message}"),
            Event::Collected(summary) => {
                if !json {
                    output::line(&summarise(&summary));
                }
                return Ok(ExitCode::from(u8::from(summary.problems > 0)));
            }
            Event::Failed { message } => return Err(Failure(message)),
            _ => {}
        }
    }
    Err(Failure("the server went away before the collection was through".to_owned()))
}

fn gone(kind: Kind, repository: Option<&str>, name: &str, size: u64, why: &str) -> String {
    let kind = match kind {
        Kind::Manifest => "manifest",
        Kind::Link => "blob (kept by other repositories)",
        Kind::Blob => "blob",
        Kind::Upload => "upload session",
        Kind::Orphan => "object",
        Kind::Repository => "repository",
    };
    let place = repository.filter(|it| *it != name).map(|it| format!(" of {it}"));
    format!("{kind} {name}{}: {why}, {}", place.unwrap_or_default(), bytes(size))
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
