//! `rewindfs check`: does the log of a namespace tell what its index says?

use super::Refusal;
use super::reach::ReachArguments;
use crate::backend::{Backend, BackendConfig, BackendError};
use crate::config::{DEFAULT_NAMESPACE, Reach, StoreUrl};
use crate::store::{StoreError, audit_log};
use clap::Args;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

/// How long a writer may take to log what it has committed: it does so each minute.
const LOG_MAX: Duration = Duration::from_secs(90);

/// Differing keys that are printed, at most.
const SHOWN_MAX: usize = 20;

/// What `rewindfs check` takes.
#[derive(Args)]
pub(super) struct CheckArguments {
    /// The store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "URL")]
    url: String,
    /// The namespace in it
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    reach: ReachArguments,
}

impl fmt::Debug for CheckArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckArguments")
            .field("url", &StoreUrl::new(self.url.clone()))
            .finish_non_exhaustive()
    }
}

/// A check that is to be run.
#[derive(Debug)]
pub struct Check {
    url: StoreUrl,
    namespace: String,
    backend: BackendConfig,
}

impl Check {
    /// Checks the words before anything is asked of the store.
    ///
    /// # Errors
    /// A usage error that names what is wrong.
    pub(super) fn new(arguments: CheckArguments) -> Result<Self, Refusal> {
        Ok(Self {
            url: StoreUrl::new(arguments.url),
            namespace: arguments
                .namespace
                .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            backend: Reach::from(arguments.reach)
                .backend()
                .map_err(Refusal::usage)?,
        })
    }

    /// Compares, prints the outcome, and turns into the exit status.
    pub async fn run(self) -> ExitCode {
        match self.compare().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(refusal) => refusal.exit(),
        }
    }

    async fn compare(&self) -> Result<(), Refusal> {
        let refused = |error: BackendError| match error {
            BackendError::Invalid { .. } => Refusal::usage(error),
            other => Refusal::failure(other),
        };
        let backend = Backend::open(self.url.secret(), &self.backend).map_err(refused)?;
        backend.check().await.map_err(refused)?;
        let waits = || {
            eprintln!("the namespace is being written: waiting for its log");
        };
        let audit = audit_log(&backend, &self.namespace, LOG_MAX, waits)
            .await
            .map_err(|error| match error {
                StoreError::Invalid(_) => Refusal::usage(error),
                other => Refusal::failure(format!("namespace {}: {other}", self.namespace)),
            })?;
        println!(
            "{} log objects tell {} rows, {} differ from the index, {} counts are wrong",
            audit.objects,
            audit.rows,
            audit.differing.len(),
            audit.miscounted.len()
        );
        if audit.differing.is_empty() && audit.miscounted.is_empty() {
            return Ok(());
        }
        let shown: Vec<&str> = audit
            .differing
            .iter()
            .chain(&audit.miscounted)
            .take(SHOWN_MAX)
            .map(String::as_str)
            .collect();
        Err(Refusal::failure(format!(
            "namespace {}: log, index and counts differ at {}",
            self.namespace,
            shown.join(", ")
        )))
    }
}
