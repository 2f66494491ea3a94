//! The lines of `forget`.

use super::shown_time::{show_time, show_until};
use crate::cli::value::show_size;
use crate::verbs::{ForgetRow, PathText};
use jiff::tz::TimeZone;

/// Returns a row as a line.
pub(super) fn forget_line(row: &ForgetRow, zone: &TimeZone) -> String {
    let path = row.path.as_ref().map(PathText::to_string);
    let path = path.unwrap_or_default();
    let note = row.note.clone().unwrap_or_default();
    let versions = row.versions.unwrap_or_default();
    let count = match versions {
        1 => "1 version".to_owned(),
        more => format!("{more} versions"),
    };
    let size = show_size(row.bytes.unwrap_or_default());
    match row.what.as_str() {
        "version" => {
            let began = show_time(i128::from(row.time_ns.unwrap_or_default()), 9, zone);
            let ended = show_until(row.ended_ns, zone);
            format!("{began} until {ended}  {size}  {path}")
        }
        "would_go" => {
            let begun = match note.as_str() {
                "" => String::new(),
                note => format!("{note}\n"),
            };
            match versions == 0 && begun.is_empty() {
                true => "nothing to forget: no version has ended".to_owned(),
                false => format!(
                    "{begun}{count} would be forgotten, with {size} that only they show. Nothing is changed yet: repeat the command with --yes"
                ),
            }
        }
        "deleted" => format!("{count} deleted; now their bytes"),
        "gone" => {
            let stays = match note.as_str() {
                "" => String::new(),
                note => format!("\n{note}"),
            };
            format!("forgotten: {count}, {size}{stays}")
        }
        _ => note,
    }
}
