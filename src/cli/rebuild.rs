//! `rewindfs rebuild`: a new index for a namespace, from its log and its segments.

use super::connection::ConnectionArguments;
use super::error::CliError;
use super::namespace::show_time;
use super::place::{self, temporary_directory};
use super::value::show_size;
use super::writer_consent::writer_of_this_machine;
use crate::backend::{Backend, BackendConfig, BackendError};
use crate::config::{ConnectionOptions, DEFAULT_NAMESPACE, StoreUrl};
use crate::env::SystemEnv;
use crate::store::{
    LastWriter, LostTime, OnLosses, RebuildLosses, RebuildOutcome, RebuildReport, RebuildRequest,
    RebuildStep, RebuiltFrom, Spill, StoreError, UuidOrigin, check_name, last_writer,
    rebuild_namespace,
};
use crate::sync::{Mutex, lock};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// The most lost objects of one kind that are printed.
const SHOWN_MAX: usize = 20;

/// How often progress is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Bytes of rows in memory; two such amounts are in use.
const ROWS_IN_MEMORY: usize = 32 << 20;

/// The arguments of `rewindfs rebuild`.
#[derive(Args)]
pub(super) struct RebuildArguments {
    /// The store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "URL")]
    url: String,
    /// The namespace whose index is lost or damaged
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// The name of the new namespace, which takes its place
    #[arg(long, value_name = "NAMESPACE")]
    to: String,
    /// Take the place of the old namespace even if some of its log objects or segments are lost
    #[arg(long)]
    accept_losses: bool,
    /// The namespace is mounted nowhere; needed if its last writer did not unmount it
    #[arg(long)]
    no_writer: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArguments,
}

impl fmt::Debug for RebuildArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RebuildArguments")
            .field("url", &StoreUrl::new(self.url.clone()))
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// Whether another machine may have the namespace mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OtherMachines {
    MayWrite,
    DoNotWrite,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReportForm {
    Text,
    Json,
}

/// A rebuild to be made.
#[derive(Debug)]
pub struct RebuildJob {
    url: StoreUrl,
    backend: BackendConfig,
    request: RebuildRequest,
    others: OtherMachines,
    form: ReportForm,
}

