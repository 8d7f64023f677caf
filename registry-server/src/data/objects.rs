//! The objects of a registry: in its data directory, or in a bucket.

use std::{net::IpAddr, path::Path, sync::Arc};

use super::{Home, StartError, failed, preparing};
use crate::{
    metadata::{Database, origin::Origin},
    storage::{
        Store,
        disk::DiskStore,
        random_hex,
        s3::{self, S3Store},
    },
};

/// Where they lie in a data directory.
const OBJECTS: &str = "objects";

/// The objects of a registry; clones share them.
#[derive(Debug, Clone)]
pub(crate) enum Objects {
    Disk(DiskStore),
    S3(S3Store),
}

impl Objects {
    /// The objects of a registry as they are there, for who reads them beside its server.
    pub(crate) async fn beside(home: &Home, database: &Database) -> Result<Self, StartError> {
        let rows = origin(home, database).await?;
        let Some(settings) = &home.store else {
            return match rows {
                Some(rows) if rows.at_store => Err(StartError::ObjectsElsewhere),
                _ => Ok(Self::Disk(DiskStore::at(&home.data.join(OBJECTS)))),
            };
        };
        refuse_plain_http(settings).await?;
        let store = S3Store::open(settings)?;
        match (store.marker().await?, rows) {
            (Some(marker), Some(rows)) if marker == rows.identity => {
                store.belongs_to(&marker);
                Ok(Self::S3(store))
            }
            (None, _) => Err(StartError::BucketUnmarked(settings.place())),
            _ => Err(StartError::OtherBucket(settings.place())),
        }
    }

    /// Opens them, in a directory that is made where it is missing, or in a bucket that is this
    /// registry's or becomes it.
    pub(crate) async fn open(home: &Home, database: &Database) -> Result<Self, StartError> {
        let Some(settings) = &home.store else {
            return match origin(home, database).await? {
                Some(rows) if rows.at_store && !rows.is_empty => Err(StartError::ObjectsElsewhere),
                rows => Self::open_directory(home, database, rows).await,
            };
        };
        let identity = random_hex().map_err(|_| StartError::Randomness)?;
        Self::open_bucket(home, settings, database, identity, join).await
    }

    /// Opens what is to be filled with the objects of a backup, whose rows are in the database or come
    /// there: a directory, or a bucket in which nothing lies but what this restore brought.
    pub(crate) async fn to_fill(
        home: &Home,
        database: &Database,
        identity: String,
    ) -> Result<Self, StartError> {
        match &home.store {
            None => {
                let rows = origin(home, database).await?;
                Self::open_directory(home, database, rows).await
            }
            Some(settings) => {
                Self::open_bucket(home, settings, database, identity, join_to_fill).await
            }
        }
    }

    /// Where rows said of nothing that it is in a bucket, they say so no more.
    async fn open_directory(
        home: &Home,
        database: &Database,
        rows: Option<Origin>,
    ) -> Result<Self, StartError> {
        if rows.is_some_and(|rows| rows.at_store) {
            database.put_at_store(false).await.map_err(failed(home))?;
        }
        Ok(Self::Disk(directory(&home.data)?))
    }

    async fn open_bucket(
        home: &Home,
        settings: &s3::Settings,
        database: &Database,
        identity: String,
        join: impl AsyncFn(&S3Store, &Origin) -> Result<bool, StartError>,
    ) -> Result<Self, StartError> {
        refuse_plain_http(settings).await?;
        let store = S3Store::open(settings)?;
        let rows = database.name_origin(identity).await.map_err(failed(home))?;
        // Before anything is said that lasts.
        store.marker().await?;
        store.try_out().await?;
        if join(&store, &rows).await? {
            database.put_at_store(true).await.map_err(failed(home))?;
        }
        store.belongs_to(&rows.identity);
        Ok(Self::S3(store))
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Disk(store) => Arc::new(store.clone()),
            Self::S3(store) => Arc::new(store.clone()),
        }
    }

    /// The same objects, of which it is left to the system when they reach the disk.
    pub(crate) fn without_durability(self) -> Self {
        match self {
            Self::Disk(store) => Self::Disk(store.without_durability()),
            Self::S3(store) => Self::S3(store),
        }
    }
}

