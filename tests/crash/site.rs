//! An installation of its own: made by `authctl init`, served by both servers, killed and restarted.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fastrand::Rng;
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

/// The registry's program, and the name of its log.
const REGISTRY: &str = "registry-server";

/// How long a server may take to say where it listens.
const SERVING_SECS_MAX: u64 = 30;

/// What an installation is to be like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// How many registry-servers serve the registry.
    pub(crate) replicas: usize,
    /// The tables of their settings that say where its rows and objects are.
    pub(crate) places: String,
    /// Whether the disk forgets what was not synced.
    pub(crate) on_powercut: bool,
}

/// How it stands with the servers.
#[derive(Clone)]
pub(crate) struct State {
    /// Raised when all servers are ready after a kill.
    pub(crate) generation: u32,
    /// How often a `registry-server` was started.
    pub(crate) registry_starts: u32,
    /// Whether nobody has killed a `registry-server` since all were ready, or what they stand on.
    pub(crate) registry_is_up: bool,
    /// Whether nobody has killed `auth-server` since it was ready.
    pub(crate) auth_is_up: bool,
    /// Speaks to the registry where it listens now, to one server after the other.
    pub(crate) client: Client,
}

/// A registry-server, and where it listens while it runs.
struct Registry {
    server: Server,
    running: Option<(Running, SocketAddr)>,
}

impl Registry {
    /// Starts it, and waits until it says where it serves.
    async fn start(&mut self) -> Result<(), Violation> {
        let (mut running, serves) = self.server.start().await?;
        self.server.ready(&mut running).await?;
        let address = timeout(Duration::from_secs(SERVING_SECS_MAX), serves).await;
        let address = address.ok().and_then(Result::ok);
        let address = address
            .ok_or_else(|| Violation::new("registry-server does not say where it serves"))?;
        self.running = Some((running, address));
        Ok(())
    }
}

