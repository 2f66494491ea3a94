//! The graph of imports: which file of `src/` uses names of which other file, by imports and paths, resolved through
//! re-exports to the file that defines the name.
//!
//! A re-export (`pub use`) is no import of the file it stands in: an edge leads from the file that names an item to the file that
//! defines it.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, Token, text};

/// A path of modules from the crate's root.
type ModulePath = Vec<String>;

/// The names of one module.
#[derive(Default)]
struct Module {
    /// The file that holds it.
    file: String,
    /// Names it defines: types, functions, constants, macros.
    items: BTreeSet<String>,
    /// Names it imports, and the paths they stand for.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths it imports everything of.
    globs: Vec<Vec<String>>,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// A module.
    Module(ModulePath),
    /// An item, in this file.
    Item(String),
}

/// One file names an item of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    /// The file that names it.
    pub(crate) from: String,
    /// The file that defines it.
    pub(crate) to: String,
    /// The line of the name.
    pub(crate) line: usize,
    /// The path as it is written.
    pub(crate) path: String,
}

/// The modules of the crate without those of tests.
pub(crate) struct Graph {
    /// By their paths.
    modules: BTreeMap<ModulePath, Module>,
}

impl Graph {
    /// Reads the modules of `sources`.
    pub(crate) fn new(sources: &[Source]) -> Self {
        let mut modules = BTreeMap::new();
        for source in sources.iter().filter(|source| is_library(source)) {
            add_items(
                source,
                &source.file.items,
                module_path(&source.name),
                &mut modules,
            );
        }
        Self { modules }
    }

    /// What the files of `sources` name of one another.
    pub(crate) fn edges(&self, sources: &[Source]) -> Vec<Edge> {
        let mut edges = Vec::new();
        for source in sources.iter().filter(|source| is_library(source)) {
            let module = module_path(&source.name);
            for (line, path) in named_paths(&source.tokens) {
                let target = self.resolve(&module, &path, 0);
                if let Some(Target::Item(to)) = target
                    && to != source.name
                {
                    edges.push(Edge {
                        from: source.name.clone(),
                        to,
                        line,
                        path: path.join("::"),
                    });
                }
            }
        }
        edges
    }

    /// The file that defines the type `name` as `file` sees it.
    pub(crate) fn home(&self, file: &str, path: &[String]) -> Option<String> {
        match self.resolve(&module_path(file), path, 0) {
            Some(Target::Item(home)) => Some(home),
            _ => None,
        }
    }

    /// What `path`, written in `module`, leads to; none if that is no part of the crate. `depth` ends circles of re-exports.
    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            _ if depth > 16 => return None,
            "crate" => Target::Module(Vec::new()),
            "self" => Target::Module(module.to_vec()),
            "super" => Target::Module(module.split_last()?.1.to_vec()),
            name => self.member(module, name, depth)?,
        };
        rest.iter().try_fold(start, |target, name| match target {
            Target::Item(file) => Some(Target::Item(file)),
            Target::Module(inner) if name == "super" => {
                Some(Target::Module(inner.split_last()?.1.to_vec()))
            }
            Target::Module(inner) => self.member(&inner, name, depth),
        })
    }

    /// What `name` is in a module.
    fn member(&self, path: &[String], name: &str, depth: usize) -> Option<Target> {
        let module = self.modules.get(path)?;
        if module.items.contains(name) {
            return Some(Target::Item(module.file.clone()));
        }
        let child = [path, &[name.to_owned()]].concat();
        if self.modules.contains_key(&child) {
            return Some(Target::Module(child));
        }
        if let Some(import) = module.imports.get(name) {
            return self.resolve(path, import, depth + 1);
        }
        module
            .globs
            .iter()
            .find_map(|glob| match self.resolve(path, glob, depth + 1)? {
                Target::Module(inner) if inner != path => self.member(&inner, name, depth + 1),
                _ => None,
            })
    }
}

/// Whether a source is part of the library and not of its tests.
fn is_library(source: &Source) -> bool {
    !source.is_test && source.name != "main.rs"
}

/// The module that a file holds: `store::tree` for `store/tree.rs` and `store/tree/mod.rs`.
fn module_path(file: &str) -> ModulePath {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    match stem {
        "lib" | "main" | "mod" => Vec::new(),
        _ => stem.split('/').map(str::to_owned).collect(),
    }
}

/// Adds the module at `path` with `items`, and the modules inside it.
fn add_items(
    source: &Source,
    items: &[syn::Item],
    path: ModulePath,
    modules: &mut BTreeMap<ModulePath, Module>,
) {
    let mut module = Module {
        file: source.name.clone(),
        ..Module::default()
    };
    for item in items {
        let name = match item {
            syn::Item::Const(item) => &item.ident,
            syn::Item::Enum(item) => &item.ident,
            syn::Item::Fn(item) => &item.sig.ident,
            syn::Item::Static(item) => &item.ident,
            syn::Item::Struct(item) => &item.ident,
            syn::Item::Trait(item) => &item.ident,
            syn::Item::Type(item) => &item.ident,
            syn::Item::Union(item) => &item.ident,
            syn::Item::Macro(syn::ItemMacro {
                ident: Some(ident), ..
            }) => ident,
            syn::Item::Use(item) => {
                add_imports(&item.tree, &mut Vec::new(), &mut module);
                continue;
            }
            syn::Item::Mod(inner) => {
                if let Some((_, items)) = &inner.content
                    && !source.is_test_at(inner.ident.span())
                {
                    let child = [&path[..], &[inner.ident.to_string()]].concat();
                    add_items(source, items, child, modules);
                }
                continue;
            }
            _ => continue,
        };
        module.items.insert(name.to_string());
    }
    modules.insert(path, module);
}

