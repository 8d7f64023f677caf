//! Clients of a store: S3 and what speaks like it, and those of Google and Azure.

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use berth_shared::files::{SMALL_FILE_BYTES_MAX, read_at_most};
use object_store::{
    Certificate, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
    multipart::MultipartStore,
};

use super::{Checksum, Provider, Redirect, Settings};

/// What one call may take, tries included, unless much is sent or streamed.
pub(super) const CALL_TIME: Duration = Duration::from_secs(30);

/// How often a call is tried again, and for how long.
const TRIES: usize = 3;
const TRY_TIME: Duration = Duration::from_secs(20);

/// A body that brings nothing for so long has broken off, and is asked for again where it stands.
const READ_TIME: Duration = Duration::from_secs(30);

/// A client may take as long for a body as it likes: it is the store's that is asked for again.
const BODY_TIME: Duration = Duration::from_secs(24 * 60 * 60);
const BODY_TRIES: usize = 100;

/// What says who we are at AWS, where no files do: as its own tools find it.
const OF_AWS: [&str; 10] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
];

/// The same at Google, and at Azure.
const OF_GOOGLE: [&str; 2] = ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS"];
const OF_AZURE: [&str; 7] = [
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_MSI_ENDPOINT",
];

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be read.
    #[error("store: {0}")]
    File(PathBuf, #[source] io::Error),
    /// They make no sense.
    #[error("store")]
    Settings(#[from] object_store::Error),
}

/// What a registry needs of one.
pub(super) trait Client: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Client for T {}

/// What a client is for: how it waits, and how often it tries.
#[derive(Debug, Clone)]
pub(super) struct For {
    options: ClientOptions,
    tries: usize,
    most: Duration,
}

impl For {
    /// Small calls.
    pub(super) fn calls() -> Self {
        let options = ClientOptions::new().with_timeout(CALL_TIME);
        Self { options, tries: TRIES, most: TRY_TIME }
    }

    /// What sends a part, which may take so long.
    pub(super) fn sending(most: Duration) -> Self {
        Self { options: ClientOptions::new().with_timeout(most), tries: TRIES, most }
    }

    /// What reads bodies.
    pub(super) fn bodies() -> Self {
        let options = ClientOptions::new().with_timeout_disabled().with_read_timeout(READ_TIME);
        Self { options, tries: BODY_TRIES, most: BODY_TIME }
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig { max_retries: self.tries, retry_timeout: self.most, ..RetryConfig::default() }
    }

    fn options(self, settings: &Settings) -> Result<ClientOptions, SetupError> {
        let options = self.options.with_allow_http(is_http(settings));
        let Some(file) = &settings.ca else { return Ok(options) };
        let bundle = Certificate::from_pem_bundle(text_of(file)?.as_bytes())?;
        let options = options.with_no_system_certificates(true);
        Ok(bundle.into_iter().fold(options, |options, it| options.with_root_certificate(it)))
    }
}

/// A client of the store that the settings name.
pub(super) fn client(settings: &Settings, is_for: For) -> Result<Arc<dyn Client>, SetupError> {
    Ok(match settings.provider {
        Provider::S3 => Arc::new(of_s3(settings, is_for)?),
        Provider::Google => {
            let builder = match &settings.secret {
                Some(key) => {
                    GoogleCloudStorageBuilder::new().with_service_account_key(text_of(key)?)
                }
                None => from_environment(
                    GoogleCloudStorageBuilder::new(),
                    &OF_GOOGLE,
                    GoogleCloudStorageBuilder::with_config,
                ),
            };
            let builder = builder
                .with_bucket_name(&settings.bucket)
                .with_retry(is_for.retry())
                .with_client_options(is_for.options(settings)?);
            let builder = match &settings.endpoint {
                Some(endpoint) => builder.with_base_url(endpoint),
                None => builder,
            };
            Arc::new(builder.build()?)
        }
        Provider::Azure => {
            let builder = match (&settings.name, &settings.secret) {
                (Some(name), Some(secret)) => MicrosoftAzureBuilder::new()
                    .with_account(text_of(name)?)
                    .with_access_key(text_of(secret)?),
                _ => from_environment(
                    MicrosoftAzureBuilder::new(),
                    &OF_AZURE,
                    MicrosoftAzureBuilder::with_config,
                ),
            };
            let builder = builder
                .with_container_name(&settings.bucket)
                .with_retry(is_for.retry())
                .with_client_options(is_for.options(settings)?);
            let builder = match &settings.endpoint {
                Some(endpoint) => builder.with_endpoint(endpoint.clone()),
                None => builder,
            };
            Arc::new(builder.build()?)
        }
    })
}

fn of_s3(settings: &Settings, is_for: For) -> Result<AmazonS3, SetupError> {
    let builder = match (&settings.name, &settings.secret) {
        (Some(name), Some(secret)) => AmazonS3Builder::new()
            .with_access_key_id(text_of(name)?)
            .with_secret_access_key(text_of(secret)?),
        _ => from_environment(AmazonS3Builder::new(), &OF_AWS, AmazonS3Builder::with_config),
    };
    let builder = builder
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_virtual_hosted_style_request(!settings.path_style)
        .with_retry(is_for.retry())
        // Under TLS nobody changes bytes on their way, and hashing them once more is work.
        .with_unsigned_payload(!is_http(settings))
        .with_client_options(is_for.options(settings)?);
    let builder = match &settings.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint_of(endpoint, settings)),
        None => builder,
    };
    let builder = match settings.checksum {
        Checksum::Crc64nvme => {
            builder.with_checksum_algorithm(object_store::aws::Checksum::CRC64NVME)
        }
        Checksum::Sha256 => builder.with_checksum_algorithm(object_store::aws::Checksum::SHA256),
        Checksum::None => builder,
    };
    Ok(builder.build()?)
}

