//! `rewindfs check`: looks whether a namespace is sound, and repairs it.

mod output;
mod progress;
mod repairer;

use super::connection::ConnectionArguments;
use super::error::CliError;
use super::place::temporary_directory;
use super::writer_consent::{WriterArguments, WriterConsent};
use crate::backend::{Backend, BackendConfig, BackendError};
use crate::config::{ConnectionOptions, DEFAULT_NAMESPACE, StoreUrl};
use crate::env::{Env, SystemEnv};
use crate::store::{
    CheckConfig, CheckReport, DataReads, GRACE, MoreDamage, Spill, StoreError, check_log,
};
use clap::Args;
use output::{CheckOutput, CheckedPlace};
use progress::CheckProgress;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

/// How long a writer may take to log a committed batch: it logs once a minute.
const LOG_MAX: Duration = Duration::from_secs(90);

/// Bytes of rows in memory; two such amounts are in use.
const ROWS_IN_MEMORY: usize = 32 << 20;

/// The arguments of `rewindfs check`.
#[derive(Args)]
pub(super) struct CheckArguments {
    /// The store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "URL")]
    url: String,
    /// The namespace in it
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Fetch all bytes of files and verify their hashes
    #[arg(long)]
    read_data: bool,
    /// Mend what can be mended, and mark the versions that cannot be read; nothing that can be read is deleted
    #[arg(long)]
    repair: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    writer: WriterArguments,
    #[command(flatten)]
    connection: ConnectionArguments,
}

impl fmt::Debug for CheckArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckArguments")
            .field("url", &StoreUrl::new(self.url.clone()))
            .finish_non_exhaustive()
    }
}

/// What a check is for.
#[derive(Debug)]
enum CheckPurpose {
    /// To tell what is wrong.
    Report,
    /// To mend it, as the writer.
    Repair(WriterConsent),
}

/// A check to be run.
#[derive(Debug)]
pub struct Check {
    url: StoreUrl,
    namespace: String,
    backend: BackendConfig,
    data: DataReads,
    purpose: CheckPurpose,
    output: CheckOutput,
}

impl Check {
    /// Checks the arguments before any request to the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument.
    pub(super) fn new(arguments: CheckArguments) -> Result<Self, CliError> {
        let url = StoreUrl::new(arguments.url);
        let namespace = arguments
            .namespace
            .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let consent = arguments.writer.on_url()?;
        let purpose = match (arguments.repair, consent) {
            (true, consent) => CheckPurpose::Repair(consent),
            (false, WriterConsent::None) => CheckPurpose::Report,
            (false, WriterConsent::NoOtherWriter(_)) => {
                return Err(CliError::usage(
                    "--no-writer: only with --repair; a check alone disturbs no writer",
                ));
            }
        };
        Ok(Self {
            output: CheckOutput {
                json: arguments.json,
                place: CheckedPlace {
                    url: url.to_string(),
                    namespace: namespace.clone(),
                },
            },
            url,
            namespace,
            backend: ConnectionOptions::from(arguments.connection)
                .backend()
                .map_err(CliError::usage)?,
            data: match arguments.read_data {
                true => DataReads::All,
                false => DataReads::Skipped,
            },
            purpose,
        })
    }

    /// Checks or repairs, prints the outcome, and returns the exit status.
    pub async fn run(self) -> ExitCode {
        let done = match &self.purpose {
            CheckPurpose::Report => self.compare().await,
            CheckPurpose::Repair(consent) => self.mend(consent).await,
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(cli_error) => cli_error.exit(),
        }
    }

    fn config(&self) -> CheckConfig {
        CheckConfig {
            patience: LOG_MAX,
            spill: Spill {
                dir: temporary_directory(),
                memory: ROWS_IN_MEMORY,
            },
            data: self.data,
            now_ns: SystemEnv.now(),
            grace: GRACE,
        }
    }

    async fn compare(&self) -> Result<(), CliError> {
        let refused = |error: BackendError| match error {
            BackendError::Invalid { .. } => CliError::usage(error),
            other => CliError::failure(other),
        };
        let backend = Backend::open(self.url.secret(), &self.backend).map_err(refused)?;
        backend.check().await.map_err(refused)?;
        let progress = CheckProgress::new();
        let config = self.config();
        let checked = check_log(&backend, &self.namespace, &config, |step| {
            progress.tell(step);
        });
        let report = checked.await.map_err(|error| self.failed(error))?;
        progress.end();
        self.output.print_check(&report);
        match report.is_sound() {
            true => Ok(()),
            false => Err(CliError::failure(format!(
                "namespace {}: {}",
                self.namespace,
                verdict(&report)
            ))),
        }
    }

    fn failed(&self, error: StoreError) -> CliError {
        match error {
            StoreError::Invalid(_) => CliError::usage(error),
            StoreError::NotFound => CliError::failure(format!(
                "{}: namespace {} does not exist, or nothing was ever saved in it",
                self.url, self.namespace
            )),
            other => CliError::failure(format!("namespace {}: {other}", self.namespace)),
        }
    }
}

/// Names in one line what is wrong.
fn verdict(report: &CheckReport) -> String {
    let mut parts = Vec::new();
    for (findings, what) in [
        (&report.damaged, "log objects are missing or bad"),
        (&report.differing, "log and index differ"),
        (&report.miscounted, "counts are wrong"),
        (&report.disagreeing, "rows of names do not agree"),
        (&report.lost, "bytes of files cannot be read"),
    ] {
        if !findings.is_empty() {
            parts.push(what);
        }
    }
    if report.more_lost != MoreDamage::None {
        parts.push("there is more damage than is listed");
    }
    parts.join(", ")
}
