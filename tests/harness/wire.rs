//! A way between a registry and a server of its own, on which a test lets things go wrong.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How a connection breaks at a message to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The message does not come through.
    Before,
    /// It does, and no answer comes.
    Behind,
    /// It does, and one byte of the answer comes.
    Within,
}

/// What is known of all connections.
#[derive(Debug, Default)]
pub struct Wire {
    /// How often the server was asked, or waited for.
    pub(crate) round_trips: AtomicU64,
    armed: Mutex<Option<Armed>>,
    way: watch::Sender<Way>,
}

/// What is to break.
#[derive(Debug, Clone, Copy)]
struct Armed {
    /// How many messages are left until then.
    left: u64,
    how: Break,
    /// Whether every message breaks from then on.
    lasts: bool,
    has_broken: bool,
}

/// Whether anything comes through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Open,
    /// Nothing does, and nobody hears that.
    Stopped,
    /// Nothing does, and all connections end.
    Cut,
}

impl Wire {
    /// Takes connections on a port of its own, each carried by `forward` until either side ends it.
    pub(crate) async fn listen<F>(
        forward: impl Fn(TcpStream, Arc<Self>) -> F + Send + 'static,
    ) -> (SocketAddr, Arc<Self>)
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let wire = Arc::new(Self::default());
        let shared = Arc::clone(&wire);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, Arc::clone(&shared)));
            }
        });
        (address, wire)
    }

    /// How often the server was asked, or waited for, until now.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }

    fn armed(&self) -> MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks the connection of the `number`-th message from now on, counted from 1, and no other; or
    /// those of all behind it, too.
    pub fn break_at(&self, number: u64, how: Break, lasts: bool) {
        *self.armed() = Some(Armed { left: number, how, lasts, has_broken: false });
    }

    /// Breaks none any more. Whether one was broken since it was told to.
    #[must_use]
    pub fn has_broken(&self) -> bool {
        self.armed().take().is_some_and(|armed| armed.has_broken)
    }

    /// From now on the server says nothing, as one that is stopped.
    pub fn stop(&self) {
        self.way.send_replace(Way::Stopped);
    }

    /// From now on there is no server, as when it is restarted.
    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    /// The server is back.
    pub fn open(&self) {
        self.way.send_replace(Way::Open);
    }

    /// Waits until something comes through.
    pub(crate) async fn opened(&self) -> io::Result<()> {
        let opened = self.way.subscribe();
        let way = *{ opened }.wait_for(|way| *way != Way::Stopped).await.expect("the wire");
        if way == Way::Cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// Waits until nothing comes through, and everybody hears that.
    pub(crate) async fn is_cut(&self) -> io::Result<()> {
        let mut way = self.way.subscribe();
        way.wait_for(|way| *way == Way::Cut).await.expect("the wire");
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// A message is here. Says what becomes of its connection.
    pub(crate) fn step(&self) -> Option<Break> {
        let mut armed = self.armed();
        let armed = armed.as_mut()?;
        if armed.has_broken {
            return armed.lasts.then_some(armed.how);
        }
        armed.left -= 1;
        armed.has_broken = armed.left == 0;
        armed.has_broken.then_some(armed.how)
    }
}
