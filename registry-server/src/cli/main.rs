//! The `registry-server` program: settings, log, signals, and its verbs.

mod allocator;
mod backup;
mod delete;
mod export;
mod gc;
mod import;
mod instance;
mod list;
mod output;
mod read_only;
mod restore;
mod schema;
mod serve;
mod verify;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use berth_shared::{
    files::path_of,
    secrecy,
    serve::health,
    unix_owner::{Identity, Settings},
};
use clap::{CommandFactory, Parser, Subcommand};
use nix::sys::stat::{Mode, umask};
use output::{Ended, Failure};
use registry_server::{
    config::Config,
    data::{CONTROL_SOCKET, DATABASE},
};

/// How long what still runs is waited for at the end.
const WAIT_AT_END: Duration = Duration::from_secs(5);

/// Serves the OCI distribution API from disk to holders of Berth's tokens.
///
/// The verbs work beside a running server, through the socket in its data directory, and without
/// one on the data directory itself. Where several servers share a registry, in PostgreSQL and a
/// bucket, all but `restore` work beside them.
#[derive(Debug, Parser)]
#[command(
    name = "registry-server",
    version,
    after_help = "\
Examples:
  registry-server --config data/registry.toml   serve until Ctrl-C
  registry-server health                        exit 0 when the running server is ready
  registry-server gc --dry-run                  what garbage collection would remove
  registry-server verify                        hash everything that is stored
  registry-server import /var/lib/registry      take over the store of a registry:2

Exit status: 0 done, 1 refused or something is wrong with what is stored, 2 usage.
The configuration is described in deploy/config/registry.example.toml; `authctl init` writes one."
)]
struct Cli {
    /// The configuration file [default: $BERTH_DATA/registry.toml or, without BERTH_DATA,
    /// data/registry.toml, if it is there; else /etc/berth/registry.toml]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// Print what is told as JSON, a line for each thing, and a failure too.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve until SIGTERM or Ctrl-C. This is what happens without a verb.
    Serve,
    /// Ask the running server whether it is ready: exit status 0 or 1.
    Health,
    Gc(gc::Arguments),
    Verify(verify::Arguments),
    Delete(delete::Arguments),
    ReadOnly(read_only::Arguments),
    Import(import::Arguments),
    List(list::Arguments),
    Export(export::Arguments),
    Backup(backup::Arguments),
    Restore(restore::Arguments),
    Schema(schema::Arguments),
    /// Print the completion script for a shell: `registry-server completion bash`.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What is written here is nobody else's to read, whatever the shell's mask.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let as_json = cli.json;
    let ended = run(cli);
    match ended.and_then(|code| output::all_written().map(|()| code)) {
        Ok(code) => code,
        Err(failure) => failure.print(as_json),
    }
}

fn run(cli: Cli) -> Ended {
    if matches!(cli.verb, None | Some(Verb::Serve)) {
        // A server with the system's own ways is better than none.
        let _ = allocator::give_back_large_blocks();
    }
    secrecy::close_process()?;
    if let Some(Verb::Completion { shell }) = cli.verb {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "registry-server", &mut script);
        output::print(String::from_utf8_lossy(&script).trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let path = cli.config.unwrap_or_else(instance::configuration);
    let verb = cli.verb.unwrap_or(Verb::Serve);
    let (config, identity, socket) = verb.prepare(&path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(verb.run(&path, config, identity, socket, cli.json));
    // What still waits for the system, such as for a name that nobody answers for, keeps nothing.
    runtime.shutdown_timeout(WAIT_AT_END);
    ended
}

/// Asks a server whether it is ready: root its own by the file that was looked at, whatever has its
/// name now.
async fn health(data: &Path, own: Option<File>) -> Ended {
    let name = data.join(CONTROL_SOCKET);
    let way = own.as_ref().map_or_else(|| name.clone(), path_of);
    let (shown, name) = (way.display().to_string(), name.display().to_string());
    let answer = health::ask(&way).await;
    answer.map_err(|error| Failure(error.replace(&shown, &name)))?;
    Ok(ExitCode::SUCCESS)
}

impl Verb {
    /// Reads the settings. Root then works on the data directory as its owner: for good, or where a
    /// verb has something to do for root too, on files until it says otherwise. A server that root
    /// runs is root's, wherever it runs: its socket too, which is given back for `health`.
    fn prepare(&self, path: &Path) -> Result<(Config, Identity, Option<File>), Failure> {
        if matches!(self, Self::Serve) {
            return Ok((Config::read(path)?, Identity::UNCHANGED, None));
        }
        let settings = Settings::read(path)?;
        let config = Config::of(&settings)?;
        // Decided, and become, before there is a second thread and anything in there is opened.
        let identity = Identity::of_server(&settings, &config.data, DATABASE)?;
        let own =
            matches!(self, Self::Health).then(|| instance::roots_socket(&config.data)).flatten();
        match self {
            Self::Health if own.is_some() => {}
            Self::Import(_) | Self::Export(_) | Self::Backup(_) | Self::Restore(_) => {
                let writes = matches!(self, Self::Import(_) | Self::Restore(_));
                if writes && identity.foreign().is_some() {
                    instance::refuse_links(&config.data)?;
                }
                identity.enter()?;
            }
            _ => identity.become_for_good()?,
        }
        Ok((config, identity, own))
    }

    async fn run(
        self,
        settings: &Path,
        config: Config,
        identity: Identity,
        own_socket: Option<File>,
        json: bool,
    ) -> Ended {
        match self {
            Self::Serve => serve::run(settings, config).await,
            Self::Health => health(&config.data, own_socket).await,
            Self::Gc(arguments) => gc::run(&arguments, &config, json).await,
            Self::Verify(arguments) => verify::run(&arguments, &config, json).await,
            Self::Delete(arguments) => delete::run(&arguments, &config, json).await,
            Self::Import(arguments) => import::run(&arguments, &config, identity, json).await,
            Self::ReadOnly(arguments) => read_only::run(&arguments, &config, json).await,
            Self::List(arguments) => list::run(&arguments, &config, json).await,
            Self::Export(arguments) => export::run(arguments, config, json).await,
            Self::Backup(arguments) => backup::run(arguments, config, json).await,
            Self::Restore(arguments) => restore::run(arguments, config, json).await,
            Self::Schema(arguments) => schema::run(&arguments, &config, json).await,
            Self::Completion { .. } => Ok(ExitCode::SUCCESS),
        }
    }
}
