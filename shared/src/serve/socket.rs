//! A Unix socket and its file. Somebody may delete the file, as who clears a directory of run-time
//! files does; then nobody reaches the server any more, so it is looked at and made again.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::Path,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};

/// How long the file may be gone before that is seen.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Device and number of a file. The number is not given again while the socket is open.
type Identity = (u64, u64);

/// A Unix socket that is listened on.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    file: SocketFile,
    /// Whose members may open it besides its owner.
    group: Option<u32>,
    /// Whether it has been told that the file cannot be made again.
    is_told: bool,
}

/// Where a socket should lie, and which file it is. Clones share it.
#[derive(Debug, Clone)]
pub struct SocketFile {
    path: Arc<Path>,
    identity: Arc<Mutex<Identity>>,
}

impl SocketFile {
    /// Whether whoever opens the path reaches this server.
    ///
    /// # Errors
    /// What a person should read, when not.
    pub fn check(&self) -> Result<(), String> {
        let expected = *self.identity.lock();
        match identity_of(&self.path) {
            Ok(found) if found == expected => Ok(()),
            _ => Err(format!("the socket {} is gone, or another file", self.path.display())),
        }
    }
}

impl UnixSocket {
    /// See [`Listener::unix`](super::Listener::unix).
    pub(super) fn bind(path: &Path, group: Option<u32>) -> io::Result<Self> {
        let (listener, identity) = bind(path, group)?;
        let identity = Arc::new(Mutex::new(identity));
        let file = SocketFile { path: path.into(), identity };
        Ok(Self { listener, file, group, is_told: false })
    }

    pub(super) fn file(&self) -> &SocketFile {
        &self.file
    }

    /// The next connection. Meanwhile the file is looked at.
    pub(super) async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return accepted.map(|(stream, _)| stream),
                () = sleep(LOOK_INTERVAL) => self.keep_in_place(),
            }
        }
    }

    /// Listens anew where the file is not this socket's any more. The server's lock on its data
    /// directory, which it holds until it ends, says that no other server is meant to be there.
    fn keep_in_place(&mut self) {
        if self.file.check().is_ok() {
            return;
        }
        let socket = self.file.path.display();
        match bind(&self.file.path, self.group) {
            Ok((listener, identity)) => {
                tracing::warn!(%socket, "the socket was gone, and was made again");
                *self.file.identity.lock() = identity;
                self.listener = listener;
                self.is_told = false;
            }
            Err(error) if !self.is_told => {
                tracing::error!(%error, "the socket is gone, and cannot be made again yet");
                self.is_told = true;
            }
            Err(_) => {}
        }
    }
}

fn identity_of(path: &Path) -> io::Result<Identity> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

fn bind(path: &Path, group: Option<u32>) -> io::Result<(UnixListener, Identity)> {
    let bind = || {
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        // The group first: what it was before is given nothing.
        if group.is_some() {
            chown(path, None, group).map_err(|error| {
                let why = "giving it to socket_group, of which the server's user must be a member";
                io::Error::new(error.kind(), format!("{why}: {error}"))
            })?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok((listener, identity_of(path)?))
    };
    bind().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("listening on {}: {error}", path.display()))
    })
}
