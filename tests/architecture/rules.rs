//! The rules themselves: each takes a source and returns its findings as `file:line: what, and what to do instead`.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::source::{Source, matching};

/// The rooms, top first; rooms of one line may see each other unless `BLIND` says otherwise.
const LAYERS: &[&[&str]] = &[
    &["cli", "daemon", "config", "control", "fuzzing"],
    &["fuse", "verbs"],
    &["fs"],
    &["store"],
    &["cache", "meta"],
    &["backend"],
    &["env", "task", "sync"],
];

/// Rooms of one layer of which neither may use the other.
const BLIND: &[[&str; 2]] = &[["cache", "meta"], ["fuse", "verbs"]];

/// A foreign crate and where it may be named: prefixes of paths below `src/`.
const FOREIGN: &[(&str, &[&str])] = &[
    ("fuser", &["fuse"]),
    ("clap", &["cli", "daemon", "main.rs"]),
    ("tikv_jemallocator", &["main.rs"]),
    ("indicatif", &["cli", "daemon", "main.rs"]),
    ("sd_notify", &["cli", "daemon", "main.rs"]),
    ("tracing_subscriber", &["main.rs", "cli", "daemon"]),
    ("object_store", &["backend", "meta/slate"]),
    ("foyer_memory", &["meta/slate"]),
    ("slatedb", &["meta/slate"]),
    ("slatedb_common", &["meta/slate"]),
    ("chrono", &["meta/slate"]),
    ("base64", &["verbs"]),
    ("regex", &["verbs"]),
    ("similar", &["verbs"]),
    ("lru", &["cache"]),
    ("blake3", &["store"]),
    ("sha2", &["store"]),
    ("memmap2", &["store"]),
    ("libc", &["fs", "fuse"]),
];

/// Longest file, in lines.
const FILE_LINES: usize = 600;
/// Longest function, in lines from `fn` to the closing brace.
const FUNCTION_LINES: usize = 70;

/// Whether the path of a file, `fs/past/at.rs`, lies in `room`: a directory, a file, or a prefix of one file's name.
fn lies_in(name: &str, room: &str) -> bool {
    name.strip_prefix(room)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']) || room.contains('/'))
}

/// Imports go downward only, and no path climbs to the crate's root by `super`.
pub(crate) fn layers(source: &Source) -> Vec<String> {
    let room = source.room();
    if matches!(room, "lib" | "main") {
        return Vec::new();
    }
    let Some(from) = layer(room) else {
        return vec![format!(
            "{}:1: room `{room}` has no layer: give it one in LAYERS",
            source.name
        )];
    };
    let mut findings = Vec::new();
    for (line, target) in crate_paths(source) {
        let finding = match layer(&target) {
            None => format!(
                "`{target}` is not a room: name the room, not something re-exported at the root"
            ),
            Some(_) if target == room => continue,
            Some(to) if to < from => format!("`{room}` imports upward from `{target}`"),
            Some(_)
                if BLIND
                    .iter()
                    .any(|pair| pair.contains(&room) && pair.contains(&target.as_str())) =>
            {
                format!("`{room}` and `{target}` do not see each other")
            }
            Some(_) => continue,
        };
        findings.push(format!("{}:{line}: {finding}", source.name));
    }
    findings.extend(climbs(source));
    findings
}

/// The index of a room's layer, 0 at the top.
pub(crate) fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&room))
}

/// The rooms that `crate::room` and `crate::{room, room::x}` name, with their lines.
fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if token.text != "crate" || source.text(at + 1) != "::" {
            continue;
        }
        if source.text(at + 2) != "{" {
            found.push((token.line(), source.text(at + 2).to_owned()));
            continue;
        }
        let close = matching(&source.tokens, at + 2);
        let mut depth = 0_usize;
        for inner in at + 2..close {
            match source.text(inner) {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 1 && matches!(source.text(inner), "{" | ",") && inner + 1 < close {
                found.push((
                    source.tokens[inner + 1].line(),
                    source.text(inner + 1).to_owned(),
                ));
            }
        }
    }
    found
}

/// Chains of `super::` that reach the crate's root, where they would hide which room is meant.
fn climbs(source: &Source) -> Vec<String> {
    let folders = source.name.matches('/').count();
    let file_depth = if source.name.ends_with("/mod.rs") {
        folders
    } else {
        folders + 1
    };
    let mut findings = Vec::new();
    let mut inline: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < source.tokens.len() {
        inline.retain(|close| *close > at);
        if source.text(at) == "mod" && source.text(at + 2) == "{" {
            inline.push(matching(&source.tokens, at + 2));
        }
        let mut climbed = 0;
        let line = source.tokens[at].line();
        while source.text(at) == "super" && source.text(at + 1) == "::" {
            climbed += 1;
            at += 2;
        }
        if climbed >= file_depth + inline.len() && climbed > 0 {
            findings.push(format!(
                "{}:{line}: `super` climbs to the crate's root: write `crate::` and the room",
                source.name
            ));
        }
        at += 1;
    }
    findings
}

