//! `rewindfs check --repair`: opens the namespace as its writer, mends it, and prints what was mended.

use crate::cli::change::writer::RepairAccess;
use crate::cli::check::Check;
use crate::cli::check::progress::CheckProgress;
use crate::cli::error::CliError;
use crate::cli::writer_consent::WriterConsent;
use crate::store::{CheckConfig, repair};
use std::time::Duration;

impl Check {
    /// Repairs the namespace. The writer is closed in any case.
    ///
    /// # Errors
    /// A usage error for a URL that cannot be; a failure that names the writer that may have the namespace, or what could not be mended.
    pub(super) async fn mend(&self, consent: &WriterConsent) -> Result<(), CliError> {
        let access = RepairAccess {
            url: &self.url,
            name: &self.namespace,
            backend: &self.backend,
        };
        let writer = access.open(consent).await?;
        let progress = CheckProgress::new();
        let config = CheckConfig {
            // Nothing else writes.
            patience: Duration::ZERO,
            ..self.config()
        };
        let repaired = repair(writer.namespace(), &config, |step| progress.tell(step)).await;
        progress.end();
        if let Ok(report) = &repaired {
            self.output.print_repair(report);
        }
        let closed = writer.close().await;
        let report = repaired.map_err(|error| {
            CliError::failure(format!(
                "namespace {}: {error}; what was mended until then stays: repeat the command",
                self.namespace
            ))
        })?;
        closed?;
        match report.left.count {
            0 => Ok(()),
            left => Err(CliError::failure(format!(
                "namespace {}: {left} faults could not be mended",
                self.namespace
            ))),
        }
    }
}
