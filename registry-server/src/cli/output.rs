//! What the verbs print: text for people, a line of JSON per event for programs.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    sync::OnceLock,
};

use berth_shared::{
    shown::{self, shown},
    telemetry::chain,
};
use indicatif::{ProgressBar, ProgressStyle};
use registry_server::{
    jobs::event::{Outcome, Tale, Told},
    registry::event::Event,
};
use serde::Serialize;

/// Why a verb did nothing, or broke off, for a person to read.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// Why standard output could not be written, at first.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// How a verb ended.
pub(crate) type Ended = Result<ExitCode, Failure>;

/// With its causes.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(chain(&error))
    }
}

impl Failure {
    /// Tells it: people on standard error, and programs on standard output as well.
    pub(crate) fn print(self, as_json: bool) -> ExitCode {
        let message = self.0.trim_end().to_owned();
        // A mistake in the configuration is shown in several lines.
        complain(&format!("registry-server: {}", message.replace('\n', "\n  ")));
        if as_json {
            json(&Told::<Outcome>::Failed { message });
        }
        ExitCode::FAILURE
    }
}

/// Prints a line, in which names may come from a hostile store. A reader that has enough, such as
/// `head`, is no error. Any other keeps no work from being done, and [`all_written`] tells it.
pub(crate) fn line(text: &str) {
    print(&shown(text).to_string());
}

/// Prints text of the program's own.
pub(crate) fn print(text: &str) {
    let mut output = io::stdout();
    if let Err(error) = writeln!(output, "{text}").and_then(|()| output.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // The first one says enough.
        let _ = UNWRITTEN.set(error);
    }
}

/// Whether everything that was printed reached standard output.
pub(crate) fn all_written() -> Result<(), Failure> {
    UNWRITTEN.get().map_or(Ok(()), |error| {
        Err(Failure(format!(
            "what was asked for is done, but the answer could not be written: {error}"
        )))
    })
}

/// Prints lines on standard error. Where that cannot be written either, the exit code says it.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{}", shown::lines(text));
}

/// Prints an event for programs.
pub(crate) fn json(event: &impl Serialize) {
    print(&shown::json(&serde_json::to_string(event).unwrap_or_default()));
}

/// `3.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `1 blob`, `2 blobs`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Prints rows with a heading in columns as wide as they need; from column `numbers` on they are
/// aligned to the right.
pub(crate) fn table<const N: usize>(rows: &[[String; N]], numbers: usize) {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| shown(cell).to_string())).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in &rows {
        let cell = |(at, text): (usize, &String)| {
            let width = widths[at];
            if at < numbers { format!("{text:<width$}") } else { format!("{text:>width$}") }
        };
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        line(cells.join("  ").trim_end());
    }
}

