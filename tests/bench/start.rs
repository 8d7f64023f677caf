//! The peers, each set up by its own documentation, with what it does unless it is told otherwise.

use std::{
    env,
    ffi::OsString,
    fs::{self, Permissions},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command as StdCommand, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{
    http::Http,
    peer::{Name, PASSWORD, Peer, SignIn, USER},
    tool::run,
};

/// How long a peer may take to answer.
const START_SECS_MAX: u64 = 30;

/// The cost of the bcrypt hashes in htpasswd files, which is what `htpasswd -B` makes.
pub(crate) const BCRYPT_COST: &str = "5";

/// Starts every peer that there is. Gives what is missing, too.
pub(crate) async fn peers(bin: &Path, root: &Path) -> io::Result<(Vec<Peer>, Vec<String>)> {
    let mut peers = vec![berth(bin, root, Name::BerthTls).await?];
    let certs = Certs::below(&root.join("BerthTls"));
    peers.push(berth(bin, root, Name::BerthPlain).await?);
    let mut missing = Vec::new();
    let htpasswd = root.join("htpasswd");
    if on_path("htpasswd") {
        let mut htpasswd_of = Command::new("htpasswd");
        htpasswd_of.args(["-Bb", "-C", BCRYPT_COST, "-c"]).arg(&htpasswd).args([USER, PASSWORD]);
        run(&mut htpasswd_of).await?;
        // nginx's workers are somebody else, where root runs this.
        fs::set_permissions(root, Permissions::from_mode(0o755))?;
        fs::set_permissions(&htpasswd, Permissions::from_mode(0o644))?;
    } else {
        return Err(io::Error::other("htpasswd is missing: apt-get install apache2-utils"));
    }
    let start = Starting { root, certs: &certs, htpasswd: &htpasswd };
    if on_path("docker-registry") {
        peers.push(start.distribution("docker-registry".into(), Name::Registry).await?);
        if on_path("nginx") {
            peers.push(start.nginx().await?);
        } else {
            missing.push("nginx (apt-get install nginx-light)".to_owned());
        }
    } else {
        missing.push("docker-registry (apt-get install docker-registry)".to_owned());
    }
    let name = Name::Distribution;
    match env::var_os("DISTRIBUTION") {
        Some(program) => peers.push(start.distribution(program, name).await?),
        None => missing.push(format!("{name}: `DISTRIBUTION` names no program")),
    }
    for name in [Name::ZotTls, Name::Zot, Name::ZotCommit] {
        match env::var_os("ZOT") {
            Some(program) => peers.push(start.zot(program, name).await?),
            None => missing.push(format!("{name}: `ZOT` names no program")),
        }
    }
    peers.sort_by_key(|peer| peer.name);
    Ok((peers, missing))
}

/// Certificate, key and the CA behind them, which `authctl init` makes for localhost.
struct Certs {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certs {
    fn below(site: &Path) -> Self {
        let file = |name: &str| site.join("certs").join(name);
        Self { ca: file("ca.pem"), certificate: file("server.pem"), key: file("server.key") }
    }
}

/// Both servers, as `authctl init` sets them up; without TLS on loopback, as behind a proxy.
async fn berth(bin: &Path, root: &Path, name: Name) -> io::Result<Peer> {
    let site = root.join(format!("{name:?}"));
    let (data, certs) = (site.join("data"), site.join("certs"));
    let port = free_port()?;
    let listen = format!("127.0.0.1:{port}");
    let mut init = Command::new(bin.join("authctl"));
    init.args(["init", "--host", "localhost", "--listen", &listen, "--user", USER]);
    init.arg("--data").arg(&data).arg("--certs").arg(&certs);
    run(init.env("BERTH_PASSWORD", PASSWORD)).await?;
    let mut registry: toml::Table = read_toml(&data.join("registry.toml"))?;
    registry.insert("log".to_owned(), "warn".into());
    let scheme = if name == Name::BerthTls { "https" } else { "http" };
    if name == Name::BerthPlain {
        registry.remove("tls");
        registry.insert("public_urls".to_owned(), vec![format!("http://localhost:{port}")].into());
    }
    fs::write(data.join("registry.toml"), registry.to_string())?;
    let mut servers = Vec::new();
    for (program, config) in [("auth-server", "auth.toml"), ("registry-server", "registry.toml")] {
        let mut server = StdCommand::new(bin.join(program));
        server.arg("--config").arg(data.join(config));
        servers.push(serve(server, &site.join(format!("{program}.log")))?);
    }
    let ca = Certs::below(&root.join("BerthTls")).ca;
    let peer = Peer {
        name,
        base: format!("{scheme}://localhost:{port}"),
        directory: data,
        http: Http::new(&ca)?,
        ca,
        sign_in: SignIn::Token,
        servers,
    };
    until_answers(&peer).await?;
    Ok(peer)
}

fn read_toml(path: &Path) -> io::Result<toml::Table> {
    fs::read_to_string(path)?.parse().map_err(io::Error::other)
}

/// What the peers are started with.
struct Starting<'a> {
    root: &'a Path,
    certs: &'a Certs,
    htpasswd: &'a Path,
}

impl Starting<'_> {
    /// distribution, or Debian's docker-registry, which is its version 2.
    async fn distribution(&self, program: OsString, name: Name) -> io::Result<Peer> {
        let (peer, server) = self.distribution_at(&program, name, free_port()?)?;
        let peer = self.peer(name, SignIn::No, peer, vec![server])?;
        until_answers(&peer).await?;
        Ok(peer)
    }

    fn distribution_at(
        &self,
        program: &OsString,
        name: Name,
        port: u16,
    ) -> io::Result<(u16, Child)> {
        let directory = self.directory(name)?;
        let config = json!({
            "version": "0.1",
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": {
                "filesystem": { "rootdirectory": directory.join("store") },
                "delete": { "enabled": true },
            },
            "http": { "addr": format!("127.0.0.1:{port}"), "relativeurls": true },
        });
        let path = write_config(&directory, &config)?;
        let mut server = StdCommand::new(program);
        server.arg("serve").arg(path).env("OTEL_TRACES_EXPORTER", "none");
        Ok((port, serve(server, &directory.join("log"))?))
    }

    /// nginx with TLS and htpasswd in front of a docker-registry of its own.
    async fn nginx(&self) -> io::Result<Peer> {
        let name = Name::NginxRegistry;
        let (backend, registry) =
            self.distribution_at(&"docker-registry".into(), name, free_port()?)?;
        let (port, directory) = (free_port()?, self.directory(name)?);
        let at = |name: &str| directory.join(name).display().to_string();
        let config = include_str!("nginx.conf")
            .replace("{directory}", &directory.display().to_string())
            .replace("{backend}", &backend.to_string())
            .replace("{port}", &port.to_string())
            .replace("{certificate}", &self.certs.certificate.display().to_string())
            .replace("{key}", &self.certs.key.display().to_string())
            .replace("{htpasswd}", &self.htpasswd.display().to_string());
        fs::write(at("nginx.conf"), config)?;
        let mut nginx = StdCommand::new("nginx");
        nginx.args(["-e", &at("nginx.log"), "-c", &at("nginx.conf")]);
        let nginx = serve(nginx, &directory.join("nginx.out"))?;
        let peer = self.peer(name, SignIn::Basic, port, vec![registry, nginx])?;
        until_answers(&peer).await?;
        Ok(peer)
    }

    /// zot without extensions: with TLS and htpasswd, plain, or plain and syncing every blob.
    async fn zot(&self, program: OsString, name: Name) -> io::Result<Peer> {
        let (directory, port) = (self.directory(name)?, free_port()?);
        let mut config = json!({
            "distSpecVersion": "1.1.1",
            "storage": {
                "rootDirectory": directory.join("store"),
                "commit": name == Name::ZotCommit,
            },
            "http": {
                "address": "127.0.0.1",
                "port": port.to_string(),
                "compat": ["docker2s2"],
            },
            "log": { "level": "error" },
        });
        if name == Name::ZotTls {
            config["http"]["tls"] =
                json!({ "cert": self.certs.certificate, "key": self.certs.key });
            config["http"]["auth"] = json!({ "htpasswd": { "path": self.htpasswd } });
        }
        let path = write_config(&directory, &config)?;
        let mut server = StdCommand::new(program);
        server.arg("serve").arg(path);
        let server = serve(server, &directory.join("log"))?;
        let sign_in = if name == Name::ZotTls { SignIn::Basic } else { SignIn::No };
        let peer = self.peer(name, sign_in, port, vec![server])?;
        until_answers(&peer).await?;
        Ok(peer)
    }

    fn directory(&self, name: Name) -> io::Result<PathBuf> {
        let directory = self.root.join(format!("{name:?}"));
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    fn peer(
        &self,
        name: Name,
        sign_in: SignIn,
        port: u16,
        servers: Vec<Child>,
    ) -> io::Result<Peer> {
        let scheme = if sign_in == SignIn::Basic { "https" } else { "http" };
        Ok(Peer {
            name,
            base: format!("{scheme}://localhost:{port}"),
            directory: self.directory(name)?,
            http: Http::new(&self.certs.ca)?,
            ca: self.certs.ca.clone(),
            sign_in,
            servers,
        })
    }
}

/// JSON is YAML too.
fn write_config(directory: &Path, config: &Value) -> io::Result<PathBuf> {
    let path = directory.join("config.json");
    fs::write(&path, config.to_string())?;
    Ok(path)
}

fn serve(mut server: StdCommand, log: &Path) -> io::Result<Child> {
    let program = server.get_program().display().to_string();
    let log = fs::File::create(log)?;
    server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut server = Command::from(server);
    let started = server.spawn();
    started.map_err(|error| io::Error::other(format!("{program}: {error}")))
}

async fn until_answers(peer: &Peer) -> io::Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let url = format!("{}/v2/", peer.base);
        let answered = match peer.authorization().await {
            Ok(authorization) => {
                peer.http.send("GET", &url, authorization.as_deref(), None, "").await
            }
            Err(error) => Err(error),
        };
        match answered.and_then(|answer| answer.expect(&[::http::StatusCode::OK])) {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed().as_secs() > START_SECS_MAX => {
                return Err(peer.told(&error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
