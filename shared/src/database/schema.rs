//! How the tables of a database stand to this program.

use serde::Serialize;

/// A change of the tables that this program knows and the database has not seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
}

/// The tables of a database, and what this program makes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schema {
    /// The newest migration that the tables have seen; 0 where there are none.
    pub version: i64,
    /// The newest that this program knows.
    pub known: i64,
    /// The oldest that a program must know to work on them.
    pub compatible_from: i64,
    /// What a start would do, in its order.
    pub missing: Vec<Missing>,
}

impl Schema {
    /// Whether this program is too old for the tables.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        self.compatible_from > self.known
    }
}
