//! `policy`, `prune`, `why`: what is kept, until when, and what goes.

use serde::{Deserialize, Serialize};

use super::error::VerbError;
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader};
use super::retention_rows::{KeptRow, PolicyWord, PruneRow, ReasonRow};
use super::rows::{RowSender, VerbRow, stamp};
use crate::store::{
    Brake, EndedState, HORIZON_GRACE, InForce, KeptBy, KeptReasons, KeptUntil, Namespace, Policy,
    PolicyChange, RetentionReport, RunOptions, StoreError, TimeRule, Timestamp, VersionAmount,
    WaitingCause,
};

/// What a change of the policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRequest {
    /// `WORD=VALUE`, each over the policy in force, or over the one that comes into force.
    pub settings: Vec<String>,
    /// Whether a stricter policy is in force at once.
    #[serde(default)]
    pub at_once: bool,
}

/// What a prune asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRequest {
    /// Whether drops go that wait for a confirmation.
    #[serde(default)]
    pub confirmed: bool,
}

/// Returns the rule as a user writes it.
fn rule_text(rule: &KeptBy) -> String {
    match rule {
        KeptBy::Time(TimeRule::Within) => "keep-within".to_owned(),
        KeptBy::Time(TimeRule::Grid(tier)) => format!("keep-{tier}"),
        KeptBy::Time(TimeRule::Arrived) | KeptBy::Removed => "keep-removed".to_owned(),
        KeptBy::Last => "keep-last".to_owned(),
        KeptBy::Label => "label".to_owned(),
        KeptBy::Hold => "hold".to_owned(),
        KeptBy::HardLink => "hard link".to_owned(),
    }
}

/// Returns what shortens the history, as a user reads it.
pub(super) fn cause_text(cause: WaitingCause) -> &'static str {
    match cause {
        WaitingCause::Policy => "stricter policy",
        WaitingCause::HistoryMax => "history-max",
    }
}

/// Names the namespace in an error of the store.
fn failed(error: StoreError) -> VerbError {
    VerbError::at(&"the retention policy")(error)
}

/// Sends the words of the policy.
pub(super) async fn policy(namespace: &Namespace, rows: &RowSender) -> Result<(), VerbError> {
    let retention = namespace.retention();
    let policy = retention.policy().await.map_err(failed)?;
    let pending = retention.pending_policy().await.map_err(failed)?;
    let shown = policy.clone().unwrap_or_default();
    let later = pending.as_ref().map(|(policy, _)| policy.settings());
    for (at, (word, value)) in shown.settings().into_iter().enumerate() {
        let other = later.as_ref().and_then(|later| later.get(at));
        let other = other.filter(|(_, later)| policy.is_none() || *later != value);
        let row = PolicyWord {
            word: word.to_owned(),
            value: policy.is_some().then(|| value.clone()),
            pending: other.map(|(_, later)| later.clone()),
            pending_from_ns: other.and(pending.as_ref()).map(|(_, from)| from.0),
            directory: None,
        };
        rows.put_row(VerbRow::Policy(row)).await?;
    }
    Ok(())
}

/// Returns a policy with other values of the words that the settings name.
fn changed(mut policy: Policy, settings: &[String]) -> Result<Policy, StoreError> {
    for setting in settings {
        let set = policy.set(setting);
        set.map_err(|error| StoreError::Invalid(error.to_string()))?;
    }
    Ok(policy)
}

/// Sends what a prune would drop if the settings were in force; without settings, what it would drop now.
pub(super) async fn preview(
    reader: &PathReader,
    settings: &[String],
    rows: &RowSender,
) -> Result<(), VerbError> {
    let namespace = &reader.namespace;
    let retention = namespace.retention();
    let report = match settings {
        [] => retention.dry_run().await,
        _ => {
            let newest = retention.newest_policy().await.map_err(failed)?;
            let policy = changed(newest, settings).map_err(failed)?;
            retention.preview(&policy).await
        }
    };
    send_report(reader, &report.map_err(failed)?, rows).await
}

/// Drops what no rule keeps, and sends the report.
pub(super) async fn prune(
    namespace: &Namespace,
    request: PruneRequest,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let brake = match request.confirmed {
        true => Brake::Released,
        false => Brake::Held,
    };
    let reader = PathReader::new(namespace).await;
    let options = RunOptions {
        grace: HORIZON_GRACE,
        brake,
    };
    let report = namespace.retention().run(options).await.map_err(failed)?;
    send_report(&reader, &report, rows).await
}

