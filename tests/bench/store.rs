//! What a registry keeps, written straight into the database of one that does not run: nobody would
//! wait until a million images are pushed. Blobs have no bytes, and files only where they are asked
//! for.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::content::{MANIFEST_TYPE, sha256_of};

/// Rows that one statement inserts.
const BATCH: usize = 10_000;

/// How much of the tables is in memory while they are filled, in KiB: digests come in no order.
const PAGE_CACHE_KIB: &str = "-4000000";

/// The store of a registry that does not run.
pub(crate) struct Store {
    connection: SqliteConnection,
    objects: PathBuf,
    /// When all was pushed and last asked for, in seconds.
    touched: i64,
}

/// A manifest, and the number of its repository.
pub(crate) struct Manifest {
    pub(crate) repository: usize,
    pub(crate) bytes: String,
    pub(crate) subject: Option<String>,
    pub(crate) layers: Vec<String>,
    pub(crate) tag: Option<String>,
}

/// The digest of the blob of this number.
pub(crate) fn blob(number: usize) -> String {
    sha256_of(&format!("blob {number}").into())
}

fn location(digest: &str) -> &str {
    &digest["sha256:".len()..][..32]
}

impl Store {
    /// That of an installation, by the directory of its data, where everything is that old.
    pub(crate) async fn open(data: &Path, age: Duration) -> io::Result<Self> {
        let registry = data.join("registry");
        let options = SqliteConnectOptions::new()
            .filename(registry.join("registry.db"))
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .foreign_keys(false)
            .pragma("cache_size", PAGE_CACHE_KIB);
        let mut connection = options.connect().await.map_err(io::Error::other)?;
        run(&mut connection, "BEGIN").await?;
        let now = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
        let touched = i64::try_from((now - age).as_secs()).map_err(io::Error::other)?;
        Ok(Self { connection, objects: registry.join("objects"), touched })
    }

