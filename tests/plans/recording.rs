//! The statements that are run in this process, as sqlx tells them.
//!
//! The record is the whole process's: where tests run side by side, a statement that `exercise`
//! forgets may pass because another test runs it.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{Mutex, Once, PoisonError},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

static RUN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Keeps what is run from the time that it was begun.
pub(crate) struct Recording(());

impl Recording {
    /// Begins one. Connections have threads of their own, so that it hears all of the process.
    pub(crate) fn start() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Recorder).unwrap());
        Self(())
    }

    /// What was run, each once, with single spaces.
    pub(crate) fn statements(&self) -> BTreeSet<String> {
        RUN.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Recorder;

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut statement = Statement::default();
        event.record(&mut statement);
        // A short one is its own summary.
        let text = if statement.text.is_empty() { statement.summary } else { statement.text };
        RUN.lock().unwrap_or_else(PoisonError::into_inner).insert(super::literals::spaced(&text));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Statement {
    summary: String,
    text: String,
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.trim().clone_into(&mut self.text),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}
