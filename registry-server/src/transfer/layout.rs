//! An OCI image layout being written: blobs as they come, and at last the index that names them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use berth_shared::{
    digest::Digest,
    files::{read_at_most, replace, sync_directory},
    tag::Tag,
    unix_owner::Place,
};
use serde_json::{Value, json};

use super::{
    directory::take_up,
    error::{Error, doing},
};

/// Says that a directory is a layout, and of which version.
const MARK: &str = "oci-layout";

/// The longest index that is taken up: hundreds of thousands of manifests.
const INDEX_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What says under which name a manifest is found.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A directory in the form of the OCI image specification, "Image Layout".
#[derive(Debug)]
pub(super) struct Layout {
    place: Place,
    index: Value,
}

impl Layout {
    /// Makes a layout in `root`, or takes up one that is there.
    ///
    /// # Errors
    /// When something else is there, and when a file fails.
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let what = "an OCI image layout: name another directory";
        let place = take_up(root, &[MARK], what)?;
        let path = place.path().join("index.json");
        let index = match place.within(|| read_at_most(&path, INDEX_BYTES_MAX)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| doing("reading", &path)(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [],
            }),
            Err(error) => return Err(doing("reading", &path)(error)),
        };
        if !index["manifests"].is_array() {
            return Err(Error::Refused(format!("{} is no index", path.display())));
        }
        let layout = Self { place, index };
        layout.replace(&layout.path(MARK), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }

    /// Whether a blob of this digest and length is there.
    pub(super) fn has(&self, digest: &Digest, length: u64) -> bool {
        let meta = self.within(|| fs::metadata(self.blob(digest)));
        meta.is_ok_and(|meta| meta.len() == length)
    }

    /// Where the blob belongs; its directory is made.
    pub(super) fn place(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let path = self.blob(digest);
        if let Some(folder) = path.parent() {
            let make = || {
                if folder.is_dir() {
                    return Ok(());
                }
                fs::create_dir_all(folder)?;
                sync_directory(&self.path("blobs"))
            };
            self.within(make).map_err(doing("making", folder))?;
        }
        Ok(path)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Adds a manifest to the index: under a tag, which then leads nowhere else, or without one.
    pub(super) fn add(&mut self, mut descriptor: Value, tag: Option<&Tag>) {
        let Some(manifests) = self.index["manifests"].as_array_mut() else { return };
        if let Some(tag) = tag {
            manifests.retain(|it| it["annotations"][REF_NAME] != tag.as_str());
            descriptor["annotations"] = json!({ REF_NAME: tag.as_str() });
        } else if manifests.iter().any(|it| it["digest"] == descriptor["digest"]) {
            return;
        }
        manifests.push(descriptor);
    }

    /// Writes the index: from here on the layout has what was added.
    pub(super) fn save(&self) -> Result<(), Error> {
        self.replace(&self.path("index.json"), self.index.to_string().as_bytes())
    }

    /// Writes a file as a whole.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.within(|| replace(path, bytes)).map_err(doing("writing", path))
    }

    /// Works in the layout as whoever owns it, where root runs this.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.place.within(work)
    }
}
