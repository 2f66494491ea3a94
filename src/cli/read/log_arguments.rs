//! The arguments of `rewindfs log`: a path, and which changes are shown.

use super::arguments::PathArguments;
use super::color::ColorChoice;
use crate::fs::past::stamp::TimeName;
use crate::verbs::{LogFilter, is_change};
use clap::Args;

/// The arguments of `rewindfs log`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogArguments {
    #[command(flatten)]
    pub(super) path: PathArguments,
    #[command(flatten)]
    pub(super) filter: FilterArguments,
    /// Print for each change of a file how it differs from the state before
    #[arg(long, short)]
    pub(super) patch: bool,
    /// With --patch, when to color lines
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    pub(super) color: ColorChoice,
}

/// Which changes are shown.
#[derive(Debug, Args)]
pub(super) struct FilterArguments {
    /// Show the changes in all directories below, too
    #[arg(long, short)]
    recursive: bool,
    /// Only changes from the beginning of this TIME on
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    since: Option<String>,
    /// Only changes up to the end of this TIME
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    until: Option<String>,
    /// Only changes by this user: a number, or a name of /etc/passwd
    #[arg(long, value_name = "USER", value_parser = user)]
    user: Option<u32>,
    /// Only changes by this program, as PROGRAM shows it
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Only these operations, as OP shows them: create, write, truncate, rename, link, undelete, delete, move, ...
    #[arg(long = "op", value_name = "OP", value_delimiter = ',', value_parser = op)]
    ops: Vec<String>,
    /// Only the newest so many
    #[arg(short = 'n', long = "count", value_name = "COUNT")]
    count: Option<u64>,
}

impl From<FilterArguments> for LogFilter {
    fn from(said: FilterArguments) -> Self {
        Self {
            recursive: said.recursive,
            since: said.since,
            until: said.until,
            user: said.user,
            program: said.program,
            ops: said.ops,
            count: said.count,
        }
    }
}

fn time(text: &str) -> Result<String, String> {
    match TimeName::parse(text.as_bytes()) {
        Some(_) => Ok(text.to_owned()),
        None => {
            Err("expected a time like -2h, 2026-11-20 or '2026-11-20 21:26:48+0100'".to_owned())
        }
    }
}

fn op(text: &str) -> Result<String, String> {
    match is_change(text) {
        true => Ok(text.to_owned()),
        false => Err(
            "expected create, write, truncate, rename, link, undelete, recovered, conflict, restore, import, delete or move"
                .to_owned(),
        ),
    }
}

/// Reads the number of a user, or looks a name up in /etc/passwd.
fn user(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let passwords = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = passwords.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_named = fields.next() == Some(text);
        is_named.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    number.ok_or_else(|| "expected a number, or a name of /etc/passwd".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_filter_are_checked() {
        assert_eq!(user("1234"), Ok(1234));
        assert_eq!(user("root"), Ok(0));
        assert!(user("no-such-user").is_err() && user("-1").is_err());
        assert!(time("-2h").is_ok() && time("2026-11-20 21:26").is_ok());
        assert!(time("yesterday").is_err() && time("").is_err());
        assert!(op("write").is_ok() && op("move").is_ok() && op("read").is_err());
    }
}
