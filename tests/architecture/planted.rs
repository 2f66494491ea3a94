//! Each rule finds a planted violation, and finds none in a correct source.

use crate::floors;
use crate::format;
use crate::graph::{self, Graph};
use crate::names;
use crate::rules;
use crate::source::{Source, mark_test_files};

/// The findings of `rule` in `text`, as if it were the file `name`.
fn findings(rule: fn(&Source) -> Vec<String>, name: &str, text: &str) -> Vec<String> {
    rule(&Source::new(name, text))
}

#[test]
fn the_layer_rule_finds_upward_imports() {
    let upward = [
        ("store/tree.rs", "use crate::fs::Handle;"),
        ("cache/block.rs", "use crate::{env::Env, meta::Batch};"),
        (
            "backend/mod.rs",
            "fn f() -> crate::store::Ino { crate::store::ROOT }",
        ),
        ("fs/past/at.rs", "use super::super::super::fuse::X;"),
        ("meta/mod.rs", "use super::backend::Backend;"),
        ("attic.rs", "fn f() {}"),
        ("fs/mod.rs", "use crate::Everything;"),
    ];
    for (name, text) in upward {
        assert!(
            !findings(rules::layers, name, text).is_empty(),
            "{name}: {text}"
        );
    }
    let downward = [
        (
            "fs/ops/io.rs",
            "use crate::{store::{Ino, Stat}, task::Tasks};\nuse super::Handle;",
        ),
        (
            "cache/block.rs",
            "// crate::meta is not seen\nconst S: &str = \"crate::fs::X\";",
        ),
        (
            "task.rs",
            "use crate::sync::Mutex;\nmod tests { use super::*; }",
        ),
        ("daemon.rs", "use crate::cli::Flags;"),
    ];
    for (name, text) in downward {
        assert_eq!(
            findings(rules::layers, name, text),
            Vec::<String>::new(),
            "{name}: {text}"
        );
    }
}

#[test]
fn a_foreign_crate_outside_its_room_is_found() {
    let wrong = [
        ("fs/mod.rs", "use fuser::Request;"),
        ("store/queue.rs", "fn f(x: slatedb::Db) {}"),
        ("meta/journal.rs", "use object_store::path::Path;"),
        ("backend/mod.rs", "use libc;"),
        ("cli_extra.rs", "use clap::Parser;"),
    ];
    for (name, text) in wrong {
        assert_eq!(
            findings(rules::foreign_crates, name, text).len(),
            1,
            "{name}: {text}"
        );
    }
    let right = [
        ("fuse/adapter.rs", "use fuser::Request; use libc::EIO;"),
        (
            "meta/slate.rs",
            "use object_store::ObjectStore; use slatedb::Db;",
        ),
        ("meta/slate/settings.rs", "use slatedb::config::Settings;"),
        (
            "store/mod.rs",
            "fn object_store() { self.backend.object_store().put(); }",
        ),
        ("fs/mod.rs", "/// Like `fuser::Request`.\nfn f() {}"),
    ];
    for (name, text) in right {
        assert_eq!(
            findings(rules::foreign_crates, name, text),
            Vec::<String>::new(),
            "{name}: {text}"
        );
    }
}

#[test]
fn long_files_and_functions_are_found() {
    let long_file = "fn f() {}\n".repeat(601);
    assert_eq!(
        findings(rules::file_length, "fs/mod.rs", &long_file).len(),
        1
    );
    let body = "    call('{', \"}\");\n".repeat(69);
    let long_function =
        format!("fn short() {{}}\nasync fn long(a: fn(u8) -> u8) -> u8 {{\n{body}}}\n");
    let found = findings(rules::function_length, "fs/mod.rs", &long_function);
    assert_eq!(found, ["fs/mod.rs:2: `long` has 71 lines, at most 70"]);
    let declarations =
        "trait T { fn a(&self); fn b(&self, x: [u8; 2]) -> u8; }\ntype F = fn(u8) -> u8;\n";
    let many = format!("{declarations}{}", "struct S {}\n".repeat(80));
    assert_eq!(
        findings(rules::function_length, "fs/mod.rs", &many),
        Vec::<String>::new()
    );
}

#[test]
fn a_panic_without_a_proof_is_found() {
    let wrong = [
        "fn f() { x.unwrap(); }",
        "fn f() {\n    // it is there\n    x.expect(\"there\");\n}",
        "fn f() {\n    // proof: of another statement\n    y();\n    panic!();\n}",
        "fn f() { x.map(Option::unwrap); }",
        "#[cfg(not(test))]\nfn f() { todo!() }",
        "#[cfg(test)]\nmod tests {}\nfn f() { x.unwrap() }",
    ];
    for text in wrong {
        assert_eq!(
            findings(rules::unproven_panics, "fs/mod.rs", text).len(),
            1,
            "{text}"
        );
    }
    let right = [
        "fn f() {\n    // Proof: the range was checked above.\n    let y = x\n        .first()\n        .expect(\"checked\");\n}",
        "fn f() { x.unwrap() } // proof: set by `new`",
        "fn f() { x.unwrap_or(1); /* x.unwrap() */ \"panic!()\"; }",
        "#[cfg(test)]\nmod tests {\n    fn helper() { x.unwrap(); }\n    #[test]\n    fn t() { panic!(); }\n}",
        "#[test]\nfn t() { x.unwrap(); }",
    ];
    for text in right {
        assert_eq!(
            findings(rules::unproven_panics, "fs/mod.rs", text),
            Vec::<String>::new(),
            "{text}"
        );
    }
}

