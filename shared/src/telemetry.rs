//! The log: one line per event on standard error, as text for people or JSON for machines.

use std::{borrow::Cow, io, iter};

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, Registry, filter::LevelFilter, fmt, prelude::*, reload};

use crate::shown::{self, shown};

/// What colours begin with.
const ESCAPE: &str = "\x1b";

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, one object per line.
    Json,
}

/// Changes what is logged while the program runs.
#[derive(Debug, Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl LogControl {
    /// Puts another level or other directives in force.
    ///
    /// # Errors
    /// When `filter` cannot be read; then nothing changes.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        self.0.reload(read(filter)?).map_err(|error| error.to_string())
    }
}

/// A bare word is a level: the library takes any other for a target, and silences all the rest.
fn read(filter: &str) -> Result<EnvFilter, String> {
    for word in filter.split(',').filter(|word| !word.contains(['=', '['])) {
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(format!(
                "log: {word:?} is no level: write error, warn, info, debug, trace or off, and for \
                 one part alone TARGET=LEVEL"
            ));
        }
    }
    EnvFilter::try_new(filter).map_err(|error| format!("log: {error}"))
}

/// Sends the log to standard error. `filter` is a level such as `info`, or directives such as
/// `info,sqlx=warn`.
///
/// # Errors
/// When `filter` cannot be read.
pub fn init(filter: &str, format: LogFormat) -> Result<LogControl, String> {
    let (filter, handle) = reload::Layer::new(read(filter)?);
    let has_colours = format == LogFormat::Text && io::IsTerminal::is_terminal(&io::stderr());
    let writer = move || Lines { to: io::stderr(), format, has_colours };
    let layer = fmt::layer().with_ansi(has_colours).with_target(false).with_writer(writer);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(filter).with(layer);
    registry.try_init().map_err(|error| error.to_string())?;
    Ok(LogControl(handle))
}

/// Writes each event, which comes as one piece, as one line that does nothing to a terminal,
/// whatever is told in it: paths, names and errors come from clients.
struct Lines<W> {
    to: W,
    format: LogFormat,
    /// Whether the line itself begins with escapes; those within values are none any more.
    has_colours: bool,
}

impl<W: io::Write> io::Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        // As nearly every line is.
        if !text.contains(shown::is_control) {
            self.to.write_all(event)?;
            return Ok(event.len());
        }
        let line: Cow<'_, str> = match self.format {
            LogFormat::Json => shown::json(text),
            LogFormat::Text if self.has_colours => {
                let parts: Vec<_> = text.split(ESCAPE).map(|it| shown(it).to_string()).collect();
                parts.join(ESCAPE).into()
            }
            LogFormat::Text => shown(text).to_string().into(),
        };
        self.to.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// An error with everything that caused it, in one line. A cause that the text before it has said
/// already is not said again.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in iter::successors(error.source(), |cause| cause.source()) {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What one event becomes whose text and field a client has chosen.
    fn logged(format: LogFormat, has_colours: bool, text: &'static str) -> String {
        #[derive(Clone, Default)]
        struct Buffer(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Buffer {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let buffer = Buffer::default();
        let to = buffer.clone();
        let writer = move || Lines { to: to.clone(), format, has_colours };
        let layer = fmt::layer().with_ansi(has_colours).with_writer(writer).without_time();
        let registry = tracing_subscriber::registry();
        let event = || tracing::info!(error = text, "GET /v2/{text}");
        match format {
            LogFormat::Text => tracing::subscriber::with_default(registry.with(layer), event),
            LogFormat::Json => {
                tracing::subscriber::with_default(registry.with(layer.json()), event)
            }
        }
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn an_event_is_one_line_that_does_nothing_to_a_terminal() {
        let hostile = "a\u{202e}b\u{2028}c\u{9b}d\x1b[31me\nf\u{2066}";
        for (format, has_colours) in
            [(LogFormat::Text, false), (LogFormat::Text, true), (LogFormat::Json, false)]
        {
            let line = logged(format, has_colours, hostile);
            let text = line.strip_suffix('\n').unwrap();
            let is_hostile = |c| c != '\x1b' && shown::is_control(c);
            assert!(!text.contains(is_hostile), "{text:?}");
            assert!(!text.contains("\x1b[31m"), "{text:?}");
            assert_eq!(text.contains('\x1b'), has_colours, "{text:?}");
            let escape =
                if format == LogFormat::Json { "/v2/a\\u202eb" } else { "/v2/a\\u{202e}b" };
            assert!(text.contains(escape), "{text:?}");
        }
    }

    #[test]
    fn a_filter_is_a_level_or_directives_and_no_other_word() {
        for good in ["info", "WARN", "off", "info,sqlx=warn", "sqlx=trace"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in ["", "warning", "verbose", "inof", "info,sqlx", "sqlx=loud"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
