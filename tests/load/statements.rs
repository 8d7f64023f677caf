//! Loads of what the database is asked: the writer by a pusher, the catalog by anybody signed in.

use std::io;

use harness::image::INDEX;

use crate::{content, crowd::Crowd, line::Line, site::Site};

/// Where the pusher may push.
const REPOSITORY: &str = "eve/many";

/// Indexes of `count` manifests of `length` bytes, by as many connections as told, each five times.
///
/// # Errors
/// When the manifests cannot be pushed.
pub(crate) async fn indexes(
    site: &Site,
    count: usize,
    length: usize,
    connections: usize,
) -> io::Result<Crowd> {
    const INDEXES_EACH: usize = 5;
    let make = move |number: usize| content::index(&format!("child {number}"), length);
    content::fill(site, count, move |number| (REPOSITORY.to_owned(), make(number))).await?;
    let children: Vec<_> = (0..count).map(|number| content::descriptor(&make(number))).collect();
    let authorization = site.bearer(Some("eve"), &format!("repository:{REPOSITORY}:*")).await?;
    let client = site.client.clone();
    Ok(Crowd::of(connections, move |number, tally| {
        let mut line = Line::new(&client, Some(authorization.clone()));
        let children = children.clone();
        async move {
            for turn in 0..INDEXES_EACH {
                let index = content::naming(&format!("{number} {turn}"), &children, None, 0);
                let target = format!("/v2/{REPOSITORY}/manifests/{number}-{turn}");
                let answer = line.send("PUT", &target, Some(INDEX), index).await;
                tally.count(answer.ok().map(|answer| answer.status()));
            }
        }
    }))
}

/// The catalog for somebody who may see nothing in it.
///
/// # Errors
/// When repositories or rules cannot be made.
pub(crate) async fn catalog(site: &Site) -> io::Result<Crowd> {
    const REPOSITORIES: usize = 20_000;
    const RULES: usize = 300;
    const CONNECTIONS: usize = 16;
    let index = content::index("the same everywhere", 0);
    let make = move |number| (format!("team/app{number}"), index.clone());
    content::fill(site, REPOSITORIES, make).await?;
    let rules: Vec<String> = (0..RULES).map(|number| format!("other{number}/**:pull")).collect();
    let words: Vec<&str> =
        ["grant", "carol"].into_iter().chain(rules.iter().map(String::as_str)).collect();
    site.authctl(&words).await?;
    let authorization = site.bearer(Some("carol"), "registry:catalog:*").await?;
    let client = site.client.clone();
    Ok(Crowd::of(CONNECTIONS, move |_, tally| {
        let mut line = Line::new(&client, Some(authorization.clone()));
        async move {
            loop {
                let answer = line.send("GET", "/v2/_catalog", None, "").await;
                tally.count(answer.ok().map(|answer| answer.status()));
            }
        }
    }))
}