/// On a terminal: bytes done and the time that is left. Elsewhere nothing is drawn.
fn progress_bar() -> ProgressBar {
    let bytes = style("{bar:30} {binary_bytes}/{binary_total_bytes}, {eta} left");
    ProgressBar::new(0).with_style(bytes)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Prints what work tells, but for its failure, which is given. How it ended comes to `ended`, which
/// gives the line to print and whether anything was wrong; `None` where work cannot end so.
pub(crate) async fn follow<O: Serialize>(
    mut events: Tale<O>,
    as_json: bool,
    ended: impl Fn(&O) -> Option<(String, bool)>,
) -> Ended {
    let bar = progress_bar();
    while let Some(event) = events.recv().await {
        if let Told::Failed { message } = event {
            bar.finish_and_clear();
            // Whoever listens on the socket says it: it is one line, whatever is in it.
            return Err(Failure(shown(&message).to_string()));
        }
        if as_json {
            json(&event);
        }
        match event {
            Told::Ended(outcome) => {
                let Some((text, is_wrong)) = ended(&outcome) else { continue };
                bar.finish_and_clear();
                if !as_json {
                    line(&text);
                }
                return Ok(ExitCode::from(u8::from(is_wrong)));
            }
            Told::Step(Event::Progress {
                done: Some(done),
                total: Some(total),
                bytes_total: 0,
                ..
            }) => {
                bar.set_style(style("{bar:30} {pos}/{len}, {eta} left"));
                bar.set_length(total);
                bar.set_position(done);
            }
            Told::Step(Event::Progress { bytes_done, bytes_total, .. }) => {
                bar.set_length(bytes_total);
                bar.set_position(bytes_done);
            }
            Told::Step(step) if !as_json => bar.suspend(|| show(&step)),
            Told::Step(_) | Told::Failed { .. } => {}
        }
    }
    bar.finish_and_clear();
    Err(Failure("the server went away before it was through".to_owned()))
}

/// Prints a step of work for people.
fn show(event: &Event) {
    match event {
        Event::Gone { kind, repository, name, bytes: size, why } => {
            let kind = kind.name();
            let place = repository.as_ref().filter(|it| *it != name);
            let place = place.map(|it| format!(" of {it}")).unwrap_or_default();
            line(&format!("{kind} {name}{place}: {why}, {}", bytes(*size)));
        }
        Event::LeftBehind { place, what, images } => {
            line(&format!("{what} ({place})"));
            images.iter().for_each(|image| line(&format!("  left behind: {image}")));
        }
        Event::Damaged { digest, what, images } => {
            line(&format!("damaged: {digest}: {what}"));
            images.iter().for_each(|image| line(&format!("  in {image}")));
        }
        Event::Lacking { image, lacking, example, is_sparse } => {
            let what = count((*lacking).into(), "manifest", "manifests");
            let allowed = if *is_sparse { ", which sparse_manifests allows" } else { "" };
            line(&format!(
                "incomplete: {image}: its index names {what} that the repository lacks, such as {example}{allowed}"
            ));
        }
        Event::Repaired { digest, how } => line(&format!("repaired: {digest}: {how}")),
        Event::Waiting { what } => line(&format!("waiting: {what}")),
        Event::Problem { message } => complain(&shown(&format!("skipped: {message}")).to_string()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use registry_server::transfer::{backup, export, import, restore};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn ends_are_told_in_these_words() {
        fn ended(summary: impl Serialize, expected: &Value) {
            assert_eq!(serde_json::to_value(Told::Ended(summary)).unwrap(), *expected);
        }
        ended(
            backup::Summary { blobs: 2, ..Default::default() },
            &json!({
                "event": "backed-up", "repositories": 0, "manifests": 0, "blobs": 2, "bytes": 0,
                "added": 0, "added_bytes": 0, "removed": 0, "missing": 0, "millis": 0,
            }),
        );
        ended(
            restore::Summary { made: "then".into(), ..Default::default() },
            &json!({
                "event": "restored", "made": "then", "repositories": 0, "manifests": 0, "blobs": 0,
                "bytes": 0, "damaged": 0, "millis": 0,
            }),
        );
        ended(
            export::Summary { images: 1, ..Default::default() },
            &json!({
                "event": "exported", "images": 1, "manifests": 0, "blobs": 0, "bytes": 0,
                "damaged": 0, "millis": 0,
            }),
        );
        ended(
            import::Summary { tags: 1, ..Default::default() },
            &json!({
                "event": "imported", "repositories": 0, "manifests": 0, "tags": 1, "blobs": 0,
                "bytes": 0, "present": 0, "skipped": 0, "problems": 0, "millis": 0,
            }),
        );
    }

    #[test]
    fn steps_of_an_import_are_told_in_these_words() {
        let told = |step| serde_json::to_string(&Told::<()>::Step(step)).unwrap();
        let (done, total) = (None, None);
        assert_eq!(
            told(Event::Progress { done, total, bytes_done: 1, bytes_total: 2 }),
            r#"{"event":"progress","bytes_done":1,"bytes_total":2}"#
        );
        let (place, what, images) = ("p".into(), "w".into(), vec!["app:1".into()]);
        assert_eq!(
            told(Event::LeftBehind { place, what, images }),
            r#"{"event":"problem","place":"p","what":"w","images":["app:1"]}"#
        );
    }
}
