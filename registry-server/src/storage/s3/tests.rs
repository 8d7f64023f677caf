//! Where an S3 server for tests is.

use std::{env, fs, path::Path};

use super::{Checksum, MARKER, Provider, S3Store, Settings};

/// Whose what is below the prefix is.
pub(in crate::storage) const IDENTITY: &str = "the suite's";

/// Names the server and a bucket there, as a URL with user and password.
const SERVER: &str = "BERTH_TEST_S3";

/// Makes a bucket of what is below a directory's prefix.
pub(in crate::storage) async fn mark(root: &Path) {
    let store = S3Store::open(&settings(root)).unwrap();
    let marker = format!("{{\"identity\":\"{IDENTITY}\"}}");
    store.bucket().put(MARKER, marker.into()).await.unwrap();
}

/// A store below a prefix of a directory's own, in which its keys are written.
#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
pub(in crate::storage) fn settings(root: &Path) -> Settings {
    let server = env::var(SERVER).expect("the URL of an S3 server and its bucket, BERTH_TEST_S3");
    let (scheme, rest) = server.split_once("://").expect("a scheme");
    let (keys, rest) = rest.split_once('@').expect("a user and a password");
    let (name, secret) = keys.split_once(':').expect("a password");
    let (host, bucket) = rest.split_once('/').expect("a bucket");
    let (name_file, secret_file) = (root.join("name"), root.join("secret"));
    fs::write(&name_file, name).unwrap();
    fs::write(&secret_file, secret).unwrap();
    Settings {
        provider: Provider::S3,
        bucket: bucket.to_owned(),
        prefix: root.file_name().unwrap().to_string_lossy().replace('.', "d"),
        endpoint: Some(format!("{scheme}://{host}")),
        region: "us-east-1".to_owned(),
        name: Some(name_file),
        secret: Some(secret_file),
        ca: None,
        path_style: true,
        part_bytes: 5 << 20,
        buffer_bytes_max: 20 << 20,
        checksum: Checksum::default(),
        redirect: None,
    }
}
