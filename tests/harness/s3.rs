//! A place for a registry's objects at an S3 server, where the tests are told to use one, and what may
//! stand between the two.

use std::{
    env, fs, io,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::wire::{Break, Wire};

/// Names the server and a bucket there, as a URL with user and password. Each registry has a prefix of
/// its own in it.
const SERVER: &str = "BERTH_TEST_S3";

/// The folder in which the server keeps what is in the bucket, as files.
const FOLDER: &str = "BERTH_TEST_S3_FOLDER";

/// Where a registry's objects are.
#[derive(Debug, Clone)]
pub struct Place {
    /// The `[store]` table of its settings.
    pub table: String,
    /// The folder of its objects.
    pub folder: PathBuf,
    /// The name of the key that it shows, and its secret.
    pub key: [String; 2],
}

impl Place {
    /// Writes the key beside the settings that name it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_key(&self, root: &Path) {
        for (file, text) in ["s3.name", "s3.secret"].iter().zip(&self.key) {
            fs::write(root.join(file), text).expect("a key's file");
        }
    }
}

/// A place of its own for a registry, if its objects are to be at a server.
#[must_use]
pub fn place() -> Option<Place> {
    Some(fresh_place(&server()?))
}

/// The server's URL, if there is one.
#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
fn server() -> Option<String> {
    env::var(SERVER).ok()
}

/// The same at a server of that URL.
fn fresh_place(server: &str) -> Place {
    place_at(server, &format!("t{:032x}", fastrand::u128(..)))
}

fn place_at(server: &str, prefix: &str) -> Place {
    let (scheme, rest) = server.split_once("://").expect("a scheme");
    let (keys, rest) = rest.split_once('@').expect("a user");
    let (name, secret) = keys.split_once(':').expect("a password");
    let (host, bucket) = rest.split_once('/').expect("a bucket");
    let table = format!(
        "[store]\nurl = 's3://{bucket}/{prefix}'\nendpoint = '{scheme}://{host}'\n\
         access_key_file = 's3.name'\nsecret_key_file = 's3.secret'\npart_bytes = 5242880\n\
         buffer_bytes_max = 83886080\n"
    );
    let folder = env::var_os(FOLDER).map_or_else(|| PathBuf::from("/nowhere"), PathBuf::from);
    let key = [name, secret].map(str::to_owned);
    Place { table, folder: folder.join(prefix), key }
}

/// Stands between a registry and the server of its objects, and breaks connections at requests.
pub struct Proxy {
    address: SocketAddr,
    server: String,
    wire: Arc<Wire>,
}

impl Proxy {
    /// In front of the server that the tests are told to use.
    ///
    /// # Panics
    /// When they are told of none.
    pub async fn start() -> Self {
        let server = server().expect("the URL of an S3 server and its bucket, BERTH_TEST_S3");
        let (_, behind) = server.split_once('@').expect("a user");
        let target = behind.split('/').next().expect("a host").to_owned();
        let (address, wire) =
            Wire::listen(move |client, wire| forward(client, target.clone(), wire)).await;
        Self { address, server, wire }
    }

    /// A place of its own for a registry, by this way.
    ///
    /// # Panics
    /// When the URL is none.
    #[must_use]
    pub fn place(&self) -> Place {
        fresh_place(&self.way())
    }

    /// The same place, by this way.
    ///
    /// # Panics
    /// When it has no prefix.
    #[must_use]
    pub fn way_to(&self, place: &Place) -> Place {
        let prefix = place.folder.file_name().expect("a prefix").to_string_lossy();
        place_at(&self.way(), &prefix)
    }

    fn way(&self) -> String {
        let (before, behind) = self.server.split_once('@').expect("a user");
        let (_, bucket) = behind.split_once('/').expect("a bucket");
        format!("{before}@{}/{bucket}", self.address)
    }
}

impl Deref for Proxy {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

/// Carries a connection until either side ends it.
async fn forward(mut client: TcpStream, target: String, wire: Arc<Wire>) -> io::Result<()> {
    wire.opened().await?;
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (asking, mut answered) = client.split();
    let (mut answers, mut questions) = server.split();
    let mut asking = BufReader::new(asking);
    let broken = std::sync::Mutex::new(None);
    let ask = async {
        loop {
            let (head, length) = head(&mut asking).await?;
            wire.opened().await?;
            wire.round_trips.fetch_add(1, Ordering::Relaxed);
            let breaks = wire.step();
            if breaks == Some(Break::Before) {
                return Ok(());
            }
            // Before the answer can be there.
            *broken.lock().expect("the way") = breaks;
            questions.write_all(&head).await?;
            tokio::io::copy(&mut (&mut asking).take(length), &mut questions).await?;
        }
    };
    let answer = async {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = answers.read(&mut piece).await?;
            wire.opened().await?;
            let breaks = *broken.lock().expect("the way");
            match breaks {
                _ if read == 0 => return Ok(()),
                Some(Break::Within) => return answered.write_all(&piece[..1]).await,
                Some(_) => return Ok(()),
                None => answered.write_all(&piece[..read]).await?,
            }
        }
    };
    tokio::select! {
        done = ask => done,
        done = answer => done,
        done = wire.is_cut() => done,
    }
}

/// Reads the head of a request, and how long its body is.
async fn head(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<(Vec<u8>, u64)> {
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let begin = head.len();
        if from.read_until(b'\n', &mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&head[begin..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            return Ok((head, length));
        }
    }
}
