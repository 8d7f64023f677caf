//! What is pushed and pulled.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use harness::image::digest_of;
use serde_json::{Value, json};

use crate::{
    peer::{Name, Peer},
    tool,
    work::Pusher,
};

pub(crate) const BLOB_TYPE: &str = "application/octet-stream";
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

const MIB: usize = 1024 * 1024;

/// What zot wants to read in an image's configuration.
pub(crate) const CONFIG: &str =
    r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;

/// A file of a pushed blob that is larger is removed after the measurement.
const LARGE_BYTES: u64 = 64 * 1024 * 1024;

/// What all peers get.
pub(crate) struct Content {
    /// A large file, whose first bytes are changed before each push.
    pub(crate) file: PathBuf,
    /// The digest of the large blob that is pulled.
    pub(crate) large: String,
    /// That of a blob of 10 KiB.
    pub(crate) small: String,
    /// That of a blob of 1 MiB.
    pub(crate) mib: String,
    /// How many of many small things there are.
    pub(crate) many: usize,
    small_bytes: Bytes,
    mib_bytes: Bytes,
    numbers: u64,
    have_children: HashSet<Name>,
}

pub(crate) fn sha256_of(bytes: &Bytes) -> String {
    digest_of(bytes).to_string()
}

impl Content {
    pub(crate) fn make(directory: &Path, blob_mib: u64, many: usize) -> io::Result<Self> {
        let file = directory.join("blob");
        let mut large = File::create(&file)?;
        for _ in 0..blob_mib {
            large.write_all(&random(MIB))?;
        }
        let (small_bytes, mib_bytes) = (random(10 * 1024), random(MIB));
        Ok(Self {
            file,
            large: String::new(),
            small: sha256_of(&small_bytes),
            mib: sha256_of(&mib_bytes),
            many,
            small_bytes,
            mib_bytes,
            numbers: 0,
            have_children: HashSet::new(),
        })
    }

    /// Gives the peer what is pulled from it.
    pub(crate) async fn push_to(&mut self, peer: &Peer) -> io::Result<()> {
        let pusher = Pusher::new(peer).await?;
        for repository in ["app", "many"] {
            pusher.push_blob(repository, CONFIG.into()).await?;
            pusher.push_blob(repository, self.small_bytes.clone()).await?;
        }
        pusher.push_blob("app", self.mib_bytes.clone()).await?;
        pusher.put_manifest_into("app", "v1", MANIFEST_TYPE, self.manifest()).await?;
        if self.large.is_empty() {
            self.large = tool::sha256(&self.file).await?;
        }
        tool::push(peer, &self.file, &self.large, "--http1.1").await.map(drop)
    }

    /// Pushes a large blob that no peer has, and takes its file away again. Gives seconds.
    pub(crate) async fn push_large(&mut self, peer: &Peer, protocol: &str) -> io::Result<f64> {
        let mark = format!("push {:>20}", self.number());
        let mut file = OpenOptions::new().write(true).open(&self.file)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(mark.as_bytes())?;
        drop(file);
        let digest = tool::sha256(&self.file).await?;
        let begun = fs::metadata(&self.file)?.modified()?;
        let took = tool::push(peer, &self.file, &digest, protocol).await;
        let removed = remove_large(&peer.directory, begun);
        took.and_then(|secs| removed.map(|()| secs))
    }

    /// A number that was not given before.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Bytes that were not given before.
    pub(crate) fn fresh(&mut self, length: usize) -> Bytes {
        let _ = self.number();
        random(length)
    }

    /// An image of one layer.
    pub(crate) fn manifest(&self) -> Bytes {
        self.image(0)
    }

    fn image(&self, number: usize) -> Bytes {
        image_of(&CONFIG.into(), &self.small_bytes, number)
    }

    /// Images for an index to name.
    pub(crate) fn children(&self) -> Arc<Vec<Bytes>> {
        Arc::new((1..=self.many).map(|number| self.image(number)).collect())
    }

    /// Whether this is the first time that the peer is to get them.
    pub(crate) fn children_are_new_to(&mut self, peer: &Peer) -> bool {
        self.have_children.insert(peer.name)
    }

    /// An index of them that was not given before.
    pub(crate) fn index(&mut self, children: &[Bytes]) -> Bytes {
        let descriptors: Vec<Value> = children.iter().map(descriptor).collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": descriptors,
            "annotations": { "number": self.number().to_string() },
        });
        index.to_string().into()
    }
}

/// The manifest of an image of one layer, made another one by its number.
pub(crate) fn image_of(config: &Bytes, layer: &Bytes, number: usize) -> Bytes {
    let descriptor = |media_type: &str, bytes: &Bytes| json!({ "mediaType": media_type, "digest": sha256_of(bytes), "size": bytes.len() });
    let config = descriptor("application/vnd.oci.image.config.v1+json", config);
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar", layer);
    let image = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config,
        "layers": [layer],
        "annotations": { "number": number.to_string() },
    });
    image.to_string().into()
}

fn descriptor(manifest: &Bytes) -> Value {
    json!({
        "mediaType": MANIFEST_TYPE,
        "digest": sha256_of(manifest),
        "size": manifest.len(),
        "platform": { "architecture": "amd64", "os": "linux" },
    })
}

pub(crate) fn random(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    fastrand::fill(&mut bytes);
    bytes.into()
}

/// Removes large files that were written since, so that a run needs no more room than its first pushes.
fn remove_large(directory: &Path, since: SystemTime) -> io::Result<()> {
    // The server may have removed it meanwhile.
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            remove_large(&entry.path(), since)?;
        } else if meta.len() >= LARGE_BYTES && meta.modified()? >= since {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
