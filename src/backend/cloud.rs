//! The stores reached over HTTP: S3, Google Cloud Storage, Azure Blob Storage.
//!
//! Invariant: credentials are read from the environment and passed to the builders only. An endpoint with a user name or
//! password is refused, and no message repeats it. Plain HTTP is used only for an endpoint that begins with `http://`.

use super::answer::{Connector, Peer};
use super::credentials::{Checked, TokenFile, flag, variables};
use super::error::{BackendError, Class};
use super::limits::BackendConfig;
use super::redact::redacted;
use crate::sync::Arc;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3Key};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, ObjectStore};
use std::path::PathBuf;
use url::Url;

/// The providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cloud {
    S3,
    Gcs,
    Azure,
}

impl Cloud {
    /// The scheme of the provider's URLs.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }

    /// Tells whether the credentials are variables of the environment, which cannot change while this process runs.
    pub(super) fn has_fixed_credentials(self) -> bool {
        match self {
            Self::S3 => AmazonS3Builder::from_env()
                .get_config_value(&S3Key::AccessKeyId)
                .is_some(),
            Self::Gcs | Self::Azure => false,
        }
    }

    /// Builds the client of `bucket`, which messages name `url`. Sends no request.
    ///
    /// # Errors
    /// `Invalid` for a wrong setting, `Denied` if the environment has no credentials.
    pub(super) fn open(
        self,
        bucket: &str,
        url: &str,
        config: &BackendConfig,
    ) -> Result<Arc<dyn ObjectStore>, BackendError> {
        if let Some(region) = &config.region {
            flag("--region", region)?;
        }
        if let Some(endpoint) = &config.endpoint {
            flag("--endpoint", endpoint)?;
        }
        match self {
            Self::S3 => open_s3(bucket, url, config),
            Self::Gcs => open_gcs(bucket, url, config),
            Self::Azure => open_azure(bucket, url, config),
        }
    }
}

/// Translates the error of a builder, which sends no requests and fails only for a wrong or missing setting.
fn wrong(url: &str) -> impl Fn(object_store::Error) -> BackendError + '_ {
    move |error| Class::Invalid.error(url, error.to_string())
}

// Each client is built twice: the second one uses the credential provider of the first one, with checks around it.

fn open_s3(
    bucket: &str,
    url: &str,
    config: &BackendConfig,
) -> Result<Arc<dyn ObjectStore>, BackendError> {
    let mut builder = s3_builder(bucket, config)?;
    s3_credentials(&builder).map_err(|missing| Class::Denied.error(url, missing))?;
    let files = [
        S3Key::WebIdentityTokenFile,
        S3Key::ContainerAuthorizationTokenFile,
    ];
    let mut copies = Vec::new();
    for key in files {
        if let Some(file) = builder.get_config_value(&key) {
            let file = TokenFile::new(&file)?;
            builder = builder.with_config(key, file.path());
            copies.push(file);
        }
    }
    let first = builder.clone();
    let first = first.with_http_connector(Connector::to(Peer::Credentials));
    let first = first.build().map_err(wrong(url))?;
    let credentials = Checked::new(Arc::clone(first.credentials()), copies);
    let store = builder
        .with_http_connector(Connector::to(Peer::Store))
        .with_credentials(Arc::new(credentials))
        .build();
    Ok(Arc::new(store.map_err(wrong(url))?))
}

fn open_gcs(
    bucket: &str,
    url: &str,
    config: &BackendConfig,
) -> Result<Arc<dyn ObjectStore>, BackendError> {
    let builder = gcs_builder(bucket, config)?;
    gcs_credentials(&builder).map_err(|missing| Class::Denied.error(url, missing))?;
    let first = builder.clone();
    let first = first.with_http_connector(Connector::to(Peer::Credentials));
    let first = first.build().map_err(wrong(url))?;
    let credentials = Checked::new(Arc::clone(first.credentials()), Vec::new());
    let store = builder
        .with_http_connector(Connector::to(Peer::Store))
        .with_credentials(Arc::new(credentials))
        .build();
    Ok(Arc::new(store.map_err(wrong(url))?))
}

