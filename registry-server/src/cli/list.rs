//! `registry-server list`: what is stored, and what it takes.

use std::process::ExitCode;

use berth_shared::{clock::rfc3339, name::RepositoryName};
use clap::Args;
use registry_server::{
    config::Config,
    data::Home,
    metadata::{
        Database,
        inventory::{Holding, TaggedImage},
    },
    registry::Error,
};

use crate::{
    instance,
    output::{self, Ended, bytes, count},
};

/// List the repositories, or the tags of one, with what they take.
///
/// It only reads, beside a running server or without one.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The repository whose tags to list.
    repository: Option<RepositoryName>,
}

pub(crate) async fn run(arguments: &Arguments, config: &Config, json: bool) -> Ended {
    instance::is_there(config)?;
    let database = Home::of(config).open_beside().await.map_err(Error::from)?;
    match &arguments.repository {
        None => repositories(&database, json).await?,
        Some(name) => tags(&database, name, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn repositories(database: &Database, json: bool) -> Result<(), Error> {
    let holdings = database.holdings().await?;
    if json {
        holdings.iter().for_each(output::json);
        return Ok(());
    }
    let row = |it: &Holding| {
        [
            it.repository.clone(),
            it.tags.to_string(),
            it.manifests.to_string(),
            bytes(it.own_bytes),
            bytes(it.shared_bytes),
        ]
    };
    let sum = |field: fn(&Holding) -> u64| holdings.iter().map(field).sum::<u64>();
    let mut rows = vec![["REPOSITORY", "TAGS", "MANIFESTS", "OWN", "SHARED"].map(str::to_owned)];
    rows.extend(holdings.iter().map(row));
    // What is shared lies on the disk once, so this is not the sum of the column.
    rows.push([
        format!("total ({})", holdings.len()),
        sum(|it| it.tags).to_string(),
        sum(|it| it.manifests).to_string(),
        bytes(sum(|it| it.own_bytes)),
        bytes(database.shared_bytes().await?),
    ]);
    output::table(&rows, 1);
    Ok(())
}

async fn tags(database: &Database, name: &RepositoryName, json: bool) -> Result<(), Error> {
    let holding = database.holding(name).await?.ok_or(Error::NameUnknown)?;
    let images = database.images(name).await?;
    if json {
        images.iter().for_each(output::json);
        return Ok(());
    }
    let row =
        |it: &TaggedImage| [it.tag.clone(), it.digest.clone(), rfc3339(it.pushed), bytes(it.bytes)];
    let mut rows = vec![["TAG", "DIGEST", "PUSHED", "SIZE"].map(str::to_owned)];
    rows.extend(images.iter().map(row));
    output::table(&rows, 3);
    output::line(&format!(
        "total: {}, {} of which no tag leads to; {} own, {} shared with other repositories",
        count(holding.manifests, "manifest", "manifests"),
        holding.untagged,
        bytes(holding.own_bytes),
        bytes(holding.shared_bytes),
    ));
    Ok(())
}
