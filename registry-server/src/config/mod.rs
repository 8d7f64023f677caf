//! `registry.toml`: read once at the start, and valid when read.

mod cors;
mod link;
mod store;
mod tables;

use std::{
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use axum::http::Uri;
use berth_shared::{
    config::{ConfigError, address, beside, parse, read},
    database,
    serve::{self, metrics},
    telemetry::LogFormat,
    unix_owner::Settings,
};
use ipnet::IpNet;
use serde::Deserialize;

use crate::{
    auth_client::Place,
    http::origin::Origin,
    issuer::{ForeignIssuer, KeyFile},
    metadata::postgres,
    registry,
    storage::s3,
};
use cors::Cors;
use link::{Link, place};
use store::Store;
use tables::{Collection, Limits, Verification};

/// What the server is to do. Every key stands in `deploy/config/registry.example.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to serve on.
    pub listen: SocketAddr,
    /// Certificate chain and key, PEM files; plain HTTP without them.
    pub tls: Option<TlsFiles>,
    /// The origins by which clients reach this server. The first is the default.
    pub public_urls: Vec<Origin>,
    /// Where database and objects lie.
    pub data: PathBuf,
    /// What tokens must name as their audience, and the challenge as its service.
    pub service: String,
    /// Who must have issued a token.
    pub issuer: String,
    /// Where `auth-server` is.
    pub auth_server: Place,
    /// Somebody else who issues the tokens, in place of `auth-server`.
    pub foreign_issuer: Option<ForeignIssuer>,
    /// Level or directives of the log.
    pub log: String,
    /// Whether `Basic` credentials are taken on the API itself.
    pub basic: bool,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Whether a push is acknowledged only when it has reached the disk.
    pub durable: bool,
    /// What can be changed while the registry runs.
    pub settings: registry::Settings,
    /// The origins of pages that may use the API.
    pub cors: Vec<Origin>,
    /// What clients may hold of the public listener.
    pub connections: serve::Limits,
    /// Where metrics are read; nowhere by default.
    pub metrics: Option<metrics::Config>,
    /// The database, where it is no file in the data directory.
    pub database: Option<postgres::Settings>,
    /// The store of the objects, where they are not in the data directory.
    pub store: Option<s3::Settings>,
}

/// Where certificate and key lie.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForeignTable {
    realm: String,
    jwks: Option<PathBuf>,
    certificates: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(deserialize_with = "address")]
    listen: SocketAddr,
    public_urls: Vec<String>,
    data: Option<PathBuf>,
    service: Option<String>,
    issuer: Option<String>,
    auth_socket: Option<PathBuf>,
    #[serde(default)]
    trusted_proxies: Vec<String>,
    #[serde(default)]
    insecure_http: bool,
    basic: Option<bool>,
    log: Option<String>,
    #[serde(default)]
    log_format: LogFormat,
    tls: Option<TlsFiles>,
    link: Option<Link>,
    foreign_issuer: Option<ForeignTable>,
    durable: Option<bool>,
    #[serde(default)]
    read_only: bool,
    metrics: Option<metrics::Config>,
    database: Option<database::Table>,
    store: Option<Store>,
    #[serde(default)]
    cors: Cors,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    collection: Collection,
    #[serde(default)]
    verification: Verification,
}

