//! The `[store]` table of `registry.toml`.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::Uri;
use berth_shared::config::{ConfigError, beside};
use serde::Deserialize;

use crate::{
    http::origin::Origin,
    storage::s3::{self, Provider},
};

/// What S3 takes for a part, in bytes.
const PART_BYTES: RangeInclusive<u64> = (5 << 20)..=(512 << 20);

/// Where the objects are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_file: Option<PathBuf>,
    secret_key_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    path_style: Option<bool>,
    part_bytes: Option<u64>,
    buffer_bytes_max: Option<u64>,
    checksum: Option<s3::Checksum>,
    redirect: Option<String>,
    redirect_secs: Option<u32>,
}

impl Store {
    fn refuse_what_is_of_s3(&self, provider: Provider) -> Result<(), ConfigError> {
        let given = [
            ("store.region", self.region.is_some()),
            ("store.path_style", self.path_style.is_some()),
            ("store.checksum", self.checksum.is_some()),
            ("store.redirect", self.redirect.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given && provider != Provider::S3) {
            Some((key, _)) => Err(ConfigError::value(key, "is for s3:// alone")),
            None => Ok(()),
        }
    }

    pub(super) fn check(
        self,
        path: &Path,
        public_urls: &[Origin],
    ) -> Result<s3::Settings, ConfigError> {
        let (provider, bucket, prefix) = place(&self.url)?;
        self.refuse_what_is_of_s3(provider)?;
        let endpoint =
            self.endpoint.as_deref().map(|it| check_endpoint("store.endpoint", it)).transpose()?;
        let (name, secret) = (self.access_key_file, self.secret_key_file);
        match (provider, &name, &secret) {
            (Provider::Google, Some(_), _) => {
                let reason =
                    "is not for gs://: store.secret_key_file is a service account's key, in JSON";
                return Err(ConfigError::value("store.access_key_file", reason));
            }
            (Provider::S3 | Provider::Azure, Some(_), None) => {
                let reason = "must stand beside store.access_key_file: both files, or neither";
                return Err(ConfigError::value("store.secret_key_file", reason));
            }
            (Provider::S3 | Provider::Azure, None, Some(_)) => {
                let reason = "must stand beside store.secret_key_file: both files, or neither";
                return Err(ConfigError::value("store.access_key_file", reason));
            }
            _ => {}
        }
        let redirect = match self.redirect {
            Some(to) => Some(check_redirect(&to, self.redirect_secs, public_urls)?),
            None => None,
        };
        let part_bytes = self.part_bytes.unwrap_or(16 << 20);
        if !PART_BYTES.contains(&part_bytes) {
            let reason = "must be from 5242880 (5 MiB) to 536870912 (512 MiB)";
            return Err(ConfigError::value("store.part_bytes", reason));
        }
        let buffer_bytes_max = self.buffer_bytes_max.unwrap_or((512 << 20).max(4 * part_bytes));
        if buffer_bytes_max < 4 * part_bytes {
            let reason = "must be four times store.part_bytes at least";
            return Err(ConfigError::value("store.buffer_bytes_max", reason));
        }
        Ok(s3::Settings {
            provider,
            bucket,
            prefix,
            path_style: self.path_style.unwrap_or(endpoint.is_some()),
            endpoint,
            region: self.region.unwrap_or("us-east-1".to_owned()),
            name: name.map(|file| beside(path, &file)),
            secret: secret.map(|file| beside(path, &file)),
            ca: self.ca.map(|file| beside(path, &file)),
            part_bytes,
            buffer_bytes_max,
            checksum: self.checksum.unwrap_or_default(),
            redirect,
        })
    }
}

/// Provider, bucket and prefix.
fn place(url: &str) -> Result<(Provider, String, String), ConfigError> {
    let found =
        [Provider::S3, Provider::Google, Provider::Azure].into_iter().find_map(|provider| {
            let place = url.strip_prefix(provider.scheme())?.strip_prefix("://")?;
            Some((provider, place))
        });
    let Some((provider, place)) = found else {
        let reason = "must be s3://BUCKET or s3://BUCKET/PREFIX; store.endpoint says where that is. \
                      gs:// is Google's, az:// Azure's";
        return Err(ConfigError::value("store.url", reason));
    };
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = prefix.trim_end_matches('/');
    let is_plain = |text: &str| {
        let is_part = |part: &str| !matches!(part, "" | "." | "..");
        let is_known = |it: u8| it.is_ascii_alphanumeric() || b"-_./".contains(&it);
        text.split('/').all(is_part) && text.bytes().all(is_known)
    };
    if !is_plain(bucket) || !(prefix.is_empty() || is_plain(prefix)) {
        let reason = "must name a bucket, and a prefix of letters, digits, - _ . and / at most";
        return Err(ConfigError::value("store.url", reason));
    }
    Ok((provider, bucket.to_owned(), prefix.to_owned()))
}

/// Clients that are sent to a host below the registry's own send their tokens along, which stores refuse
/// and should not see.
fn check_redirect(
    to: &str,
    secs: Option<u32>,
    public_urls: &[Origin],
) -> Result<s3::Redirect, ConfigError> {
    const KEY: &str = "store.redirect";
    let endpoint = check_endpoint(KEY, to)?;
    let uri: Option<Uri> = endpoint.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().to_ascii_lowercase();
    let is_below = |own: &Origin| {
        let own = own.host();
        host == own || host.strip_suffix(own).is_some_and(|above| above.ends_with('.'))
    };
    if public_urls.iter().any(is_below) {
        let reason = "must be a host that is not below one of public_urls: clients would send their \
                      tokens there";
        return Err(ConfigError::value(KEY, reason));
    }
    let secs = secs.unwrap_or(600);
    if !(1..=7 * 24 * 60 * 60).contains(&secs) {
        return Err(ConfigError::value("store.redirect_secs", "must be from 1 to 604800, a week"));
    }
    Ok(s3::Redirect { endpoint, holds: Duration::from_secs(secs.into()) })
}

/// Whether it is a URL of a host, and has no secret in it.
fn check_endpoint(key: &'static str, endpoint: &str) -> Result<String, ConfigError> {
    let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let host = host.map(|host| host.strip_suffix('/').unwrap_or(host));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['@', '/', '?', '#']) => {
            Ok(endpoint.trim_end_matches('/').to_owned())
        }
        _ => {
            let reason = "must be a URL such as https://s3.lan:9000, without a key or a path in it";
            Err(ConfigError::value(key, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(table: &str) -> Result<s3::Settings, ConfigError> {
        let table: Store = toml::from_str(table).expect("a table");
        let registry = Origin::from_uri(&Uri::from_static("https://reg.lan:5000")).unwrap();
        table.check(Path::new("/etc/berth/registry.toml"), &[registry])
    }

    #[test]
    fn mistakes_name_their_key() {
        for (table, key) in [
            ("url = 'https://s3.lan/berth'", "store.url"),
            ("url = 's3://'", "store.url"),
            ("url = 's3://berth/a/../b'", "store.url"),
            ("url = 's3://berth//b'", "store.url"),
            ("url = 's3://berth/b?c'", "store.url"),
            ("url = 's3://b'\nendpoint = 's3.lan'", "store.endpoint"),
            ("url = 's3://b'\nendpoint = 'https://a:b@s3'", "store.endpoint"),
            ("url = 's3://b'\nendpoint = 'https://s3/berth'", "store.endpoint"),
            ("url = 's3://b'\naccess_key_file = 'k'", "store.secret_key_file"),
            ("url = 's3://b'\nsecret_key_file = 'k'", "store.access_key_file"),
            ("url = 's3://b'\nredirect = 'https://s3.reg.lan'", "store.redirect"),
            ("url = 's3://b'\nredirect = 'https://Reg.lan:9000'", "store.redirect"),
            ("url = 's3://b'\nredirect = 's3.lan'", "store.redirect"),
            (
                "url = 's3://b'\nredirect = 'https://s3.lan'\nredirect_secs = 0",
                "store.redirect_secs",
            ),
            ("url = 's3://b'\npart_bytes = 5242879", "store.part_bytes"),
            ("url = 's3://b'\nbuffer_bytes_max = 67108863", "store.buffer_bytes_max"),
            ("url = 'gs://b'\naccess_key_file = 'k'", "store.access_key_file"),
            ("url = 'az://b'\nsecret_key_file = 'k'", "store.access_key_file"),
            ("url = 'gs://b'\nregion = 'here'", "store.region"),
            ("url = 'az://b'\nredirect = 'https://s3.lan'", "store.redirect"),
            ("url = 'gcs://b'", "store.url"),
        ] {
            let error = check(table).unwrap_err().to_string();
            assert!(error.contains(key), "{table}: {error}");
        }
    }

    #[test]
    fn a_url_is_a_bucket_and_what_keys_begin_with() {
        for (url, bucket, prefix) in
            [("s3://b", "b", ""), ("s3://b/", "b", ""), ("s3://b/c/d/", "b", "c/d")]
        {
            let settings = check(&format!("url = '{url}'")).unwrap();
            assert_eq!((settings.bucket.as_str(), settings.prefix.as_str()), (bucket, prefix));
            assert!(!settings.path_style, "AWS has the bucket in the host's name");
        }
        for (url, provider) in [("gs://b/c", Provider::Google), ("az://b/c", Provider::Azure)] {
            let settings = check(&format!("url = '{url}'\n")).unwrap();
            assert_eq!((settings.provider, settings.place().as_str()), (provider, url));
        }
        let google = check("url = 'gs://b'\nsecret_key_file = 'account.json'").unwrap();
        assert_eq!(google.secret.unwrap(), Path::new("/etc/berth/account.json"));
        let elsewhere = "url = 's3://b/c'\nendpoint = 'http://s3.lan:9000/'\nca = 'ca.pem'";
        let settings = check(elsewhere).unwrap();
        assert_eq!(settings.place(), "s3://b/c at http://s3.lan:9000");
        assert_eq!(settings.ca.unwrap(), Path::new("/etc/berth/ca.pem"));
        assert!(settings.path_style);
    }
}
