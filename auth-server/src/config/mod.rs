//! The settings of `auth.toml`: what was read is valid, unknown keys are refused by name.
//!
//! Every key has a default, so that an empty file is a good one. Paths are relative to the file's
//! own directory.

mod keys;

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_shared::{
    config::{ConfigError, address, beside, parse, read},
    database::{Settings as Server, Table},
    serve::metrics,
    telemetry::LogFormat,
    unix_owner::Settings,
};
use serde::Deserialize;

pub use self::keys::Keys;
use crate::{
    audit_log,
    certs::CertificateFiles,
    issue::TOKEN_LIFE_SECS_MAX,
    keys::{self as signing, KeyAlgorithm, KeyIds},
    users::limits::Limits,
};

/// The shortest and longest life of a token, in seconds. Clients read anything below a minute as a
/// minute.
const TOKEN_LIFE_SECS: std::ops::RangeInclusive<u32> = 60..=TOKEN_LIFE_SECS_MAX;

/// How long a refresh token may lie unused, in days: beyond a year it is forgotten, not kept.
const REFRESH_TOKEN_IDLE_DAYS: std::ops::RangeInclusive<u32> = 1..=365;

/// The database's name within the data directory.
pub const DATABASE: &str = "auth.db";

/// Where `make up` puts the settings.
const IN_CHECKOUT: &str = "data/auth.toml";

/// Where a package puts the settings.
const INSTALLED: &str = "/etc/berth/auth.toml";

/// What `auth-server` and `authctl` are told by `auth.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The `iss` of every token; the registry expects the same.
    pub issuer: String,
    /// The services that tokens are issued for; the first is meant when a client names none.
    pub services: Vec<String>,
    /// The htpasswd file with the users.
    pub htpasswd: PathBuf,
    /// The directory of the database, the signing keys and the lock; of the lock alone where they are at a
    /// server.
    pub data: PathBuf,
    /// The table that leads to the server, until that is read out of it.
    #[serde(rename = "database")]
    pub database_table: Option<Table>,
    /// The server of PostgreSQL that the database is at, if it is in no file.
    #[serde(skip)]
    pub server: Option<Server>,
    /// The private Unix socket on which the registry is answered.
    pub socket: PathBuf,
    /// The group, by name or number, whose members may use the socket besides its owner: nobody's
    /// unless given.
    pub socket_group: Option<String>,
    /// How long a token holds, in seconds.
    pub token_life_secs: u32,
    /// Whether clients that ask get a refresh token to keep in place of the password.
    pub refresh_tokens: bool,
    /// How long a refresh token holds that nobody uses, in days.
    pub refresh_token_idle_days: u32,
    /// What new tokens are signed with.
    pub key_algorithm: KeyAlgorithm,
    /// How keys are named in tokens.
    pub key_ids: KeyIds,
    /// How the keys are kept.
    pub keys: Keys,
    /// The log's level or directives.
    pub log: String,
    /// The log's form.
    pub log_format: LogFormat,
    /// A listener for other registries; off unless given.
    pub public: Option<Public>,
    /// Where registry-servers on other machines are answered; off unless given.
    pub link: Option<Link>,
    /// The server's certificate, to be renewed; left alone unless given.
    pub certificates: Option<CertificateFiles>,
    /// A listener for metrics; off unless given.
    pub metrics: Option<metrics::Config>,
    /// What is recorded of sign-ins and acts, and how much of it is kept.
    pub audit: audit_log::Settings,
    /// Bounds, each with a default that suits a home server.
    pub limits: Limits,
}

/// A TLS listener with `/token`, `/keys` and health.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Public {
    /// The address to listen on.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// The certificate chain, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
}

/// A TLS listener on which everything is answered that the private socket answers, to whoever shows the
/// secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The address to listen on.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// The certificate chain, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
    /// The file of the secret.
    pub secret_file: PathBuf,
}

impl Link {
    /// What the certificate came from, if Berth made it and the CA's key is still there.
    pub(crate) fn made_here(&self) -> Option<CertificateFiles> {
        let directory = self.certificate.parent()?.to_owned();
        let files = CertificateFiles { ca: directory.clone(), certs: directory };
        let is_it = files.server_pem() == self.certificate && files.server_key() == self.key;
        (is_it && files.ca_key().exists()).then_some(files)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuer: "berth".to_owned(),
            services: vec!["berth".to_owned()],
            htpasswd: "htpasswd".into(),
            data: "auth".into(),
            database_table: None,
            server: None,
            socket: "run/auth.sock".into(),
            socket_group: None,
            token_life_secs: 900,
            refresh_tokens: false,
            refresh_token_idle_days: 90,
            key_algorithm: KeyAlgorithm::default(),
            key_ids: KeyIds::default(),
            keys: Keys::default(),
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            public: None,
            link: None,
            certificates: None,
            metrics: None,
            audit: audit_log::Settings::default(),
            limits: Limits::default(),
        }
    }
}

