//! Servers that peers keep what they have at, as the environment names them.

use std::env;

/// A bucket, and how one signs in there.
pub(crate) struct Bucket {
    /// Scheme, host and port.
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    /// The key's name, and its secret.
    pub(crate) name: String,
    pub(crate) secret: String,
}

/// The one that `BENCH_S3` names, as `http://KEY:SECRET@HOST:PORT/BUCKET`; or why there is none.
pub(crate) fn bucket() -> Result<Bucket, String> {
    let url = url("BENCH_S3")?;
    let read = || {
        let (scheme, rest) = url.split_once("://")?;
        let (key, rest) = rest.split_once('@')?;
        let ((name, secret), (host, bucket)) = (key.split_once(':')?, rest.split_once('/')?);
        Some(Bucket {
            endpoint: format!("{scheme}://{host}"),
            bucket: bucket.to_owned(),
            name: name.to_owned(),
            secret: secret.to_owned(),
        })
    };
    read().ok_or_else(|| "`BENCH_S3` is not http://KEY:SECRET@HOST:PORT/BUCKET".to_owned())
}

/// The URL of the database that `BENCH_POSTGRES` names, or why there is none.
pub(crate) fn database() -> Result<String, String> {
    url("BENCH_POSTGRES")
}

fn url(variable: &str) -> Result<String, String> {
    let named = env::var_os(variable).and_then(|url| url.into_string().ok());
    named.ok_or_else(|| format!("`{variable}` names no server"))
}