/// Signs for the name by which clients reach the store.
pub(super) fn public(
    settings: &Settings,
    to: &Redirect,
) -> Result<(AmazonS3, Duration), SetupError> {
    let settings = Settings { endpoint: Some(to.endpoint.clone()), ..settings.clone() };
    Ok((of_s3(&settings, For::calls())?, to.holds))
}

/// The library wants the bucket in the host's name, where it is to stand there.
fn endpoint_of(endpoint: &str, settings: &Settings) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://").filter(|_| !settings.path_style) {
        Some((scheme, host)) => format!("{scheme}://{}.{host}", settings.bucket),
        None => endpoint.to_owned(),
    }
}

fn is_http(settings: &Settings) -> bool {
    settings.endpoint.as_ref().is_some_and(|it| it.starts_with("http://"))
}

/// Takes who we are out of the environment, and nothing else: the library would take settings, too.
fn from_environment<B, K: FromStr>(
    builder: B,
    names: &[&str],
    with: impl Fn(B, K, String) -> B,
) -> B {
    names.iter().fold(builder, |builder, name| {
        let value = std::env::var_os(name).and_then(|value| value.into_string().ok());
        match (value, name.to_ascii_lowercase().parse()) {
            (Some(value), Ok(key)) => with(builder, key, value),
            _ => builder,
        }
    })
}

fn text_of(path: &Path) -> Result<String, SetupError> {
    let failed = |error| SetupError::File(path.to_owned(), error);
    let bytes = read_at_most(path, SMALL_FILE_BYTES_MAX).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(io::Error::other).map_err(failed)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is not said what any of them does: nobody has tried.
    #[test]
    fn each_provider_has_a_client() {
        berth_shared::crypto::install();
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let settings = |provider, name, secret| Settings {
            provider,
            bucket: "berth".to_owned(),
            prefix: String::new(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            name: Some(name),
            secret: Some(secret),
            ca: None,
            path_style: false,
            part_bytes: 16 << 20,
            buffer_bytes_max: 512 << 20,
            checksum: Checksum::default(),
            redirect: None,
        };
        let name = file("name", "account\n");
        for (provider, secret) in
            [(Provider::S3, file("s3", "secret\n")), (Provider::Azure, file("azure", "c2VjcmV0\n"))]
        {
            let settings = settings(provider, name.clone(), secret);
            client(&settings, For::calls()).unwrap();
        }
        let google = settings(Provider::Google, name.clone(), file("google", "no key"));
        let error = client(&google, For::calls()).err().unwrap();
        assert!(matches!(error, SetupError::Settings(_)), "{error:?}");
        let missing = settings(Provider::Azure, name, directory.path().join("missing"));
        let error = client(&missing, For::calls()).err().unwrap();
        assert!(matches!(error, SetupError::File(..)), "{error:?}");
    }
}
