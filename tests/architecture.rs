//! The architecture, as a test: layers, rooms of foreign crates, lengths, proofs, that the pages of docs/ name what
//! exists, and that every test file is a module of a test binary.
//!
//! The rules are functions over parsed sources (`architecture/source.rs`), so that each is also shown to fail on a planted
//! violation. A finding names file, line and rule. Lists of exceptions are exact: one that no longer exists is a finding.

#[path = "architecture/floors.rs"]
mod floors;
#[path = "architecture/format.rs"]
mod format;
#[path = "architecture/graph.rs"]
mod graph;
#[path = "architecture/names.rs"]
mod names;
#[path = "architecture/pages.rs"]
mod pages;
#[path = "architecture/planted.rs"]
mod planted;
#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use std::path::{Path, PathBuf};

use source::Source;

/// The root of the project.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` file below `directory`, by name.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = text_files(directory);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found
}

/// Every file of source or prose below `directory`, by name; the file itself if it is one.
fn text_files(directory: &Path) -> Vec<PathBuf> {
    if directory.is_file() {
        return vec![directory.to_path_buf()];
    }
    let is_text = |path: &Path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("rs" | "md" | "py" | "c" | "sh" | "toml"))
    };
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()));
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                open.push(path);
            } else if is_text(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The sources of the crate, test-only files marked as such.
fn sources() -> Vec<Source> {
    let directory = root().join("src");
    let mut sources: Vec<Source> = rust_files(&directory)
        .into_iter()
        .map(|path| read_source(&directory, &path))
        .collect();
    source::mark_test_files(&mut sources);
    assert!(
        !sources.is_empty(),
        "no sources below {}",
        directory.display()
    );
    sources
}

/// Reads one file; its name is relative to `base`.
fn read_source(base: &Path, path: &Path) -> Source {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let name = path.strip_prefix(base).expect("below its base");
    Source::new(&name.to_string_lossy(), &text)
}

/// Fails with every finding on a line of its own.
fn check(findings: Vec<String>) {
    assert!(
        findings.is_empty(),
        "{} findings:\n  {}",
        findings.len(),
        findings.join("\n  ")
    );
}

/// Runs `rule` over every source of the crate.
fn check_sources(rule: fn(&Source) -> Vec<String>) {
    check(sources().iter().flat_map(rule).collect());
}

/// Imports go downward only.
#[test]
fn layers_import_downward_only() {
    check_sources(rules::layers);
}

/// The floors of the store import downward only, and each file of the store lies on one.
#[test]
fn floors_of_the_store_import_downward_only() {
    let sources = sources();
    let edges = graph::Graph::new(&sources).edges(&sources);
    assert!(edges.len() > 1000, "{} imports found", edges.len());
    let mut findings = floors::without_floor(&sources);
    findings.extend(floors::upward(&edges));
    check(findings);
}

/// No method is called that only a room or a floor above defines.
#[test]
fn methods_are_called_downward_only() {
    check(floors::upward_calls(&sources()));
}

/// A type of the store has its methods in the folder that defines it.
#[test]
fn a_type_of_the_store_has_its_methods_on_its_floor() {
    let sources = sources();
    check(floors::impls_elsewhere(
        &sources,
        &graph::Graph::new(&sources),
    ));
}

/// No file imports, directly or through other files, a file that imports it.
#[test]
fn files_import_each_other_in_no_circle() {
    let sources = sources();
    let edges = graph::Graph::new(&sources).edges(&sources);
    check(graph::describe_circles(&edges));
}

/// A type's name is defined once in the crate.
#[test]
fn a_type_has_a_name_of_its_own() {
    check(names::repeated_types(&sources(), names::REPEATED_TYPES));
}

/// No function takes a tuple: a struct names the parts.
#[test]
fn no_parameter_is_a_tuple() {
    check(names::tuple_parameters(&sources()));
}

/// Files and directories whose prose is checked. A further one is added when it passes, until `src` and `docs` are here.
const PROSE: [&str; 6] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "docs",
    "src",
    "tests",
];

/// Prose names its subject: a process, a mount, a user.
#[test]
fn prose_names_its_subject() {
    let mut findings = Vec::new();
    for name in PROSE {
        for path in text_files(&root().join(name)) {
            let text = std::fs::read_to_string(&path).expect("a text file");
            let name = path.strip_prefix(root()).expect("below the root");
            findings.extend(names::vague_words(&name.to_string_lossy(), &text));
        }
    }
    check(findings);
}

/// A foreign crate is named in its own room only.
#[test]
fn foreign_crates_stay_in_their_rooms() {
    check_sources(rules::foreign_crates);
}

