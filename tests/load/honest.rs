//! What looks like a load and is none: clients that mean well, many or slow. All of them must be
//! served to the end.

use std::{io, time::Duration};

use harness::image::INDEX;
use tokio::time::sleep;

use crate::{
    content,
    crowd::Crowd,
    line::Line,
    pulls::{self, REPOSITORY, SCOPE},
    site::Site,
};

/// How many connections the kubelets behind one address keep.
const KUBELETS: usize = 200;

/// How often each of them pulls, and how long it rests in between.
const PULLS: usize = 20;
const REST: Duration = Duration::from_millis(500);

/// 200 pulls at 10 KB/s, for 40 seconds.
///
/// # Errors
/// When what is pulled cannot be pushed.
pub(crate) async fn slow_pulls(site: &Site) -> io::Result<Crowd> {
    pulls::steady(site, 200, 400_000, 10_000).await
}

/// Connections that are kept for ten seconds and used all the while, for a manifest and a layer.
///
/// # Errors
/// When these cannot be pushed.
pub(crate) async fn kubelets(site: &Site) -> io::Result<Crowd> {
    let mut line = site.line("andrew");
    let digest = content::push_blob(&mut line, REPOSITORY, content::filler(100_000)).await?;
    let manifest = format!("/v2/{REPOSITORY}/manifests/v1");
    line.expect("PUT", &manifest, Some(INDEX), content::index("pulled", 0)).await?;
    let targets = [manifest, format!("/v2/{REPOSITORY}/blobs/{digest}")];
    let authorization = site.bearer(None, SCOPE).await?;
    let client = site.client.clone();
    Ok(Crowd::of(KUBELETS, move |_, tally| {
        let mut line = Line::new(&client, Some(authorization.clone()));
        let targets = targets.clone();
        async move {
            for _ in 0..PULLS {
                for target in &targets {
                    let answer = line.send("GET", target, None, "").await;
                    tally.count(answer.ok().map(|answer| answer.status()));
                }
                sleep(REST).await;
            }
        }
    }))
}
