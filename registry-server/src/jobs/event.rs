//! What is told of long work: its steps, and then how it ended.

use std::error::Error;

use berth_shared::telemetry::chain;
use futures_util::{FutureExt, StreamExt, future, stream, stream::BoxStream};
use serde::{Deserialize, Serialize};

use crate::registry::{
    delete::Deleted,
    event::{Event, Events},
    gc, verify,
};

/// One thing that is told of work which ends with an `O`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Told<O> {
    /// The work broke off.
    Failed {
        /// Why, and what to do.
        message: String,
    },
    /// A step of it.
    #[serde(untagged)]
    Step(Event),
    /// The work is through.
    #[serde(untagged)]
    Ended(O),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Outcome {
    /// A collection is through.
    Collected(gc::Summary),
    /// A verification is through.
    Verified(verify::Summary),
    /// Something was deleted on request.
    Deleted(Deleted),
    /// The registry takes pushes, or does not.
    ReadOnly {
        /// Whether it does not.
        on: bool,
    },
}

/// What is told of work that ends with an `O`. The work stops at its next step when nobody listens
/// any more, which is when this is dropped.
pub struct Tale<O>(pub(super) BoxStream<'static, Told<O>>);

impl<O> Tale<O> {
    /// The next thing; `None` behind the last.
    pub async fn recv(&mut self) -> Option<Told<O>> {
        self.0.next().await
    }

    /// Whether nothing has been told since the last thing, and the teller is there.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.0.next().now_or_never().is_none()
    }
}

/// Does work in a task of its own, and gives what it tells.
pub fn tell<O, E, F>(work: impl FnOnce(Events) -> F) -> Tale<O>
where
    O: Send + 'static,
    E: Error + Send + 'static,
    F: Future<Output = Result<O, E>> + Send + 'static,
{
    let (events, mut steps) = Events::channel();
    let end = tokio::spawn(work(events)).map(|ended| match ended {
        Ok(Ok(outcome)) => Some(Told::Ended(outcome)),
        Ok(Err(error)) => Some(Told::Failed { message: chain(&error) }),
        // It panicked, and has said so.
        Err(_) => None,
    });
    let steps = stream::poll_fn(move |cx| steps.poll_recv(cx)).map(Told::Step);
    Tale(steps.chain(end.into_stream().filter_map(future::ready)).boxed())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;
    use crate::registry::event::Kind;

    fn is_written(told: &Told<Outcome>, expected: &Value) {
        assert_eq!(serde_json::to_value(told).unwrap(), *expected);
        assert_eq!(serde_json::from_value::<Told<Outcome>>(expected.clone()).unwrap(), *told);
    }

    #[test]
    fn steps_are_told_in_these_words() {
        const DIGEST: &str =
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let step = |step, expected: Value| is_written(&Told::Step(step), &expected);
        for (kind, word) in [
            (Kind::Manifest, "manifest"),
            (Kind::Link, "link"),
            (Kind::Blob, "blob"),
            (Kind::Upload, "upload"),
            (Kind::Orphan, "orphan"),
            (Kind::Repository, "repository"),
        ] {
            let (repository, name, why) = (Some("app".into()), "it".into(), "old".into());
            step(
                Event::Gone { kind, repository, name, bytes: 5, why },
                json!({
                    "event": "gone", "kind": word, "repository": "app", "name": "it", "bytes": 5,
                    "why": "old",
                }),
            );
        }
        step(
            Event::Problem { message: "odd".into() },
            json!({ "event": "problem", "message": "odd" }),
        );
        step(
            Event::Damaged {
                digest: DIGEST.parse().unwrap(),
                what: "cut".into(),
                images: vec!["app:v1".into()],
            },
            json!({ "event": "damaged", "digest": DIGEST, "what": "cut", "images": ["app:v1"] }),
        );
        step(
            Event::Lacking {
                image: "app:v1".into(),
                lacking: 2,
                example: DIGEST.into(),
                is_sparse: true,
            },
            json!({
                "event": "lacking", "image": "app:v1", "lacking": 2, "example": DIGEST,
                "is_sparse": true,
            }),
        );
        step(
            Event::Repaired { digest: DIGEST.parse().unwrap(), how: "copied".into() },
            json!({ "event": "repaired", "digest": DIGEST, "how": "copied" }),
        );
        step(
            Event::Progress { done: Some(1), total: Some(2), bytes_done: 3, bytes_total: u64::MAX },
            json!({
                "event": "progress", "done": 1, "total": 2, "bytes_done": 3,
                "bytes_total": u64::MAX,
            }),
        );
        step(Event::Held, json!({ "event": "held" }));
        let what = "another server collects";
        step(Event::Waiting { what: what.into() }, json!({ "event": "waiting", "what": what }));
    }

    #[test]
    fn ends_are_told_in_these_words() {
        let ended = |outcome, expected: Value| is_written(&Told::Ended(outcome), &expected);
        ended(
            Outcome::Collected(gc::Summary { dry_run: true, blobs: 3, ..Default::default() }),
            json!({
                "event": "collected", "dry_run": true, "manifests": 0, "links": 0, "blobs": 3,
                "uploads": 0, "orphans": 0, "repositories": 0, "bytes": 0, "problems": 0,
                "longest_step_micros": 0, "millis": 0,
            }),
        );
        ended(
            Outcome::Verified(verify::Summary { damaged: 1, ..Default::default() }),
            json!({
                "event": "verified", "blobs": 0, "manifests": 0, "bytes": 0, "damaged": 1,
                "incomplete": 0, "repaired": 0, "millis": 0,
            }),
        );
        ended(
            Outcome::Deleted(Deleted { what: "app:v1".into(), manifests: 0, tags: 1, left: None }),
            json!({ "event": "deleted", "what": "app:v1", "manifests": 0, "tags": 1 }),
        );
        ended(Outcome::ReadOnly { on: true }, json!({ "event": "read-only", "on": true }));
        is_written(
            &Told::Failed { message: "no".into() },
            &json!({ "event": "failed", "message": "no" }),
        );
    }

    #[tokio::test]
    async fn steps_come_before_the_end_and_work_stops_when_nobody_listens() {
        let problem = || Event::Problem { message: "odd".into() };
        let mut told = tell(async move |events: Events| {
            events.say(problem()).await?;
            Ok::<_, crate::registry::Error>(Outcome::ReadOnly { on: false })
        });
        assert_eq!(told.recv().await, Some(Told::Step(problem())));
        assert_eq!(told.recv().await, Some(Told::Ended(Outcome::ReadOnly { on: false })));
        assert_eq!(told.recv().await, None);

        let (stopped, mut has_stopped) = mpsc::channel(1);
        let told = tell(async move |events: Events| {
            while events.say(problem()).await.is_ok() {}
            let _ = stopped.send(()).await;
            Err::<Outcome, _>(crate::registry::Error::Abandoned)
        });
        drop(told);
        assert_eq!(has_stopped.recv().await, Some(()));
    }
}