/// Both servers and what they serve.
pub(crate) struct Site {
    auth: Server,
    auth_running: Option<Running>,
    registries: Vec<Registry>,
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
    pub(crate) async fn start(bin: &Path, root: &Path, layout: &Layout) -> Result<Self, Violation> {
        let mount = root.join("disk");
        fs::create_dir_all(&mount).map_err(|error| failed(&mount, error))?;
        let disk = if layout.on_powercut { Some(Disk::mount(&mount).await?) } else { None };
        let data = mount.join("data");
        let authctl = Authctl::new(bin, &data);
        authctl.init(&root.join("certs")).await?;
        set_up(&data, layout)?;
        let server = |name: &str, settings: &str, log: &str| Server {
            program: bin.join(name),
            config: data.join(settings),
            log: root.join(format!("{log}.log")),
        };
        let registry = |number| {
            let log =
                if number == 0 { REGISTRY.to_owned() } else { format!("{REGISTRY}-{number}") };
            Registry { server: server(REGISTRY, &settings_of(number), &log), running: None }
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
            auth: server("auth-server", "auth.toml", "auth-server"),
            auth_running: None,
            registries: (0..layout.replicas).map(registry).collect(),
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

    /// Kills with SIGKILL, of several registry-servers any one where that is the victim. On a disk that
    /// forgets, the power is cut as well.
    ///
    /// # Errors
    /// When one of them had ended by itself.
    pub(crate) async fn kill(&mut self, victim: Victim, random: &mut Rng) -> Result<(), Violation> {
        let which = match victim {
            Victim::Replica => {
                let one = random.usize(..self.registries.len());
                one..one + 1
            }
            _ => 0..self.registries.len(),
        };
        // Told before it happens, so that whoever sees it can know why.
        self.state.send_modify(|state| {
            state.registry_is_up &= !victim.is_registry();
            state.auth_is_up &= !victim.is_auth();
        });
        if victim.is_registry() {
            let killed: Vec<_> =
                self.registries[which].iter_mut().filter_map(|it| it.running.take()).collect();
            self.tell_who_is_up();
            for (running, _) in killed {
                running.kill().await?;
            }
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
        let mut starts = 0;
        for registry in self.registries.iter_mut().filter(|it| it.running.is_none()) {
            registry.start().await?;
            starts += 1;
        }
        for address in self.addresses() {
            await_readyz(&Client::new(address, &self.ca, &[])).await?;
        }
        self.tell_who_is_up();
        self.state.send_modify(|state| {
            state.generation += 1;
            state.registry_is_up = true;
            state.auth_is_up = true;
            state.registry_starts += starts;
        });
        Ok(self.state.borrow().generation)
    }

    /// Where registry-servers listen.
    fn addresses(&self) -> Vec<SocketAddr> {
        self.registries.iter().filter_map(|it| Some(it.running.as_ref()?.1)).collect()
    }

    /// From now on clients go to those that run.
    fn tell_who_is_up(&self) {
        let addresses = self.addresses();
        if let Some(first) = addresses.first() {
            let client = Client::new(*first, &self.ca, &[]).of(addresses);
            self.state.send_modify(|state| state.client = client);
        }
    }

    /// Runs a program that takes away what the servers stand on and gives it back. Says how long it was until
    /// all were ready again.
    ///
    /// # Errors
    /// When it fails, or a server does not become ready.
    pub(crate) async fn disturb(&mut self, program: &Path) -> Result<(u32, Duration), Violation> {
        self.state.send_modify(|state| state.registry_is_up = false);
        let status = Command::new(program).status().await;
        let status = status.map_err(|error| failed(program, error))?;
        if !status.success() {
            return Err(failed(program, status));
        }
        let begun = Instant::now();
        let generation = self.start_what_is_down().await?;
        Ok((generation, begun.elapsed()))
    }

    /// `registry-server verify`: everything that is stored hashes right.
    ///
    /// # Errors
    /// What it says is wrong.
    pub(crate) async fn verify(&self) -> Result<(), Violation> {
        let Some(Registry { server, .. }) = self.registries.first() else { return Ok(()) };
        let output = Command::new(&server.program)
            .arg("--config")
            .arg(&server.config)
            .arg("verify")
            .env_clear()
            .output();
        let output = output.await.map_err(|error| failed(&server.program, error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(Violation::new(format!("registry-server verify: {}", String::from_utf8_lossy(&said))))
    }

    /// Takes the disk away, if there is one, after the servers.
    pub(crate) async fn end(mut self) {
        let registries = self.registries.iter_mut().filter_map(|it| it.running.take());
        for running in registries.map(|(running, _)| running).chain(self.auth_running.take()) {
            let _ = running.kill().await;
        }
        if let Some(disk) = self.disk.take() {
            disk.unmount().await;
        }
    }

    /// The logs, by the servers' names.
    pub(crate) fn logs(root: &Path) -> Vec<PathBuf> {
        let files = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect()
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
fn set_up(data: &Path, layout: &Layout) -> Result<(), Violation> {
    let read = |name: &str| {
        let path = data.join(name);
        let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        Ok(text.replace("log_format = \"text\"", "log_format = \"json\""))
    };
    let write = |name: &str, text: String| {
        let path = data.join(name);
        // Synced, since this file's loss would be no fault of the servers.
        let file = fs::write(&path, text).and_then(|()| fs::File::open(&path)?.sync_all());
        file.map_err(|error| failed(&path, error))
    };
    write("auth.toml", read("auth.toml")?)?;
    let registry = read("registry.toml")?;
    for number in 0..layout.replicas {
        // Each has a directory of its own.
        let own = if number == 0 { String::new() } else { format!("-{number}") };
        let registry =
            registry.replace("\ndata = \"registry\"", &format!("\ndata = \"registry{own}\""));
        write(&settings_of(number), format!("{registry}{COLLECTION}\n{}", layout.places))?;
    }
    Ok(())
}

/// The settings of one of the registry-servers.
fn settings_of(number: usize) -> String {
    if number == 0 { "registry.toml".to_owned() } else { format!("registry-{number}.toml") }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Violation {
    Violation::new(format!("{}: {error}", path.display()))
}