#[test]
fn a_module_of_tests_may_panic_in_its_own_file() {
    let mut sources = vec![
        Source::new("fs/lock.rs", "#[cfg(test)]\nmod tests;"),
        Source::new("fs/lock/tests.rs", "fn helper() { x.unwrap(); }"),
        Source::new("fs/tests.rs", "fn not_declared() { x.unwrap(); }"),
        Source::new(
            "cache/block.rs",
            "#[cfg(test)]\n#[path = \"block_tests.rs\"]\nmod tests;",
        ),
        Source::new("cache/block_tests.rs", "fn helper() { x.unwrap(); }"),
    ];
    mark_test_files(&mut sources);
    let counts: Vec<usize> = sources
        .iter()
        .map(|s| rules::unproven_panics(s).len())
        .collect();
    assert_eq!(counts, [0, 0, 1, 0, 0]);
}

#[test]
fn unfinished_work_and_forgotten_files_are_found() {
    // Put together, so that a search for unfinished work does not find this line.
    let unfinished = format!("// {}DO: later", "TO");
    assert_eq!(findings(rules::words, "fs/mod.rs", &unfinished).len(), 1);
    assert_eq!(
        findings(rules::words, "fs/helpers.rs", "fn f() {}").len(),
        1
    );
    assert_eq!(
        findings(rules::words, "fs/handle.rs", "fn f() {}"),
        Vec::<String>::new()
    );
    let siblings = ["crash".to_owned(), "usage".to_owned()];
    let found = rules::forgotten_modules(
        "tests/mount/main.rs",
        "mod crash;\n// mod usage;",
        &siblings,
    );
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("usage.rs"), "{found:?}");
}

#[test]
fn a_difference_between_the_format_page_and_the_code_is_found() {
    let code = "#[derive(Debug, Serialize)]\npub(crate) struct A { x: u8, pub(crate) y: Vec<(u8, u8)> }\n\
        #[derive(Serialize)]\nenum B { #[default] One, Two { z: u8 }, Three(A) }\nstruct C { not_stored: u8 }";
    let stored = format::stored(&Source::new("store/schema/rows.rs", code));
    let missing = |page: &str| format::missing(&format!("text\n```\n{page}\n```\n"), &stored);
    let whole = "A  { x: u8,\n  y: [(u8, u8)] }\nB    0 One | 1 Two { z: u8 }\n  | 2 Three(A)";
    assert_eq!(missing(whole), Vec::<String>::new());
    for wrong in [
        &whole.replace("x: u8,", ""),
        &whole.replace("2 Three(A)", ""),
        &whole.replace("0 One | 1 Two", "0 Two | 1 One"),
        "A { x: u8, y: [(u8, u8)] }",
    ] {
        assert_eq!(missing(wrong).len(), 1, "{wrong}");
    }
    let page =
        "| `C D` | x |\n| `mode` | y |\nReserved today:\n| `G P` | z |\n## 5\n| `C I` | merged |\n";
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(format::shown_keys(page), (keys(&["CD"]), keys(&["GP"])));
    let code = "fn f() { g(*b\"GX\", b\"namespace\") }\n#[cfg(test)]\nfn h() { g(b\"ZZ\") }\n";
    assert_eq!(
        format::named_keys(&Source::new("keys.rs", code)),
        keys(&["GX"])
    );
}

/// Sources with these names and texts.
fn sources(files: &[(&str, &str)]) -> Vec<Source> {
    let mut sources: Vec<Source> = files
        .iter()
        .map(|(name, text)| Source::new(name, text))
        .collect();
    mark_test_files(&mut sources);
    sources
}

#[test]
fn code_inside_a_macro_call_is_seen() {
    let text = "fn f() { select! { _ = crate::cli::run() => x.unwrap(), } }";
    assert_eq!(findings(rules::layers, "store/a.rs", text).len(), 1);
    assert_eq!(
        findings(rules::unproven_panics, "store/a.rs", text).len(),
        1
    );
    let body = "    call();\n".repeat(70);
    let text = format!("proptest! {{\n    fn long(x: u8) {{\n{body}    }}\n}}\n");
    assert_eq!(
        findings(rules::function_length, "store/a.rs", &text),
        ["store/a.rs:2: `long` has 72 lines, at most 70"]
    );
}

