//! Subjects' rights as they are now, for the two questions that a token cannot answer.

use std::{path::Path, sync::Arc, time::Duration};

use berth_shared::{auth_api::RIGHTS_PATH, rights::Rights, subject::Subject};
use moka::future::Cache;

use super::ask;

/// How long rights are kept.
const KEPT: Duration = Duration::from_secs(5);

/// Subjects whose rights are kept.
const SUBJECTS_MAX: u64 = 1_000;

#[derive(Debug)]
pub(super) struct RightsCache(Cache<String, Arc<Rights>>);

impl RightsCache {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(SUBJECTS_MAX).time_to_live(KEPT).build())
    }

    pub(super) async fn of(&self, subject: &Subject, socket: &Path) -> Option<Arc<Rights>> {
        let claim = subject.claim();
        let rights = self.0.try_get_with_by_ref(claim, fetch(claim, socket)).await;
        rights.inspect_err(|error| tracing::warn!(%error, "asking auth-server for rights")).ok()
    }
}

async fn fetch(claim: &str, socket: &Path) -> Result<Arc<Rights>, String> {
    let query =
        form_urlencoded::Serializer::new(String::new()).append_pair("subject", claim).finish();
    let answer = ask(socket, &format!("{RIGHTS_PATH}?{query}"), None).await?;
    let rights = serde_json::from_slice(answer.ok_or("no rights came")?.body());
    rights.map(Arc::new).map_err(|error| format!("auth-server's rights: {error}"))
}