impl RebuildJob {
    /// Checks the arguments before any request to the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument.
    pub(super) fn new(arguments: RebuildArguments) -> Result<Self, CliError> {
        let from = arguments.namespace;
        let from = from.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let to = arguments.to;
        let named = |flag: &'static str| {
            move |error: StoreError| CliError::usage(format!("{flag}: {error}"))
        };
        check_name(&from).map_err(named("--namespace"))?;
        check_name(&to).map_err(named("--to"))?;
        if from == to {
            return Err(CliError::usage(format!(
                "--to {to}: this is the namespace that is rebuilt: choose another name"
            )));
        }
        Ok(Self {
            url: StoreUrl::new(arguments.url),
            backend: ConnectionOptions::from(arguments.connection)
                .backend()
                .map_err(CliError::usage)?,
            request: RebuildRequest {
                from,
                to,
                on_losses: match arguments.accept_losses {
                    true => OnLosses::Accept,
                    false => OnLosses::Refuse,
                },
                spill: Spill {
                    dir: temporary_directory(),
                    memory: ROWS_IN_MEMORY,
                },
            },
            others: match arguments.no_writer {
                true => OtherMachines::DoNotWrite,
                false => OtherMachines::MayWrite,
            },
            form: match arguments.json {
                true => ReportForm::Json,
                false => ReportForm::Text,
            },
        })
    }

    /// Makes the rebuild, prints the outcome, and returns the exit status.
    pub async fn run(self) -> ExitCode {
        match self.rebuild().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(cli_error) => cli_error.exit(),
        }
    }

    async fn rebuild(&self) -> Result<(), CliError> {
        let refused = |error: BackendError| match error {
            BackendError::Invalid { .. } => CliError::usage(error),
            other => CliError::failure(other),
        };
        let backend = Backend::open(self.url.secret(), &self.backend).map_err(refused)?;
        backend.check().await.map_err(refused)?;
        self.check_no_writer(&backend).await?;
        let progress = RebuildProgress::new();
        let made = rebuild_namespace(&backend, &self.request, &SystemEnv, |step| {
            progress.tell(step);
        });
        let made = made.await;
        progress.end();
        let report = made.map_err(|error| self.failed(&error))?;
        match self.form {
            ReportForm::Json => println!("{:#}", as_json(&self.request, &report)),
            ReportForm::Text => print!("{}", self.as_text(&report)),
        }
        match report.outcome {
            RebuildOutcome::Complete => Ok(()),
            RebuildOutcome::Refused => Err(CliError::failure(format!(
                "namespace {}: something is lost, so namespace {} has not taken its place, and nothing of it was changed. Put the named objects \
                 back from a copy or from the bucket's own versions and run the command again; or add --accept-losses",
                self.request.from, self.request.to
            ))),
        }
    }

    /// Fails if a mount of this machine writes the namespace, or one of another machine may.
    async fn check_no_writer(&self, backend: &Backend) -> Result<(), CliError> {
        let from = &self.request.from;
        let cache_dir = place::cache_directory().ok();
        let found = last_writer(backend, from, cache_dir.as_deref(), &place::host()).await;
        let (uuid, writer) = found.map_err(|error| self.failed(&error))?;
        if let Some(uuid) = uuid
            && let Some(mountpoint) = writer_of_this_machine(uuid, from)?
        {
            let mountpoint = mountpoint.display();
            return Err(CliError::failure(format!(
                "namespace {from} is mounted at {mountpoint}: `rewindfs umount {mountpoint}`, then run the command again"
            )));
        }
        match (writer, self.others) {
            (LastWriter::Ended, _) | (_, OtherMachines::DoNotWrite) => Ok(()),
            (LastWriter::MayLive(host), OtherMachines::MayWrite) => {
                let host = host.as_deref().unwrap_or("an unknown machine");
                Err(CliError::failure(format!(
                    "namespace {from} was last written from {host}, which may have it mounted: unmount it there; if it is mounted nowhere, because \
                     that machine or its mount died, add --no-writer"
                )))
            }
        }
    }

    fn failed(&self, error: &StoreError) -> CliError {
        let from = &self.request.from;
        match error {
            StoreError::Invalid(why) => CliError::usage(why),
            StoreError::NotFound => CliError::failure(format!(
                "{}: namespace {from} does not exist; `rewindfs namespace list` prints those that do",
                self.url
            )),
            other => CliError::failure(format!("namespace {from}: {other}")),
        }
    }

    fn as_text(&self, report: &RebuildReport) -> String {
        let RebuildRequest { from, to, .. } = &self.request;
        let mut lines = vec![
            source_line(report),
            format!(
                "{to} has {} files of {}, {} earlier versions, {} labels, in {} rows",
                report.files,
                show_size(report.bytes),
                report.versions,
                report.labels,
                report.rows
            ),
        ];
        lines.extend(loss_lines(&report.losses));
        if report.wrong_counts > 0 {
            lines.push(format!(
                "{} counts differ from a recount: after a mount, `rewindfs check` names them",
                report.wrong_counts
            ));
        }
        if report.newer.segments > 0 {
            lines.push(format!(
                "{} segments, {}, are newer than what the index tells: the first mount brings the files in them back as versions marked \
                 recovered, and its log and `rewindfs status` name what it cannot bring back",
                report.newer.segments,
                show_size(report.newer.bytes)
            ));
        }
        match report.uuid_origin {
            UuidOrigin::Kept => {}
            UuidOrigin::Damaged => lines.push(
                "the namespace's id was read from a damaged namespace.json: if it is wrong, a mount does not find the cache directory".to_owned(),
            ),
            UuidOrigin::New => lines.push(format!(
                "namespace.json of {from} is lost, so {to} has a new id: no mount finds the cache directory of {from}; `rewindfs salvage` \
                 writes what is in it as plain files"
            )),
        }
        if report.outcome == RebuildOutcome::Complete {
            lines.push(format!(
                "{to} has taken the place of {from}; mount it with\n  rewindfs mount {} DIR --namespace {to}",
                self.url
            ));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

fn source_line(report: &RebuildReport) -> String {
    let objects = report.log_objects;
    match report.from {
        RebuiltFrom::Log => format!("rows of the log: {objects} objects"),
        RebuiltFrom::Index => format!("rows of the old index; {objects} log objects were read"),
        RebuiltFrom::IndexAndLog => {
            format!("rows of the old index, and later ones of the log: {objects} objects")
        }
        RebuiltFrom::Nothing => {
            "no log object and no index can be read: the new index is empty".to_owned()
        }
    }
}

/// Says what is lost.
fn loss_lines(losses: &RebuildLosses) -> Vec<String> {
    let mut lines = Vec::new();
    let named = losses.named_log_objects.iter().take(SHOWN_MAX);
    lines.extend(named.map(|object| format!("lost: object {}: {}", object.key, object.what)));
    let shown = SHOWN_MAX as u64;
    if losses.log_objects > shown {
        let more = losses.log_objects - shown;
        lines.push(format!("and {more} more log objects"));
    }
    let times = losses.times.iter().take(SHOWN_MAX);
    lines.extend(times.map(|time| format!("lost: changes {}", time_text(*time))));
    let named = losses.named_segments.iter().take(SHOWN_MAX);
    lines.extend(named.map(|key| {
        format!(
            "lost: object {key}: is missing; the bytes in it cannot be read, everything else can"
        )
    }));
    if losses.segments > shown {
        lines.push(format!("and {} more segments", losses.segments - shown));
    }
    lines
}

fn time_text(time: LostTime) -> String {
    match (time.after_ns, time.until_ns) {
        (Some(after), Some(until)) => {
            format!("between {} and {}", show_time(after), show_time(until))
        }
        (Some(after), None) => format!("after {}", show_time(after)),
        (None, Some(until)) => format!("before {}", show_time(until)),
        (None, None) => "of all times".to_owned(),
    }
}

fn as_json(request: &RebuildRequest, report: &RebuildReport) -> Value {
    let losses = &report.losses;
    let objects = losses.named_log_objects.iter();
    let objects: Vec<Value> = objects
        .map(|object| json!({ "key": object.key, "what": object.what }))
        .collect();
    let times: Vec<Value> = losses
        .times
        .iter()
        .map(|time| json!({ "after_ns": time.after_ns, "until_ns": time.until_ns }))
        .collect();
    json!({
        "namespace": request.from,
        "to": request.to,
        "complete": report.outcome == RebuildOutcome::Complete,
        "rows_of": match report.from {
            RebuiltFrom::Log => "log",
            RebuiltFrom::Index => "index",
            RebuiltFrom::IndexAndLog => "index and log",
            RebuiltFrom::Nothing => "nothing",
        },
        "uuid": report.uuid.to_string(),
        "uuid_of": match report.uuid_origin {
            UuidOrigin::Kept => "namespace.json",
            UuidOrigin::Damaged => "damaged namespace.json",
            UuidOrigin::New => "new",
        },
        "log_objects": report.log_objects,
        "rows": report.rows,
        "files": report.files,
        "bytes": report.bytes,
        "versions": report.versions,
        "labels": report.labels,
        "wrong_counts": report.wrong_counts,
        "lost": {
            "log_objects": losses.log_objects,
            "named_log_objects": objects,
            "times": times,
            "segments": losses.segments,
            "named_segments": losses.named_segments,
        },
        "newer": { "segments": report.newer.segments, "bytes": report.newer.bytes },
    })
}

/// Shows the progress of a rebuild: on a terminal in one line that changes, else in a line from time to time.
struct RebuildProgress {
    bar: ProgressBar,
    told: Mutex<Instant>,
}

impl RebuildProgress {
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

    fn tell(&self, step: RebuildStep) {
        let text = match step {
            RebuildStep::Log { read, all } => format!("read {read} of {all} log objects"),
            RebuildStep::Index(rows) => format!("read {rows} rows of the old index"),
            RebuildStep::Recounted(rows) => format!("recounted {rows} rows"),
            RebuildStep::Written(rows) => format!("wrote {rows} rows"),
            RebuildStep::Verified(rows) => format!("verified {rows} rows"),
        };
        if !self.bar.is_hidden() {
            self.bar.set_message(text);
            return;
        }
        let mut told = lock(&self.told);
        if told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            eprintln!("{text}");
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
