//! The floors of `src/store` and the method calls between rooms: a floor uses those below it, and a type has its methods in the
//! folder that defines it.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::graph::{Edge, Graph};
use crate::rules::layer;
use crate::source::Source;

/// The floors of `src/store`, bottom first. Each uses those before it.
const FLOORS: &[&str] = &[
    "model",
    "schema",
    "lease",
    "index",
    "core.rs",
    "data",
    "commit",
    "tree",
    "history",
    "retention",
    "gc",
    "forget",
    "replay",
    "recovery",
    "salvage",
    "namespace.rs",
    "follower.rs",
    "admin.rs",
    "rebuild",
    "check",
    "blob",
    "fuzzing.rs",
    "mod.rs",
];

/// Pairs of floors of which neither may use the other.
const BLIND: &[[&str; 2]] = &[["gc", "tree"], ["gc", "history"], ["gc", "retention"]];

/// Floors whose files share a type: `Namespace` opens a follower in a file of its own.
const TOGETHER: [&str; 2] = ["namespace.rs", "follower.rs"];

/// Methods of the crate that types of foreign crates have as well: a call of one may mean the foreign one.
const FOREIGN_METHODS: &[&str] = &[
    "all",
    "ancestors",
    "as_ref",
    "bytes",
    "changed",
    "clone",
    "cmp",
    "contains",
    "drain",
    "entry",
    "exists",
    "find",
    "finish",
    "first",
    "flush",
    "fold",
    "freeze",
    "ino",
    "insert",
    "is_empty",
    "keys",
    "kind",
    "last",
    "len",
    "load",
    "lock",
    "max",
    "mode",
    "next",
    "parent",
    "parts",
    "push",
    "range",
    "read",
    "remove",
    "replace",
    "scope",
    "segment",
    "source",
    "split",
    "start",
    "status",
    "store",
    "take",
    "trim",
    "u64",
    "write",
];

/// The index of the floor a file below `src/` lies on, and its name; none outside `store/`.
fn floor(file: &str) -> Option<(usize, &'static str)> {
    let inside = file.strip_prefix("store/")?;
    let first = inside.split('/').next()?;
    let at = FLOORS.iter().position(|floor| *floor == first)?;
    Some((at, FLOORS[at]))
}

/// Files of `store/` that lie on no floor.
pub(crate) fn without_floor(sources: &[Source]) -> Vec<String> {
    let code = sources.iter().filter(|source| !source.is_test);
    code.filter(|source| source.name.starts_with("store/") && floor(&source.name).is_none())
        .map(|source| format!("{}:1: lies on no floor: give it one in FLOORS", source.name))
        .collect()
}

/// Imports from a floor to one above it, or to one that `BLIND` forbids.
pub(crate) fn upward(edges: &[Edge]) -> Vec<String> {
    let mut findings = Vec::new();
    for edge in edges {
        let (Some(from), Some(to)) = (floor(&edge.from), floor(&edge.to)) else {
            continue;
        };
        let is_blind = |pair: &[&str; 2]| pair.contains(&from.1) && pair.contains(&to.1);
        if from.0 < to.0 || (from.0 != to.0 && BLIND.iter().any(is_blind)) {
            findings.push(format!(
                "{}:{}: floor `{}` uses `{}` of floor `{}`",
                edge.from, edge.line, from.1, edge.path, to.1
            ));
        }
    }
    findings
}

/// The position of a file: its room, and its floor inside the store. A smaller number is higher.
fn height(file: &str) -> Option<(usize, usize)> {
    let room = file.split('/').next()?.trim_end_matches(".rs");
    let floor = floor(file).map_or(0, |(at, _)| FLOORS.len() - at);
    Some((layer(room)?, floor))
}

/// Calls of methods that only rooms or floors above the caller define.
pub(crate) fn upward_calls(sources: &[Source]) -> Vec<String> {
    let mut methods = Methods::default();
    for source in sources.iter().filter(|source| !source.is_test) {
        methods.read(source);
    }
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test) {
        let Some(own) = height(&source.name) else {
            continue;
        };
        for (at, token) in source.tokens.iter().enumerate().skip(1) {
            let is_call = source.text(at - 1) == "." && matches!(source.text(at + 1), "(" | "::");
            let name = token.text.as_str();
            if !is_call || token.test || FOREIGN_METHODS.contains(&name) {
                continue;
            }
            let Some(files) = methods.files.get(name) else {
                continue;
            };
            if files
                .iter()
                .all(|file| height(file).is_some_and(|other| other < own))
            {
                let files: Vec<&str> = files.iter().map(String::as_str).collect();
                findings.push(format!(
                    "{}:{}: `.{name}()` is a method of {} only, which is above",
                    source.name,
                    token.line(),
                    files.join(", ")
                ));
            }
        }
    }
    findings
}

/// The methods of the crate.
#[derive(Default)]
struct Methods {
    /// The files that define a method, by its name.
    files: BTreeMap<String, BTreeSet<String>>,
    /// The file that is read.
    file: String,
}

impl Methods {
    /// Reads the methods of a source, those of its tests too: they make no call upward.
    fn read(&mut self, source: &Source) {
        self.file.clone_from(&source.name);
        self.visit_file(&source.file);
    }
}

impl<'ast> Visit<'ast> for Methods {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.receiver().is_some() {
            let files = self.files.entry(signature.ident.to_string()).or_default();
            files.insert(self.file.clone());
        }
    }
}

/// Methods that a type of the store has outside the folder that defines it. An impl of a foreign trait may lie anywhere.
pub(crate) fn impls_elsewhere(sources: &[Source], graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test) {
        let Some(own) = floor(&source.name) else {
            continue;
        };
        for item in &source.file.items {
            let syn::Item::Impl(block) = item else {
                continue;
            };
            let syn::Type::Path(named) = &*block.self_ty else {
                continue;
            };
            let home = |path: &syn::Path| {
                let segments = path.segments.iter();
                let path: Vec<String> = segments.map(|part| part.ident.to_string()).collect();
                graph.home(&source.name, &path)
            };
            let is_foreign = block
                .trait_
                .as_ref()
                .is_some_and(|(path, _)| home(path).is_none());
            let Some(defined) = home(&named.path) else {
                continue;
            };
            let other = floor(&defined);
            let is_shared = other
                .is_some_and(|(_, other)| TOGETHER.contains(&other) && TOGETHER.contains(&own.1));
            let is_own = other == Some(own) || is_shared;
            if !is_foreign && !is_own && !source.is_test_at(block.span()) {
                findings.push(format!(
                    "{}: methods of a type that {defined} defines",
                    source.place(block.span())
                ));
            }
        }
    }
    findings
}
