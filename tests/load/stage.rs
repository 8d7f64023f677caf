//! One load from beginning to end: prepared, put on servers that hold nothing yet, and measured.

use std::{fmt, io, path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    Options,
    crowd::Outcome,
    figures::Figures,
    good::{Good, Waits},
    kind::Kind,
    site::Site,
};

/// How often the figures are read.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a load stands at least, even if all who make it are done.
const TIME_MIN: Duration = Duration::from_secs(2);

/// What came of a load.
pub(crate) struct Row {
    kind: Kind,
    /// Of `registry-server` and `auth-server`.
    figures: [Figures; 2],
    /// Of pulls, pushes and sign-ins.
    waits: [Waits; 3],
    outcome: Outcome,
}

/// Takes the load through.
///
/// # Errors
/// When the site cannot be made, does not take what is prepared, or a server ends.
pub(crate) async fn run(kind: Kind, options: &Options, bin: &Path) -> io::Result<Row> {
    let parent = options.data.clone().unwrap_or_else(std::env::temp_dir);
    let mut site = Site::start(bin, &parent, options.listen).await?;
    let row = measure(kind, options, &mut site).await;
    if row.is_err() {
        site.last_words().iter().for_each(|line| eprintln!("# {line}"));
    }
    site.end().await;
    row
}

async fn measure(kind: Kind, options: &Options, site: &mut Site) -> io::Result<Row> {
    Good::prepare(site).await?;
    let crowd = kind.prepare(site).await?;
    site.restart().await?;
    let good = Good::start(site, options.good_from).await?;
    let time = options.secs.map_or(kind.time(), Duration::from_secs);
    let begun = Instant::now();
    let mut standing = crowd.start();
    let mut figures = [Figures::default(); 2];
    while begun.elapsed() < time && !(begun.elapsed() > TIME_MIN && standing.is_over()) {
        sleep(LOOK_EVERY).await;
        let now = site.figures()?;
        figures = [now[0].after(figures[0]), now[1].after(figures[1])];
    }
    Ok(Row { kind, figures, waits: good.waits(), outcome: standing.outcome() })
}

impl Row {
    /// The lines above all rows.
    pub(crate) const HEAD: &str = "\
        | load | registry-server, MiB (peak) | auth-server, MiB (peak) | files of both \
        | pull | push | sign-in | those who made the load |\n|---|---|---|---|---|---|---|---|";

    /// The row in a few words.
    pub(crate) fn brief(&self) -> String {
        let [registry, auth] = self.figures.each_ref().map(Figures::peak_mib);
        let [pull, push, sign_in] = self.waits;
        format!(
            "{registry:.0} and {auth:.0} MiB, {} and {} files; a good client waited {pull} for a \
             pull, {push} for a push, {sign_in} to sign in; those who made the load: {}",
            self.figures[0].files_told(),
            self.figures[1].files_told(),
            self.outcome
        )
    }

    /// The bounds of the options that do not hold.
    pub(crate) fn violations(&self, options: &Options) -> Vec<String> {
        let mut found = Vec::new();
        if !self.outcome.has_stood() {
            found.push(format!("the load never stood: {}", self.outcome));
        }
        for (name, figures) in ["registry-server", "auth-server"].iter().zip(&self.figures) {
            let (mib, files) = (figures.peak_mib(), figures.files_told());
            if let Some(most) = options.memory_mib_max.filter(|most| mib >= *most as f64) {
                found.push(format!("{name} held {mib:.0} MiB, and {most} are allowed"));
            }
            if let Some(most) = options.files_max.filter(|most| exceeds(figures.files, *most)) {
                found.push(format!("{name} had {files} files open, and {most} are allowed"));
            }
        }
        for (what, waits) in ["pulls", "pushes", "sign-ins"].iter().zip(&self.waits) {
            if options.served && !waits.is_served() {
                found.push(format!("a good client's {what} were not served: {waits}"));
            }
        }
        if self.kind.is_honest() && !self.outcome.is_whole() {
            found.push(format!("not all were served to the end: {}", self.outcome));
        }
        found
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| kib / 1024;
        write!(f, "| `{}`: {} ", self.kind.name(), self.kind.words())?;
        for of in self.figures {
            write!(f, "| {} ({}) ", mib(of.resident_kib), mib(of.peak_kib))?;
        }
        let [registry, auth] = self.figures;
        write!(f, "| {} + {} ", registry.files_told(), auth.files_told())?;
        for waits in self.waits {
            write!(f, "| {waits} ")?;
        }
        write!(f, "| {} |", self.outcome)
    }
}

/// What cannot be counted may be any number.
fn exceeds(files: Option<usize>, most: usize) -> bool {
    files.is_none_or(|files| files > most)
}
