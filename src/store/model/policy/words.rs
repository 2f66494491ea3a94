//! The words of a policy as people write them: `keep-within=1d keep-hourly=off history-max=50%`.

use std::fmt;

use crate::store::model::policy::{DAY, HOUR, HistoryMax, Policy, Term};

const SECOND: u64 = 1_000_000_000;
const YEAR: u64 = 365 * DAY;
/// Units of durations with their nanoseconds, the largest first.
const UNITS: [(&str, u64); 6] = [
    ("y", YEAR),
    ("w", 7 * DAY),
    ("d", DAY),
    ("h", HOUR),
    ("m", 60 * SECOND),
    ("s", SECOND),
];
/// Units of sizes with the power of two, the largest first.
const SIZES: [(&str, u32); 4] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];

/// A word that is no word of a policy, or a value that the word does not take. The message says what it takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not `WORD=VALUE`.
    #[error("{0:?} is not of the form WORD=VALUE, as in keep-within=1d")]
    Form(String),
    /// An unknown word.
    #[error("{0:?} is no word of a policy; the words are {words}", words = Policy::words())]
    Word(String),
    /// A word that a directory cannot have.
    #[error("{0} limits the history of the whole namespace: set it without a directory")]
    Namespace(&'static str),
    /// A value that the word does not take.
    #[error("{word}={value}: expected {expected}")]
    Value {
        /// The word.
        word: String,
        /// The value.
        value: String,
        /// What the word takes.
        expected: &'static str,
    },
}

/// The kind of value that a word takes.
enum Slot<'a> {
    /// A duration or `forever`.
    Duration(&'a mut Term),
    /// A duration, `forever` or `off`.
    Optional(&'a mut Term),
    Count(&'a mut u32),
    Size(&'a mut HistoryMax),
    /// Every tier of the grid; takes only `off`.
    Grid([&'a mut Term; 5]),
}

impl Slot<'_> {
    fn set(self, value: &str) -> Result<(), &'static str> {
        match self {
            Self::Duration(term) => {
                let found = parse_term(value).filter(|term| *term != Term::Off);
                *term = found.ok_or("a duration such as 12h, 1d, 2w or 1y, or forever")?;
            }
            Self::Optional(term) => {
                *term = parse_term(value).ok_or("a duration such as 14d or 1y, forever, or off")?;
            }
            Self::Count(count) => {
                *count = value.parse().map_err(|_| "a number")?;
            }
            Self::Size(size) => {
                *size = parse_size(value)
                    .ok_or("a size such as 50G, a percentage such as 100%, or off")?;
            }
            Self::Grid(tiers) => {
                if value != "off" {
                    return Err("off");
                }
                tiers.into_iter().for_each(|tier| *tier = Term::Off);
            }
        }
        Ok(())
    }
}

impl Policy {
    /// Returns the names of all words, for messages.
    fn words() -> String {
        let named = Self::default();
        let mut words: Vec<&str> = named.settings().into_iter().map(|(word, _)| word).collect();
        words.push("grid");
        words.join(", ")
    }

    fn slot(&mut self, word: &str) -> Option<Slot<'_>> {
        Some(match word {
            "keep-within" => Slot::Duration(&mut self.within),
            "keep-hourly" => Slot::Optional(&mut self.hourly),
            "keep-daily" => Slot::Optional(&mut self.daily),
            "keep-weekly" => Slot::Optional(&mut self.weekly),
            "keep-monthly" => Slot::Optional(&mut self.monthly),
            "keep-yearly" => Slot::Optional(&mut self.yearly),
            "keep-last" => Slot::Count(&mut self.last),
            "keep-removed" => Slot::Optional(&mut self.removed),
            "history-max" => Slot::Size(&mut self.history_max),
            "grid" => Slot::Grid([
                &mut self.hourly,
                &mut self.daily,
                &mut self.weekly,
                &mut self.monthly,
                &mut self.yearly,
            ]),
            _ => return None,
        })
    }

    /// Changes one word, given as `WORD=VALUE`. `grid=off` changes all tiers.
    ///
    /// # Errors
    /// [`PolicyError`]; the policy is unchanged then.
    pub fn set(&mut self, setting: &str) -> Result<(), PolicyError> {
        let (word, value) = setting
            .split_once('=')
            .ok_or_else(|| PolicyError::Form(setting.to_owned()))?;
        let slot = self
            .slot(word)
            .ok_or_else(|| PolicyError::Word(word.to_owned()))?;
        slot.set(value).map_err(|expected| PolicyError::Value {
            word: word.to_owned(),
            value: value.to_owned(),
            expected,
        })
    }

    /// Returns every word with its value, as [`Policy::set`] reads them.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("keep-within", self.within.to_string()),
            ("keep-hourly", self.hourly.to_string()),
            ("keep-daily", self.daily.to_string()),
            ("keep-weekly", self.weekly.to_string()),
            ("keep-monthly", self.monthly.to_string()),
            ("keep-yearly", self.yearly.to_string()),
            ("keep-last", self.last.to_string()),
            ("keep-removed", self.removed.to_string()),
            ("history-max", self.history_max.to_string()),
        ]
    }
}

/// Reads `off`, `forever`, or numbers with units in descending order: `1d12h`.
fn parse_term(text: &str) -> Option<Term> {
    match text {
        "off" => return Some(Term::Off),
        "forever" => return Some(Term::Forever),
        _ => {}
    }
    let (mut rest, mut total, mut smallest) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let (unit, nanoseconds) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        if nanoseconds >= smallest {
            return None;
        }
        smallest = nanoseconds;
        total = total.checked_add(number.checked_mul(nanoseconds)?)?;
        rest = rest.get(unit.len()..)?;
    }
    (total > 0).then_some(Term::For(total))
}

/// Reads `off`, a percentage, or bytes with an optional unit of 1024.
fn parse_size(text: &str) -> Option<HistoryMax> {
    if text == "off" {
        return Some(HistoryMax::Off);
    }
    if let Some(percent) = text.strip_suffix('%') {
        return Some(HistoryMax::Percent(plain(percent)?.try_into().ok()?));
    }
    let (number, shift) = SIZES
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
        .unwrap_or((text, 0));
    let bytes = plain(number)?.checked_mul(1 << shift)?;
    Some(HistoryMax::Bytes(bytes))
}

/// Reads digits only: no sign, no space.
fn plain(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = match self {
            Self::Off => return f.write_str("off"),
            Self::Forever => return f.write_str("forever"),
            Self::For(nanoseconds) => *nanoseconds,
        };
        // Days say more than weeks: 90d, not 12w6d.
        for (unit, nanoseconds) in UNITS.into_iter().filter(|(unit, _)| *unit != "w") {
            if rest >= nanoseconds {
                write!(f, "{}{unit}", rest / nanoseconds)?;
                rest %= nanoseconds;
            }
        }
        Ok(())
    }
}

impl fmt::Display for HistoryMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => {
                let (unit, shift) = SIZES
                    .into_iter()
                    .find(|(_, shift)| *bytes > 0 && bytes.is_multiple_of(1 << shift))
                    .unwrap_or(("", 0));
                write!(f, "{}{unit}", bytes >> shift)
            }
        }
    }
}
