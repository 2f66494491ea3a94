//! docs/FORMAT.md against the code: every stored structure with its fields, every choice with its variants, in their order,
//! and every key.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, matching};

/// Structures of the code that FORMAT.md shows under another name, or inside the variant of that name.
const ALIASES: [(&str, &str); 3] = [
    ("ContentRecord", "Brings"),
    ("FlushRecord", "Flush"),
    ("OperationRecord", "Operation"),
];

/// What is stored: the names of a structure's fields or of an enum's variants, in their order.
type Parts = Vec<String>;

/// The serialized structures with named fields and enums of a source.
pub(crate) fn stored(source: &Source) -> BTreeMap<String, Parts> {
    let mut found = BTreeMap::new();
    let mut is_stored = false;
    for (at, token) in source.tokens.iter().enumerate() {
        match token.text.as_str() {
            _ if token.test => {}
            "Serialize" => is_stored = true,
            "struct" | "enum" if is_stored => {
                is_stored = false;
                let open = at + 2;
                if source.text(open) == "{" {
                    let name = source.text(at + 1).to_owned();
                    found.insert(name, parts(source, open, token.text == "struct"));
                }
            }
            "fn" | "use" | "impl" => is_stored = false,
            _ => {}
        }
    }
    found
}

/// Names at the first level of the braces that open at `open`: those before a colon, or those that begin a variant.
fn parts(source: &Source, open: usize, is_struct: bool) -> Parts {
    let end = matching(&source.tokens, open);
    let (mut names, mut at, mut begins) = (Vec::new(), open + 1, true);
    while at < end {
        match source.text(at) {
            "{" | "(" | "[" => {
                at = matching(&source.tokens, at) + 1;
                continue;
            }
            "," => begins = true,
            "#" | "pub" => {}
            name if is_struct && begins && source.text(at + 1) == ":" => {
                names.push(name.to_owned());
                begins = false;
            }
            name if !is_struct && begins => {
                names.push(name.to_owned());
                begins = false;
            }
            _ => {}
        }
        at += 1;
    }
    names
}

/// What the page does not say of what is stored.
pub(crate) fn missing(page: &str, stored: &BTreeMap<String, Parts>) -> Vec<String> {
    let shown = definitions(page);
    let mut findings = Vec::new();
    for (name, parts) in stored {
        let alias = ALIASES.iter().find(|(ours, _)| ours == name);
        let shown_as = alias.map_or(name.as_str(), |(_, theirs)| theirs);
        match shown.get(shown_as) {
            None => findings.push(format!("FORMAT.md does not define {shown_as}")),
            Some(found) if found == parts => {}
            Some(found) => {
                findings.push(format!("FORMAT.md: {shown_as} is {found:?}, not {parts:?}"));
            }
        }
    }
    findings
}

/// The definitions in the page's code blocks: `Name { a: T, .. }` and `Name 0 A | 1 B { .. }`, variants with fields among them.
fn definitions(page: &str) -> BTreeMap<String, Parts> {
    let mut found = BTreeMap::new();
    for block in page.split("```").skip(1).step_by(2) {
        let mut texts: Vec<String> = Vec::new();
        for line in block.lines() {
            match (line.starts_with(char::is_uppercase), texts.last_mut()) {
                (true, _) => texts.push(line.to_owned()),
                (false, Some(text)) => text.push_str(line),
                (false, None) => {}
            }
        }
        for text in texts {
            let source = Source::new("FORMAT.md", &text);
            let name = source.text(0).to_owned();
            if source.text(1) == "{" {
                found.insert(name, parts(&source, 1, true));
            } else if source.text(1) == "0" {
                let names = variants(&source, &mut found);
                found.insert(name, names);
            }
        }
    }
    found
}

/// Names behind the numbers `0`, `1`, .. of a choice; fields of a variant become a definition of their own.
fn variants(source: &Source, found: &mut BTreeMap<String, Parts>) -> Parts {
    let mut names = Vec::new();
    let mut at = 1;
    while at < source.tokens.len() {
        if source.text(at) == names.len().to_string() {
            let name = source.text(at + 1).to_owned();
            if source.text(at + 2) == "{" {
                let fields = parts(source, at + 2, true);
                found.entry(name.clone()).or_insert(fields);
            }
            names.push(name);
            at += 1;
        } else if matches!(source.text(at), "{" | "(" | "[") {
            at = matching(&source.tokens, at);
        }
        at += 1;
    }
    names
}

/// The keys of a page's tables, `C D` as `CD`: those in use, and those that are only reserved.
pub(crate) fn shown_keys(page: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let in_tables = |text: &str| -> BTreeSet<String> {
        let cells = text.lines().filter_map(|line| line.strip_prefix("| `"));
        let keys = cells.filter_map(|cell| match cell.as_bytes() {
            [a, b' ', b, b'`', ..] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => {
                Some(format!("{}{}", char::from(*a), char::from(*b)))
            }
            _ => None,
        });
        keys.collect()
    };
    let (used, reserved) = page.split_once("\nReserved ").unwrap_or((page, ""));
    let reserved = reserved.split("\n## ").next().unwrap_or_default();
    (in_tables(used), in_tables(reserved))
}

/// The two letters of every key that a source names outside its tests.
pub(crate) fn named_keys(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let quoted = code
        .split("b\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'));
    let keys = quoted.map(|(key, _)| key.to_owned());
    keys.filter(|key| key.len() == 2 && key.bytes().all(|c| c.is_ascii_uppercase()))
        .collect()
}
