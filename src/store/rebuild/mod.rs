//! A new index for a namespace whose index is lost, damaged, or behind its log: a namespace of another name, with the same segments and the
//! same log.
//!
//! Path: the identity of the new namespace is made and says that it is half-made; the rows are gathered from the log, and from the old
//! index where it has more (`gather.rs`); counts are mended where the log has gaps (`mend.rs`); the rows are written and read again
//! (`new_namespace.rs`); then the old namespace is marked as replaced, and last the new one as complete. No byte of a file is copied.
//!
//! Invariants: until the old namespace is marked, it is as it was; after that, only the new one can be opened, once it is complete. So two
//! writers never use the same segments. A crash between any two steps leaves a state from which the same call begins again.
//! The epochs of the new namespace's writers are above all earlier ones, so no name of a segment or log object is used twice.

mod engine;
mod gather;
mod mend;
mod new_namespace;
mod old_namespace;
pub(crate) mod report;

use crate::backend::Backend;
use crate::env::Env;
use crate::store::model::config::check_name;
use crate::store::model::error::StoreError;
use crate::store::model::failpoints;
use crate::store::model::ids::UsageChange;
use crate::store::rebuild::gather::gather;
use crate::store::rebuild::mend::mend;
use crate::store::rebuild::new_namespace::{IndexContents, NewNamespace, check_place};
use crate::store::rebuild::old_namespace::OldNamespace;
use crate::store::rebuild::report::{RebuildOutcome, RebuildReport, RebuildStep};
use crate::store::replay::sorted::Spill;

pub use old_namespace::{LastWriter, last_writer};

/// What a rebuild does where something is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLosses {
    /// It leaves the old namespace as it is.
    #[default]
    Refuse,
    /// The new namespace takes its place all the same.
    Accept,
}

/// A rebuild to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuildRequest {
    /// The namespace that is rebuilt.
    pub from: String,
    /// The name of the new namespace.
    pub to: String,
    /// What to do where something is lost.
    pub on_losses: OnLosses,
    /// Limits for the rows that are sorted. Up to two such amounts are in use at the same time.
    pub spill: Spill,
}

/// Makes the namespace `request.to` with the files and versions of `request.from`. `step` receives the progress. After a failure, the same call
/// begins again.
///
/// # Errors
/// `NotFound` if no object of the old namespace exists; `Invalid` for bad names, and if the new name is used, with the next command; `Busy` if
/// the old namespace is written, deleted or half-made, or another call writes the new one; `Unavailable`; `Corrupt` if a row cannot be
/// decoded; `LocalDisk` if temporary files cannot be written.
pub async fn rebuild_namespace(
    backend: &Backend,
    request: &RebuildRequest,
    env: &dyn Env,
    step: impl Fn(RebuildStep) + Send + Sync,
) -> Result<RebuildReport, StoreError> {
    let RebuildRequest { from, to, .. } = request;
    check_name(from)?;
    check_name(to)?;
    if from == to {
        let why = format!("--to {to}: this is the namespace that is rebuilt: choose another name");
        return Err(StoreError::Invalid(why));
    }
    let old = OldNamespace::find(backend, from, to, env).await?;
    check_place(backend, to, &old).await?;
    old.fence().await?;
    let before = old.newest().await?;
    let new = NewNamespace::begin(backend, to, &old, env).await?;
    failpoints::step()?;
    let mut gathered = gather(&old, &request.spill, &step).await?;
    let totals = match gathered.losses.is_empty() {
        true => UsageChange::default(),
        false => mend(&mut gathered.rows, &request.spill, &step).await?,
    };
    new.write(&gathered, totals, &step).await?;
    failpoints::step()?;
    let mut found = new
        .verify(&old, gathered.unresolved, &request.spill, &step)
        .await?;
    let of_index = std::mem::take(&mut found.losses);
    let losses = &mut gathered.losses;
    losses.segments = of_index.segments;
    losses.named_segments = of_index.named_segments;
    let is_refused = !losses.is_empty() && request.on_losses == OnLosses::Refuse;
    let report = |outcome, found: IndexContents| RebuildReport {
        outcome,
        from: gathered.from,
        uuid: old.identity.uuid,
        uuid_origin: old.uuid_origin,
        log_objects: gathered.log_objects,
        rows: found.rows,
        files: found.files,
        bytes: found.bytes,
        versions: found.versions,
        labels: found.labels,
        wrong_counts: found.wrong_counts,
        losses: gathered.losses.clone(),
        newer: found.newer,
    };
    if is_refused {
        return Ok(report(RebuildOutcome::Refused, found));
    }
    new.check_own(to).await?;
    if old.newest().await? != before {
        return Err(StoreError::Busy(format!(
            "a mount wrote namespace {from} meanwhile: unmount it, then run the command again"
        )));
    }
    failpoints::step()?;
    old.replace_by(backend, to).await?;
    failpoints::step()?;
    new.complete(found.newer, gathered.unresolved).await?;
    Ok(report(RebuildOutcome::Complete, found))
}
