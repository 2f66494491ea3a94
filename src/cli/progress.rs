//! What a command waits for: on a terminal in one line that changes, else in a line from time to time. Standard output has none of it.

use crate::task::Tasks;
use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How long a command is silent on a terminal.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often the line of a terminal changes.
const TICK: Duration = Duration::from_millis(200);

/// A wait that is told until it ends; dropped, it ends.
#[derive(Debug)]
pub(super) struct Waiting {
    bar: ProgressBar,
    telling: JoinHandle<()>,
}

impl Waiting {
    /// Begins a wait for `what`, as in `opening URL`.
    pub(super) fn begin(what: String) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = match is_terminal {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        let tasks = Tasks::new(Handle::current());
        let shown = bar.clone();
        let telling = tasks.spawn("progress", async move {
            if is_terminal {
                tokio::time::sleep(SILENT_MAX).await;
                shown.set_message(what);
                shown.enable_steady_tick(TICK);
                return;
            }
            let mut waited = 0;
            loop {
                tokio::time::sleep(LINE_EVERY).await;
                waited += LINE_EVERY.as_secs();
                eprintln!("rewindfs: {what} for {waited} s");
            }
        });
        Self { bar, telling }
    }

    /// Ends the wait, and clears the line of a terminal.
    pub(super) fn end(&self) {
        self.telling.abort();
        self.bar.finish_and_clear();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}
