//! Where a verb does its work: in the running server, or on the data directory when none runs.

use std::{
    env,
    fs::File,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use berth_shared::clock::Clock;
use nix::fcntl::OFlag;
use registry_server::{
    config::Config,
    data::{CONTROL_SOCKET, DATABASE, Home, Offline, StartError},
    jobs::{
        Job,
        event::{Outcome, Tale},
    },
};

use crate::output::Failure;

/// Where a package puts the configuration.
const CONFIG_INSTALLED: &str = "/etc/berth/registry.toml";

/// The configuration of the server that is meant when nobody says which. With `BERTH_DATA` nothing is
/// looked for in `data`: that would be another server's.
pub(crate) fn configuration() -> PathBuf {
    let folder = env::var_os("BERTH_DATA").filter(|folder| !folder.is_empty());
    let own = folder.map_or_else(|| "data".into(), PathBuf::from).join("registry.toml");
    // A directory that may not be read is told apart from a file that is not there.
    if own.try_exists().unwrap_or(true) { own } else { CONFIG_INSTALLED.into() }
}

/// The control socket of a server that root runs, held open: nobody else can have made it, or put
/// another in its place.
pub(crate) fn roots_socket(data: &Path) -> Option<File> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let socket = data.join(CONTROL_SOCKET);
    let socket = File::options().read(true).custom_flags(flags.bits()).open(socket).ok()?;
    let meta = socket.metadata().ok()?;
    (meta.file_type().is_socket() && meta.uid() == 0 && meta.nlink() == 1).then_some(socket)
}

/// Has the job done: by the running server, else here, and always here where servers share a registry.
pub(crate) async fn start(job: Job, config: &Config) -> Result<Tale<Outcome>, Failure> {
    is_there(config)?;
    match Offline::open(config, Clock::system()).await {
        Err(StartError::InUse(_)) => Ok(job.ask(&config.data.join(CONTROL_SOCKET)).await?),
        offline => Ok(offline?.start(job)),
    }
}

/// Says at once what is wrong where root is to fill a directory of somebody else's: that one's
/// rights, with which it is filled, would be refused in fewer words.
pub(crate) fn refuse_links(data: &Path) -> Result<(), Failure> {
    let names = ["lock", DATABASE, "registry.db-wal", "registry.db-shm", "objects"];
    let shards = (0..=u8::MAX).map(|first| data.join(format!("objects/{first:02x}")));
    let mut paths = names.map(|name| data.join(name)).into_iter().chain(shards);
    match paths.find(|path| path.is_symlink()) {
        Some(link) => Err(Failure(format!("{} is a symbolic link: remove it", link.display()))),
        None => Ok(()),
    }
}

/// Refuses a data directory that no server has ever used.
pub(crate) fn is_there(config: &Config) -> Result<(), Failure> {
    if Home::of(config).has_registry() {
        return Ok(());
    }
    let data = config.data.display();
    Err(Failure(format!("{data} holds no registry yet: start the server first")))
}