/// The settings file that is meant when nobody names one: that in the directory `BERTH_DATA`, which
/// is given; without one that of a checkout, if it is there, else the one of the system.
pub fn default_file(data: Option<OsString>) -> PathBuf {
    match data.filter(|data| !data.is_empty()) {
        Some(data) => Path::new(&data).join("auth.toml"),
        // A directory that may not be read is told apart from a file that is not there.
        None if Path::new(IN_CHECKOUT).try_exists().unwrap_or(true) => IN_CHECKOUT.into(),
        None => INSTALLED.into(),
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// When it is missing, holds an unknown key, or a value that makes no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        read::<Self>(path)?.beside(path)
    }

    /// The same of settings that a verb was given.
    ///
    /// # Errors
    /// When they hold an unknown key, or a value that makes no sense.
    pub fn of(settings: &Settings) -> Result<Self, ConfigError> {
        parse::<Self>(settings.path(), settings.text())?.beside(settings.path())
    }

    /// Checks the values, and makes paths relative to the file's directory.
    fn beside(self, path: &Path) -> Result<Self, ConfigError> {
        let mut config = self;
        config.check()?;
        for own in [&mut config.htpasswd, &mut config.data, &mut config.socket] {
            // Without the "." that stands for the directory itself.
            *own = beside(path, own).components().collect();
        }
        if let Some(CertificateFiles { certs, ca }) = &mut config.certificates {
            if ca.as_os_str().is_empty() {
                ca.clone_from(certs);
            }
            for own in [certs, ca] {
                *own = beside(path, own).components().collect();
            }
        }
        if let Some(public) = &mut config.public {
            public.certificate = beside(path, &public.certificate);
            public.key = beside(path, &public.key);
        }
        if let Some(link) = &mut config.link {
            for own in [&mut link.certificate, &mut link.key, &mut link.secret_file] {
                *own = beside(path, own);
            }
        }
        config.keys.place_beside(path);
        config.audit.place_beside(path);
        let server = config.database_table.take().map(|table| table.check(path, true));
        config.server = server.transpose()?;
        if config.server.is_some() && config.audit.is_to_a_file() {
            let reason = "is \"off\" with [database], where several servers write one audit: \
                          authctl audit --follow --json tells it";
            return Err(ConfigError::value("audit.file", reason));
        }
        Ok(config)
    }

    /// How long a token holds.
    pub fn token_life(&self) -> Duration {
        Duration::from_secs(self.token_life_secs.into())
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.data.join(DATABASE)
    }

    /// What is said of the signing keys.
    pub fn keys(&self) -> signing::Settings {
        signing::Settings {
            directory: self.data.join("keys"),
            sealed_with: self.keys.sealed_with.clone(),
            algorithm: self.key_algorithm,
            ids: self.key_ids,
            token_life_secs: self.token_life_secs,
        }
    }

    /// The keys in which `other` differs, but for the log's level: they take effect at a start.
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let mut keys = Vec::new();
        macro_rules! differ {
            ($($key:ident)*) => {$(
                // Compared by what they print, which is the same when they are.
                if format!("{:?}", self.$key) != format!("{:?}", other.$key) {
                    keys.push(stringify!($key));
                }
            )*};
        }
        differ!(issuer services htpasswd data server socket socket_group token_life_secs refresh_tokens);
        differ!(refresh_token_idle_days key_algorithm key_ids keys log_format public link);
        differ!(certificates metrics audit limits);
        keys
    }

    /// Refuses values that make no sense. [`load`](Self::load) has done it.
    ///
    /// # Errors
    /// The first such value, with its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.issuer.is_empty() {
            return Err(ConfigError::value("issuer", "must not be empty"));
        }
        if self.services.is_empty() {
            return Err(ConfigError::value("services", "name at least one, as in [\"berth\"]"));
        }
        let unquotable = |b: u8| b == b'"' || b == b'\\' || !b.is_ascii_graphic();
        if self.services.iter().any(|name| name.is_empty() || name.bytes().any(unquotable)) {
            let reason = "a service is one word without quotes or spaces, such as \"berth\"";
            return Err(ConfigError::value("services", reason));
        }
        if self.socket_group.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::value("socket_group", "names a group, such as \"berth\""));
        }
        for (key, value, range) in [
            ("token_life_secs", self.token_life_secs, TOKEN_LIFE_SECS),
            ("refresh_token_idle_days", self.refresh_token_idle_days, REFRESH_TOKEN_IDLE_DAYS),
        ] {
            if !range.contains(&value) {
                let (least, most) = (range.start(), range.end());
                let reason = format!("{value} is not within {least} to {most}");
                return Err(ConfigError::value(key, reason));
            }
        }
        self.limits.check()?;
        self.metrics.map(metrics::Config::check).transpose()?;
        self.audit.check()?;
        self.keys.check(self.database_table.is_some() || self.server.is_some())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn an_empty_file_is_a_good_one_and_paths_are_beside_it() {
        let config = load("").unwrap();
        assert!(config.htpasswd.is_absolute() && config.htpasswd.ends_with("htpasswd"));
        assert_eq!(config.token_life(), Duration::from_secs(900));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        for (text, named) in [
            ("isuer = \"x\"", "isuer"),
            ("issuer = \"\"", "issuer"),
            ("services = []", "services"),
            ("services = [\"a b\"]", "services"),
            ("socket_group = \"\"", "socket_group"),
            ("token_life_secs = 59", "token_life_secs"),
            ("token_life_secs = 86401", "token_life_secs"),
            ("key_algorithm = \"HS256\"", "HS256"),
            ("[public]\nlisten = \"0.0.0.0:5001\"", "certificate"),
            ("refresh_token_idle_days = 0", "refresh_token_idle_days"),
            ("refresh_token_idle_days = 366", "refresh_token_idle_days"),
            ("[certificates]\nca = \"ca\"", "directory"),
            ("[certificates]\ndirectory = \"certs\"\nhosts = []", "hosts"),
            ("[limits]\npassword_queue_max = 0", "limits.password_queue_max"),
            ("[limits]\npassword_failures_per_sec_max = 0", "password_failures_per_sec_max"),
            ("[limits]\nsign_in_delay_secs_max = 60", "limits.sign_in_delay_secs_max"),
            ("[limits]\nconnections_max = 0", "limits.connections_max"),
            ("[limits]\nconnection_idle_secs_max = 4294967296", "connection_idle_secs_max"),
            ("[limits]\npassword_cache_secs = 4294967296", "password_cache_secs"),
            ("[limits]\nconnections_per_network_max = 0", "limits.connections_per_network_max"),
            ("[limits]\nconnection_idle_secs_max = 0", "limits.connection_idle_secs_max"),
            ("[limits]\ntransfer_bytes_per_sec_min = 0", "limits.transfer_bytes_per_sec_min"),
            ("[limits]\nbody_idle_secs_max = 0", "limits.body_idle_secs_max"),
            ("[limits]\nmemory_bytes_max = 1048575", "limits.memory_bytes_max"),
            ("[metrics]\nlisten = \"0.0.0.0:9103\"", "metrics.listen"),
            ("[metrics]\nport = 1", "port"),
            ("[keys]\nsealed_with = \"sealing.key\"", "keys.sealed_with"),
            ("[audit]\nrows_max = 999", "audit.rows_max"),
            ("[audit]\nfailure_rows_max = 999", "audit.failure_rows_max"),
            ("[audit]\nfile_bytes_max = 65535", "audit.file_bytes_max"),
            ("[audit]\nfiles_max = 1", "audit.files_max"),
            ("[audit]\nfile = \"\"", "audit.file"),
            ("[audit]\nrows = 1", "rows"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let old = load("").unwrap();
        let new = Config {
            log: "debug".to_owned(),
            metrics: Some(metrics::Config { listen: "127.0.0.1:9103".parse().unwrap() }),
            token_life_secs: 60,
            ..old.clone()
        };
        assert_eq!(old.fixed_differences(&new), ["token_life_secs", "metrics"]);
        assert!(old.fixed_differences(&old.clone()).is_empty());
    }

    #[test]
    fn the_example_file_is_accepted() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/auth.example.toml");
        let config = Config::load(&path).unwrap();
        assert!(config.public.is_some() && config.metrics.is_some());
        let certificates = config.certificates.unwrap();
        assert!(certificates.server_pem().ends_with("../certs/server.pem"));
        assert!(certificates.ca_key().ends_with("../certs/ca.key"));
    }
}
