//! How what happened is written down: what clients caused goes through a queue to the table, and
//! every row to files of JSON lines.
//!
//! - [`queue`] is what waits, and [`writer`] commits it together, so that no sign-in waits for a
//!   disk or fails with it
//! - [`export`] brings every row to a file of JSON lines, and acts and guesses to files of their own
//!   once more, so that what makes the first one rotate does not take them along; [`lines`] is such a
//!   file, and rotates
//! - [`settings`] say what is recorded, and how much of it is kept
//!
//! What is written down is [`crate::audit`]'s, and SQL stays in [`crate::database::audit`].

pub mod export;
pub mod lines;
pub mod queue;
pub mod settings;
pub mod writer;

pub use self::{export::Export, queue::Queue, settings::Settings, writer::Writer};
