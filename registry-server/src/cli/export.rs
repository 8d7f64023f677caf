//! `registry-server export`: images for other tools.

use std::path::PathBuf;

use berth_shared::clock::Clock;
use clap::Args;
use registry_server::{
    config::Config,
    data::Home,
    jobs::event::tell,
    transfer::export::{Summary, export},
};

use crate::{
    delete::Image,
    output::{self, Ended, bytes, count},
};

/// Write images into an OCI image layout, which crane and oras read, and skopeo and podman where the
/// images are OCI's: what docker pushed keeps docker's form.
///
/// Without a tag or digest all tags of the repository go along, and always what refers to an image,
/// such as its signatures. Every blob is hashed; exit status 1 when one is damaged. A layout that
/// is there is added to.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-server export team/app:1.0 app      then: oras cp --from-oci-layout app:1.0 elsewhere/app:1.0
  registry-server export team/app app          all tags of team/app")]
pub(crate) struct Arguments {
    /// What to export.
    #[arg(value_name = "REPOSITORY[:TAG|@DIGEST]", value_parser = Image::parse)]
    image: Image,

    /// The directory of the layout: new, empty, or with a layout.
    #[arg(value_name = "DIR")]
    to: PathBuf,
}

pub(crate) async fn run(arguments: Arguments, config: Config, json: bool) -> Ended {
    let Arguments { image: Image { repository, reference }, to } = arguments;
    let home = Home::of(&config);
    let events = tell(|events| export(home, repository, reference, to, Clock::system(), events));
    let ended = |summary: &Summary| Some((summarise(summary), summary.damaged > 0));
    output::follow(events, json, ended).await
}

fn summarise(summary: &Summary) -> String {
    format!(
        "exported {} with {} and {} ({}): {} damaged, in {:.1} s",
        count(summary.images, "image", "images"),
        count(summary.manifests, "manifest", "manifests"),
        count(summary.blobs, "blob", "blobs"),
        bytes(summary.bytes),
        summary.damaged,
        summary.millis as f64 / 1000.0,
    )
}
