//! An installation of its own, as `authctl` makes it, and both servers as processes with the
//! settings that they are shipped with.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use harness::{Client, client::HOST, stack::PASSWORD};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    figures::Figures,
    line::{Line, authorization},
};

/// How long a server may take to start.
const START_SECS_MAX: u64 = 30;

/// Who there is beside andrew, who may do everything, and what they may do.
const PEOPLE: [(&str, &[&str]); 3] =
    [("bob", &["bob/**:*"]), ("eve", &["eve/**:*"]), ("carol", &[])];

/// Both servers, and the way to them.
pub(crate) struct Site {
    bin: PathBuf,
    /// Trusts the site's CA and speaks HTTP/1.1.
    pub(crate) client: Client,
    /// The same for HTTP/2.
    pub(crate) http2: Client,
    auth: Option<Child>,
    registry: Option<Child>,
    // Behind the servers, which write to it until they are killed.
    directory: TempDir,
}

impl Site {
    /// Makes an installation below `parent` that listens on `address`, and starts it.
    ///
    /// # Errors
    /// When it cannot be made or does not start.
    pub(crate) async fn start(bin: &Path, parent: &Path, address: IpAddr) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("berth-load-").tempdir_in(parent)?;
        let root = directory.path();
        let address = free_port(address)?;
        let (data, certs) = (root.join("data"), root.join("certs"));
        let listen = address.to_string();
        let words = ["init", "--host", HOST, "--listen", &listen, "--user", "andrew"];
        let mut authctl = Command::new(bin.join("authctl"));
        authctl.args(words).arg("--password-stdin");
        run(authctl.arg("--data").arg(&data).arg("--certs").arg(&certs)).await?;
        let ca = CertificateDer::from_pem_file(certs.join("ca.pem")).map_err(io::Error::other)?;
        let client = Client::new(address, &ca, &[]);
        let http2 = Client::new(address, &ca, &["h2"]);
        let bin = bin.to_owned();
        let mut site = Self { bin, client, http2, auth: None, registry: None, directory };
        for (name, grants) in PEOPLE {
            let grants: Vec<_> = grants.iter().flat_map(|grant| ["--grant", *grant]).collect();
            site.authctl(&[&["user", "add", name, "--password-stdin"], &*grants].concat()).await?;
        }
        site.authctl(&["grant", "anonymous", "public/**:pull"]).await?;
        site.restart().await?;
        Ok(site)
    }

    /// Runs a verb of `authctl`; what asks for a password gets the one that everybody has.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) async fn authctl(&self, words: &[&str]) -> io::Result<()> {
        let mut authctl = Command::new(self.bin.join("authctl"));
        run(authctl.arg("--config").arg(self.config("auth.toml")).args(words)).await
    }

    /// Kills both servers and starts them again, on the same data and at the same address: what
    /// they hold in memory is what comes from now on.
    ///
    /// # Errors
    /// When they do not start.
    pub(crate) async fn restart(&mut self) -> io::Result<()> {
        self.kill().await;
        self.auth = Some(self.serve("auth-server", "auth.toml").await?);
        self.registry = Some(self.serve("registry-server", "registry.toml").await?);
        Ok(())
    }

    /// Kills both servers and removes what they kept.
    pub(crate) async fn end(mut self) {
        self.kill().await;
        if let Err(error) = self.directory.close() {
            eprintln!("# removing the data directory: {error}");
        }
    }

    async fn kill(&mut self) {
        for mut server in [self.auth.take(), self.registry.take()].into_iter().flatten() {
            // One that has ended by itself cannot be killed, and need not be.
            let _ = server.kill().await;
        }
    }

    /// What `registry-server` and `auth-server` hold.
    ///
    /// # Errors
    /// When one of them has ended.
    pub(crate) fn figures(&self) -> io::Result<[Figures; 2]> {
        let of = |server: &Option<Child>| {
            let process = server.as_ref().and_then(Child::id);
            Figures::of(process.ok_or_else(|| io::Error::other("a server has ended"))?)
        };
        Ok([of(&self.registry)?, of(&self.auth)?])
    }

    /// The `Authorization` header with a token for the user, or for nobody.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(crate) async fn bearer(&self, user: Option<&str>, scope: &str) -> io::Result<String> {
        let target = format!("/token?service=berth&scope={scope}");
        let mut line = Line::new(&self.client, user.map(authorization));
        let answer = line.expect("GET", &target, None, "").await?;
        let body: serde_json::Value = serde_json::from_slice(answer.body())?;
        let token = body["token"].as_str().ok_or_else(|| io::Error::other("there is no token"))?;
        Ok(format!("Bearer {token}"))
    }

    /// A way to the registry for a user whose password is shown with each request.
    pub(crate) fn line(&self, user: &str) -> Line {
        Line::new(&self.client, Some(authorization(user)))
    }

    async fn serve(&self, name: &str, config: &str) -> io::Result<Child> {
        let config = self.config(config);
        let log = self.directory.path().join(format!("{name}.log"));
        let log: File = OpenOptions::new().create(true).append(true).open(log)?;
        let program = self.bin.join(name);
        let mut server = Command::new(&program);
        server.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server =
            server.kill_on_drop(true).spawn().map_err(|error| told(&program, error))?;
        let asking = async {
            let mut health = Command::new(&program);
            health.arg("--config").arg(&config).arg("health").stderr(Stdio::null());
            while !health.status().await?.success() {
                if let Some(status) = server.try_wait()? {
                    return Err(told(&program, format!("ended by itself: {status}")));
                }
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        let ready = timeout(Duration::from_secs(START_SECS_MAX), asking).await;
        ready.map_err(|_| told(&program, "does not become ready"))??;
        Ok(server)
    }

    fn config(&self, name: &str) -> PathBuf {
        self.directory.path().join("data").join(name)
    }

    /// The last lines of both logs, for when something went wrong.
    pub(crate) fn last_words(&self) -> Vec<String> {
        const LINES: usize = 5;
        let logs = ["registry-server", "auth-server"].map(|name| format!("{name}.log"));
        let read = |log: String| fs::read_to_string(self.directory.path().join(log));
        let texts = logs.into_iter().filter_map(|log| read(log).ok());
        let last = |text: String| text.lines().rev().take(LINES).map(str::to_owned).collect();
        texts.flat_map(|text| -> Vec<String> { last(text) }).collect()
    }
}

/// A port that nobody listens on, and that stays the same when the servers start again.
fn free_port(address: IpAddr) -> io::Result<SocketAddr> {
    TcpListener::bind((address, 0))?.local_addr()
}

async fn run(command: &mut Command) -> io::Result<()> {
    let program = PathBuf::from(command.as_std().get_program());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(|error| told(&program, error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A verb that asks for nothing may have ended by now.
        let _ = stdin.write_all(format!("{PASSWORD}\n").as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(told(&program, String::from_utf8_lossy(&output.stderr)))
}

fn told(program: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", program.display()))
}
