//! Names and words: a type has a name of its own, a parameter is not a tuple, and prose names the subject.

use std::collections::BTreeMap;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::source::Source;

/// Types whose name has more than one definition until they are renamed. A name that has one only may be removed here.
pub(crate) const REPEATED_TYPES: &[&str] = &["Core"];

/// Types and parameters of one source outside its tests.
struct Names<'a> {
    /// The source.
    source: &'a Source,
    /// Names of types and where they are defined.
    types: Vec<(String, Span)>,
    /// Where parameters are tuples.
    tuples: Vec<Span>,
}

impl<'a> Names<'a> {
    /// Reads a source.
    fn of(source: &'a Source) -> Self {
        let mut names = Self {
            source,
            types: Vec::new(),
            tuples: Vec::new(),
        };
        names.visit_file(&source.file);
        names
    }

    /// Notes a type.
    fn note(&mut self, name: &syn::Ident) {
        if !self.source.is_test_at(name.span()) {
            self.types.push((name.to_string(), name.span()));
        }
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.note(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.note(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.note(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.note(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.note(&item.ident);
        visit::visit_item_union(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        for input in &signature.inputs {
            if let syn::FnArg::Typed(parameter) = input
                && is_tuple(&parameter.ty)
                && !self.source.is_test_at(parameter.span())
            {
                self.tuples.push(parameter.span());
            }
        }
        visit::visit_signature(self, signature);
    }
}

/// Whether a type is a tuple of one or more parts, or a reference to one.
fn is_tuple(ty: &syn::Type) -> bool {
    match ty {
        syn::Type::Tuple(tuple) => !tuple.elems.is_empty(),
        syn::Type::Reference(inner) => is_tuple(&inner.elem),
        syn::Type::Paren(inner) => is_tuple(&inner.elem),
        _ => false,
    }
}

/// Names of types that have more than one definition outside tests, without those of `known`.
pub(crate) fn repeated_types(sources: &[Source], known: &[&str]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources {
        for (name, span) in Names::of(source).types {
            places.entry(name).or_default().push(source.place(span));
        }
    }
    places.retain(|name, places| places.len() > 1 && !known.contains(&name.as_str()));
    places
        .iter()
        .map(|(name, places)| format!("type `{name}` is defined at {}", places.join(" and ")))
        .collect()
}

/// Returns the files with parameters that are tuples, and where they are.
pub(crate) fn tuple_parameters(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let found = Names::of(source).tuples;
        if !found.is_empty() {
            let places: Vec<String> = found.iter().map(|span| source.place(*span)).collect();
            findings.push(format!(
                "{} parameters are tuples: name a struct, or pass the parts: {}",
                found.len(),
                places.join(", ")
            ));
        }
    }
    findings
}

/// Words for a person where the text should name the process, the mount or the user.
const VAGUE: [&str; 4] = [
    concat!("who", "ever"),
    concat!("no", "body"),
    concat!("some", "body"),
    concat!("any", "body"),
];

/// Returns the lines of a text that contain a word of [`VAGUE`]. The name of the account without rights is no finding in quotation
/// marks and after `as`.
pub(crate) fn vague_words(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let lower = line.to_ascii_lowercase();
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        for word in VAGUE {
            for (at, _) in lower.match_indices(word) {
                let (before, after) = (&lower[..at], &lower[at + word.len()..]);
                let is_word = !before.ends_with(is_part) && !after.starts_with(is_part);
                let is_quoted = ['`', '"']
                    .iter()
                    .any(|mark| before.ends_with(*mark) && after.starts_with(*mark));
                let is_account = word == VAGUE[1]
                    && (is_quoted
                        || before
                            .strip_suffix("as ")
                            .is_some_and(|rest| !rest.ends_with(is_part)));
                if is_word && !is_account {
                    findings.push(format!("{name}:{}: `{word}`: name the subject", number + 1));
                }
            }
        }
    }
    findings
}
