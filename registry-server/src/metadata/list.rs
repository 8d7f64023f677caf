//! A list in one place of a statement, which `json_each` makes rows of: SQLite has it, and
//! PostgreSQL gets it from its first migration.

use berth_shared::database::{Bind, Error, Places};
use serde_json::Value;

/// Rows of texts. Column `n` of a row is `value ->> n`.
#[derive(Debug)]
pub(super) struct List(String);

impl List {
    pub(super) fn of<'a, const N: usize>(rows: impl IntoIterator<Item = [&'a str; N]>) -> Self {
        Self(Value::from_iter(rows).to_string())
    }
}

impl Bind for List {
    fn bind(&self, places: &mut Places<'_>) -> Result<(), Error> {
        self.0.bind(places)
    }
}