/// A foreign crate is named in its own room only; tests may build what they need.
pub(crate) fn foreign_crates(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let Some((name, rooms)) = FOREIGN.iter().find(|(name, _)| *name == token.text) else {
            continue;
        };
        let before = if at == 0 { "" } else { source.text(at - 1) };
        let is_root = !matches!(before, "::" | "." | "fn" | "mod");
        // `use lru;`, `use {lru, ..}` and `use lru as x` name the crate as well as `lru::x` does.
        let is_path = source.text(at + 1) == "::" || before == "use" || before == "crate";
        if !token.test
            && is_root
            && is_path
            && !rooms.iter().any(|room| lies_in(&source.name, room))
        {
            findings.push(format!(
                "{}:{}: `{name}` belongs to {}",
                source.name,
                token.line(),
                rooms.join(", ")
            ));
        }
    }
    findings
}

/// Files stay short, tests counted.
pub(crate) fn file_length(source: &Source) -> Vec<String> {
    let lines = source.lines.len();
    if lines <= FILE_LINES {
        return Vec::new();
    }
    vec![format!(
        "{}: {lines} lines, at most {FILE_LINES}: a part with a noun of its own moves out",
        source.name
    )]
}

/// Functions stay short, tests counted.
pub(crate) fn function_length(source: &Source) -> Vec<String> {
    let mut lengths = Lengths(Vec::new());
    lengths.visit_file(&source.file);
    let long = lengths.0.into_iter().filter_map(|(name, first, last)| {
        let lines = last - first + 1;
        (lines > FUNCTION_LINES).then(|| {
            format!(
                "{}:{first}: `{name}` has {lines} lines, at most {FUNCTION_LINES}",
                source.name
            )
        })
    });
    long.collect()
}

/// Every function with a body: its name, the line of its `fn` and that of its closing brace.
struct Lengths(Vec<(String, usize, usize)>);

impl Lengths {
    /// Notes one function.
    fn note(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.fn_token.span().start().line;
        let last = body.brace_token.span.close().end().line;
        self.0.push((signature.ident.to_string(), first, last));
    }

    /// Notes the functions inside a macro call, whose tokens have no syntax tree.
    fn note_tokens(&mut self, stream: TokenStream) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        for (at, tree) in trees.iter().enumerate() {
            if let TokenTree::Group(group) = tree {
                self.note_tokens(group.stream());
            }
            let (TokenTree::Ident(word), Some(TokenTree::Ident(name))) = (tree, trees.get(at + 1))
            else {
                continue;
            };
            let ends = |tree: &&TokenTree| match tree {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                TokenTree::Punct(mark) => mark.as_char() == ';',
                _ => false,
            };
            if word == "fn"
                && let Some(TokenTree::Group(body)) = trees[at..].iter().find(ends)
            {
                let (first, last) = (word.span().start().line, body.span_close().end().line);
                self.0.push((name.to_string(), first, last));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Lengths {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.note(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.note_tokens(call.tokens.clone());
    }
}

/// Calls that can panic have a comment beside them that proves that they do not.
pub(crate) fn unproven_panics(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if token.test {
            continue;
        }
        let before = if at == 0 { "" } else { source.text(at - 1) };
        let after = source.text(at + 1);
        let panics = match token.text.as_str() {
            "unwrap" | "expect" | "unwrap_err" | "expect_err" => {
                matches!(before, "." | "::") && matches!(after, "(" | ")" | ",")
            }
            "panic" | "unreachable" | "todo" | "unimplemented" => after == "!",
            _ => false,
        };
        if panics && !proven(&source.lines, token.line()) {
            findings.push(format!(
                "{}:{}: `{}` outside tests without a comment beside it that says `proof:` why it cannot happen",
                source.name, token.line(), token.text
            ));
        }
    }
    findings
}

/// Whether a comment with the proof is on `line` (from 1), or above it with no end of another statement in between.
fn proven(lines: &[String], line: usize) -> bool {
    let says = |text: &str| {
        text.split_once("//")
            .is_some_and(|(_, comment)| comment.contains("proof:") || comment.contains("Proof:"))
    };
    if says(&lines[line - 1]) {
        return true;
    }
    for text in lines[..line - 1].iter().rev() {
        let text = text.trim();
        if says(text) {
            return true;
        }
        let is_comment = text.starts_with("//");
        if !is_comment && (text.is_empty() || text.ends_with([';', '}'])) {
            return false;
        }
    }
    false
}

/// No unfinished work in the tree, and no file name without meaning.
pub(crate) fn words(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in source.lines.iter().enumerate() {
        for word in [
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("XX", "X"),
        ] {
            if line.contains(word) {
                findings.push(format!(
                    "{}:{}: `{word}` belongs in an issue",
                    source.name,
                    number + 1
                ));
            }
        }
    }
    for part in source.name.trim_end_matches(".rs").split('/') {
        if [
            "util", "utils", "common", "helper", "helpers", "manager", "misc",
        ]
        .contains(&part)
        {
            findings.push(format!(
                "{}: `{part}` is no noun: say what the room owns",
                source.name
            ));
        }
    }
    findings
}

/// The siblings of a test binary's head that it does not name as a module.
pub(crate) fn forgotten_modules(head: &str, text: &str, siblings: &[String]) -> Vec<String> {
    let source = Source::new(head, text);
    let names = |item: &syn::Item, name: &str| matches!(item, syn::Item::Mod(module) if module.content.is_none() && module.ident == name);
    siblings
        .iter()
        .filter(|name| !source.file.items.iter().any(|item| names(item, name)))
        .map(|name| {
            format!("{head}: `{name}.rs` lies beside it and is not named: its tests do not run")
        })
        .collect()
}
