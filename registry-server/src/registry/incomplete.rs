//! Tags whose indexes name manifests that are not there.

use super::{
    Error, Registry,
    event::{Event, Events},
};
use crate::metadata::{child::TagLack, repository::RepositoryId};

/// Tags whose indexes are looked at in one query.
const TAGS_PAGE: u32 = 1000;

/// Tells `events` each such tag, and gives how many there are.
pub(super) async fn tell(registry: &Registry, events: &Events) -> Result<u64, Error> {
    let is_sparse = registry.settings().limits.sparse_manifests;
    let (mut last, mut incomplete) = ((RepositoryId::default(), String::new()), 0);
    loop {
        let tags = registry.database.lacks_after(&last, TAGS_PAGE).await?;
        let Some(end) = tags.last() else { return Ok(incomplete) };
        last = (end.id, end.tag.clone());
        for TagLack { repository, tag, lacking, example, .. } in tags {
            let Some(example) = example else { continue };
            incomplete += 1;
            let image = format!("{repository}:{tag}");
            events.say(Event::Lacking { image, lacking, example, is_sparse }).await?;
        }
    }
}
