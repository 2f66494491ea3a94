//! `rewindfs namespace`: the namespaces of a store, without mounting one.

use super::connection::ConnectionArguments;
use super::error::CliError;
use super::printable::printable;
use super::value::show_size;
use crate::backend::{Backend, BackendConfig, BackendError};
use crate::config::{ConnectionOptions, StoreUrl};
use crate::env::SystemEnv;
use crate::store::{
    DeletionStep, NamespaceInfo, NamespaceState, StoreError, check_name, create_namespace,
    delete_namespace, list_namespaces, namespace_state, parse_setting, set_namespace,
    show_namespace,
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Objects between two lines of progress where there is no terminal.
const LINE_EVERY: u64 = 1000;
/// Cells of the bar on a terminal.
const BAR: u64 = 30;

/// A store and the form of the output.
#[derive(Args)]
pub(super) struct StoreArguments {
    /// The store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    connection: ConnectionArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl fmt::Debug for StoreArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreArguments")
            .field("url", &StoreUrl::new(self.url.clone()))
            .finish_non_exhaustive()
    }
}

/// The subcommands of `rewindfs namespace`.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print the names of all namespaces, nested ones included
    List {
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Describe a namespace; does not disturb a mount
    Show {
        #[command(flatten)]
        store: StoreArguments,
        /// The namespace, like main or team/eu
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Create a namespace; a mount creates the one it names by itself
    Create {
        #[command(flatten)]
        store: StoreArguments,
        /// The namespace, like main or team/eu
        #[arg(value_name = "NAME")]
        name: String,
        /// Settings of your own, which show prints
        #[arg(value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Change settings of a namespace; KEY= removes one
    Set {
        #[command(flatten)]
        store: StoreArguments,
        /// The namespace, like main or team/eu
        #[arg(value_name = "NAME")]
        name: String,
        /// Settings of your own, which show prints
        #[arg(value_name = "KEY=VALUE", required = true)]
        settings: Vec<String>,
    },
    /// Delete a namespace with its whole past; a mount that has it open is fenced
    Delete {
        #[command(flatten)]
        store: StoreArguments,
        /// The namespace, like main or team/eu
        #[arg(value_name = "NAME")]
        name: String,
        /// Confirm the deletion
        #[arg(long)]
        yes: bool,
    },
}

/// Work on namespaces to be done.
#[derive(Debug)]
pub struct NamespaceJob {
    url: StoreUrl,
    backend: BackendConfig,
    json: bool,
    action: NamespaceAction,
}

#[derive(Debug)]
enum NamespaceAction {
    List,
    Show(String),
    Create {
        name: String,
        settings: BTreeMap<String, String>,
    },
    Set {
        name: String,
        /// A key and its new value; without a value the key is removed.
        changes: Vec<(String, Option<String>)>,
    },
    Delete(String),
}

impl NamespaceJob {
    /// Checks the arguments before any request to the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument.
    pub(super) fn new(verb: Verb) -> Result<Self, CliError> {
        let (store, action) = match verb {
            Verb::List { store } => (store, NamespaceAction::List),
            Verb::Show { store, name } => (store, NamespaceAction::Show(checked(name)?)),
            Verb::Create {
                store,
                name,
                settings,
            } => {
                let given = read(&settings)?;
                let given = given
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, value?)));
                let action = NamespaceAction::Create {
                    name: checked(name)?,
                    settings: given.collect(),
                };
                (store, action)
            }
            Verb::Set {
                store,
                name,
                settings,
            } => {
                let action = NamespaceAction::Set {
                    name: checked(name)?,
                    changes: read(&settings)?,
                };
                (store, action)
            }
            Verb::Delete { store, name, yes } => {
                let name = checked(name)?;
                if !yes {
                    return Err(CliError::usage(format!(
                        "namespace {name}: --yes is needed to delete it with its whole past"
                    )));
                }
                (store, NamespaceAction::Delete(name))
            }
        };
        Ok(Self {
            url: StoreUrl::new(store.url),
            backend: ConnectionOptions::from(store.connection)
                .backend()
                .map_err(CliError::usage)?,
            json: store.json,
            action,
        })
    }

    /// Does the work, prints the outcome, and returns the exit status.
    pub async fn run(self) -> ExitCode {
        match self.act().await {
            Ok(text) => {
                // A closed pipe is no error: its reader has read enough.
                write!(std::io::stdout(), "{text}").ok();
                ExitCode::SUCCESS
            }
            Err(cli_error) => cli_error.exit(),
        }
    }

    async fn act(&self) -> Result<String, CliError> {
        let refused = |error: BackendError| match error {
            BackendError::Invalid { .. } => CliError::usage(error),
            other => CliError::failure(other),
        };
        let backend = Backend::open(self.url.secret(), &self.backend).map_err(refused)?;
        backend.check().await.map_err(refused)?;
        match &self.action {
            NamespaceAction::List => {
                let names = list_namespaces(&backend).await.map_err(CliError::failure)?;
                match self.json {
                    true => Ok(format!("{:#}\n", json!(names))),
                    false => list(&backend, &names).await,
                }
            }
            NamespaceAction::Show(name) => {
                let shown = show_namespace(&backend, name).await;
                Ok(self.describe(&shown.map_err(|error| failed(name, &error))?))
            }
            NamespaceAction::Create { name, settings } => {
                let made = create_namespace(&backend, name, settings.clone(), &SystemEnv).await;
                Ok(self.describe(&made.map_err(|error| failed(name, &error))?))
            }
            NamespaceAction::Set { name, changes } => {
                let set = set_namespace(&backend, name, changes.clone()).await;
                set.map_err(|error| failed(name, &error))?;
                let shown = show_namespace(&backend, name).await;
                Ok(self.describe(&shown.map_err(|error| failed(name, &error))?))
            }
            NamespaceAction::Delete(name) => {
                let mut progress = DeletionProgress::new();
                let gone = delete_namespace(&backend, name, |step| progress.tell(step));
                let gone = gone.await;
                progress.end();
                let gone = gone.map_err(|error| failed(name, &error))?;
                Ok(match self.json {
                    true => format!("{:#}\n", json!({ "name": name, "deleted_objects": gone })),
                    false => format!("namespace {name}: deleted, {gone} objects\n"),
                })
            }
        }
    }

    fn describe(&self, info: &NamespaceInfo) -> String {
        match self.json {
            true => format!("{:#}\n", as_json(info)),
            false => as_text(info),
        }
    }
}

