//! Policies of directories: they keep less than that of the namespace, never more.

use crate::store::model::policy::words::PolicyError;
use crate::store::model::policy::{HistoryMax, Policy, Term};

/// The word that holds for the namespace as a whole.
const NAMESPACE_ONLY: &str = "history-max";

impl Policy {
    /// Returns the policy that limits nothing: a directory's policy before a word of it is set.
    pub fn unlimited() -> Self {
        Self {
            within: Term::Forever,
            hourly: Term::Forever,
            daily: Term::Forever,
            weekly: Term::Forever,
            monthly: Term::Forever,
            yearly: Term::Forever,
            last: u32::MAX,
            removed: Term::Forever,
            history_max: HistoryMax::Off,
        }
    }

    /// Returns a policy of which each word keeps what it keeps in both. The limit of the history is that of `self`.
    #[must_use]
    pub fn limited_by(&self, other: &Self) -> Self {
        Self {
            within: self.within.min(other.within),
            hourly: self.hourly.min(other.hourly),
            daily: self.daily.min(other.daily),
            weekly: self.weekly.min(other.weekly),
            monthly: self.monthly.min(other.monthly),
            yearly: self.yearly.min(other.yearly),
            last: self.last.min(other.last),
            removed: self.removed.min(other.removed),
            history_max: self.history_max,
        }
    }

    /// Changes one word of a directory's policy, as [`Policy::set`].
    ///
    /// # Errors
    /// [`PolicyError`]; the policy is unchanged then.
    pub fn set_for_directory(&mut self, setting: &str) -> Result<(), PolicyError> {
        if setting.split_once('=').map(|(word, _)| word) == Some(NAMESPACE_ONLY) {
            return Err(PolicyError::Namespace(NAMESPACE_ONLY));
        }
        self.set(setting)
    }

    /// Reads a directory's policy: a duration, which is `keep-within` without grid times, or words with spaces between.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn of_directory(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self::unlimited();
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let within = match words[..] {
            [] => return Err(PolicyError::Form(text.to_owned())),
            [duration] if !duration.contains('=') => Some(format!("keep-within={duration}")),
            _ => None,
        };
        if let Some(within) = &within {
            words = vec![within, "grid=off"];
        }
        for word in words {
            policy.set_for_directory(word)?;
        }
        Ok(policy)
    }

    /// Returns the words of a directory's policy that limit something, with their values.
    pub fn limits(&self) -> Vec<(&'static str, String)> {
        let none = Self::unlimited().settings();
        let own = self.settings().into_iter().zip(none);
        own.filter(|(own, none)| own != none)
            .map(|(own, _)| own)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::policy::{DAY, HOUR};

    #[test]
    fn a_duration_is_a_short_history_without_grid_times() {
        let policy = Policy::of_directory("1h").unwrap();
        let long = Policy::of_directory("keep-within=1h grid=off").unwrap();
        assert_eq!(policy, long);
        let namespace = Policy::default();
        let both = namespace.limited_by(&policy);
        assert_eq!(both.within, Term::For(HOUR));
        assert_eq!((both.hourly, both.weekly), (Term::Off, Term::Off));
        assert_eq!((both.last, both.removed), (3, Term::For(30 * DAY)));
        assert_eq!(both.history_max, namespace.history_max);
        let words: Vec<_> = policy.limits().into_iter().map(|(word, _)| word).collect();
        assert_eq!(
            words,
            [
                "keep-within",
                "keep-hourly",
                "keep-daily",
                "keep-weekly",
                "keep-monthly",
                "keep-yearly"
            ]
        );
    }

    #[test]
    fn a_directory_never_keeps_more_than_the_namespace() {
        let longer =
            Policy::of_directory("keep-within=30d keep-last=9 keep-hourly=forever").unwrap();
        assert_eq!(Policy::default().limited_by(&longer), Policy::default());
        assert_eq!(
            Policy::default().limited_by(&Policy::unlimited()),
            Policy::default()
        );
        assert!(Policy::unlimited().limits().is_empty());
    }

    #[test]
    fn bad_words_of_a_directory_are_named() {
        for (text, named) in [
            ("", "WORD=VALUE"),
            ("soon", "keep-within=soon"),
            ("history-max=1G", "history-max"),
            ("keep-within=1h keep-most=2d", "keep-most"),
        ] {
            let error = Policy::of_directory(text).unwrap_err();
            assert!(error.to_string().contains(named), "{text:?}: {error}");
        }
    }
}
