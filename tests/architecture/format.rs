//! docs/FORMAT.md against the code: every stored structure with its fields, every choice with its variants, in their order,
//! and every key.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;

use crate::source::{Source, Token, matching, text, tokenize};

/// Structures of the code that FORMAT.md shows under another name, or inside the variant of that name.
const ALIASES: [(&str, &str); 3] = [
    ("ContentRecord", "Brings"),
    ("FlushRecord", "Flush"),
    ("OperationRecord", "Operation"),
];

/// The names of a structure's fields or of an enum's variants, in their order.
type Parts = Vec<String>;

/// The serialized structures with named fields and the serialized enums of a source.
pub(crate) fn stored(source: &Source) -> BTreeMap<String, Parts> {
    let mut stored = Stored {
        source,
        found: BTreeMap::new(),
    };
    stored.visit_file(&source.file);
    stored.found
}

/// Collects what is serialized.
struct Stored<'a> {
    /// The source that is searched.
    source: &'a Source,
    /// Names of structures and enums with their parts.
    found: BTreeMap<String, Parts>,
}

impl Stored<'_> {
    /// Whether an item with these attributes derives `Serialize`, in the crate and not for tests.
    fn is_stored(&self, attributes: &[syn::Attribute], name: &syn::Ident) -> bool {
        let derives = |attribute: &syn::Attribute| match &attribute.meta {
            syn::Meta::List(list) => {
                let named = tokenize(&list.tokens.to_string());
                named.iter().any(|token| token.text == "Serialize")
            }
            _ => false,
        };
        attributes.iter().any(derives) && !self.source.is_test_at(name.span())
    }
}

impl<'ast> Visit<'ast> for Stored<'_> {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        if let syn::Fields::Named(fields) = &item.fields
            && self.is_stored(&item.attrs, &item.ident)
        {
            let names = fields.named.iter().filter_map(|field| field.ident.as_ref());
            let names = names.map(ToString::to_string).collect();
            self.found.insert(item.ident.to_string(), names);
        }
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        if self.is_stored(&item.attrs, &item.ident) {
            let names = item
                .variants
                .iter()
                .map(|variant| variant.ident.to_string());
            self.found.insert(item.ident.to_string(), names.collect());
        }
    }
}

/// Names before a colon at the first level of the braces that open at `open`.
fn fields(tokens: &[Token], open: usize) -> Parts {
    let end = matching(tokens, open);
    let (mut names, mut at, mut begins) = (Vec::new(), open + 1, true);
    while at < end {
        match text(tokens, at) {
            "{" | "(" | "[" => {
                at = matching(tokens, at) + 1;
                continue;
            }
            "," => begins = true,
            name if begins && text(tokens, at + 1) == ":" => {
                names.push(name.to_owned());
                begins = false;
            }
            _ => {}
        }
        at += 1;
    }
    names
}

/// Differences between the page and the stored structures of the code.
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
        for definition in texts.iter().filter(|definition| is_definition(definition)) {
            let tokens = tokenize(definition);
            let name = text(&tokens, 0).to_owned();
            if text(&tokens, 1) == "{" {
                found.insert(name, fields(&tokens, 1));
            } else if text(&tokens, 1) == "0" {
                let names = variants(&tokens, &mut found);
                found.insert(name, names);
            }
        }
    }
    found
}

/// Whether a line of a code block begins with a name and `{` or `0`; the others are tables of bytes and JSON.
fn is_definition(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let _name = words.next();
    matches!(words.next(), Some("{" | "0"))
}

/// Names after the numbers `0`, `1`, .. of an enum's definition; fields of a variant become a definition of their own.
fn variants(tokens: &[Token], found: &mut BTreeMap<String, Parts>) -> Parts {
    let mut names = Vec::new();
    let mut at = 1;
    while at < tokens.len() {
        if text(tokens, at) == names.len().to_string() {
            let name = text(tokens, at + 1).to_owned();
            if text(tokens, at + 2) == "{" {
                found
                    .entry(name.clone())
                    .or_insert_with(|| fields(tokens, at + 2));
            }
            names.push(name);
            at += 1;
        } else if matches!(text(tokens, at), "{" | "(" | "[") {
            at = matching(tokens, at);
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
pub(crate) fn named_keys(source: &Source) -> BTreeSet<String> {
    let code = source.tokens.iter().filter(|token| !token.test);
    let quoted = code.filter_map(|token| token.text.strip_prefix("b\"")?.strip_suffix('"'));
    let keys = quoted.filter(|key| key.len() == 2 && key.bytes().all(|c| c.is_ascii_uppercase()));
    keys.map(str::to_owned).collect()
}
