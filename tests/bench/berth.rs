//! An installation of Berth: what `authctl init` makes, and both servers on it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command as StdCommand,
};

use tokio::process::{Child, Command};

use crate::{
    elsewhere,
    http::Http,
    peer::{Name, PASSWORD, Peer, SignIn, USER},
    start::{Place, serve, until_answers},
    tool::{fed, run},
};

/// The settings of either server.
pub(crate) const AUTH: &str = "auth.toml";
pub(crate) const REGISTRY: &str = "registry.toml";

/// What is on the disk, whether the servers run or not.
pub(crate) struct Installation {
    name: Name,
    bin: PathBuf,
    site: PathBuf,
    base: String,
}

/// Certificate, key and the CA behind them, which `authctl init` makes.
pub(crate) struct Certs {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Installation {
    /// Makes one below `root`; without TLS, as behind a proxy, where the name says so.
    pub(crate) async fn make(
        bin: &Path,
        root: &Path,
        name: Name,
        place: &Place,
    ) -> io::Result<Self> {
        let (port, host) = (place.free_port()?, &place.host);
        let is_tls = name == Name::BerthTls;
        let scheme = if is_tls { "https" } else { "http" };
        let base = format!("{scheme}://{host}:{port}");
        let this = Self { name, bin: bin.to_owned(), site: root.join(name.word()), base };
        let listen = place.at(port);
        let mut init = Command::new(bin.join("authctl"));
        init.args(["init", "--host", host, "--port", &port.to_string(), "--listen", &listen]);
        init.args(["--user", USER]);
        init.arg("--data").arg(this.data()).arg("--certs").arg(this.site.join("certs"));
        run(init.env("BERTH_PASSWORD", PASSWORD)).await?;
        this.set(REGISTRY, |registry| {
            registry.insert("log".to_owned(), "warn".into());
            if !is_tls {
                registry.remove("tls");
                registry.insert("public_urls".to_owned(), vec![this.base.clone()].into());
            }
        })?;
        if name == Name::BerthS3 {
            this.keep_elsewhere()?;
        }
        Ok(this)
    }

    /// Rows go to PostgreSQL, and objects to a bucket.
    fn keep_elsewhere(&self) -> io::Result<()> {
        let database = elsewhere::database().map_err(io::Error::other)?;
        let bucket = elsewhere::bucket().map_err(io::Error::other)?;
        let key = |file: &str, text: &str| fs::write(self.data().join(file), text);
        key("s3.name", &bucket.name)?;
        key("s3.secret", &bucket.secret)?;
        self.set(REGISTRY, |registry| {
            let database = toml::Table::from_iter([("url".to_owned(), database.into())]);
            let store = [
                ("url", format!("s3://{}/berth", bucket.bucket)),
                ("endpoint", bucket.endpoint),
                ("access_key_file", "s3.name".to_owned()),
                ("secret_key_file", "s3.secret".to_owned()),
            ];
            let store = store.map(|(key, value)| (key.to_owned(), value.into()));
            registry.insert("database".to_owned(), database.into());
            registry.insert("store".to_owned(), toml::Table::from_iter(store).into());
        })
    }

    /// Where it keeps what is pushed, and the settings.
    pub(crate) fn data(&self) -> PathBuf {
        self.site.join("data")
    }

    pub(crate) fn certs(&self) -> Certs {
        let file = |name: &str| self.site.join("certs").join(name);
        Certs { ca: file("ca.pem"), certificate: file("server.pem"), key: file("server.key") }
    }

    /// Changes settings, for servers that are started from now on.
    pub(crate) fn set(&self, file: &str, change: impl FnOnce(&mut toml::Table)) -> io::Result<()> {
        let path = self.data().join(file);
        let mut settings = fs::read_to_string(&path)?.parse().map_err(io::Error::other)?;
        change(&mut settings);
        fs::write(path, settings.to_string())
    }

    /// Adds a user with everybody's password.
    pub(crate) async fn add_user(&self, name: &str, grant: &str) -> io::Result<()> {
        let mut authctl = Command::new(self.bin.join("authctl"));
        authctl.arg("--config").arg(self.data().join(AUTH)).args(["user", "add", name]);
        authctl.args(["--password-stdin", "--grant", grant]);
        fed(&mut authctl, PASSWORD).await.map(drop)
    }

    /// Starts both servers.
    pub(crate) async fn start(&self) -> io::Result<Peer> {
        let ca = self.certs().ca;
        let peer = Peer {
            name: self.name,
            base: self.base.clone(),
            directory: self.data(),
            http: Http::new(&ca)?,
            ca,
            sign_in: SignIn::Token,
            servers: vec![
                self.server("auth-server", AUTH)?,
                self.server("registry-server", REGISTRY)?,
            ],
        };
        until_answers(&peer).await?;
        Ok(peer)
    }

    /// Starts one of them.
    pub(crate) fn server(&self, program: &str, settings: &str) -> io::Result<Child> {
        let mut server = StdCommand::new(self.bin.join(program));
        server.arg("--config").arg(self.data().join(settings));
        serve(server, &self.site.join(format!("{program}.log")))
    }
}
