//! Where a server listens: an address of TCP, or a file.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use nix::errno::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

use super::{
    PeerAddress,
    connection::Stream,
    socket::{SocketFile, UnixSocket},
    tls::Tls,
};

/// How much the system takes of an answer beyond what is on its way, so that a client which stopped
/// reading is seen.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Where a server listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP, with TLS when there is a certificate.
    Tcp(TcpListener, Option<Arc<Tls>>),
    /// A Unix socket: private to whoever may open the file.
    Unix(UnixSocket),
}

impl Listener {
    /// Listens on a TCP address. `[::]` is every address of the machine, those of IPv4 too, and of
    /// these alone where there is no IPv6.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub fn tcp(address: SocketAddr, tls: Option<Arc<Tls>>) -> io::Result<Self> {
        let listener = match listen(address) {
            Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) => {
                let address = (Ipv4Addr::UNSPECIFIED, address.port()).into();
                tracing::warn!(%address, "this machine has no IPv6: listening on IPv4 alone");
                listen(address)
            }
            listener => listener,
        };
        let listener = listener.map_err(|error| {
            let next = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "; end what has the port (ss -ltnp shows it), or set listen to another"
                }
                io::ErrorKind::AddrNotAvailable => "; set listen to an address of this machine",
                _ => "",
            };
            io::Error::new(error.kind(), format!("listening on {address}: {error}{next}"))
        })?;
        Ok(Self::Tcp(listener, tls))
    }

    /// Listens on a Unix socket that only its owner may open, and the members of `group` if there is
    /// one. A socket file left behind by a server that died is replaced, and one that is deleted is
    /// made again; call this only while holding the lock on the data directory.
    ///
    /// # Errors
    /// When the path is too long, something else than a socket lies there, or the process may not
    /// give a file to the group.
    pub fn unix(path: &Path, group: Option<u32>) -> io::Result<Self> {
        UnixSocket::bind(path, group).map(Self::Unix)
    }

    /// The file of a Unix socket, which has to stay where it is. `None` for TCP.
    pub fn socket_file(&self) -> Option<SocketFile> {
        match self {
            Self::Tcp(..) => None,
            Self::Unix(socket) => Some(socket.file().clone()),
        }
    }

    /// The TCP address that was bound, for port 0. `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    pub(super) async fn accept(&mut self) -> io::Result<(Stream, PeerAddress)> {
        match self {
            Self::Tcp(listener, tls) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
                Ok((Stream::Tcp(stream, tls.clone()), PeerAddress(Some(peer.ip().to_canonical()))))
            }
            Self::Unix(socket) => Ok((Stream::Unix(socket.accept().await?), PeerAddress(None))),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            // Some systems have it otherwise by default.
            SockRef::from(&socket).set_only_v6(false)?;
            socket
        }
    };
    // So that a restart need not wait for the connections of before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let error = error.raw_os_error().map(Errno::from_raw);
    matches!(error, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn every_address_is_that_of_either_family() {
        let listener = Listener::tcp("[::]:0".parse().unwrap(), None).unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::1"] {
            let reached = TcpStream::connect((address, port)).await;
            // A machine may have no IPv6.
            assert!(reached.is_ok() || address == "::1", "{address}: {reached:?}");
        }
        let taken = Listener::tcp((Ipv4Addr::LOCALHOST, port).into(), None).unwrap_err();
        assert!(taken.to_string().starts_with("listening on 127.0.0.1:"), "{taken}");
        assert!(taken.to_string().ends_with("or set listen to another"), "{taken}");
    }

    #[test]
    fn a_machine_without_ipv6_is_told_from_an_address_that_is_taken() {
        for (errno, expected) in [
            (Errno::EAFNOSUPPORT, true),
            (Errno::EADDRNOTAVAIL, true),
            (Errno::EADDRINUSE, false),
            (Errno::EACCES, false),
        ] {
            assert_eq!(has_no_ipv6(&errno.into()), expected, "{errno}");
        }
    }
}