fn open_azure(
    bucket: &str,
    url: &str,
    config: &BackendConfig,
) -> Result<Arc<dyn ObjectStore>, BackendError> {
    let mut builder = azure_builder(bucket, config)?;
    azure_credentials(&builder).map_err(|missing| Class::Denied.error(url, missing))?;
    let key = AzureConfigKey::FederatedTokenFile;
    let mut copies = Vec::new();
    if let Some(file) = builder.get_config_value(&key) {
        let file = TokenFile::new(&file)?;
        builder = builder.with_config(key, file.path());
        copies.push(file);
    }
    let first = builder.clone();
    let first = first.with_http_connector(Connector::to(Peer::Credentials));
    let first = first.build().map_err(wrong(url))?;
    let credentials = Checked::new(Arc::clone(first.credentials()), copies);
    let store = builder
        .with_http_connector(Connector::to(Peer::Store))
        .with_credentials(Arc::new(credentials))
        .build();
    Ok(Arc::new(store.map_err(wrong(url))?))
}

/// Checks an endpoint, and tells whether it needs plain HTTP.
fn endpoint_is_plain(endpoint: &str) -> Result<bool, BackendError> {
    let refuse = |reason: String| Class::Invalid.error(redacted(endpoint), reason);
    let parsed = Url::parse(endpoint)
        .map_err(|e| refuse(format!("the endpoint is not a URL like https://HOST: {e}")))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(refuse(
            "an endpoint must not carry a name or password".into(),
        ));
    }
    match parsed.scheme() {
        "https" => Ok(false),
        "http" => Ok(true),
        other => Err(refuse(format!(
            "an endpoint begins with http:// or https://, not {other}:"
        ))),
    }
}

/// The settings of the HTTP client that all providers share, as key and value.
fn client_settings(config: &BackendConfig) -> [(ClientConfigKey, String); 2] {
    let millis = |d: std::time::Duration| format!("{} ms", d.as_millis());
    [
        (ClientConfigKey::Timeout, millis(config.request_timeout())),
        (
            ClientConfigKey::ConnectTimeout,
            millis(config.connect_timeout()),
        ),
    ]
}

pub(super) fn s3_builder(
    bucket: &str,
    config: &BackendConfig,
) -> Result<AmazonS3Builder, BackendError> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in variables(&["AWS_"])? {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_retry(config.retry_config());
    for (key, value) in client_settings(config) {
        builder = builder.with_config(S3Key::Client(key), value);
    }
    if let Some(endpoint) = &config.endpoint {
        // The S3-specific key takes precedence over all other endpoints, also those of the environment.
        builder = builder.with_config(S3Key::S3Endpoint, endpoint);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    let endpoint = builder
        .get_config_value(&S3Key::S3Endpoint)
        .or_else(|| builder.get_config_value(&S3Key::Endpoint));
    if let Some(endpoint) = endpoint
        && endpoint_is_plain(&endpoint)?
    {
        builder = builder.with_allow_http(true);
    }
    Ok(builder)
}

pub(super) fn gcs_builder(
    bucket: &str,
    config: &BackendConfig,
) -> Result<GoogleCloudStorageBuilder, BackendError> {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value) in variables(&["GOOGLE_", "GCE_METADATA_", "SERVICE_ACCOUNT"])? {
        match name.to_ascii_lowercase().parse() {
            Ok(key) if name.starts_with("GOOGLE_") => builder = builder.with_config(key, value),
            _ if name == "SERVICE_ACCOUNT" => builder = builder.with_service_account_path(value),
            _ => {}
        }
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_retry(config.retry_config());
    for (key, value) in client_settings(config) {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &config.endpoint {
        let plain = endpoint_is_plain(endpoint)?;
        builder = builder.with_base_url(endpoint).with_config(
            GoogleConfigKey::Client(ClientConfigKey::AllowHttp),
            plain.to_string(),
        );
    }
    Ok(builder)
}

/// The library reads the URL of the emulator from the environment only and ignores the endpoint.
const EMULATOR_HAS_ITS_OWN: &str = "with AZURE_STORAGE_USE_EMULATOR the server's URL is taken from \
    AZURITE_BLOB_STORAGE_URL: set that instead of --endpoint";

fn azure_builder(
    container: &str,
    config: &BackendConfig,
) -> Result<MicrosoftAzureBuilder, BackendError> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in variables(&["AZURE_", "AZURITE_", "IDENTITY_"])? {
        match name.to_ascii_lowercase().parse() {
            Ok(key) if name.starts_with("AZURE_") => builder = builder.with_config(key, value),
            _ if name == "IDENTITY_ENDPOINT" => builder = builder.with_msi_endpoint(value),
            _ => {}
        }
    }
    builder = builder
        .with_container_name(container)
        .with_retry(config.retry_config());
    for (key, value) in client_settings(config) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &config.endpoint {
        if is_true(builder.get_config_value(&AzureConfigKey::UseEmulator)) {
            return Err(Class::Invalid.error(redacted(endpoint), EMULATOR_HAS_ITS_OWN));
        }
        let plain = endpoint_is_plain(endpoint)?;
        builder = builder
            .with_endpoint(endpoint.clone())
            .with_allow_http(plain);
    }
    Ok(builder)
}

/// Returns which credentials are missing, in cases where the builder would use an instance metadata address instead: on any
/// other machine that address answers after minutes or never.
fn s3_credentials(builder: &AmazonS3Builder) -> Result<(), &'static str> {
    let has = |key| builder.get_config_value(&key).is_some();
    let known = has(S3Key::AccessKeyId)
        || has(S3Key::SecretAccessKey)
        || (has(S3Key::WebIdentityTokenFile) && has(S3Key::RoleArn))
        || has(S3Key::ContainerCredentialsRelativeUri)
        || (has(S3Key::ContainerCredentialsFullUri) && has(S3Key::ContainerAuthorizationTokenFile))
        || has(S3Key::MetadataEndpoint)
        || is_true(builder.get_config_value(&S3Key::SkipSignature));
    known.then_some(()).ok_or(
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
         (or AWS_METADATA_ENDPOINT=http://169.254.169.254 for the role of an EC2 instance, \
         or AWS_SKIP_SIGNATURE=true for a public bucket)",
    )
}