/// Sets words of the policy, and sends all of them.
pub(super) async fn set_policy(
    namespace: &Namespace,
    request: &PolicyRequest,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let when = match request.at_once {
        true => InForce::Now,
        false => InForce::Usual,
    };
    let retention = namespace.retention();
    let change = retention.change_policy(when, |newest| changed(newest, &request.settings));
    match change.await.map_err(failed)? {
        PolicyChange::InForce => tracing::info!("the retention policy was changed"),
        PolicyChange::Pending(from) => {
            tracing::info!(from = %stamp(from), "a stricter retention policy comes into force");
        }
    }
    policy(namespace, rows).await
}

async fn send_report(
    reader: &PathReader,
    report: &RetentionReport,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let row = |what: &str, amount: VersionAmount| PruneRow {
        what: what.to_owned(),
        rule: None,
        path: None,
        versions: amount.versions,
        bytes: amount.bytes,
    };
    let dropped = row("dropped", report.dropped);
    rows.put_row(VerbRow::Pruned(dropped)).await?;
    for (rule, amount) in &report.kept {
        let rule = Some(rule_text(rule));
        let kept = PruneRow {
            rule,
            ..row("kept", *amount)
        };
        rows.put_row(VerbRow::Pruned(kept)).await?;
    }
    if let Some(waiting) = report.waiting {
        let rule = cause_text(waiting.cause);
        let waiting = PruneRow {
            what: "waiting".to_owned(),
            rule: Some(rule.to_owned()),
            path: None,
            versions: waiting.drops.versions,
            bytes: waiting.drops.bytes,
        };
        rows.put_row(VerbRow::Pruned(waiting)).await?;
    }
    for pruned in report.largest() {
        let above = reader.directory_path(pruned.directory).await?;
        let mut names = TimedPath::of(above).names();
        names.push(pruned.name);
        let path = Some(PathText::of_names(&names));
        let name = PruneRow {
            path,
            ..row("name", pruned.amount)
        };
        rows.put_row(VerbRow::Pruned(name)).await?;
    }
    Ok(())
}

/// Returns for each of the states of files what keeps it, as a user reads it; also for states that have not ended.
pub(super) async fn kept_by(
    reader: &PathReader,
    states: &[EndedState<'_>],
) -> Result<Vec<Vec<KeptRow>>, StoreError> {
    let ended: Vec<EndedState<'_>> = states
        .iter()
        .filter(|state| state.entry.ended.is_some())
        .cloned()
        .collect();
    let reasons = reader.namespace.retention().reasons(&ended).await?;
    let mut reasons = reasons.into_iter();
    let one = |rule: &str| {
        vec![KeptRow {
            rule: rule.to_owned(),
            until_ns: None,
        }]
    };
    let told = states.iter().map(|state| {
        if state.entry.ended.is_none() {
            return one("current");
        }
        match reasons.next() {
            Some(KeptReasons::Everything) => one("everything"),
            Some(KeptReasons::Rules(rules)) if !rules.is_empty() => {
                let rules = rules.iter();
                rules.map(|(rule, until)| kept_row(rule, *until)).collect()
            }
            _ => one("none"),
        }
    });
    Ok(told.collect())
}

fn kept_row(rule: &KeptBy, until: KeptUntil) -> KeptRow {
    KeptRow {
        rule: rule_text(rule),
        until_ns: match until {
            KeptUntil::Open => None,
            KeptUntil::At(at) => Some(at.0),
        },
    }
}

/// Sends what keeps the state that a path shows at its time.
pub(super) async fn why(
    reader: &PathReader,
    path: &TimedPath,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let at = VerbError::at(path);
    let entry = match reader.state(path).await?.node {
        NodeState::Directory(_) => {
            let path = path.to_string();
            return Err(VerbError::IsDirectory { path });
        }
        NodeState::Other(entry) => entry,
    };
    let Some(name) = reader.timed_name(path).await? else {
        return Err(VerbError::IsRoot);
    };
    let ended = EndedState {
        directory: name.directory,
        name: name.name,
        entry: &entry,
    };
    let told = kept_by(reader, &[ended]).await.map_err(at)?;
    let began: Timestamp = entry.version.timestamp;
    for KeptRow { rule, until_ns } in told.into_iter().flatten() {
        let row = ReasonRow {
            path: PathText::of_names(&path.names()),
            stamp: stamp(began),
            time_ns: began.0,
            rule,
            until_ns,
        };
        rows.put_row(VerbRow::Reason(row)).await?;
    }
    Ok(())
}
