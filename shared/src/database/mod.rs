//! Statements on SQLite or PostgreSQL, each written once, as both servers make them.
//!
//! [`Connection`] is a connection to either, [`Statements`] makes statements on one, and [`Column`], [`Bind`]
//! and [`Row`] are what goes into their places and comes out of their rows. [`Program`] connects to a server
//! of PostgreSQL that [`Settings`] say, and brings its tables up to date; what any file of SQLite needs is
//! [`sqlite`](crate::sqlite). Which tables there are is the server's affair, and how it writes to them.

mod column;
mod connection;
mod error;
mod migrations;
mod program;
mod schema;
mod settings;
mod state;
mod statement;
mod table;

pub use column::{Bind, Column, Optional, same, text};
pub use connection::{Connection, Index, Places, Put, Read, Record};
pub use error::Error;
pub use migrations::Migrations;
pub use program::{Program, TIME, returned};
pub use schema::{Missing, Schema};
pub use settings::Settings;
pub use state::{is_repeated, no_answer};
pub use statement::{Row, Statements, row};
pub use table::Table;