impl Config {
    /// Reads `path`. Relative paths in it are meant from the folder that it lies in.
    ///
    /// # Errors
    /// When the file cannot be read, holds an unknown key, or a value that makes no sense; the
    /// error names the key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        read::<File>(path)?.check(path)
    }

    /// The same of settings that a verb was given.
    ///
    /// # Errors
    /// When they hold an unknown key, or a value that makes no sense.
    pub fn of(settings: &Settings) -> Result<Self, ConfigError> {
        parse::<File>(settings.path(), settings.text())?.check(settings.path())
    }

    /// The keys in which `other` differs and which take effect at a start only.
    #[must_use]
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let changed = self.fixed().zip(other.fixed()).filter(|(a, b)| a != b);
        changed.map(|((key, _), _)| key).collect()
    }

    /// What takes effect at a start only, as it prints: some of the types cannot be compared.
    fn fixed(&self) -> impl Iterator<Item = (&'static str, String)> {
        let (connections, limits) = (&self.connections, &self.settings.limits);
        let (socket, link): (&dyn Debug, &dyn Debug) = match &self.auth_server {
            Place::Socket(socket) => (socket, &()),
            Place::Link(link) => (&(), link),
        };
        let values: [(_, &dyn Debug); _] = [
            ("listen", &self.listen),
            ("tls", &self.tls),
            ("public_urls", &self.public_urls),
            ("data", &self.data),
            ("basic", &self.basic),
            ("durable", &self.durable),
            ("database", &self.database),
            ("store", &self.store),
            ("service", &self.service),
            ("issuer", &self.issuer),
            ("auth_socket", socket),
            ("link", link),
            ("foreign_issuer", &self.foreign_issuer),
            ("trusted_proxies", &connections.trusted_proxies),
            ("cors.allowed_origins", &self.cors),
            ("log_format", &self.log_format),
            ("metrics", &self.metrics),
            ("limits.uploads_max", &limits.uploads_max),
            ("limits.connections_max", &connections.connections_max),
            ("limits.connections_per_network_max", &connections.connections_per_network_max),
            ("limits.connection_idle_secs_max", &connections.idle_timeout),
            ("limits.transfer_bytes_per_sec_min", &connections.transfer_bytes_per_sec_min),
            ("limits.body_idle_secs_max", &connections.body_idle),
            ("limits.memory_bytes_max", &limits.memory_bytes_max),
        ];
        values.into_iter().map(|(key, value)| (key, format!("{value:?}")))
    }
}

impl File {
    fn check(self, path: &Path) -> Result<Config, ConfigError> {
        let public_urls = origins(&self.public_urls, self.insecure_http)?;
        if self.tls.is_none() && !self.listen.ip().is_loopback() && !self.insecure_http {
            return Err(ConfigError::value(
                "tls",
                format!(
                    "without a certificate passwords would cross the network in the clear: give \
                     certificate and key, listen on a loopback address instead of {}, or set \
                     insecure_http = true",
                    self.listen
                ),
            ));
        }
        let trusted_proxies = networks(&self.trusted_proxies)?.into();
        let service = self.service.unwrap_or("berth".into());
        if !is_service(&service) {
            return Err(ConfigError::value("service", "must be a plain, non-empty name in ASCII"));
        }
        let settings = registry::Settings {
            limits: self.limits.check()?,
            collection: self.collection.settings(self.store.is_some())?,
            verification: self.verification.settings(self.store.is_some())?,
            read_only: self.read_only,
        };
        let connections = serve::Limits { trusted_proxies, ..self.limits.of_connections()? };
        let durable = self.durable.unwrap_or(true);
        let data = beside(path, &self.data.unwrap_or("registry".into()));
        let server = self.database.map(|table| table.check(path, durable)).transpose()?;
        let database = server.map(|server| postgres::Settings { server, copies: data.clone() });
        let is_foreign = self.foreign_issuer.is_some();
        let auth_server = place(path, self.auth_socket, self.link, is_foreign)?;
        let foreign_issuer = self.foreign_issuer.map(|table| table.check(path, self.insecure_http));
        Ok(Config {
            listen: self.listen,
            tls: self.tls.map(|tls| TlsFiles {
                certificate: beside(path, &tls.certificate),
                key: beside(path, &tls.key),
            }),
            data,
            service,
            issuer: self.issuer.unwrap_or("berth".into()),
            auth_server,
            foreign_issuer: foreign_issuer.transpose()?,
            log: self.log.unwrap_or("info".into()),
            basic: self.basic.unwrap_or(true),
            log_format: self.log_format,
            durable,
            database,
            store: self.store.map(|table| table.check(path, &public_urls)).transpose()?,
            public_urls,
            settings,
            connections,
            cors: self.cors.check()?,
            metrics: self.metrics.map(metrics::Config::check).transpose()?,
        })
    }
}

