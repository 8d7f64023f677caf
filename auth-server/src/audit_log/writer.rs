//! The one task that writes what clients caused, and that brings every row to the file.
//!
//! It waits a moment after the first entry, takes all that have come, and commits them together.
//! Where the database or the file cannot be written it says so once, keeps what it holds, and goes
//! on trying; what then finds no place in the queue is lost, and a row says how much. So does one
//! for rows that the table had no room for any more before the file could be written again.
//!
//! How far the file has come is written down with the next batch, after its lines are durable. A
//! crash in between leaves lines that are not written down: they are found again by the file's last
//! line. So a restart repeats no row and leaves none out, unless the file was moved away just then;
//! then it repeats those of the last second.

use std::{sync::Arc, time::Duration};

use berth_shared::{clock::Clock, telemetry::chain};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    export::{Error, Export},
    queue::{Queue, count_lost},
    settings::Settings,
};
use crate::{
    audit::entry::Entry,
    database::{Database, audit::Kept},
};

/// How long the first entry of a batch waits for others. A crash loses what came in this time.
const BATCH_WINDOW: Duration = Duration::from_millis(50);

/// How often the table is looked at for what `authctl` wrote, and what failed is tried again.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// Rows that are read and written to the file at once.
const ROWS_AT_ONCE: u32 = 2_000;

/// Writes for as long as the server runs.
pub struct Writer {
    database: Arc<Database>,
    queue: Arc<Queue>,
    clock: Clock,
    kept: Kept,
    /// What was taken from the queue and is not in the database yet.
    pending: Vec<Entry>,
    export: Option<Export>,
    /// The last exported row, as the database has it.
    exported_noted: i64,
    /// Whether what the database has was read.
    is_begun: bool,
    /// What could not be done the last time, so that it is said once.
    complaint: Option<String>,
}

impl Writer {
    /// A writer of what comes through `queue`, to the table and to the files.
    pub fn new(
        database: Arc<Database>,
        queue: Arc<Queue>,
        settings: &Settings,
        export: Option<Export>,
        clock: Clock,
    ) -> Self {
        Self {
            database,
            queue,
            clock,
            kept: Kept { rows_max: settings.rows_max, failure_rows_max: settings.failure_rows_max },
            pending: Vec::new(),
            export,
            exported_noted: 0,
            is_begun: false,
            complaint: None,
        }
    }

    /// Writes until `end`, and then what is left.
    pub async fn run(mut self, end: CancellationToken) {
        let mut ticks = tokio::time::interval(FOLLOW_INTERVAL);
        while !end.is_cancelled() {
            let is_well = self.complaint.is_none();
            tokio::select! {
                () = self.queue.filled(), if is_well => tokio::select! {
                    () = sleep(BATCH_WINDOW) => {}
                    () = end.cancelled() => {}
                },
                _ = ticks.tick() => {}
                () = end.cancelled() => {}
            }
            let done = self.step().await;
            self.complain_of(done);
        }
        let done = self.step().await;
        self.complain_of(done);
        // Now that the file is complete, the database is told.
        if let Err(error) = self.note_exported().await {
            self.complain_of(Err(error));
        }
        let lost = self.pending.len() as u64 + self.queue.take().entries.len() as u64;
        if lost > 0 {
            count_lost(lost);
            tracing::error!(lost, "the audit could not be written to its end");
        }
    }

    async fn step(&mut self) -> Result<(), Error> {
        if !self.is_begun {
            self.exported_noted = self.database.exported_row().await?;
            if let Some(export) = &mut self.export {
                export.exported = self.exported_noted;
            }
            self.is_begun = true;
        }
        self.write_waiting().await?;
        self.clear().await?;
        self.export().await
    }

    /// Commits what could not be committed before, and then what waits.
    async fn write_waiting(&mut self) -> Result<(), Error> {
        self.write_pending().await?;
        let waiting = self.queue.take();
        self.pending = waiting.entries;
        if waiting.lost > 0 {
            tracing::warn!(lost = waiting.lost, "the audit has a gap");
            self.pending.push(Entry::gap(self.clock.now(), waiting.lost));
        }
        self.write_pending().await
    }

    /// Commits what was taken from the queue, and how far the file has come.
    async fn write_pending(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let exported = self.exported();
        self.database.append_entries(&self.pending, exported).await?;
        self.pending.clear();
        self.exported_noted = exported;
        Ok(())
    }

    async fn clear(&mut self) -> Result<(), Error> {
        let exported = self.export.as_ref().map_or(i64::MAX, |export| export.exported);
        let missed = self.database.clear_rows(self.kept, exported).await?;
        if let Some(export) = &mut self.export
            && missed > 0
        {
            export.missed += missed;
            count_lost(missed);
        }
        Ok(())
    }

    /// Brings the file up to the table. What waits meanwhile is written in between. A look that
    /// finds nothing new is the time to write down how far the file has come.
    async fn export(&mut self) -> Result<(), Error> {
        while let Some(export) = &mut self.export {
            export.find_place(&self.database).await?;
            let rows = self.database.rows_after(export.exported, ROWS_AT_ONCE).await?;
            let Some(last) = rows.last().map(|row| row.id) else {
                return self.note_exported().await;
            };
            let are_all = rows.len() < ROWS_AT_ONCE as usize;
            export.append(rows).await?;
            export.exported = last;
            let missed = std::mem::take(&mut export.missed);
            if missed > 0 {
                tracing::warn!(missed, "rows were cleared away before the audit's file had them");
                self.pending.push(Entry::gap(self.clock.now(), missed));
            }
            if are_all {
                return Ok(());
            }
            self.write_waiting().await?;
        }
        Ok(())
    }

    async fn note_exported(&mut self) -> Result<(), Error> {
        let exported = self.exported();
        if exported != self.exported_noted {
            self.database.append_entries(&[], exported).await?;
            self.exported_noted = exported;
        }
        Ok(())
    }

    fn exported(&self) -> i64 {
        self.export.as_ref().map_or(self.exported_noted, |export| export.exported)
    }

    /// Says once what cannot be done, and once that it can be done again.
    fn complain_of(&mut self, result: Result<(), Error>) {
        let complaint = result.err().map(|error| chain(&error));
        match (&self.complaint, &complaint) {
            (None, Some(complaint)) => {
                tracing::error!(error = complaint, "the audit waits; sign-ins go on without it");
            }
            (Some(_), None) => tracing::info!("the audit is written again"),
            _ => {}
        }
        self.complaint = complaint;
    }
}
