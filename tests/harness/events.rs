//! What the servers say through `tracing`: kept while a test records, thrown away otherwise.
//!
//! Servers, database threads and the blocking pool share one process with all tests, so the one
//! subscriber is global, and a recording holds what every test of the binary has caused.

use std::{
    fmt::{Debug, Write},
    sync::{
        Arc, Mutex, MutexGuard, Once, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use tracing::{
    Level, Metadata,
    field::{Field, Visit},
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

/// What belongs to Berth and is recorded down to its smallest words. Of everything else only what
/// the log shows unless told otherwise.
const OWN: [&str; 5] = ["berth", "auth_server", "registry_server", "authctl", "sqlx::query"];

static LIVE: AtomicUsize = AtomicUsize::new(0);
static RECORDINGS: Mutex<Vec<Weak<Mutex<Vec<Event>>>>> = Mutex::new(Vec::new());

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where it comes from.
    pub target: &'static str,
    /// Its message and fields.
    pub text: String,
}

/// The events since it was begun.
#[derive(Debug)]
pub struct Recording(Arc<Mutex<Vec<Event>>>);

/// Makes recording possible. To be called before a server's first event, since what nobody
/// listens to at first may stay silent.
///
/// # Panics
/// When something else receives the events.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Recorder);
        tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recording {
    /// Begins one.
    #[must_use]
    pub fn start() -> Self {
        install();
        let events = Arc::default();
        lock(&RECORDINGS).push(Arc::downgrade(&events));
        LIVE.fetch_add(1, Ordering::SeqCst);
        Self(events)
    }

    /// How many events there have been.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether there has been none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The events so far, which are forgotten here.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Recorder;

impl<S: tracing::Subscriber> Layer<S> for Recorder {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let is_own = OWN.iter().any(|own| metadata.target().starts_with(own));
        LIVE.load(Ordering::SeqCst) > 0 && (is_own || *metadata.level() <= Level::INFO)
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let event = Event { target: event.metadata().target(), text: text.0 };
        lock(&RECORDINGS).retain(|recording| match recording.upgrade() {
            Some(events) => {
                lock(&events).push(event.clone());
                true
            }
            None => false,
        });
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