/// Whether `text` can be the name of a service.
pub(crate) fn is_service(text: &str) -> bool {
    !text.is_empty() && can_be_quoted(text)
}

/// Whether `text` can stand between quotes in a header as it is, for every client.
fn can_be_quoted(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
}

/// Whether `text` can be the realm of a foreign issuer: a URL that a challenge can quote.
pub(crate) fn is_realm(text: &str, insecure_http: bool) -> bool {
    let is_url = text.parse().is_ok_and(|uri: Uri| {
        let scheme = uri.scheme_str();
        uri.host().is_some()
            && uri.query().is_none()
            && (scheme == Some("https") || (insecure_http && scheme == Some("http")))
    });
    is_url && can_be_quoted(text)
}

impl ForeignTable {
    fn check(self, path: &Path, insecure_http: bool) -> Result<ForeignIssuer, ConfigError> {
        const REALM: &str = "foreign_issuer.realm";
        if !is_realm(&self.realm, insecure_http) {
            let reason =
                "must be an https URL without a query, such as https://auth.example.org/token";
            return Err(ConfigError::value(REALM, reason));
        }
        let keys = match (self.jwks, self.certificates) {
            (Some(jwks), None) => KeyFile::Jwks(beside(path, &jwks)),
            (None, Some(bundle)) => KeyFile::Certificates(beside(path, &bundle)),
            _ => {
                let reason = "needs either jwks or certificates: the issuer's public keys";
                return Err(ConfigError::value("foreign_issuer", reason));
            }
        };
        Ok(ForeignIssuer { realm: self.realm, keys })
    }
}

/// Reads one network. The address is in its one form: `10.0.0.01` may mean eight to one reader and
/// one to another.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let Some((address, prefix)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok()
}

/// Reads the networks of proxies. An address alone is a network of one.
fn networks(texts: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    const KEY: &str = "trusted_proxies";
    let read = |text: &String| {
        let network = network(text).ok_or_else(|| {
            let reason = "is neither an address nor a network such as 10.0.0.0/8";
            ConfigError::value(KEY, format!("{text:?} {reason}"))
        })?;
        if network.prefix_len() == 0 {
            return Err(ConfigError::value(KEY, "trusting every address trusts none"));
        }
        Ok(network)
    };
    texts.iter().map(read).collect()
}