/// Adds the names of a `use` to `module`.
fn add_imports(tree: &syn::UseTree, path: &mut Vec<String>, module: &mut Module) {
    match tree {
        syn::UseTree::Path(inner) => {
            path.push(inner.ident.to_string());
            add_imports(&inner.tree, path, module);
            path.pop();
        }
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                add_imports(tree, path, module);
            }
        }
        syn::UseTree::Name(name) if name.ident == "self" => {
            let name = path.last().expect("`self` follows a path").clone();
            module.imports.insert(name, path.clone());
        }
        syn::UseTree::Name(name) => {
            let name = name.ident.to_string();
            let full = [&path[..], std::slice::from_ref(&name)].concat();
            module.imports.insert(name, full);
        }
        syn::UseTree::Rename(name) => {
            let full = [&path[..], &[name.ident.to_string()]].concat();
            module.imports.insert(name.rename.to_string(), full);
        }
        syn::UseTree::Glob(_) => module.globs.push(path.clone()),
    }
}

/// The paths in the code outside tests, macro calls included, with their lines. A private `use` counts, a re-export does not.
fn named_paths(tokens: &[Token]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = at.checked_sub(1).map_or("", |before| text(tokens, before));
        if tokens[at].text == "use" && !tokens[at].test {
            let end = (at..tokens.len())
                .find(|end| text(tokens, *end) == ";")
                .unwrap_or(tokens.len());
            if !matches!(before, "pub" | ")") {
                used_paths(tokens, at + 1, end, &mut Vec::new(), &mut found);
            }
            at = end;
        } else if tokens[at].is_word() && !tokens[at].test && !matches!(before, "." | "::") {
            let line = tokens[at].line();
            let mut path = vec![tokens[at].text.clone()];
            while text(tokens, at + 1) == "::" && tokens.get(at + 2).is_some_and(Token::is_word) {
                path.push(tokens[at + 2].text.clone());
                at += 2;
            }
            found.push((line, path));
        }
        at += 1;
    }
    found
}

/// The paths of a `use` whose tree lies in `tokens[at..end]`, each behind `prefix`.
fn used_paths(
    tokens: &[Token],
    mut at: usize,
    end: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<(usize, Vec<String>)>,
) {
    let depth = prefix.len();
    while at < end {
        match text(tokens, at) {
            "," => prefix.truncate(depth),
            "{" => {
                let close = crate::source::matching(tokens, at);
                used_paths(tokens, at + 1, close, prefix, found);
                at = close;
            }
            "as" => at += 1,
            word if tokens[at].is_word() => {
                if word != "self" || prefix.is_empty() {
                    prefix.push(word.to_owned());
                }
                if text(tokens, at + 1) != "::" {
                    found.push((tokens[at].line(), prefix.clone()));
                }
            }
            _ => {}
        }
        at += 1;
    }
    prefix.truncate(depth);
}

/// The circles among files: each set of two or more that reach one another, in the order of their names.
pub(crate) fn circles(edges: &[Edge]) -> BTreeSet<Vec<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        next.entry(&edge.from).or_default().insert(&edge.to);
    }
    let reach = |from: &str| -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(file) = open.pop() {
            for to in next.get(file).into_iter().flatten() {
                if seen.insert((*to).to_owned()) {
                    open.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> =
        next.keys().map(|file| (*file, reach(file))).collect();
    let mut circles = BTreeSet::new();
    for (file, targets) in &reached {
        if targets.contains(*file) {
            let back = |to: &&String| {
                reached
                    .get(to.as_str())
                    .is_some_and(|all| all.contains(*file))
            };
            circles.insert(targets.iter().filter(back).cloned().collect());
        }
    }
    circles
}

/// Describes each circle of imports: its files, and the names that one file of it imports from another.
pub(crate) fn describe_circles(edges: &[Edge]) -> Vec<String> {
    let mut findings = Vec::new();
    for circle in circles(edges) {
        findings.push(format!("a circle of imports: {}", circle.join(", ")));
        let inside = |edge: &&Edge| circle.contains(&edge.from) && circle.contains(&edge.to);
        let mut names: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for edge in edges.iter().filter(inside) {
            let name = edge.path.rsplit("::").next().unwrap_or_default();
            let ends = (edge.from.as_str(), edge.to.as_str());
            names.entry(ends).or_default().insert(name);
        }
        for ((from, to), names) in names {
            let names: Vec<&str> = names.into_iter().collect();
            findings.push(format!("    {from} -> {to}: {}", names.join(", ")));
        }
    }
    findings
}
