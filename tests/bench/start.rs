//! The peers, each set up by its own documentation, with what it does unless it is told otherwise.

use std::{
    env,
    ffi::OsString,
    fs::{self, Permissions},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command as StdCommand, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{
    berth::{Certs, Installation},
    elsewhere,
    http::Http,
    peer::{Name, PASSWORD, Peer, SignIn, USER},
    tool::run,
};

/// How long a peer may take to answer.
const START_SECS_MAX: u64 = 30;

/// The cost of the bcrypt hashes in htpasswd files, which is what `htpasswd -B` makes.
pub(crate) const BCRYPT_COST: &str = "5";

/// The password as angos has it, hashed with the parameters that `angos argon` takes.
const PASSWORD_ARGON2: &str = "$argon2id$v=19$m=19456,t=2,p=1$YmVuY2hzYWx0MTIzNDU2$2/gTlTpDrMwLGXLClfUOMsB0Woo7sNph7xg7LdEgaDM";

/// Where peers listen, and what clients call it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// The name that peers are called by, and that their certificates are for
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    pub(crate) host: String,
    /// The address that they listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS")]
    address: IpAddr,
}

impl Default for Place {
    fn default() -> Self {
        Self { host: "localhost".to_owned(), address: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }
}

impl Place {
    pub(crate) fn free_port(&self) -> io::Result<u16> {
        Ok(TcpListener::bind((self.address, 0))?.local_addr()?.port())
    }

    pub(crate) fn at(&self, port: u16) -> String {
        SocketAddr::new(self.address, port).to_string()
    }
}

/// Starts those of the peers that there are. Gives what is missing, too.
pub(crate) async fn peers(
    bin: &Path,
    root: &Path,
    place: &Place,
    names: &[Name],
) -> io::Result<(Vec<Peer>, Vec<String>)> {
    let berth = Installation::make(bin, root, Name::BerthTls, place).await?;
    let htpasswd = make_htpasswd(root).await?;
    let start = Starting { root, place, certs: berth.certs(), htpasswd };
    let (mut peers, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        let program = match program(*name) {
            Ok(program) => program,
            Err(why) => {
                missing.push(format!("{name}: {why}"));
                continue;
            }
        };
        peers.push(match name {
            Name::BerthTls => berth.start().await?,
            Name::BerthPlain => Installation::make(bin, root, *name, place).await?.start().await?,
            Name::NginxRegistry => start.nginx().await?,
            Name::ZotTls | Name::Zot | Name::ZotCommit => start.zot(program, *name).await?,
            Name::AngosTls | Name::Angos => start.angos(program, *name).await?,
            Name::Distribution | Name::Registry | Name::DistributionS3 => {
                start.distribution(program, *name).await?
            }
            Name::BerthS3 => Installation::make(bin, root, *name, place).await?.start().await?,
        });
    }
    Ok((peers, missing))
}

/// What is started, or why it cannot be.
fn program(name: Name) -> Result<OsString, String> {
    let installed = |program: &str, package: &str| {
        let missing = || format!("{program} is missing (apt-get install {package})");
        on_path(program).then(|| program.into()).ok_or_else(missing)
    };
    let named = |variable: &str| {
        env::var_os(variable).ok_or_else(|| format!("`{variable}` names no program"))
    };
    match name {
        Name::BerthTls | Name::BerthPlain => Ok("registry-server".into()),
        Name::NginxRegistry => installed("docker-registry", "docker-registry")
            .and_then(|_| installed("nginx", "nginx-light")),
        Name::Registry => installed("docker-registry", "docker-registry"),
        Name::ZotTls | Name::Zot | Name::ZotCommit => named("ZOT"),
        Name::AngosTls | Name::Angos => named("ANGOS"),
        Name::Distribution => named("DISTRIBUTION"),
        Name::BerthS3 => elsewhere::bucket().and(elsewhere::database()).map(|_| "".into()),
        Name::DistributionS3 => elsewhere::bucket().and_then(|_| named("DISTRIBUTION")),
    }
}

async fn make_htpasswd(root: &Path) -> io::Result<PathBuf> {
    if !on_path("htpasswd") {
        return Err(io::Error::other("htpasswd is missing: apt-get install apache2-utils"));
    }
    let file = root.join("htpasswd");
    let mut htpasswd = Command::new("htpasswd");
    htpasswd.args(["-Bb", "-C", BCRYPT_COST, "-c"]).arg(&file).args([USER, PASSWORD]);
    run(&mut htpasswd).await?;
    // nginx's workers are somebody else, where root runs this.
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    Ok(file)
}

/// What the peers are started with.
struct Starting<'a> {
    root: &'a Path,
    place: &'a Place,
    certs: Certs,
    htpasswd: PathBuf,
}

