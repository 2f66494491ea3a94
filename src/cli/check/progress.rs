//! The progress of a check: on a terminal in one line that changes, else in a line from time to time.

use crate::store::CheckStep;
use crate::sync::{Mutex, lock};
use indicatif::{HumanBytes, ProgressBar};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

/// How often progress is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows the progress of a check.
pub(super) struct CheckProgress {
    bar: ProgressBar,
    told: Mutex<Instant>,
}

impl CheckProgress {
    pub(super) fn new() -> Self {
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

    pub(super) fn tell(&self, step: CheckStep) {
        let text = text(step);
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

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn text(step: CheckStep) -> String {
    match step {
        CheckStep::Log { read, all } => format!("read {read} of {all} log objects"),
        CheckStep::Rows(rows) => format!("compared {rows} rows"),
        CheckStep::Segments(segments) => format!("listed {segments} segments"),
        CheckStep::Data { read, all } => {
            let percent = (u128::from(read) * 100)
                .checked_div(u128::from(all))
                .unwrap_or(100);
            format!(
                "verified {} of {} of files, {percent} %",
                HumanBytes(read),
                HumanBytes(all)
            )
        }
        CheckStep::Naming(rows) => {
            format!("looking for files with damaged bytes, read {rows} rows")
        }
        CheckStep::Mended(rows) => format!("wrote {rows} rows"),
        CheckStep::Waiting => "the namespace is being written: waiting for its log".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verified_bytes_are_told_with_their_share() {
        let step = |read, all| text(CheckStep::Data { read, all });
        assert_eq!(
            step(1 << 20, 4 << 20),
            "verified 1.00 MiB of 4.00 MiB of files, 25 %"
        );
        assert!(step(0, 0).ends_with("100 %"));
    }
}
