//! A registry that is measured: where it answers, how one signs in, and what its processes hold.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use ::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Name {
    BerthTls,
    BerthPlain,
    NginxRegistry,
    ZotTls,
    Zot,
    ZotCommit,
    Distribution,
    Registry,
}

impl Name {
    /// Those without users and TLS.
    pub(crate) const PLAIN: &[Self] =
        &[Self::Zot, Self::ZotCommit, Self::Distribution, Self::Registry];

    fn words(self) -> &'static str {
        match self {
            Self::BerthTls => "Berth, TLS, token",
            Self::BerthPlain => "Berth, plain HTTP, token",
            Self::NginxRegistry => "nginx + docker-registry, TLS, htpasswd",
            Self::ZotTls => "zot, TLS, htpasswd",
            Self::Zot => "zot, plain",
            Self::ZotCommit => "zot, plain, `commit`",
            Self::Distribution => "distribution, plain",
            Self::Registry => "docker-registry, plain",
        }
    }

    pub(crate) fn is_berth(self) -> bool {
        matches!(self, Self::BerthTls | Self::BerthPlain)
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

/// What all processes of a registry hold together, in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) most: f64,
}

impl Peer {
    pub(crate) fn is_tls(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// The `Authorization` header that requests show from now on.
    pub(crate) async fn authorization(&self) -> io::Result<Option<String>> {
        let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        match self.sign_in {
            SignIn::No => Ok(None),
            SignIn::Basic => Ok(Some(basic)),
            SignIn::Token => {
                let scopes =
                    ["app", "many"].map(|it| format!("&scope=repository:bench/{it}:pull,push"));
                let url = format!("{}/token?service=berth{}", self.base, scopes.concat());
                let answer = self.http.send("GET", &url, Some(&basic), None, "").await?;
                let answer = answer.expect(&[StatusCode::OK])?;
                let token = serde_json::from_slice::<serde_json::Value>(answer.body())?;
                Ok(Some(format!("Bearer {}", token["token"].as_str().unwrap_or_default())))
            }
        }
    }

    /// The error, with who it comes from.
    pub(crate) fn told(&self, error: &io::Error) -> io::Error {
        io::Error::other(format!("{}: {error}", self.name))
    }

    /// What its processes hold, those that they started among them.
    pub(crate) fn memory(&self) -> Memory {
        let mut memory = Memory { now: 0.0, most: 0.0 };
        let mut processes: Vec<u32> = self.servers.iter().filter_map(Child::id).collect();
        while let Some(process) = processes.pop() {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            memory.now += mib(&status, "VmRSS:");
            memory.most += mib(&status, "VmHWM:");
            let children = format!("/proc/{process}/task/{process}/children");
            let children = fs::read_to_string(children).unwrap_or_default();
            processes.extend(children.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
        }
        memory
    }

    /// Tells its processes to end, and waits for it: nginx's workers outlive a master that is killed.
    pub(crate) async fn end(&mut self) {
        for server in &mut self.servers {
            terminate(server);
            if timeout(END_TIMEOUT, server.wait()).await.is_err() {
                // One that has ended by itself cannot be killed, and need not be.
                let _ = server.kill().await;
            }
        }
    }
}

impl Drop for Peer {
    /// Where a run breaks off.
    fn drop(&mut self) {
        self.servers.iter().for_each(terminate);
    }
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
