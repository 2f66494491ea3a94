//! `forget`: the ended versions of a file are deleted together with their bytes.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::error::VerbError;
use super::forget_row::ForgetRow;
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader};
use super::rows::{RowSender, VerbRow, stamp};
use crate::store::{
    ForgetPlan, ForgetRequest, ForgetStep, ForgottenVersion, Ino, Kind, Namespace, ShownBy,
};

/// How many names of what shows the bytes a message has.
const NAMED_MAX: usize = 5;

/// What is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetVerb {
    /// The file, which may be removed.
    pub path: TimedPath,
    /// A TIME: only versions that ended at or before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// Sends what would be forgotten.
pub(super) async fn preview(
    reader: &PathReader,
    verb: &ForgetVerb,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let request = request(reader, verb).await?;
    let plan = reader.namespace.forget().plan(&request).await;
    let plan = plan.map_err(VerbError::at(&verb.path))?;
    send_versions(reader, verb, &plan, rows).await?;
    check_free(reader, verb, &plan).await?;
    if let Some(by) = other_versions(reader, &plan).await? {
        let row = ForgetRow {
            what: "also".to_owned(),
            note: Some(format!(
                "the same bytes are in {by}: they stay until that is forgotten too"
            )),
            ..ForgetRow::default()
        };
        rows.put_row(VerbRow::Forget(row)).await?;
    }
    send_alike(reader, &plan, rows).await?;
    let total = ForgetRow {
        what: "would_go".to_owned(),
        versions: Some(plan.versions.len() as u64),
        bytes: Some(plan.bytes),
        note: plan.is_begun.then(|| {
            "an earlier forget of this name was interrupted: the bytes of versions that it deleted go too".to_owned()
        }),
        ..ForgetRow::default()
    };
    rows.put_row(VerbRow::Forget(total)).await
}

/// Deletes the versions and their bytes, and sends how far it is.
pub(super) async fn forget(
    namespace: &Namespace,
    verb: &ForgetVerb,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let reader = PathReader::new(namespace).await;
    let request = request(&reader, verb).await?;
    let (steps, mut told) = mpsc::unbounded_channel();
    let forgetting = async move {
        let plan = namespace.forget().carry_out(&request, &steps).await;
        drop(steps);
        plan
    };
    let telling = async {
        while let Some(step) = told.recv().await {
            // It goes on, whether or not its rows are read.
            rows.put_row(VerbRow::Forget(step_row(step))).await.ok();
        }
    };
    let (plan, ()) = tokio::join!(forgetting, telling);
    let plan = plan.map_err(VerbError::at(&verb.path))?;
    check_free(&reader, verb, &plan).await?;
    if let Some(by) = other_versions(&reader, &plan).await? {
        let path = verb.path.to_string();
        let is_stored = |shower: &ShownBy| matches!(shower, ShownBy::Stored(_));
        return Err(match plan.shown_by.iter().any(is_stored) {
            true => VerbError::StoredElsewhere { path, by },
            false => VerbError::VersionsElsewhere { path, by },
        });
    }
    send_alike(&reader, &plan, rows).await?;
    let gone = ForgetRow {
        what: "gone".to_owned(),
        versions: Some(plan.versions.len() as u64),
        bytes: Some(plan.bytes),
        note: stays_note(&verb.path, &plan),
        ..ForgetRow::default()
    };
    rows.put_row(VerbRow::Forget(gone)).await.ok();
    Ok(())
}

