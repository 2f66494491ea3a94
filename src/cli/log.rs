//! The log: filtered by RUST_LOG, as text for people or as JSON lines for machines.

use super::background::open_log;
use super::error::CliError;
use serde_json::{Map, Value};
use std::fmt;
use std::io::IsTerminal;
use std::path::Path;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging to `file`, or to standard error.
///
/// # Errors
/// A usage error for a RUST_LOG that cannot be read, a failure for a file that cannot be written.
pub(super) fn start(file: Option<&Path>, format: Format) -> Result<(), CliError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| CliError::usage(format!("RUST_LOG={text}: {error}")))?,
        // The index engine logs routine work at level info, which is of no use to an operator.
        _ => EnvFilter::new("warn,rewindfs=info"),
    };
    match file {
        Some(path) => install(
            filter,
            format,
            Colours::No,
            std::sync::Mutex::new(open_log(path)?),
        ),
        None => {
            let colours = match std::io::stderr().is_terminal() {
                true => Colours::Yes,
                false => Colours::No,
            };
            install(filter, format, colours, std::io::stderr);
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    Yes,
    No,
}

fn install<W>(filter: EnvFilter, format: Format, colours: Colours, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours == Colours::Yes && format == Format::Text)
        .with_writer(writer);
    let installed = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.event_format(JsonLines).try_init(),
    };
    if let Err(error) = installed {
        // A program that uses this crate has its own log.
        tracing::debug!(%error, "a log was installed before");
    }
}

/// Formats an event as one line: time, level, target, message, fields, and the spans around it.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        line.insert("time".to_owned(), time.into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("target".to_owned(), event.metadata().target().into());
        event.record(&mut Collect(&mut line));
        let spans: Vec<Value> = context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| {
                let extensions = span.extensions();
                let fields = extensions.get::<FormattedFields<N>>();
                match fields.map(|fields| fields.as_str()) {
                    Some(fields) if !fields.is_empty() => format!("{}{{{fields}}}", span.name()),
                    _ => span.name().to_owned(),
                }
                .into()
            })
            .collect();
        if !spans.is_empty() {
            line.insert("spans".to_owned(), spans.into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Adds the fields of an event to a JSON object; numbers and booleans keep their types.
struct Collect<'a>(&'a mut Map<String, Value>);

impl Collect<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Collect<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, Mutex, lock};
    use std::io;

    /// A writer whose text a test can read.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_json_object() {
        let shared = Shared::default();
        let writer = shared.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(JsonLines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("fuse", ino = 7);
            let _entered = span.enter();
            tracing::warn!(count = 3, name = "a\n\"b\"", "a message");
        });
        let text = String::from_utf8(lock(&shared.0).clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "a message");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["count"], 3);
        assert_eq!(line["name"], "a\n\"b\"");
        assert!(line["spans"][0].as_str().unwrap().contains("ino=7"));
    }
}
