//! Where a server of PostgreSQL is, and how it is connected to.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use log::LevelFilter;
use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::Error;
use crate::files::{SMALL_FILE_BYTES_MAX, read_at_most};

/// What a server that runs a statement too long has to say so.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// Statements that are kept prepared on a connection: more than there are.
const STATEMENTS: usize = 500;

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Host, port, user and database, as a URL without a password.
    pub url: String,
    /// The same for migrations, where the other one leads through a pooler.
    pub migrate_url: Option<String>,
    /// Where the password stands, if one is needed.
    pub password_file: Option<PathBuf>,
    /// The CA of the server's certificate; the system's unless given.
    pub ca: Option<PathBuf>,
    /// Connections at most.
    pub connections_max: u32,
    /// How long a statement may be at work.
    pub statement_time_max: Duration,
    /// Whether the server has to have commits on disk before it answers.
    pub durable: bool,
}

impl Settings {
    /// How long an answer is waited for: the server gives statements up before.
    #[must_use]
    pub fn answer_time(&self) -> Duration {
        self.statement_time_max + REFUSAL_TIME
    }

    /// Host and database, as they may be told: what stands before them may be a secret that does not
    /// belong there.
    #[must_use]
    pub fn place(&self) -> &str {
        let behind = self.url.rsplit_once('@').map_or(self.url.as_str(), |(_, behind)| behind);
        behind.split('?').next().unwrap_or_default()
    }

    /// What the program of this name needs for a connection. Without `sslmode` in the URL a server
    /// elsewhere must show a certificate of its name.
    pub(super) fn options(&self, url: &str, program: &str) -> Result<PgConnectOptions, Error> {
        let mut options = PgConnectOptions::from_str(url).map_err(Error::Query)?;
        if !url.contains("sslmode=") && !is_here(options.get_host()) {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        if let Some(ca) = &self.ca {
            options = options.ssl_root_cert(ca);
        }
        if let Some(file) = &self.password_file {
            options = options.password(&password(file)?);
        }
        Ok(options
            .application_name(program)
            // Poolers refuse a connection that says this first, and no row has such a number.
            .extra_float_digits(None)
            .statement_cache_capacity(STATEMENTS)
            .log_slow_statements(LevelFilter::Debug, self.statement_time_max))
    }

    /// What a statement, a lock and a transaction that says nothing may take, in milliseconds.
    pub(super) fn times(&self) -> [String; 3] {
        let statement = self.statement_time_max;
        [statement, statement / 2, statement * 3].map(|time| time.as_millis().to_string())
    }
}

/// Whether the host is this machine.
fn is_here(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn password(file: &Path) -> Result<String, Error> {
    let unreadable = |why: &dyn fmt::Display| {
        Error::Unfit(format!("database.password_file: {}: {why}", file.display()))
    };
    let bytes = read_at_most(file, SMALL_FILE_BYTES_MAX).map_err(|error| unreadable(&error))?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(&error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_elsewhere_has_to_show_a_certificate() {
        for (host, here) in [
            ("/run/postgresql", true),
            ("localhost", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("[::1]", true),
            ("db.lan", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_here(host), here, "{host}");
        }
    }
}