/// Lists namespaces, one per line, with what stands in the way of their use.
async fn list(backend: &Backend, names: &[String]) -> Result<String, CliError> {
    let mut lines = String::new();
    for name in names {
        let state = match namespace_state(backend, name).await {
            Ok(state) => state,
            // It was deleted since the listing.
            Err(StoreError::NotFound) => continue,
            Err(error) => return Err(failed(name, &error)),
        };
        lines.push_str(name);
        lines.push_str(&remark(&state));
        lines.push('\n');
    }
    Ok(lines)
}

fn remark(state: &NamespaceState) -> String {
    match state {
        NamespaceState::Usable => String::new(),
        NamespaceState::Deleting => "  (being deleted: delete it again)".to_owned(),
        NamespaceState::HalfMade(half_made) => format!(
            "  (half-made: run `rewindfs rebuild` of {} again)",
            half_made.from
        ),
        NamespaceState::Replaced(new) => format!("  (rebuilt as {new})"),
        NamespaceState::Damaged(_) => "  (its namespace.json is damaged)".to_owned(),
    }
}

fn checked(name: String) -> Result<String, CliError> {
    check_name(&name).map_err(CliError::usage)?;
    Ok(name)
}

fn read(settings: &[String]) -> Result<Vec<(String, Option<String>)>, CliError> {
    let read = settings.iter().map(|text| parse_setting(text));
    read.collect::<Result<_, _>>().map_err(CliError::usage)
}

fn failed(name: &str, error: &StoreError) -> CliError {
    match error {
        StoreError::NotFound => CliError::failure(format!("namespace {name}: does not exist")),
        StoreError::Exists => CliError::failure(format!("namespace {name}: exists already")),
        other => CliError::failure(format!("namespace {name}: {other}")),
    }
}

fn as_json(info: &NamespaceInfo) -> serde_json::Value {
    let last = info.last.as_ref().map(|last| {
        json!({
            "epoch": last.epoch,
            "instant_ns": last.instant_ns,
            "bytes": last.bytes,
            "files": last.files,
            "host": last.host,
        })
    });
    json!({
        "name": info.name,
        "uuid": info.uuid.to_string(),
        "format": info.format,
        "engine": info.engine,
        "created_ns": info.created_ns,
        "deleting": info.deleting,
        "objects_of": info.objects_of,
        "half_made_from": info.half_made.as_ref().map(|half_made| &half_made.from),
        "replaced_by": info.replaced_by,
        "settings": info.settings,
        "last": last,
    })
}

