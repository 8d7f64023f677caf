//! The log: one line per event on standard error, as text for people or JSON for machines.

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, Registry, filter::LevelFilter, fmt, prelude::*, reload};

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
    let registry = tracing_subscriber::registry().with(filter);
    let result = match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer = fmt::layer().with_ansi(ansi).with_target(false);
            registry.with(layer.with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_target(false);
            registry.with(layer.with_writer(std::io::stderr)).try_init()
        }
    };
    result.map_err(|error| error.to_string())?;
    Ok(LogControl(handle))
}

/// An error with everything that caused it, in one line. A cause that the text before it has said
/// already is not said again.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
