//! A place for a registry's tables at a PostgreSQL server, where the tests are told to use one.

use std::env;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Names the server and a database there, as a URL. Each registry has a schema of its own in it.
const SERVER: &str = "BERTH_TEST_POSTGRES";

/// The `[database]` table of a new registry, if its tables are to be in PostgreSQL.
///
/// # Panics
/// When the server does not answer.
#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
pub(crate) async fn table() -> Option<String> {
    let server = env::var(SERVER).ok()?;
    let schema = format!("t{:032x}", fastrand::u128(..));
    let mut connection = PgConnection::connect(&server).await.expect("PostgreSQL");
    let create = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    sqlx::query(create).execute(&mut connection).await.expect("a schema");
    connection.close().await.expect("closed");
    // Few connections for each, since many tests run at once.
    let more = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{more}options[search_path]={schema}");
    Some(format!("[database]\nurl = '{url}'\nconnections_max = 8\n"))
}