    /// Nothing is there before this.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        run(&mut self.connection, "COMMIT").await?;
        self.connection.close().await.map_err(io::Error::other)
    }

    /// Repositories, numbered from 1.
    pub(crate) async fn repositories(
        &mut self,
        names: impl Iterator<Item = String>,
    ) -> io::Result<()> {
        let rows = names.enumerate().map(|(index, name)| json!([index + 1, name]));
        self.insert("repositories (id, name) SELECT value->>0, value->>1", rows).await
    }

    /// Blobs, each in the repository whose number stands beside it.
    pub(crate) async fn blobs(
        &mut self,
        blobs: impl Iterator<Item = (usize, String)>,
    ) -> io::Result<()> {
        // In the order of the tables, which are filled many times as fast so.
        let mut blobs: Vec<_> = blobs.collect();
        blobs.sort_by(|one, other| one.1.cmp(&other.1));
        let rows = blobs.iter().map(|(_, digest)| json!([digest, location(digest)]));
        let into = "blobs (digest, size, location, created, checked)
             SELECT value->>0, 0, value->>1, $2, $2";
        self.insert(into, rows).await?;
        let rows = blobs.iter().map(|(repository, digest)| json!([repository, digest]));
        let into = "repository_blobs (repository, digest, touched)
             SELECT value->>0, value->>1, $2";
        self.insert(into, rows).await
    }

    /// Gives these blobs files.
    pub(crate) fn files(&self, blobs: impl Iterator<Item = String>) -> io::Result<()> {
        for digest in blobs {
            let location = location(&digest);
            File::create(self.objects.join(&location[..2]).join(location))?;
        }
        Ok(())
    }

    /// Manifests, with what they name and their tags.
    pub(crate) async fn manifests(
        &mut self,
        manifests: impl Iterator<Item = Manifest>,
    ) -> io::Result<()> {
        let mut manifests = manifests.peekable();
        while manifests.peek().is_some() {
            let batch = manifests.by_ref().take(BATCH).map(|manifest| {
                let digest = sha256_of(&manifest.bytes.clone().into());
                (manifest, digest)
            });
            self.batch(&batch.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    async fn batch(&mut self, batch: &[(Manifest, String)]) -> io::Result<()> {
        let rows = batch.iter().map(|(it, digest)| {
            let kind = it.subject.as_ref().map(|_| "application/vnd.example.sbom");
            json!([it.repository, digest, it.subject, it.bytes, kind, it.bytes.len()])
        });
        let into = format!(
            "manifests (repository, digest, media_type, artifact_type, subject, size, pushed, bytes)
             SELECT value->>0, value->>1, '{MANIFEST_TYPE}', value->>4, value->>2, value->>5, $2,
             CAST(value->>3 AS BLOB)"
        );
        self.insert(&into, rows).await?;
        let rows = batch.iter().map(|(it, digest)| json!([it.repository, digest]));
        let into = "manifest_touches (repository, digest, touched) SELECT value->>0, value->>1, $2";
        self.insert(into, rows).await?;
        let rows = batch.iter().flat_map(|(it, digest)| {
            let layers = it.layers.iter().map(|layer| (layer, "layer"));
            let named = layers.chain(it.subject.iter().map(|subject| (subject, "subject")));
            named.map(move |(named, kind)| json!([it.repository, digest, named, kind]))
        });
        let into = "manifest_references (repository, manifest, digest, kind)
             SELECT value->>0, value->>1, value->>2, value->>3";
        self.insert(into, rows).await?;
        let rows = batch.iter().filter_map(|(it, digest)| {
            it.tag.as_ref().map(|tag| json!([it.repository, tag, digest]))
        });
        let into = "tags (repository, name, digest, updated)
             SELECT value->>0, value->>1, value->>2, $2";
        self.insert(into, rows).await
    }

    /// Inserts rows, each a list that the end of the statement takes apart; `$2` is when all
    /// was touched.
    async fn insert(&mut self, into: &str, rows: impl Iterator<Item = Value>) -> io::Result<()> {
        let statement = format!("INSERT INTO {into} FROM json_each($1)");
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            let batch = Value::Array(rows.by_ref().take(BATCH).collect());
            let insert = sqlx::query(AssertSqlSafe(statement.as_str()));
            let insert = insert.bind(batch.to_string()).bind(self.touched);
            insert.execute(&mut self.connection).await.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

async fn run(connection: &mut SqliteConnection, statement: &'static str) -> io::Result<()> {
    sqlx::query(statement).execute(connection).await.map_err(io::Error::other).map(drop)
}

/// The text of an image of these layers, made another one by its number.
pub(crate) fn image(number: usize, layers: &[String], subject: Option<&str>) -> String {
    const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
    let descriptor =
        |kind: &str, digest: &str| json!({ "mediaType": kind, "digest": digest, "size": 0 });
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(LAYER_TYPE, layer)).collect();
    let config = descriptor("application/vnd.oci.empty.v1+json", &blob(0));
    let mut image = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config,
        "layers": layers,
        "annotations": { "number": number.to_string() },
    });
    if let Some(subject) = subject {
        image["subject"] = descriptor(MANIFEST_TYPE, subject);
    }
    image.to_string()
}

/// What `bench/collection.sh` collects: blobs in a hundred repositories, ten to a manifest. One in a
/// hundred is garbage, and has a file; a collection looks at no others.
pub(crate) async fn fill_for_collection(data: &Path, blobs: usize) -> io::Result<()> {
    const REPOSITORIES: usize = 100;
    let repository_of = |number: usize| number / 10 % REPOSITORIES + 1;
    let is_garbage = |number: &usize| number % 100 == 99;
    // Behind any time that garbage is left alone for.
    let mut store = Store::open(data, Duration::from_secs(365 * 24 * 60 * 60)).await?;
    store.repositories((0..REPOSITORIES).map(|number| format!("team/app{number}"))).await?;
    store.blobs((0..blobs).map(|number| (repository_of(number), blob(number)))).await?;
    store.files((0..blobs).filter(is_garbage).map(blob))?;
    let manifest = |first: usize| {
        let named = (first..first + 10).filter(|number| !is_garbage(number));
        let layers: Vec<_> = named.map(blob).collect();
        let bytes = image(first, &layers, None);
        Manifest { repository: repository_of(first), bytes, subject: None, layers, tag: None }
    };
    store.manifests((0..blobs).step_by(10).map(manifest)).await?;
    store.close().await
}
