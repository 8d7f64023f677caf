//! A registry that is measured: where it answers, how one signs in, and what its processes hold.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use ::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{process::Child, time::timeout};

use crate::http::Http;

pub(crate) const USER: &str = "andrew";
pub(crate) const PASSWORD: &str = "bench-password";

/// How long a process has that was told to end.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Which registry, and how it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Name {
    BerthTls,
    BerthPlain,
    NginxRegistry,
    ZotTls,
    Zot,
    ZotCommit,
    AngosTls,
    Angos,
    Distribution,
    Registry,
    BerthS3,
    DistributionS3,
}

impl Name {
    /// Those that need no other servers, in the order of the table.
    pub(crate) const ALONE: &[Self] = &[
        Self::BerthTls,
        Self::BerthPlain,
        Self::NginxRegistry,
        Self::ZotTls,
        Self::Zot,
        Self::ZotCommit,
        Self::AngosTls,
        Self::Angos,
        Self::Distribution,
        Self::Registry,
    ];

    /// What the command line calls it.
    pub(crate) fn word(self) -> String {
        self.to_possible_value().expect("no peer is hidden").get_name().to_owned()
    }

    /// Those without users and TLS.
    pub(crate) const PLAIN: &[Self] =
        &[Self::Zot, Self::ZotCommit, Self::Angos, Self::Distribution, Self::Registry];

    fn words(self) -> &'static str {
        match self {
            Self::BerthTls => "Berth, TLS, token",
            Self::BerthPlain => "Berth, plain HTTP, token",
            Self::NginxRegistry => "nginx + docker-registry, TLS, htpasswd",
            Self::ZotTls => "zot, TLS, htpasswd",
            Self::Zot => "zot, plain",
            Self::ZotCommit => "zot, plain, `commit`",
            Self::AngosTls => "angos, TLS, token",
            Self::Angos => "angos, plain",
            Self::Distribution => "distribution, plain",
            Self::Registry => "docker-registry, plain",
            Self::BerthS3 => "Berth on PostgreSQL and S3, plain HTTP, token",
            Self::DistributionS3 => "distribution on S3, plain",
        }
    }

    pub(crate) fn is_berth(self) -> bool {
        matches!(self, Self::BerthTls | Self::BerthPlain | Self::BerthS3)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// A running registry.
pub(crate) struct Peer {
    pub(crate) name: Name,
    /// Scheme, host and port.
    pub(crate) base: String,
    /// The directory below which it keeps what is pushed.
    pub(crate) directory: PathBuf,
    /// The CA that vouches for it.
    pub(crate) ca: PathBuf,
    pub(crate) http: Http,
    pub(crate) sign_in: SignIn,
    pub(crate) servers: Vec<Child>,
}

/// What a client shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignIn {
    /// Nothing.
    No,
    /// User and password, with every request.
    Basic,
    /// A token.
    Token,
}

/// What processes hold together, in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) most: f64,
}

impl Memory {
    /// That of a process and of those that it started.
    pub(crate) fn of(server: &Child) -> Self {
        let mut memory = Self::default();
        let mut processes: Vec<u32> = server.id().into_iter().collect();
        while let Some(process) = processes.pop() {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            memory = memory.and(Self { now: mib(&status, "VmRSS:"), most: mib(&status, "VmHWM:") });
            let children = format!("/proc/{process}/task/{process}/children");
            let children = fs::read_to_string(children).unwrap_or_default();
            processes.extend(children.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
        }
        memory
    }

    fn and(self, other: Self) -> Self {
        Self { now: self.now + other.now, most: self.most + other.most }
    }
}

impl Peer {
    pub(crate) fn is_tls(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// The `Authorization` header that requests show from now on.
    pub(crate) async fn authorization(&self) -> io::Result<Option<String>> {
        match self.sign_in {
            SignIn::No => Ok(None),
            SignIn::Basic => Ok(Some(basic(USER))),
            SignIn::Token => self.bearer(USER).await.map(Some),
        }
    }

    /// The same with a token of this user.
    pub(crate) async fn bearer(&self, user: &str) -> io::Result<String> {
        const SCOPES: &str = "scope=repository:bench/app:pull,push\
             &scope=repository:bench/many:pull,push&scope=registry:catalog:*";
        let url = format!("{}/token?service=berth&{SCOPES}", self.base);
        let answer = self.http.send("GET", &url, Some(&basic(user)), None, "").await?;
        let answer = answer.expect(&[StatusCode::OK])?;
        let token = serde_json::from_slice::<serde_json::Value>(answer.body())?;
        Ok(format!("Bearer {}", token["token"].as_str().unwrap_or_default()))
    }

    /// The error, with who it comes from.
    pub(crate) fn told(&self, error: &io::Error) -> io::Error {
        io::Error::other(format!("{}: {error}", self.name))
    }

    /// What its processes hold.
    pub(crate) fn memory(&self) -> Memory {
        let held = self.servers.iter().map(Memory::of);
        held.fold(Memory::default(), |all, one| all.and(one))
    }

    /// Tells its processes to end, and waits for them: nginx's workers outlive a master that is killed.
    pub(crate) async fn end(&mut self) {
        for server in &mut self.servers {
            end(server).await;
        }
    }
}

/// Tells a process to end, and waits for it.
pub(crate) async fn end(server: &mut Child) {
    terminate(server);
    if timeout(END_TIMEOUT, server.wait()).await.is_err() {
        // One that has ended by itself cannot be killed, and need not be.
        let _ = server.kill().await;
    }
}

impl Drop for Peer {
    /// Where a run breaks off.
    fn drop(&mut self) {
        self.servers.iter().for_each(terminate);
    }
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}")))
}

fn terminate(server: &Child) {
    let process = server.id().and_then(|id| i32::try_from(id).ok());
    if let Some(process) = process {
        // It may have ended meanwhile, and is told so.
        let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
    }
}

fn mib(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
