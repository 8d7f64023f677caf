//! What loads push first: blobs, and manifests of a given size, many of them at once.

use std::{io, sync::Arc};

use berth_shared::digest::Digest;
use bytes::Bytes;
use harness::image::{INDEX, digest_of};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{line::Line, site::Site};

/// The largest manifest that is taken unless the settings say otherwise.
pub(crate) const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What stands in a manifest where its padding will be, which is long.
const PADDING: &str = "<padding>";

/// How many connections push what a load needs.
const LINES: usize = 16;

/// Bytes of no meaning.
pub(crate) fn filler(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

/// An index that names nothing and is `length` bytes long, or longer where that is too short. What
/// it is called makes it another one.
pub(crate) fn index(name: &str, length: usize) -> Bytes {
    naming(name, &[], None, length)
}

/// The same, about another manifest.
pub(crate) fn referrer(name: &str, subject: &Value, length: usize) -> Bytes {
    naming(name, &[], Some(subject), length)
}

/// An index of `manifests`, padded to `length` bytes by an annotation.
pub(crate) fn naming(
    name: &str,
    manifests: &[Value],
    subject: Option<&Value>,
    length: usize,
) -> Bytes {
    let mut index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": manifests,
        "annotations": { "name": name, "padding": PADDING },
    });
    if let Some(subject) = subject {
        index["subject"] = subject.clone();
    }
    let index = index.to_string();
    let padding = (length + PADDING.len()).saturating_sub(index.len());
    index.replacen(PADDING, &"x".repeat(padding), 1).into()
}

/// How another manifest names this one.
pub(crate) fn descriptor(manifest: &Bytes) -> Value {
    let digest = digest_of(manifest);
    json!({ "mediaType": INDEX, "digest": digest.as_str(), "size": manifest.len() })
}

/// Uploads a blob in one request.
///
/// # Errors
/// When the registry does not take it.
pub(crate) async fn push_blob(
    line: &mut Line,
    repository: &str,
    bytes: Bytes,
) -> io::Result<Digest> {
    let digest = digest_of(&bytes);
    let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    line.expect("POST", &target, Some("application/octet-stream"), bytes).await?;
    Ok(digest)
}

/// Puts `count` indexes, each into the repository and with the bytes that `make` gives for its
/// number, over several connections at once.
///
/// # Errors
/// When the registry does not take one.
pub(crate) async fn fill<F>(site: &Site, count: usize, make: F) -> io::Result<()>
where
    F: Fn(usize) -> (String, Bytes) + Send + Sync + 'static,
{
    let make = Arc::new(make);
    let mut tasks = JoinSet::new();
    for first in 0..LINES {
        let (mut line, make) = (site.line("andrew"), Arc::clone(&make));
        tasks.spawn(async move {
            for number in (first..count).step_by(LINES) {
                let (repository, bytes) = make(number);
                let target = format!("/v2/{repository}/manifests/{}", digest_of(&bytes));
                line.expect("PUT", &target, Some(INDEX), bytes).await?;
            }
            io::Result::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}