#[test]
fn only_code_that_needs_a_test_build_counts_as_a_test() {
    let counts = [
        ("#[cfg(all(test, unix))]\nfn f() { x.unwrap() }", 0),
        ("#[cfg(any(test, unix))]\nfn f() { x.unwrap() }", 1),
        ("#[cfg_attr(test, inline)]\nfn f() { x.unwrap() }", 1),
        (
            "struct S {\n    #[cfg(test)]\n    a: u8,\n}\nfn f() { x.unwrap() }",
            1,
        ),
        (
            "fn f() {\n    #[cfg(test)]\n    x.unwrap();\n    y();\n    x.unwrap();\n}",
            1,
        ),
        ("#![cfg(test)]\nfn f() { x.unwrap() }", 0),
    ];
    for (text, count) in counts {
        let found = findings(rules::unproven_panics, "fs/mod.rs", text);
        assert_eq!(found.len(), count, "{text}");
    }
}

#[test]
fn an_import_from_a_higher_floor_is_found_behind_a_re_export() {
    let files = [
        ("lib.rs", "pub mod store;"),
        (
            "store/mod.rs",
            "mod commit; mod data; mod gc; mod tree; pub use tree::Tree; pub use data::*;",
        ),
        (
            "store/tree/mod.rs",
            "mod inode; pub use inode::Inode as Tree;",
        ),
        (
            "store/tree/inode.rs",
            "use crate::store::Data; pub struct Inode;",
        ),
        (
            "store/data/mod.rs",
            "use crate::store::Tree; pub struct Data;",
        ),
        (
            "store/commit/mod.rs",
            "fn f() { select! { _ = crate::store::tree::Tree::new() => {} } }",
        ),
        (
            "store/gc/mod.rs",
            "use super::{data::Data, tree::{Tree as Live}};",
        ),
        (
            "store/attic/mod.rs",
            "#[cfg(test)]\nmod tests { use crate::store::Tree; }",
        ),
    ];
    let sources = sources(&files);
    let edges = Graph::new(&sources).edges(&sources);
    let upward = floors::upward(&edges);
    let places: Vec<&str> = upward
        .iter()
        .filter_map(|finding| finding.split(':').next())
        .collect();
    assert_eq!(
        places,
        [
            "store/data/mod.rs",
            "store/commit/mod.rs",
            "store/gc/mod.rs"
        ],
        "{upward:?}"
    );
    assert_eq!(floors::without_floor(&sources).len(), 1);
    let circles = graph::describe_circles(&edges);
    assert_eq!(
        circles[0],
        "a circle of imports: store/data/mod.rs, store/tree/inode.rs"
    );
}

#[test]
fn methods_of_another_floor_are_found() {
    let files = [
        ("lib.rs", "pub mod store;"),
        (
            "store/tree/mod.rs",
            "pub struct Tree; impl Tree { fn lookup_entry(&self) {} }",
        ),
        (
            "store/data/mod.rs",
            "use crate::store::tree::Tree;\nimpl Tree { fn own(&self) { x.lookup_entry(); x.own() } }",
        ),
        (
            "store/mod.rs",
            "mod data; mod tree; impl std::fmt::Debug for tree::Tree {}",
        ),
        ("env.rs", "trait Clock { fn own(&self); }"),
    ];
    let sources = sources(&files);
    let calls = floors::upward_calls(&sources);
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(calls[0].contains("lookup_entry"), "{calls:?}");
    let impls = floors::impls_elsewhere(&sources, &Graph::new(&sources));
    assert_eq!(
        impls,
        ["store/data/mod.rs:2: methods of a type that store/tree/mod.rs defines"]
    );
}

#[test]
fn repeated_type_names_and_tuple_parameters_are_found() {
    let files = [
        (
            "fs/a.rs",
            "struct State; fn f((a, b): (u8, u8), c: &(u8, u8), d: [(u8, u8); 2], e: ()) {}",
        ),
        (
            "fs/b.rs",
            "mod inner { enum State {} }\n#[cfg(test)]\nmod tests { struct A; fn f(x: (u8,)) {} }",
        ),
        ("fs/c.rs", "type A = u8;\ntrait T { type State; }"),
    ];
    let sources = sources(&files);
    let found = names::repeated_types(&sources, &[]);
    assert_eq!(
        found,
        ["type `State` is defined at fs/a.rs:1 and fs/b.rs:1"]
    );
    assert_eq!(
        names::repeated_types(&sources, &["State"]),
        Vec::<String>::new()
    );
    let tuples = names::tuple_parameters(&sources);
    assert_eq!(
        tuples,
        ["2 parameters are tuples: name a struct, or pass the parts: fs/a.rs:1, fs/a.rs:1"]
    );
}

#[test]
fn a_vague_word_is_found_and_the_account_is_not() {
    let vague = concat!("no", "body");
    for text in [
        format!("// {vague} has it"),
        format!("// {}", vague.to_uppercase()),
        format!("\"{vague} listens\""),
    ] {
        assert_eq!(names::vague_words("a.rs", &text).len(), 1, "{text}");
    }
    for text in [
        format!(" as {vague} cat"),
        format!("[\"{vague}\"] `{vague}`"),
        format!("fn {vague}_else() {{}}"),
    ] {
        assert_eq!(
            names::vague_words("a.rs", &text),
            Vec::<String>::new(),
            "{text}"
        );
    }
}
