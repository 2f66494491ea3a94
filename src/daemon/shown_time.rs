//! The timestamp that a mount with `--at` shows the whole tree as of, resolved once.

use super::error::{DaemonError, not_opened};
use crate::config::{Config, MountTime, MountTimeMeaning};
use crate::control::ShownTime;
use crate::fs::past::stamp::print_exact;
use crate::store::{Namespace, ROOT, Timestamp};

/// Resolves `time` at `now`, in nanoseconds; a label of the root directory means what it shows. A time after the newest state that the bucket is known to have whole means that state,
/// and one at which the tree is not kept whole the newest before it at which it is.
///
/// # Errors
/// [`DaemonError::NotShown`] for a time in the future, or before the namespace; those of the index.
pub(super) async fn resolve(
    time: &MountTime,
    config: &Config,
    namespace: &Namespace,
    now: u64,
) -> Result<ShownTime, DaemonError> {
    let refused = |why: String| DaemonError::NotShown {
        time: time.to_string(),
        why,
    };
    let newest = namespace.now();
    // The writer's clock may be ahead of this machine's.
    let present = Timestamp(now).max(newest);
    let view = namespace.history().view();
    let asked = match &time.meaning {
        MountTimeMeaning::Time(name) => match name.resolve(present) {
            Some((asked, _)) => asked,
            None => return Err(refused("is in the future, or before 1970".to_owned())),
        },
        MountTimeMeaning::Label(name) => {
            let label = view.label(ROOT, name).await;
            match label.map_err(|source| not_opened(config, source))? {
                Some(label) => label.timestamp,
                None => {
                    let why = "is no label of the root directory; `rewindfs label list` prints those it has";
                    return Err(refused(why.to_owned()));
                }
            }
        }
    };
    let asked_state = asked.min(newest);
    let exact = namespace.history().exact_time(ROOT, asked_state).await;
    let Some(shown) = exact.map_err(|source| not_opened(config, source))? else {
        let why = "is before everything that is kept whole; `ls .versions` lists later times";
        return Err(refused(why.to_owned()));
    };
    let root = view.directory_at(ROOT, shown).await;
    match root.map_err(|source| not_opened(config, source))? {
        Some(_) => Ok(ShownTime {
            asked: time.to_string(),
            asked_ns: asked.0,
            stamp: print_exact(shown),
            ns: shown.0,
            pruned: shown < asked_state,
        }),
        None => Err(refused(format!(
            "namespace {} did not exist then; give a later time",
            config.namespace
        ))),
    }
}