/// As [`s3_credentials`].
fn gcs_credentials(builder: &GoogleCloudStorageBuilder) -> Result<(), &'static str> {
    let has = |key| builder.get_config_value(&key).is_some();
    let login = std::env::var_os("HOME").map(|home| {
        PathBuf::from(home).join(".config/gcloud/application_default_credentials.json")
    });
    let known = has(GoogleConfigKey::ServiceAccount)
        || has(GoogleConfigKey::ServiceAccountKey)
        || has(GoogleConfigKey::ApplicationCredentials)
        || has(GoogleConfigKey::BearerToken)
        || login.is_some_and(|path| path.exists())
        || std::env::var_os("GCE_METADATA_HOST").is_some()
        || is_true(builder.get_config_value(&GoogleConfigKey::SkipSignature));
    known.then_some(()).ok_or(
        "no credentials: set GOOGLE_APPLICATION_CREDENTIALS to a key file \
         (or GCE_METADATA_HOST=metadata.google.internal for the account of a GCE instance)",
    )
}

/// As [`s3_credentials`].
fn azure_credentials(builder: &MicrosoftAzureBuilder) -> Result<(), &'static str> {
    use AzureConfigKey as Key;
    let has = |key| builder.get_config_value(&key).is_some();
    let known = has(Key::AccessKey)
        || has(Key::SasKey)
        || has(Key::Token)
        || has(Key::ClientSecret)
        || has(Key::FederatedTokenFile)
        || has(Key::MsiEndpoint)
        || has(Key::FabricSessionToken)
        || is_true(builder.get_config_value(&Key::UseAzureCli))
        || is_true(builder.get_config_value(&Key::UseEmulator))
        || is_true(builder.get_config_value(&Key::SkipSignature));
    known.then_some(()).ok_or(
        "no credentials: set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY \
         (or AZURE_STORAGE_SAS_KEY, or AZURE_MSI_ENDPOINT for a managed identity)",
    )
}

fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_http_endpoints() {
        assert!(endpoint_is_plain("http://127.0.0.1:9000").unwrap());
        assert!(!endpoint_is_plain("https://s3.example").unwrap());
        assert!(endpoint_is_plain("127.0.0.1:9000").is_err());
        assert!(endpoint_is_plain("s3://host").is_err());
    }

    #[test]
    fn a_secret_in_an_endpoint_is_not_repeated() {
        let error = endpoint_is_plain("http://AKIAX:hidden@host").unwrap_err();
        assert!(!error.to_string().contains("hidden"), "{error}");
    }

    #[test]
    fn missing_credentials_are_named() {
        let s3 = AmazonS3Builder::new();
        let text = s3_credentials(&s3).unwrap_err();
        assert!(text.contains("AWS_ACCESS_KEY_ID"), "{text}");
        let s3 = AmazonS3Builder::new().with_access_key_id("x");
        assert!(s3_credentials(&s3).is_ok());
        let s3 = AmazonS3Builder::new().with_config(S3Key::SkipSignature, "true");
        assert!(s3_credentials(&s3).is_ok());

        assert!(azure_credentials(&MicrosoftAzureBuilder::new()).is_err());
        let azure = MicrosoftAzureBuilder::new().with_access_key("a2V5");
        assert!(azure_credentials(&azure).is_ok());
        let gcs = GoogleCloudStorageBuilder::new().with_service_account_key("{}");
        assert!(gcs_credentials(&gcs).is_ok());
    }
}
