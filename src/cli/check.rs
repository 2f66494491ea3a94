//! `rewindfs check`: compares the log of a namespace with its index.

use super::connection::ConnectionArguments;
use super::error::CliError;
use super::place::temporary_directory;
use crate::backend::{Backend, BackendConfig, BackendError};
use crate::config::{ConnectionOptions, DEFAULT_NAMESPACE, StoreUrl};
use crate::fs::past::stamp::{Precision::Nanos, print as print_stamp};
use crate::store::{
    CheckConfig, CheckReport, CheckStep, Findings, Spill, StoreError, Subject, check_log,
};
use crate::sync::{Mutex, lock};
use clap::Args;
use indicatif::ProgressBar;
use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// How long a writer may take to log a committed batch: it logs once a minute.
const LOG_MAX: Duration = Duration::from_secs(90);

/// The most findings of one kind that are printed.
const SHOWN_MAX: usize = 20;

/// How often progress is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

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

/// A check to be run.
#[derive(Debug)]
pub struct Check {
    url: StoreUrl,
    namespace: String,
    backend: BackendConfig,
}

impl Check {
    /// Checks the arguments before any request to the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument.
    pub(super) fn new(arguments: CheckArguments) -> Result<Self, CliError> {
        Ok(Self {
            url: StoreUrl::new(arguments.url),
            namespace: arguments
                .namespace
                .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            backend: ConnectionOptions::from(arguments.connection)
                .backend()
                .map_err(CliError::usage)?,
        })
    }

    /// Compares, prints the outcome, and returns the exit status.
    pub async fn run(self) -> ExitCode {
        match self.compare().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(cli_error) => cli_error.exit(),
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
        let config = CheckConfig {
            patience: LOG_MAX,
            spill: Spill {
                dir: temporary_directory(),
                memory: ROWS_IN_MEMORY,
            },
        };
        let audit = check_log(&backend, &self.namespace, &config, |step| {
            progress.tell(step);
        })
        .await
        .map_err(|error| match error {
            StoreError::Invalid(_) => CliError::usage(error),
            other => CliError::failure(format!("namespace {}: {other}", self.namespace)),
        })?;
        progress.end();
        println!(
            "{} log objects tell {} rows, {} differ from the index, {} counts are wrong",
            audit.objects, audit.rows, audit.differing.count, audit.miscounted.count
        );
        if audit.is_sound() {
            return Ok(());
        }
        for findings in [&audit.damaged, &audit.differing, &audit.miscounted] {
            print(findings);
        }
        Err(CliError::failure(format!(
            "namespace {}: {}",
            self.namespace,
            verdict(&audit)
        )))
    }
}

/// Names in one line what is wrong.
fn verdict(audit: &CheckReport) -> String {
    let mut parts = Vec::new();
    if !audit.damaged.is_empty() {
        parts.push("log objects are missing or bad");
    }
    if !audit.differing.is_empty() {
        parts.push("log and index differ");
    }
    if !audit.miscounted.is_empty() {
        parts.push("counts are wrong");
    }
    parts.join(", ")
}

/// Prints the first findings, one per line, and how many more there are.
fn print(findings: &Findings) {
    let shown = &findings.named[..findings.named.len().min(SHOWN_MAX)];
    for finding in shown {
        println!("{}: {}", name(&finding.subject), finding.what);
    }
    let more = findings.count - shown.len() as u64;
    if more > 0 {
        println!("and {more} more like these");
    }
}

/// A subject, for a person.
fn name(subject: &Subject) -> String {
    match subject {
        Subject::Path { path, version } => {
            let path = match path.as_str() {
                "" => "the root directory",
                path => path,
            };
            match version {
                Some(version) => format!("{path}, version {}", print_stamp(*version, Nanos)),
                None => path.to_owned(),
            }
        }
        Subject::Object(key) => format!("object {key}"),
        Subject::Other(what) => what.clone(),
    }
}

/// Shows the progress of a check: on a terminal in one line that changes, else in a line from time to time.
struct CheckProgress {
    bar: ProgressBar,
    told: Mutex<Instant>,
}

impl CheckProgress {
    fn new() -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar,
            told: Mutex::new(Instant::now()),
        }
    }

    fn tell(&self, step: CheckStep) {
        let text = match step {
            CheckStep::Log { read, all } => format!("read {read} of {all} log objects"),
            CheckStep::Rows(rows) => format!("compared {rows} rows"),
            CheckStep::Waiting => "the namespace is being written: waiting for its log".to_owned(),
        };
        if !self.bar.is_hidden() {
            self.bar.set_message(text);
            return;
        }
        let mut told = lock(&self.told);
        if step == CheckStep::Waiting || told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            eprintln!("{text}");
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_named_by_path_version_and_object() {
        let version = Some(crate::store::Timestamp(1_800_000_000_123_000_000));
        let path = |path: &str, version| Subject::Path {
            path: path.to_owned(),
            version,
        };
        assert_eq!(
            name(&path("a/b/c.txt", version)),
            "a/b/c.txt, version 2027-01-15T08-00-00.123000000Z"
        );
        assert_eq!(name(&path("a/b", None)), "a/b");
        assert_eq!(name(&path("", None)), "the root directory");
        let object = Subject::Object("log/00000/001/000/000/001".to_owned());
        assert_eq!(name(&object), "object log/00000/001/000/000/001");
    }
}