impl Starting<'_> {
    /// distribution, or Debian's docker-registry, which is its version 2.
    async fn distribution(&self, program: OsString, name: Name) -> io::Result<Peer> {
        let (peer, server) = self.distribution_at(&program, name, self.place.free_port()?)?;
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
        let mut storage = json!({ "delete": { "enabled": true } });
        match elsewhere::bucket().ok().filter(|_| name == Name::DistributionS3) {
            Some(bucket) => {
                // Berth, too, sends nobody to the store.
                storage["redirect"] = json!({ "disable": true });
                storage["s3"] = json!({
                    "accesskey": bucket.name, "secretkey": bucket.secret, "region": "us-east-1",
                    "regionendpoint": bucket.endpoint, "forcepathstyle": true, "secure": false,
                    "bucket": bucket.bucket, "rootdirectory": "/distribution",
                });
            }
            None => {
                storage["filesystem"] = json!({ "rootdirectory": directory.join("store") });
            }
        }
        let config = json!({
            "version": "0.1",
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": storage,
            "http": { "addr": self.place.at(port), "relativeurls": true },
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
            self.distribution_at(&"docker-registry".into(), name, self.place.free_port()?)?;
        let (port, directory) = (self.place.free_port()?, self.directory(name)?);
        let at = |name: &str| directory.join(name).display().to_string();
        let config = include_str!("nginx.conf")
            .replace("{directory}", &directory.display().to_string())
            .replace("{backend}", &self.place.at(backend))
            .replace("{listen}", &self.place.at(port))
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
        let (directory, port) = (self.directory(name)?, self.place.free_port()?);
        let mut config = json!({
            "distSpecVersion": "1.1.1",
            "storage": {
                "rootDirectory": directory.join("store"),
                "commit": name == Name::ZotCommit,
            },
            "http": {
                "address": self.place.address,
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

    /// angos with TLS, a user and its token service, or plain and open to everybody.
    async fn angos(&self, program: OsString, name: Name) -> io::Result<Peer> {
        let (directory, port) = (self.directory(name)?, self.place.free_port()?);
        let is_tls = name == Name::AngosTls;
        let mut config = json!({
            "server": { "bind_address": self.place.address, "port": port },
            "blob_store": { "fs": { "root_dir": directory.join("store") } },
            "global": { "access_policy": { "default": "allow" } },
            "repository": { "bench": {} },
        });
        if is_tls {
            config["server"]["tls"] = json!({
                "server_certificate_bundle": self.certs.certificate,
                "server_private_key": self.certs.key,
            });
            config["global"]["access_policy"] =
                json!({ "default": "deny", "rules": ["identity.username != null"] });
            config["auth"] = json!({
                "identity": { USER: { "username": USER, "password": PASSWORD_ARGON2 } },
                "token_service": { "secret_key": STANDARD.encode([0; 32]) },
            });
        }
        let path = directory.join("config.toml");
        fs::write(&path, toml::to_string(&config).map_err(io::Error::other)?)?;
        let mut server = StdCommand::new(program);
        server.arg("-c").arg(path).arg("server").env("RUST_LOG", "error");
        let server = serve(server, &directory.join("log"))?;
        let sign_in = if is_tls { SignIn::Token } else { SignIn::No };
        let peer = self.peer(name, sign_in, port, vec![server])?;
        until_answers(&peer).await?;
        Ok(peer)
    }

    fn directory(&self, name: Name) -> io::Result<PathBuf> {
        let directory = self.root.join(name.word());
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
        let scheme = if sign_in == SignIn::No { "http" } else { "https" };
        Ok(Peer {
            name,
            base: format!("{scheme}://{}:{port}", self.place.host),
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

pub(crate) fn serve(mut server: StdCommand, log: &Path) -> io::Result<Child> {
    let program = server.get_program().display().to_string();
    let log = fs::File::create(log)?;
    server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut server = Command::from(server);
    let started = server.spawn();
    started.map_err(|error| io::Error::other(format!("{program}: {error}")))
}

pub(crate) async fn until_answers(peer: &Peer) -> io::Result<()> {
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

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