/// Files stay readable: at most 600 lines, tests counted.
#[test]
fn files_are_short() {
    let mut findings: Vec<String> = sources().iter().flat_map(rules::file_length).collect();
    let tests = root().join("tests");
    for path in rust_files(&tests) {
        findings.extend(rules::file_length(&read_source(&root(), &path)));
    }
    check(findings);
}

/// Functions stay readable: at most 70 lines.
#[test]
fn functions_are_short() {
    let mut findings: Vec<String> = sources().iter().flat_map(rules::function_length).collect();
    for path in rust_files(&root().join("tests")) {
        findings.extend(rules::function_length(&read_source(&root(), &path)));
    }
    check(findings);
}

/// What may panic outside tests has its proof in a comment beside it.
#[test]
fn panics_have_their_proof() {
    check_sources(rules::unproven_panics);
}

/// No unfinished work, and no file name that does not say what the file owns.
#[test]
fn no_unfinished_work_and_no_file_name_without_meaning() {
    check_sources(rules::words);
}

/// docs/FORMAT.md defines every stored structure as the code does.
#[test]
fn the_format_page_agrees_with_the_code() {
    let page = std::fs::read_to_string(root().join("docs/FORMAT.md")).expect("docs/FORMAT.md");
    let rooms = [
        "store/schema/rows.rs",
        "store/schema/applied_row.rs",
        "store/schema/journal_record.rs",
        "store/model/ids.rs",
        "store/model/version.rs",
        "store/commit/log.rs",
    ];
    let rooms = [&rooms[..], &["store/data/segment.rs", "meta/mod.rs"]].concat();
    let sources = sources();
    let stored: std::collections::BTreeMap<_, _> = sources
        .iter()
        .filter(|source| rooms.contains(&source.name.as_str()))
        .flat_map(format::stored)
        .collect();
    assert!(stored.len() > 40, "{stored:?}");
    check(format::missing(&page, &stored));
    let named = |name: &str| {
        let source = sources.iter().find(|source| source.name == name);
        format::named_keys(source.expect(name))
    };
    let (shown, reserved) = format::shown_keys(&page);
    // The interval table `H T` has values of a form of its own, so it is not declared with the others.
    assert_eq!(
        shown,
        &named("store/schema/tables.rs") | &named("store/schema/keys.rs"),
        "keys of FORMAT.md, and of the code"
    );
    assert!(
        shown.is_disjoint(&reserved),
        "{shown:?}, reserved: {reserved:?}"
    );
}

/// Every test that docs/SEMANTICS.md and docs/THREATS.md name exists.
#[test]
fn the_tests_that_the_pages_of_promises_name_exist() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).ok();
    let mut findings = Vec::new();
    for title in ["SEMANTICS.md", "THREATS.md"] {
        let page = read(&format!("docs/{title}")).expect(title);
        findings.extend(pages::missing_tests(title, &page, read));
    }
    check(findings);
}

/// Every name of the code that docs/GLOSSARY.md has exists.
#[test]
fn the_names_of_the_glossary_exist() {
    let page = std::fs::read_to_string(root().join("docs/GLOSSARY.md")).expect("GLOSSARY.md");
    let files = rust_files(&root().join("src")).into_iter();
    let code: Vec<_> = files
        .map(|path| std::fs::read_to_string(path).expect("a source"))
        .collect();
    check(pages::missing_names(&page, &code.concat()));
}

/// A file beside a test binary's `main.rs` that no module names would silently not run.
#[test]
fn no_test_file_is_forgotten() {
    let mut findings = Vec::new();
    let tests = root().join("tests");
    for entry in std::fs::read_dir(&tests).expect("tests/") {
        let directory = entry.expect("a directory entry").path();
        if !directory.is_dir() {
            continue;
        }
        let named = ["main.rs", "mod.rs"].iter().find_map(|file| {
            let path = directory.join(file);
            path.is_file().then_some(path)
        });
        // tests/architecture/ is named file by file in tests/architecture.rs.
        let head = named.unwrap_or_else(|| directory.with_extension("rs"));
        let Ok(text) = std::fs::read_to_string(&head) else {
            findings.push(format!("{}: no main.rs or mod.rs", directory.display()));
            continue;
        };
        let siblings: Vec<String> = rust_files(&directory)
            .iter()
            .filter(|path| path.parent() == Some(directory.as_path()) && **path != head)
            .map(|path| {
                path.file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        findings.extend(rules::forgotten_modules(
            &head.display().to_string(),
            &text,
            &siblings,
        ));
    }
    check(findings);
}