fn as_text(info: &NamespaceInfo) -> String {
    let mut lines = vec![
        ("namespace".to_owned(), info.name.clone()),
        ("uuid".to_owned(), info.uuid.to_string()),
        (
            "format".to_owned(),
            format!("{}, index {}", info.format, info.engine),
        ),
        ("created".to_owned(), show_time(info.created_ns)),
    ];
    if info.deleting {
        lines.push((
            "deleting".to_owned(),
            "yes: delete it again to complete the deletion".to_owned(),
        ));
    }
    if let Some(owner) = &info.objects_of {
        lines.push(("objects".to_owned(), format!("those of namespace {owner}")));
    }
    if let Some(half_made) = &info.half_made {
        let from = &half_made.from;
        let text = format!("yes: run `rewindfs rebuild` of namespace {from} again");
        lines.push(("half-made".to_owned(), text));
    }
    if let Some(new) = &info.replaced_by {
        lines.push(("rebuilt as".to_owned(), new.clone()));
    }
    match &info.last {
        Some(last) => {
            let (files, bytes) = (last.files, show_size(last.bytes));
            lines.push(("last change".to_owned(), show_time(last.instant_ns)));
            let host = last.host.as_deref().map(|host| format!(", on {host}"));
            lines.push((
                "last writer".to_owned(),
                format!("epoch {}{}", last.epoch, host.unwrap_or_default()),
            ));
            lines.push(("holds".to_owned(), format!("{files} files, {bytes}")));
        }
        None => lines.push(("last change".to_owned(), "none in its log".to_owned())),
    }
    let settings = info.settings.iter();
    lines.extend(settings.map(|(key, value)| (format!("set {key}"), value.clone())));
    lines
        .into_iter()
        .map(|(name, value)| format!("{:<18} {}\n", printable(&name), printable(&value)))
        .collect()
}

pub(super) fn show_time(ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(ns.into())
        .map_or_else(|_| format!("{ns} ns"), |time| format!("{time:.0}"))
}

/// The progress of a deletion on standard error: a bar on a terminal, else a line from time to time.
struct DeletionProgress {
    terminal: bool,
    shown: bool,
}

impl DeletionProgress {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            terminal,
            shown: false,
        }
    }

    fn tell(&mut self, step: DeletionStep) {
        let (gone, of) = match step {
            DeletionStep::Waiting(time) => {
                eprintln!(
                    "waiting {:.0} s until a mount that still has the namespace has noticed that it lost it",
                    time.as_secs_f64()
                );
                return;
            }
            DeletionStep::Deleted { gone, of } => (gone, of),
        };
        if self.terminal {
            let full = (gone * BAR / of.max(1)) as usize;
            let (done, left) = ("#".repeat(full), " ".repeat(BAR as usize - full));
            eprint!("\r[{done}{left}] {gone} of {of} objects");
            self.shown = true;
        } else if gone.is_multiple_of(LINE_EVERY) || gone == of {
            eprintln!("deleted {gone} of {of} objects");
        }
    }

    fn end(&self) {
        if self.shown {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::Parser;

    fn job(words: &[&str]) -> Result<NamespaceJob, String> {
        let words = ["rewindfs", "namespace"].iter().chain(words);
        let parsed = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        let crate::cli::Command::Namespace { verb } = parsed.command else {
            return Err("another command".to_owned());
        };
        NamespaceJob::new(verb).map_err(|cli_error| {
            assert_eq!(cli_error.status(), 2);
            cli_error.message
        })
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_the_store_is_asked() {
        for (words, part) in [
            (&["list"][..], "URL"),
            (&["show", "file:///x"], "NAME"),
            (&["show", "file:///x", "A"], "only a-z"),
            (&["create", "file:///x", "a//b"], "an empty part"),
            (&["create", "file:///x", "a", "novalue"], "KEY=VALUE"),
            (&["set", "file:///x", "a"], "KEY=VALUE"),
            (&["set", "file:///x", "a", "B=1"], "a-z"),
            (&["delete", "file:///x", "a"], "--yes"),
            (&["frobnicate"], "frobnicate"),
        ] {
            let message = job(words).unwrap_err();
            assert!(message.contains(part), "{words:?}: {message}");
        }
        assert!(job(&["delete", "file:///x", "team/eu", "--yes"]).is_ok());
        assert!(job(&["create", "file:///x", "a", "k=v", "l=w"]).is_ok());
    }

    #[test]
    fn what_a_namespace_says_is_shown_both_ways() {
        let info = NamespaceInfo {
            name: "team/eu".to_owned(),
            uuid: uuid::Uuid::nil(),
            format: 1,
            engine: "slatedb 0.18".to_owned(),
            created_ns: 1_767_268_800_000_000_000,
            deleting: false,
            objects_of: None,
            half_made: None,
            replaced_by: Some("team/new".to_owned()),
            settings: BTreeMap::from([("owner".to_owned(), "ops".to_owned())]),
            last: None,
        };
        let text = as_text(&info);
        for part in [
            "team/eu",
            "2026-01-01T12:00:00Z",
            "set owner          ops",
            "rebuilt as         team/new",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(as_json(&info)["settings"]["owner"], "ops");
        assert_eq!(as_json(&info)["replaced_by"], "team/new");
    }
}
