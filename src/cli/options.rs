//! `-o a,b=c` in the form of mount(8) and fstab, turned into the long flags of the same names before clap reads them.
//!
//! Invariant: the words are looked up among the flags that clap knows, so that each flag is also a word.

use super::error::CliError;
use clap::{ArgAction, Command};
use std::ffi::OsString;

/// Words of mount(8) that have no effect here: they are for the mount command or systemd, or name the default.
const FOR_OTHERS: &[&str] = &[
    "_netdev",
    "async",
    "auto",
    "default_permissions",
    "defaults",
    "diratime",
    "fail",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noauto",
    "nodiratime",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "silent",
    "strictatime",
    "user",
    "users",
];

/// Beginnings of further words without an effect here.
const FOR_OTHERS_PREFIXES: &[&str] = &[
    "comment=", "fsname=", "group=", "owner=", "subtype=", "uhelper=", "user=", "x-", "X-",
];

/// Words that the kernel enforces.
pub(super) const FLAGS: &[&str] = &[
    "exec", "noexec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "sync", "dirsync",
];

/// Turns `-o` lists of a mount into flags. `arguments` begin with the program's name.
///
/// # Errors
/// A usage error that names the unknown word.
pub(super) fn prepare(
    mut arguments: Vec<OsString>,
    command: &Command,
) -> Result<Vec<OsString>, CliError> {
    if arguments.get(1).is_none_or(|word| word != "mount") {
        return Ok(arguments);
    }
    let rest = arguments.split_off(2);
    let mount = command.find_subcommand("mount");
    let mut rest = rest.into_iter();
    while let Some(argument) = rest.next() {
        let list = match argument.to_str() {
            Some("--") => {
                arguments.push(argument);
                arguments.extend(rest);
                break;
            }
            Some("-o" | "--options") => match rest.next() {
                Some(list) => list,
                None => return Err(CliError::usage("-o needs a list of options")),
            },
            Some(word) => match word
                .strip_prefix("--options=")
                .or_else(|| word.strip_prefix("-o"))
            {
                Some(list) => OsString::from(list),
                None => {
                    arguments.push(argument);
                    continue;
                }
            },
            None => {
                arguments.push(argument);
                continue;
            }
        };
        let list = list
            .to_str()
            .ok_or_else(|| CliError::usage(format!("-o {}: is not UTF-8", list.display())))?;
        for word in split(list) {
            expand(&word, mount, &mut arguments)?;
        }
    }
    Ok(arguments)
}

/// Splits a list at its commas; the character after a backslash is literal.
fn split(list: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        // There is always a last word.
        let Some(word) = words.last_mut() else { break };
        match character {
            ',' => words.push(String::new()),
            '\\' => word.extend(characters.next()),
            other => word.push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Adds the flag that `word` stands for to `arguments`.
fn expand(
    word: &str,
    mount: Option<&Command>,
    arguments: &mut Vec<OsString>,
) -> Result<(), CliError> {
    if FOR_OTHERS.contains(&word)
        || FOR_OTHERS_PREFIXES
            .iter()
            .any(|prefix| word.starts_with(prefix))
    {
        return Ok(());
    }
    if FLAGS.contains(&word) {
        arguments.push(format!("--mount-flag={word}").into());
        return Ok(());
    }
    match word {
        "ro" => {
            arguments.push("--read-only".into());
            return Ok(());
        }
        // The last of the two holds.
        "rw" => {
            arguments.retain(|argument| argument != "--read-only");
            return Ok(());
        }
        _ => {}
    }
    let (key, value) = match word.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (word, None),
    };
    let long = key.replace('_', "-");
    let flag = mount
        .into_iter()
        .flat_map(Command::get_arguments)
        .find(|flag| !flag.is_hide_set() && flag.get_long() == Some(&long) && long != "options")
        .ok_or_else(|| CliError::usage(format!("-o {word}: unknown option \"{key}\"")))?;
    match (value, flag.get_action()) {
        (None, ArgAction::SetTrue) => arguments.push(format!("--{long}").into()),
        (Some(value), ArgAction::Set | ArgAction::Append) => {
            arguments.push(format!("--{long}={value}").into());
        }
        (None, ArgAction::Set | ArgAction::Append) => {
            return Err(CliError::usage(format!(
                "-o {word}: needs a value, {key}=..."
            )));
        }
        _ => return Err(CliError::usage(format!("-o {word}: takes no value"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::CommandFactory;

    fn prepared(arguments: &[&str]) -> Result<Vec<String>, String> {
        let arguments = arguments.iter().map(OsString::from).collect();
        prepare(arguments, &Arguments::command())
            .map(|words| {
                words
                    .iter()
                    .map(|word| word.to_string_lossy().into_owned())
                    .collect()
            })
            .map_err(|cli_error| cli_error.message)
    }

    #[test]
    fn words_become_flags() {
        let words = prepared(&[
            "rewindfs",
            "mount",
            "u",
            "m",
            "-o",
            "allow_other,ro,namespace=team/eu",
            "-osync_on=close,cache-size=1G,at=-1h",
            "--options=noexec,_netdev,x-systemd.automount,user,nofail",
        ]);
        assert_eq!(
            words.unwrap()[2..],
            [
                "u",
                "m",
                "--allow-other",
                "--read-only",
                "--namespace=team/eu",
                "--sync-on=close",
                "--cache-size=1G",
                "--at=-1h",
                "--mount-flag=noexec"
            ]
        );
    }

    #[test]
    fn the_last_of_ro_and_rw_holds() {
        assert_eq!(
            prepared(&["r", "mount", "-o", "ro,rw"]).unwrap(),
            ["r", "mount"]
        );
        assert_eq!(
            prepared(&["r", "mount", "-o", "rw,ro"]).unwrap()[2..],
            ["--read-only"]
        );
    }

    #[test]
    fn an_escaped_comma_belongs_to_the_value() {
        let words = prepared(&["r", "mount", "-o", "log=/a\\,b,,ro"]).unwrap();
        assert_eq!(words[2..], ["--log=/a,b", "--read-only"]);
    }

    #[test]
    fn an_unknown_word_is_named() {
        for (list, part) in [
            ("ro,frobnicate", "\"frobnicate\""),
            ("no_such=1", "\"no_such\""),
            ("allow_other=1", "takes no value"),
            ("namespace", "needs a value"),
            ("options=ro", "unknown"),
            ("report-on-stdin", "unknown"),
            ("mount-flag=exec", "unknown"),
        ] {
            let message = prepared(&["r", "mount", "u", "m", "-o", list]).unwrap_err();
            assert!(message.contains(part), "{list}: {message}");
        }
        assert!(prepared(&["r", "mount", "-o"]).is_err());
    }

    #[test]
    fn other_commands_and_words_after_two_dashes_are_unchanged() {
        let words = ["r", "status", "-o", "x"];
        assert_eq!(prepared(&words).unwrap(), words);
        let words = ["r", "mount", "--", "u", "-o"];
        assert_eq!(prepared(&words).unwrap(), words);
    }
}
