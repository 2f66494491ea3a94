//! `rewindfs salvage`: what a cache directory has of acknowledged changes, as plain files, without the bucket.

use super::error::CliError;
use crate::fs::past::stamp::{Precision::Nanos, print as print_stamp};
use crate::store::{LocalDirectory, SalvageReport, SalvagedFile, StateOrigin, StoreError};
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The file in the new directory that lists what was written.
const REPORT: &str = "salvage.json";

/// The arguments of `rewindfs salvage`.
#[derive(Debug, Args)]
pub(super) struct SalvageArguments {
    /// The cache directory of the mount, or the directory of one namespace in it
    #[arg(value_name = "CACHE-DIR")]
    cache_dir: PathBuf,
    /// A new or empty directory to write the files to
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Writes the files, prints what they are, and leaves the same list in the new directory.
pub(super) fn salvage(arguments: &SalvageArguments) -> Result<(), CliError> {
    let SalvageArguments {
        cache_dir,
        to,
        json,
    } = arguments;
    let found = LocalDirectory::find(cache_dir).map_err(|error| refuse(cache_dir, &error))?;
    let mut namespaces = Vec::new();
    let mut totals = Totals::default();
    for local in &found {
        let to = match found.len() {
            1 => to.clone(),
            _ => to.join(local.uuid().to_string()),
        };
        let show = |file: &SalvagedFile| {
            if !json {
                // What cannot be printed is in the list in the directory.
                writeln!(io::stdout(), "{}", line(file)).ok();
            }
        };
        let report = local.salvage(&to, show).map_err(explain)?;
        totals.add(&report);
        let told = told(local, &report);
        let list = to.join(REPORT);
        fs::write(&list, format!("{told:#}\n"))
            .map_err(|error| CliError::failure(format!("{}: {error}", list.display())))?;
        namespaces.push(told);
        for problem in &report.problems {
            eprintln!("rewindfs: {problem}");
        }
    }
    match json {
        true => println!("{:#}", json!({ "namespaces": namespaces })),
        false => println!("{}", totals.text(to)),
    }
    match totals.problems {
        0 => Ok(()),
        some => Err(CliError::failure(format!(
            "{some} parts of {} could not be salvaged; keep it, and mount the namespace with it if the bucket is there",
            cache_dir.display()
        ))),
    }
}

/// The counts of all namespaces.
#[derive(Debug, Default)]
struct Totals {
    files: usize,
    incomplete: usize,
    problems: usize,
}

impl Totals {
    fn add(&mut self, report: &SalvageReport) {
        self.files += report.files.len();
        let incomplete = report.files.iter().filter(|file| !file.missing.is_empty());
        self.incomplete += incomplete.count();
        self.problems += report.problems.len();
    }

    fn text(&self, to: &Path) -> String {
        let to = to.display();
        match (self.files, self.incomplete) {
            (0, _) => "no state of a file waits for the bucket".to_owned(),
            (files, 0) => format!("{files} states of files in {to}"),
            (files, incomplete) => format!(
                "{files} states of files in {to}, {incomplete} of them incomplete: those are in {to}/parts, and what they lack is not on this machine"
            ),
        }
    }
}

fn refuse(cache_dir: &Path, error: &io::Error) -> CliError {
    let dir = cache_dir.display();
    match error.kind() {
        ErrorKind::NotFound if cache_dir.is_dir() => CliError::usage(format!(
            "{dir} has no journal of a namespace: name the --cache-dir of the mount"
        )),
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            CliError::usage(format!("{dir}: {error}"))
        }
        _ => CliError::failure(format!("{dir}: {error}")),
    }
}

fn explain(error: StoreError) -> CliError {
    match error {
        StoreError::Invalid(text) => CliError::usage(format!("--to: {text}")),
        StoreError::Busy(text) => CliError::failure(format!(
            "{text}: `rewindfs drain` brings to the bucket what waits, `rewindfs umount --keep` ends it without"
        )),
        other => CliError::failure(other),
    }
}

fn origin(file: &SalvagedFile) -> &'static str {
    match file.origin {
        StateOrigin::Saved => "saved",
        StateOrigin::Flushed => "flushed",
        StateOrigin::Open => "open",
    }
}

fn line(file: &SalvagedFile) -> String {
    let at = file
        .at
        .map_or_else(|| "-".to_owned(), |at| print_stamp(at, Nanos));
    let missing: u64 = file.missing.iter().map(|part| part.end - part.start).sum();
    let lacks = match missing {
        0 => String::new(),
        bytes => format!(", lacks {bytes} bytes"),
    };
    format!(
        "{:7} {at:30} {} bytes{lacks}  {}",
        origin(file),
        file.len,
        file.to.display()
    )
}

fn told(local: &LocalDirectory, report: &SalvageReport) -> Value {
    let files = report.files.iter().map(|file| {
        json!({
            "to": file.to.to_string_lossy(),
            "inode": file.ino.0,
            "origin": origin(file),
            "time": file.at.map(|at| print_stamp(at, Nanos)),
            "uid": file.author.uid,
            "process": file.author.process,
            "bytes": file.len,
            "missing": file.missing.iter().map(|part| [part.start, part.end]).collect::<Vec<_>>(),
        })
    });
    json!({
        "namespace": local.uuid().to_string(),
        "files": files.collect::<Vec<_>>(),
        "problems": report.problems,
    })
}