/// The directory of the objects, made where it is missing.
pub(crate) fn directory(data: &Path) -> Result<DiskStore, StartError> {
    let objects = data.join(OBJECTS);
    DiskStore::open(&objects).map_err(preparing(&objects.display().to_string()))
}

async fn origin(home: &Home, database: &Database) -> Result<Option<Origin>, StartError> {
    database.origin().await.map_err(failed(home))
}

/// Sees to it that objects and rows are of one registry: others' would be taken for what is lost. Whether
/// the rows have to say from now on that the objects are there.
async fn join(store: &S3Store, rows: &Origin) -> Result<bool, StartError> {
    let place = || store.place().to_owned();
    match store.marker().await? {
        Some(identity) if identity == rows.identity && rows.at_store => Ok(false),
        None if rows.at_store && !rows.is_empty => Err(StartError::BucketUnmarked(place())),
        // Nobody may have come to write down that it is there.
        Some(identity) if identity == rows.identity && rows.is_empty => Ok(true),
        Some(_) => Err(StartError::OtherBucket(place())),
        None if !rows.is_empty => Err(StartError::ObjectsHere(place())),
        None if !store.is_empty().await? => Err(StartError::BucketInUse(place())),
        None if store.mark(&rows.identity).await? => Ok(true),
        None => Err(StartError::OtherBucket(place())),
    }
}

/// The same for rows that are about to come: the bucket is empty, or this restore has begun to fill it.
async fn join_to_fill(store: &S3Store, rows: &Origin) -> Result<bool, StartError> {
    let place = || store.place().to_owned();
    match store.marker().await? {
        Some(identity) if identity == rows.identity => Ok(true),
        Some(_) => Err(StartError::OtherBucket(place())),
        None if !store.is_empty().await? => Err(StartError::BucketInUse(place())),
        None if store.mark(&rows.identity).await? => Ok(true),
        None => Err(StartError::OtherBucket(place())),
    }
}

/// Refuses a store to which blobs and signatures would go in the clear over a network of others.
async fn refuse_plain_http(settings: &s3::Settings) -> Result<(), StartError> {
    let redirect = settings.redirect.as_ref().map(|redirect| redirect.endpoint.as_str());
    for (key, url) in [("endpoint", settings.endpoint.as_deref()), ("redirect", redirect)] {
        if let Some(host) = url.and_then(|it| it.strip_prefix("http://")) {
            refuse_public(key, host).await?;
        }
    }
    Ok(())
}

async fn refuse_public(key: &'static str, host: &str) -> Result<(), StartError> {
    let host = host.split('/').next().unwrap_or_default();
    let with_port = match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:80"),
    };
    let found = tokio::net::lookup_host(&with_port).await;
    let found = found.map_err(preparing(&format!("store.{key} {host}")))?;
    match found.map(|address| address.ip()).find(|address| !is_private(*address)) {
        Some(address) => Err(StartError::PlainHttp { key, host: host.to_owned(), address }),
        None => Ok(()),
    }
}

/// Whether it is this machine's, or of a network that is not everybody's.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // 100.64.0.0/10 is what carriers and overlay networks give out.
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

impl From<s3::Unfit> for StartError {
    fn from(unfit: s3::Unfit) -> Self {
        Self::Store(unfit.to_string())
    }
}

impl From<s3::SetupError> for StartError {
    fn from(error: s3::SetupError) -> Self {
        Self::Store(berth_shared::telemetry::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_private_or_everybodys() {
        for (address, is_it) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("10.1.2.3", true),
            ("172.20.0.2", true),
            ("192.168.1.5", true),
            ("169.254.1.1", true),
            ("100.100.1.1", true),
            ("::ffff:10.0.0.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("100.128.0.1", false),
            ("8.8.8.8", false),
            ("172.32.0.1", false),
            ("::ffff:8.8.8.8", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(address.parse().unwrap()), is_it, "{address}");
        }
    }
}
