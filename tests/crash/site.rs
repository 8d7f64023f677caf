//! An installation of its own: made by `authctl init`, served by both servers, killed and restarted.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use harness::Client;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{process::Command, sync::watch, time::timeout};

use crate::{
    Victim,
    authctl::Authctl,
    powercut::Disk,
    server::{Running, Server},
    tally::Violation,
};

/// Garbage collection goes on all the while. A push that a kill interrupts is done well within the
/// grace period.
const COLLECTION: &str = "\n[limits]\nfree_bytes_min = 0\n\
    \n[collection]\ninterval_secs = 1\ngrace_secs = 60\norphan_secs = 60\n";

/// How long a server may take to say where it listens.
const SERVING_SECS_MAX: u64 = 30;

/// How it stands with the servers.
#[derive(Clone)]
pub(crate) struct State {
    /// Raised when all servers are ready after a kill.
    pub(crate) generation: u32,
    /// How often `registry-server` was started.
    pub(crate) registry_starts: u32,
    /// Whether nobody has killed `registry-server` since it was ready.
    pub(crate) registry_is_up: bool,
    /// Whether nobody has killed `auth-server` since it was ready.
    pub(crate) auth_is_up: bool,
    /// Speaks to the registry where it listens now.
    pub(crate) client: Client,
}

/// Both servers and what they serve.
pub(crate) struct Site {
    auth: Server,
    registry: Server,
    auth_running: Option<Running>,
    registry_running: Option<Running>,
    ca: CertificateDer<'static>,
    disk: Option<Disk>,
    state: watch::Sender<State>,
    /// `authctl`, for those who administer.
    pub(crate) authctl: Authctl,
}

impl Site {
    /// Makes an installation below `root` and starts it.
    ///
    /// # Errors
    /// When it cannot be made or does not start.
    pub(crate) async fn start(
        bin: &Path,
        root: &Path,
        on_powercut: bool,
    ) -> Result<Self, Violation> {
        let mount = root.join("disk");
        fs::create_dir_all(&mount).map_err(|error| failed(&mount, error))?;
        let disk = if on_powercut { Some(Disk::mount(&mount).await?) } else { None };
        let data = mount.join("data");
        let authctl = Authctl::new(bin, &data);
        authctl.init(&root.join("certs")).await?;
        set_up(&data)?;
        let server = |name: &str, config: &str| Server {
            program: bin.join(name),
            config: data.join(config),
            log: root.join(format!("{name}.log")),
        };
        let ca = root.join("certs/ca.pem");
        let ca = CertificateDer::from_pem_file(&ca).map_err(|error| failed(&ca, error))?;
        // Nobody asks for it before it is replaced.
        let client = Client::new(([127, 0, 0, 1], 0).into(), &ca, &[]);
        let state = State {
            generation: 0,
            registry_starts: 0,
            registry_is_up: false,
            auth_is_up: false,
            client,
        };
        let mut site = Self {
            auth: server("auth-server", "auth.toml"),
            registry: server("registry-server", "registry.toml"),
            auth_running: None,
            registry_running: None,
            ca,
            disk,
            state: watch::Sender::new(state),
            authctl,
        };
        site.start_what_is_down().await?;
        Ok(site)
    }

    /// How it stands, for whoever wants to hear of it.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Kills with SIGKILL. On a disk that forgets, the power is cut as well.
    ///
    /// # Errors
    /// When one of them had ended by itself.
    pub(crate) async fn kill(&mut self, victim: Victim) -> Result<(), Violation> {
        // Told before it happens, so that whoever sees it can know why.
        self.state.send_modify(|state| {
            state.registry_is_up &= !victim.is_registry();
            state.auth_is_up &= !victim.is_auth();
        });
        if victim.is_registry()
            && let Some(running) = self.registry_running.take()
        {
            running.kill().await?;
        }
        if victim.is_auth()
            && let Some(running) = self.auth_running.take()
        {
            running.kill().await?;
        }
        if let Some(disk) = &mut self.disk {
            self.authctl.rest().await;
            disk.cut().await?;
        }
        Ok(())
    }

    /// Starts whatever is down, and tells everybody once it is ready.
    ///
    /// # Errors
    /// When a server does not start on what it finds.
    pub(crate) async fn start_what_is_down(&mut self) -> Result<u32, Violation> {
        if self.auth_running.is_none() {
            let (mut running, _) = self.auth.start().await?;
            self.auth.ready(&mut running).await?;
            self.auth_running = Some(running);
        }
        let mut client = None;
        if self.registry_running.is_none() {
            let (mut running, serves) = self.registry.start().await?;
            self.registry.ready(&mut running).await?;
            let address = timeout(Duration::from_secs(SERVING_SECS_MAX), serves).await;
            let address = address.ok().and_then(Result::ok);
            let address = address
                .ok_or_else(|| Violation::new("registry-server does not say where it serves"))?;
            client = Some(Client::new(address, &self.ca, &[]));
            self.registry_running = Some(running);
        }
        if let Some(client) = &client {
            await_readyz(client).await?;
        }
        self.state.send_modify(|state| {
            state.generation += 1;
            state.registry_is_up = true;
            state.auth_is_up = true;
            if let Some(client) = client {
                state.client = client;
                state.registry_starts += 1;
            }
        });
        Ok(self.state.borrow().generation)
    }

    /// `registry-server verify`: everything that is stored hashes right.
    ///
    /// # Errors
    /// What it says is wrong.
    pub(crate) async fn verify(&self) -> Result<(), Violation> {
        let output = Command::new(&self.registry.program)
            .arg("--config")
            .arg(&self.registry.config)
            .arg("verify")
            .env_clear()
            .output();
        let output = output.await.map_err(|error| failed(&self.registry.program, error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(Violation::new(format!("registry-server verify: {}", String::from_utf8_lossy(&said))))
    }

    /// Takes the disk away, if there is one, after the servers.
    pub(crate) async fn end(mut self) {
        for running in
            [self.registry_running.take(), self.auth_running.take()].into_iter().flatten()
        {
            let _ = running.kill().await;
        }
        if let Some(disk) = self.disk.take() {
            disk.unmount().await;
        }
    }

    /// The logs, by the servers' names.
    pub(crate) fn logs(root: &Path) -> [PathBuf; 2] {
        ["auth-server", "registry-server"].map(|name| root.join(format!("{name}.log")))
    }
}

async fn await_readyz(client: &Client) -> Result<(), Violation> {
    let asking = async {
        while client
            .call("GET", "/readyz")
            .attempt()
            .await
            .is_none_or(|answer| !answer.status.is_success())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ready = timeout(Duration::from_secs(SERVING_SECS_MAX), asking).await;
    ready.map_err(|_| Violation::new("/readyz does not say that the registry is ready"))
}

/// Logs for machines, and settings that make more happen in less time.
fn set_up(data: &Path) -> Result<(), Violation> {
    for (name, more) in [("auth.toml", ""), ("registry.toml", COLLECTION)] {
        let path = data.join(name);
        let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        let text = text.replace("log_format = \"text\"", "log_format = \"json\"") + more;
        // Synced, since this file's loss would be no fault of the servers.
        let file = fs::write(&path, text).and_then(|()| fs::File::open(&path)?.sync_all());
        file.map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Violation {
    Violation::new(format!("{}: {error}", path.display()))
}
