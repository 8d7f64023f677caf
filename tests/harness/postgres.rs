//! A place for a registry's tables at a PostgreSQL server, where the tests are told to use one, and what
//! may stand between the two.

use std::{
    env, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};

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

fn table_at(server: &str, schema: &str) -> String {
    // Few connections for each, since many tests run at once.
    let more = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{more}options[search_path]={schema}");
    format!("[database]\nurl = '{url}'\nconnections_max = 8\n")
}

/// Stands between a registry and PostgreSQL, and counts the round trips. A connection that goes back to
/// the pool is asked for nothing but whether it is there: that does not count.
pub struct Proxy {
    address: SocketAddr,
    server: String,
    round_trips: Arc<AtomicU64>,
}

impl Proxy {
    /// In front of the server that the tests are told to use.
    ///
    /// # Panics
    /// When they are told of none.
    pub async fn start() -> Self {
        let server = server().expect("the URL of a PostgreSQL server, BERTH_TEST_POSTGRES");
        let options: PgConnectOptions = server.parse().expect("a URL of PostgreSQL");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let round_trips = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&round_trips);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, options.clone(), Arc::clone(&counted)));
            }
        });
        Self { address, server, round_trips }
    }

    /// The `[database]` table of a new registry that goes this way.
    pub async fn table(&self) -> String {
        let options: PgConnectOptions = self.server.parse().expect("a URL of PostgreSQL");
        let (user, database) = (options.get_username(), options.get_database().unwrap_or_default());
        let here = format!("postgres://{user}@{}/{database}", self.address);
        table_at(&here, &schema(&self.server).await)
    }

    /// How often the server was waited for until now.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }
}

/// Carries a connection until either side ends it.
async fn forward(
    client: TcpStream,
    options: PgConnectOptions,
    round_trips: Arc<AtomicU64>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let port = options.get_port();
    if let Some(directory) = options.get_socket() {
        let server = UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await?;
        return carry(client, server, &round_trips).await;
    }
    let server = TcpStream::connect((options.get_host(), port)).await?;
    server.set_nodelay(true)?;
    carry(client, server, &round_trips).await
}

async fn carry(
    mut client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    round_trips: &AtomicU64,
) -> io::Result<()> {
    let (mut answers, mut questions) = tokio::io::split(server);
    begin(&mut client, &mut questions).await?;
    let (mut asking, mut answered) = client.split();
    let asked = tokio::io::copy(&mut asking, &mut questions);
    let answer = async {
        let mut said = 0;
        loop {
            let kind = answers.read_u8().await?;
            let length = answers.read_u32().await?;
            let mut message = vec![kind];
            message.extend(length.to_be_bytes());
            // The length counts itself.
            let rest = u64::from(length).saturating_sub(4);
            (&mut answers).take(rest).read_to_end(&mut message).await?;
            said += 1;
            if kind == READY_FOR_QUERY {
                round_trips.fetch_add(u64::from(said > 1), Ordering::Relaxed);
                said = 0;
            }
            answered.write_all(&message).await?;
        }
    };
    tokio::select! {
        done = asked => done.map(drop),
        done = answer => done,
    }
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
