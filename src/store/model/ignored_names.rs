//! Ignored names: what editors and file managers call their lock, swap, backup and temporary files.
//!
//! An ignored name that no longer exists is in no list of the past. It is still found by its name, and a TIME shows it.

/// The ignored names. A `*` stands for any bytes, also for none.
const PATTERNS: [&[u8]; 10] = [
    b"*~",        // backups
    b"*.tmp",     // temporary files
    b"*.swp",     // swap files of vim, locks of nano
    b"*.swo",     // the swap file of a second vim
    b"*.swx",     // vim tries whether two swap files are possible
    b"4913",      // vim tries whether it may create files
    b".#*",       // locks of Emacs
    b"#*#",       // automatic saves of Emacs
    b".~lock.*#", // locks of LibreOffice
    b".DS_Store", // what the Finder of macOS notes about a directory
];

/// Tells whether a name is ignored.
pub(crate) fn is_ignored(name: &[u8]) -> bool {
    PATTERNS.iter().any(|pattern| matches(pattern, name))
}

/// Tells whether a rename from `from` to `to` keeps the old state as a backup: `to` contains `from` and more (`doc~`, `doc.bak`),
/// or is ignored (`~WRL0001.tmp`). A program that does this writes `from` again at once, so `from` is no temporary name.
pub(crate) fn is_backup_of(from: &[u8], to: &[u8]) -> bool {
    let contains = || !from.is_empty() && to.windows(from.len()).any(|part| part == from);
    is_ignored(to) || (to.len() > from.len() && contains())
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.iter().position(|byte| *byte == b'*') {
        Some(star) => {
            let (start, end) = (&pattern[..star], &pattern[star + 1..]);
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_backup_of, is_ignored};

    #[test]
    fn names_of_editors_are_ignored_and_similar_names_are_not() {
        let ignored = "doc~ doc.tmp .doc.swp .doc.swo .doc.swx 4913 .#doc #doc# .~lock.doc.odt# .DS_Store ~ ##";
        for name in ignored.split(' ') {
            assert!(is_ignored(name.as_bytes()), "{name}");
        }
        let others = "doc ~doc doc.tmp.gz tmp doc.swap 49130 #doc doc# # .~lock.doc .DS_Store2 Cargo.lock doc.bak";
        for name in others.split(' ') {
            assert!(!is_ignored(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_backup_contains_the_name_or_is_ignored() {
        let backups = [
            ("doc", "doc~"),
            ("doc", "doc.bak"),
            ("doc", "doc.~1~"),
            ("doc", "%home%doc~"),
            ("doc", "Backup of doc"),
            ("doc.docx", "~WRL0001.tmp"),
        ];
        for (from, to) in backups {
            assert!(is_backup_of(from.as_bytes(), to.as_bytes()), "{from} {to}");
        }
        for (from, to) in [("doc.new", "doc"), ("sedXa1", "doc"), ("doc", "doc")] {
            assert!(!is_backup_of(from.as_bytes(), to.as_bytes()), "{from} {to}");
        }
    }
}
