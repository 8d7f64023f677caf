//! How work ends that this program does itself.

use registry_server::transfer::{backup, export, restore};
use serde::Serialize;

/// How such work ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// A backup is through.
    BackedUp(backup::Summary),
    /// A backup was restored.
    Restored(restore::Summary),
    /// Images were exported.
    Exported(export::Summary),
}

#[cfg(test)]
mod tests {
    use registry_server::jobs::event::Told;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn ends_are_told_in_these_words() {
        let ended = |outcome, expected: Value| {
            assert_eq!(serde_json::to_value(Told::Ended(outcome)).unwrap(), expected);
        };
        ended(
            Outcome::BackedUp(backup::Summary { blobs: 2, ..Default::default() }),
            json!({
                "event": "backed-up", "repositories": 0, "manifests": 0, "blobs": 2, "bytes": 0,
                "added": 0, "added_bytes": 0, "removed": 0, "missing": 0, "millis": 0,
            }),
        );
        ended(
            Outcome::Restored(restore::Summary { made: "then".into(), ..Default::default() }),
            json!({
                "event": "restored", "made": "then", "repositories": 0, "manifests": 0, "blobs": 0,
                "bytes": 0, "damaged": 0, "millis": 0,
            }),
        );
        ended(
            Outcome::Exported(export::Summary { images: 1, ..Default::default() }),
            json!({
                "event": "exported", "images": 1, "manifests": 0, "blobs": 0, "bytes": 0,
                "damaged": 0, "millis": 0,
            }),
        );
    }
}