/// Finds the name of a path, and the time.
async fn request(reader: &PathReader, verb: &ForgetVerb) -> Result<ForgetRequest, VerbError> {
    let path = &verb.path;
    let Some(place) = reader.timed_name(path).await? else {
        return Err(VerbError::IsRoot);
    };
    let is_directory = matches!(
        reader.node_at(&path.names(), None).await?,
        Some(NodeState::Directory(_))
    );
    let view = reader.view();
    let known = view.history(place.directory, &place.name).await;
    let known = known.map_err(VerbError::at(path))?;
    // What an interrupted forget has left of a name goes on, also where no version of it is left.
    let forget = reader.namespace.forget();
    let begun = forget.is_begun(place.directory, &place.name).await;
    let is_begun = begun.map_err(VerbError::at(path))?;
    let mut states = known.versions.iter();
    let had_file = states.any(|state| state.kind != Kind::Directory);
    let has_other = is_begun || {
        let transient = view.was_transient(place.directory, &place.name).await;
        transient.map_err(VerbError::at(path))?
    };
    if is_directory && !had_file && !has_other {
        let path = path.to_string();
        return Err(VerbError::IsDirectory { path });
    }
    if known.versions.is_empty() && !has_other {
        return Err(reader.missing(path).await?);
    }
    let before = match &verb.before {
        Some(time) => {
            let timed = TimedPath {
                path: path.path.clone(),
                time: Some(time.clone()),
            };
            reader.timestamp(&timed).await?
        }
        None => None,
    };
    Ok(ForgetRequest {
        directory: place.directory,
        name: place.name,
        before,
    })
}

async fn send_versions(
    reader: &PathReader,
    verb: &ForgetVerb,
    plan: &ForgetPlan,
    rows: &RowSender,
) -> Result<(), VerbError> {
    for version in &plan.versions {
        let ForgottenVersion { name, id, entry } = version;
        let path = full_path(reader, name.directory, &name.name).await?;
        let row = ForgetRow {
            what: "version".to_owned(),
            path: Some(path),
            stamp: Some(stamp(id.timestamp)),
            time_ns: Some(id.timestamp.0),
            ended_ns: entry.ended.map(|ended| ended.0),
            bytes: Some(entry.attrs.size),
            ..ForgetRow::default()
        };
        rows.put_row(VerbRow::Forget(row)).await?;
    }
    if plan.stay > 0 {
        let row = ForgetRow {
            what: "stays".to_owned(),
            versions: Some(plan.stay),
            note: stays_note(&verb.path, plan),
            ..ForgetRow::default()
        };
        rows.put_row(VerbRow::Forget(row)).await?;
    }
    Ok(())
}

/// Sends what shows a few bytes that are the same.
async fn send_alike(
    reader: &PathReader,
    plan: &ForgetPlan,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let shown_by: Vec<&ShownBy> = plan.shown_alike.iter().collect();
    if shown_by.is_empty() {
        return Ok(());
    }
    let mut by = Vec::new();
    for shower in shown_by.iter().take(NAMED_MAX) {
        by.push(match shower {
            ShownBy::Name(name) => {
                let shown = full_path(reader, name.directory, &name.name).await?;
                format!("the current content of {shown}")
            }
            other => shower_text(reader, other).await?,
        });
    }
    add_count(&mut by, shown_by.len());
    let row = ForgetRow {
        what: "alike".to_owned(),
        note: Some(format!(
            "the same few bytes are in {}: a copy, or the same by chance; they stay there",
            by.join(", ")
        )),
        ..ForgetRow::default()
    };
    rows.put_row(VerbRow::Forget(row)).await
}

/// Says how many of `count` names a message lacks.
fn add_count(by: &mut Vec<String>, count: usize) {
    let more = count.saturating_sub(NAMED_MAX);
    if more > 0 {
        by.push(format!("and {more} more"));
    }
}

/// Says what of the file stays.
fn stays_note(path: &TimedPath, plan: &ForgetPlan) -> Option<String> {
    match (plan.has_current, plan.stay) {
        (_, 0) => None,
        (true, 1) => Some(format!(
            "the current content of {path} stays: to forget it too, remove the file and repeat the command"
        )),
        (true, stay) => Some(format!(
            "{} later versions and the current content of {path} stay",
            stay - 1
        )),
        (false, stay) => Some(format!("{stay} later versions of {path} stay")),
    }
}

