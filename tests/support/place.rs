//! The store of a test's namespace: a URL, an endpoint and credentials.

use std::path::Path;

/// A store as the command line names it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The URL.
    pub(crate) url: String,
    /// `--endpoint`, for S3 servers that are not Amazon's.
    pub(crate) endpoint: Option<String>,
    /// Variables of the environment: credentials and region.
    pub(crate) variables: Vec<(String, String)>,
}

impl Place {
    /// A local directory.
    pub(crate) fn local(directory: &Path) -> Self {
        Self {
            url: format!("file://{}", directory.display()),
            endpoint: None,
            variables: Vec::new(),
        }
    }

    /// A bucket behind an endpoint, with credentials that any server without checks accepts.
    pub(crate) fn s3(bucket_and_prefix: &str, endpoint: &str) -> Self {
        Self {
            url: format!("s3://{bucket_and_prefix}"),
            endpoint: Some(endpoint.to_owned()),
            variables: Vec::new(),
        }
        .credentials("testing", "testing")
    }

    /// The same place with other credentials.
    pub(crate) fn credentials(mut self, key: &str, secret: &str) -> Self {
        self.variables = [
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        self
    }

    /// A container of Azure's emulator at `endpoint`, with its published account and key.
    pub(crate) fn azurite(container_and_prefix: &str, endpoint: &str) -> Self {
        let variables = [
            ("AZURE_STORAGE_USE_EMULATOR", "true"),
            ("AZURITE_BLOB_STORAGE_URL", endpoint),
        ];
        Self {
            url: format!("az://{container_and_prefix}"),
            endpoint: None,
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
        }
    }
}
