//! A place for a registry's tables at a PostgreSQL server, where the tests are told to use one, and what
//! may stand between the two.

use std::{
    env, io,
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
};

use crate::wire::{Break, Wire};

/// Names the server and a database there, as a URL. Each registry has a schema of its own in it.
const SERVER: &str = "BERTH_TEST_POSTGRES";

/// What a client asks first that would speak TLS, in place of a version.
const TLS_REQUEST: u32 = 80_877_103;

/// What the server says when it is ready for the next.
const READY_FOR_QUERY: u8 = b'Z';

/// The server's URL, if there is one.
#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
fn server() -> Option<String> {
    env::var(SERVER).ok()
}

/// The `[database]` table of a new registry, if its tables are to be in PostgreSQL.
pub(crate) async fn table() -> Option<String> {
    let server = server()?;
    Some(table_at(&server, &schema(&server).await))
}

/// Makes a place of its own.
async fn schema(server: &str) -> String {
    let schema = format!("t{:032x}", fastrand::u128(..));
    let mut connection = PgConnection::connect(server).await.expect("PostgreSQL");
    let create = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    sqlx::query(create).execute(&mut connection).await.expect("a schema");
    connection.close().await.expect("closed");
    schema
}

/// Runs a statement on the rows of the registry with this `[database]` table.
///
/// # Panics
/// When it does not run.
pub async fn execute(table: &str, statement: &str) {
    let url = table.split('\'').nth(1).expect("a URL");
    let mut connection = PgConnection::connect(url).await.expect("PostgreSQL");
    let statement = AssertSqlSafe(statement.to_owned());
    sqlx::query(statement).execute(&mut connection).await.expect("a statement");
    connection.close().await.expect("closed");
}

/// A `[database]` table of a new registry.
///
/// # Panics
/// When the tests are told of no server.
pub async fn fresh_table() -> String {
    table().await.expect("the URL of a PostgreSQL server, BERTH_TEST_POSTGRES")
}

fn table_at(server: &str, schema: &str) -> String {
    // Few connections for each, since many tests run at once.
    let more = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{more}options[search_path]={schema}");
    format!("[database]\nurl = '{url}'\nconnections_max = 8\n")
}

/// Stands between a registry and PostgreSQL: counts the round trips, and breaks connections. One that goes
/// back to the pool is asked for nothing but whether it is there: that does not count.
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
        let server = server().expect("the URL of a PostgreSQL server, BERTH_TEST_POSTGRES");
        let options: PgConnectOptions = server.parse().expect("a URL of PostgreSQL");
        let (address, wire) =
            Wire::listen(move |client, wire| forward(client, options.clone(), wire)).await;
        Self { address, server, wire }
    }

    /// The same `[database]` table, this way.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn way_to(&self, table: &str) -> String {
        let (_, behind) = table.split_once("[search_path]=").expect("a schema");
        let (schema, _) = behind.split_once('\'').expect("a URL");
        self.table_of(schema)
    }

    /// The `[database]` table of a new registry that goes this way.
    pub async fn table(&self) -> String {
        self.table_of(&schema(&self.server).await)
    }

    fn table_of(&self, schema: &str) -> String {
        let options: PgConnectOptions = self.server.parse().expect("a URL of PostgreSQL");
        let (user, database) = (options.get_username(), options.get_database().unwrap_or_default());
        let here = format!("postgres://{user}@{}/{database}", self.address);
        table_at(&here, schema)
    }
}

impl Deref for Proxy {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

/// Carries a connection until either side ends it.
async fn forward(client: TcpStream, options: PgConnectOptions, wire: Arc<Wire>) -> io::Result<()> {
    wire.opened().await?;
    client.set_nodelay(true)?;
    let port = options.get_port();
    if let Some(directory) = options.get_socket() {
        let server = UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await?;
        return carry(client, server, &wire).await;
    }
    let server = TcpStream::connect((options.get_host(), port)).await?;
    server.set_nodelay(true)?;
    carry(client, server, &wire).await
}

async fn carry(
    mut client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    wire: &Wire,
) -> io::Result<()> {
    let (mut answers, mut questions) = tokio::io::split(server);
    begin(&mut client, &mut questions).await?;
    let (asking, mut answered) = client.split();
    let mut asking = BufReader::new(asking);
    let is_cut = AtomicBool::new(false);
    let ask = async {
        loop {
            let message = message(&mut asking).await?;
            wire.opened().await?;
            let breaks = wire.step();
            if breaks == Some(Break::Before) {
                return Ok(());
            }
            // Before the answer can be there.
            is_cut.fetch_or(breaks == Some(Break::Within), Ordering::SeqCst);
            questions.write_all(&message).await?;
            if breaks == Some(Break::Behind) {
                return Ok(());
            }
        }
    };
    let answer = async {
        let mut said = 0;
        loop {
            let message = message(&mut answers).await?;
            wire.opened().await?;
            if is_cut.load(Ordering::SeqCst) {
                return answered.write_all(&message[..1]).await;
            }
            said += 1;
            if message[0] == READY_FOR_QUERY {
                wire.round_trips.fetch_add(u64::from(said > 1), Ordering::Relaxed);
                said = 0;
            }
            answered.write_all(&message).await?;
        }
    };
    tokio::select! {
        done = ask => done,
        done = answer => done,
        done = wire.is_cut() => done,
    }
}

/// Reads the next message, all of it: its kind, its length, and the rest.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let kind = from.read_u8().await?;
    let length = from.read_u32().await?;
    let mut message = vec![kind];
    message.extend(length.to_be_bytes());
    // The length counts itself.
    from.take(u64::from(length).saturating_sub(4)).read_to_end(&mut message).await?;
    Ok(message)
}

/// The first message, which alone has no kind. TLS is declined.
async fn begin(client: &mut TcpStream, server: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    loop {
        let (length, code) = (client.read_u32().await?, client.read_u32().await?);
        if code == TLS_REQUEST {
            client.write_u8(b'N').await?;
            continue;
        }
        server.write_u32(length).await?;
        server.write_u32(code).await?;
        let mut rest = client.take(u64::from(length).saturating_sub(8));
        return tokio::io::copy(&mut rest, server).await.map(drop);
    }
}