fn origins(urls: &[String], insecure_http: bool) -> Result<Vec<Origin>, ConfigError> {
    const KEY: &str = "public_urls";
    if urls.is_empty() {
        return Err(ConfigError::value(
            KEY,
            "needs at least one, as in \"https://reg.example.org\"",
        ));
    }
    let read = |url: &String| {
        let refuse = |reason: &str| ConfigError::value(KEY, format!("{url:?} {reason}"));
        let uri: Uri = url.parse().map_err(|_| refuse("is no URL"))?;
        let origin = Origin::from_uri(&uri).ok_or_else(|| {
            refuse("must be scheme and host alone, as in https://reg.example.org")
        })?;
        if !origin.is_https() && !origin.is_loopback() && !insecure_http {
            return Err(refuse(
                "would have clients send their passwords over plain http: use https, or set \
                 insecure_http = true",
            ));
        }
        Ok(origin)
    };
    urls.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Config, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        file.check(Path::new("/etc/berth/registry.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shortest_configuration_takes_the_defaults() {
        let config =
            read_text("listen = '127.0.0.1:5000'\npublic_urls = ['https://r.example.org']")
                .unwrap();
        assert_eq!(config.data, Path::new("/etc/berth/registry"));
        assert_eq!(config.settings.limits.manifest_bytes_max, 4 * 1024 * 1024);
        assert_eq!(config.settings.limits.memory_bytes_max, 64 * 1024 * 1024);
    }

    #[test]
    fn mistakes_name_their_key() {
        let good = "listen = '127.0.0.1:5000'\npublic_urls = ['https://r.example.org']\n";
        for (text, key) in [
            ("listen = '0.0.0.0:5000'\npublic_urls = ['https://r.example.org']", "tls"),
            ("listen = '5000'\npublic_urls = ['https://r.example.org']", "such as [::]:5000"),
            ("listen = '127.0.0.1:5000'\npublic_urls = ['http://r.example.org']", "public_urls"),
            ("listen = '127.0.0.1:5000'\npublic_urls = ['https://r.example.org/x']", "public_urls"),
            ("listen = '127.0.0.1:5000'\npublic_urls = []", "public_urls"),
            (&format!("{good}lisen = 1"), "lisen"),
            (&format!("{good}trusted_proxies = ['0.0.0.0/0']"), "trusted_proxies"),
            (&format!("{good}trusted_proxies = ['10.0.0.01/32']"), "trusted_proxies"),
            (&format!("{good}[foreign_issuer]\nrealm = 'https://a.org/token'"), "foreign_issuer"),
            (
                &format!("{good}[foreign_issuer]\nrealm = 'http://a.org/token'\njwks = 'k'"),
                "foreign_issuer.realm",
            ),
            (
                &format!("{good}[foreign_issuer]\nrealm = 'https://a.org/tökén'\njwks = 'k'"),
                "foreign_issuer.realm",
            ),
            (&format!("{good}service = 'a\"b'"), "service"),
            (&format!("{good}service = \"a\\nb\""), "service"),
            (&format!("{good}service = 'bérth'"), "service"),
            (&format!("{good}[database]\nurl = 'db'"), "database.url"),
            (&format!("{good}[database]\nurl = 'mysql://db/berth'"), "database.url"),
            (
                &format!(
                    "{good}[database]\nurl = 'postgres://db/a'\nmigrate_url = 'postgres://a:b@db'"
                ),
                "database.migrate_url",
            ),
            (&format!("{good}[database]\nurl = 'postgres://a:b@db/berth'"), "database.url"),
            (&format!("{good}[database]\nurl = 'postgres://a:b/c?d@db/berth'"), "database.url"),
            (&format!("{good}[database]\nurl = 'postgres://db/berth?password=b'"), "database.url"),
            (
                &format!("{good}[database]\nurl = 'postgres://db/berth'\nconnections_max = 7"),
                "database.connections_max",
            ),
            (
                &format!("{good}[database]\nurl = 'postgres://db/berth'\nstatement_secs_max = 0"),
                "database.statement_secs_max",
            ),
            (&format!("{good}[limits]\nuploads_max = 0"), "limits.uploads_max"),
            (
                &format!("{good}[limits]\nuploads_per_subject_max = 0"),
                "limits.uploads_per_subject_max",
            ),
            (
                &format!("{good}[limits]\nsessions_per_subject_max = 0"),
                "limits.sessions_per_subject_max",
            ),
            (
                &format!("{good}[limits]\nunfinished_bytes_per_subject_max = 0"),
                "limits.unfinished_bytes_per_subject_max",
            ),
            (&format!("{good}[limits]\nupload_max = 1"), "upload_max"),
            (&format!("{good}[limits]\nmemory_bytes_max = 33554431"), "limits.memory_bytes_max"),
            (
                &format!("{good}[limits]\nmanifest_bytes_max = 1000\nmemory_bytes_max = 4194303"),
                "limits.memory_bytes_max",
            ),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(key), "{key} not named in: {error}");
        }
    }

    #[test]
    fn the_example_file_names_every_key_and_parses() {
        let text = include_str!("../../../deploy/config/registry.example.toml");
        let config = read_text(text).unwrap();
        assert_eq!(config.settings.limits.uploads_max, Limits::default().uploads_max as usize);
        // Each commented-out key must parse as well.
        let lines: Vec<&str> =
            text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect();
        assert!(read_text(&lines.join("\n")).unwrap().foreign_issuer.is_some());
    }
}