fn step_row(step: ForgetStep) -> ForgetRow {
    let (what, versions, note) = match step {
        ForgetStep::Deleted(count) => ("deleted", Some(count), "versions deleted".to_owned()),
        ForgetStep::WaitsForReaders => (
            "step",
            None,
            "waiting: a program has one of the versions, or the file, open".to_owned(),
        ),
        ForgetStep::Rows { dead, copied } => (
            "step",
            None,
            format!(
                "rows deleted; {copied} segments copied without the bytes, {dead} segments to be deleted"
            ),
        ),
        ForgetStep::Log => ("step", None, "log written anew".to_owned()),
        ForgetStep::Index => ("step", None, "index written anew".to_owned()),
        ForgetStep::WaitsForFollowers(seconds) => (
            "step",
            None,
            format!("waiting {seconds} s, so that read-only mounts see the newer state"),
        ),
        ForgetStep::Objects(count) => (
            "step",
            None,
            format!("{count} objects deleted; the bucket lists none of them"),
        ),
        ForgetStep::Local => (
            "step",
            None,
            "journal and cache of this machine dropped".to_owned(),
        ),
    };
    ForgetRow {
        what: what.to_owned(),
        versions,
        note: Some(note),
        ..ForgetRow::default()
    }
}

/// Fails if something stands in the way of forgetting, and names it.
async fn check_free(
    reader: &PathReader,
    verb: &ForgetVerb,
    plan: &ForgetPlan,
) -> Result<(), VerbError> {
    if !plan.is_refused() {
        return Ok(());
    }
    let shown_by = plan.shown_by.iter();
    let shown_by: Vec<&ShownBy> = shown_by.filter(|shower| shower.is_in_the_way()).collect();
    Err(VerbError::ShownElsewhere {
        path: verb.path.to_string(),
        by: shower_texts(reader, &shown_by, "; ").await?,
    })
}

/// Names the versions of other names that show the bytes; `None` if there are none.
async fn other_versions(
    reader: &PathReader,
    plan: &ForgetPlan,
) -> Result<Option<String>, VerbError> {
    let shown_by: Vec<&ShownBy> = plan.shown_by.iter().collect();
    Ok(match shown_by.is_empty() {
        true => None,
        false => Some(shower_texts(reader, &shown_by, ", ").await?),
    })
}

async fn shower_texts(
    reader: &PathReader,
    shown_by: &[&ShownBy],
    between: &str,
) -> Result<String, VerbError> {
    let mut by = Vec::new();
    for shower in shown_by.iter().take(NAMED_MAX) {
        by.push(shower_text(reader, shower).await?);
    }
    add_count(&mut by, shown_by.len());
    Ok(by.join(between))
}

async fn shower_text(reader: &PathReader, shower: &ShownBy) -> Result<String, VerbError> {
    Ok(match shower {
        ShownBy::Label { directory, name } => {
            let above = reader.directory_path(*directory).await?;
            let label = PathText(name.clone());
            format!(
                "label {label} of /{above} shows a version of it: remove the label (rewindfs label delete) and repeat the command"
            )
        }
        ShownBy::Hold { name, began, until } => {
            let held = full_path(reader, name.directory, &name.name).await?;
            format!(
                "the version {began} of {held} is held until {}: release it (rewindfs label release {held}@{began} --yes) and repeat the command",
                stamp(*until),
                began = stamp(*began)
            )
        }
        ShownBy::Name(name) => {
            let shown = full_path(reader, name.directory, &name.name).await?;
            format!(
                "{shown} shows its bytes, which were copied without being moved: remove or overwrite {shown}, and repeat the command"
            )
        }
        ShownBy::Link(name) => {
            let shown = full_path(reader, name.directory, &name.name).await?;
            format!(
                "{shown} is another name of the same file: remove {shown}, and repeat the command; the versions go for all names"
            )
        }
        ShownBy::Version(name, began) => {
            let shown = full_path(reader, name.directory, &name.name).await?;
            format!("the version {} of {shown}", stamp(*began))
        }
        ShownBy::Stored(name) => {
            let shown = full_path(reader, name.directory, &name.name).await?;
            format!("the current state of {shown}")
        }
        ShownBy::OpenFile => {
            "a program has a removed file open that shows its bytes: end the program and repeat the command".to_owned()
        }
    })
}

async fn full_path(
    reader: &PathReader,
    directory: Ino,
    name: &bytes::Bytes,
) -> Result<PathText, VerbError> {
    Ok(reader.directory_path(directory).await?.join(name))
}
