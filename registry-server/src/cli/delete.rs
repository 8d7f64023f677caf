//! `registry-server delete`: delete a tag, a manifest, or a repository.

use berth_shared::{name::RepositoryName, reference::Reference};
use clap::Args;
use registry_server::{
    config::Config,
    jobs::{Job, event::Outcome},
    registry::{delete::Deleted, gc::Settings},
};

use crate::{
    instance,
    output::{self, Ended, count},
};

/// Delete a tag, a manifest with its tags, or a whole repository.
///
/// Garbage collection gives the space back: that of a repository at its next run, that of a manifest
/// when its content was pushed longer ago than grace_secs. A tag has none: its manifest stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  registry-server delete team/app:1.0              the tag; its manifest stays
  registry-server delete team/app@sha256:6c3c62…   the manifest, with every tag that leads to it;
                                                   with --force also one that a tagged index names
  registry-server delete team/app                  everything in team/app")]
pub(crate) struct Arguments {
    /// What to delete.
    #[arg(value_name = "REPOSITORY[:TAG|@DIGEST]", value_parser = Image::parse)]
    image: Image,
    /// Delete a manifest even if indexes with tags name it, which breaks them.
    #[arg(long)]
    force: bool,
}

/// A repository, and which of its manifests.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) repository: RepositoryName,
    pub(crate) reference: Option<Reference>,
}

impl Image {
    /// Reads `REPOSITORY[:TAG|@DIGEST]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (repository, reference) = match (text.split_once('@'), text.rsplit_once(':')) {
            (Some((repository, digest)), _) => (repository, Some(digest)),
            // What has a slash behind the colon is a host with a port.
            (None, Some((repository, tag))) if !tag.contains('/') => (repository, Some(tag)),
            (None, _) => (text, None),
        };
        let repository = repository.parse().map_err(|_| {
            format!(
                "{repository:?} is no repository name: those look like team/app, without a host"
            )
        })?;
        let reference = reference
            .map(|it| it.parse().map_err(|_| format!("{it:?} is neither a tag nor a digest")));
        Ok(Self { repository, reference: reference.transpose()? })
    }
}

pub(crate) async fn run(arguments: &Arguments, config: &Config, json: bool) -> Ended {
    let Image { repository, reference } = &arguments.image;
    let job = Job::Delete {
        repository: repository.clone(),
        reference: reference.clone(),
        force: arguments.force,
    };
    let events = instance::start(job, config).await?;
    let ended = |outcome: &Outcome| match outcome {
        Outcome::Deleted(Deleted { what, manifests, tags, left }) => {
            let manifests = count(*manifests, "manifest", "manifests");
            let tags = count(*tags, "tag", "tags");
            let left = left.as_ref().map(|digest| format!("{repository}@{digest}"));
            let then = then(reference.as_ref(), left, &config.settings.collection);
            Some((format!("deleted {what}: {manifests}, {tags}; {then}"), false))
        }
        _ => None,
    };
    output::follow(events, json, ended).await
}

/// When the space comes back, and what to do for it.
fn then(deleted: Option<&Reference>, left: Option<String>, collection: &Settings) -> String {
    let manifest = left.unwrap_or_default();
    match (deleted, collection.untagged_after) {
        (None, _) => "the next garbage collection gives the space back".to_owned(),
        (Some(Reference::Digest(_)), _) => format!(
            "garbage collection frees what it alone named, {} s (grace_secs) after its last push",
            collection.grace.as_secs()
        ),
        (Some(Reference::Tag(_)), None) => {
            format!("{manifest} stays: delete it by that name, or set untagged_secs")
        }
        (Some(Reference::Tag(_)), Some(after)) => format!(
            "{manifest} stays, and if nothing else names it, goes after {} s (untagged_secs)",
            after.as_secs()
        ),
    }
}
