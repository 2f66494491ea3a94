//! Each rule finds a planted violation, and does not find one in what is right.

use crate::format;
use crate::rules;
use crate::source::{Source, mark_test_files};

/// The findings of `rule` in `text`, as if it were the file `name`.
fn findings(rule: fn(&Source) -> Vec<String>, name: &str, text: &str) -> Vec<String> {
    rule(&Source::new(name, text))
}

#[test]
fn layers_see_what_is_upward() {
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
fn foreign_crates_are_seen_outside_their_rooms() {
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
            "self.backend.object_store().put(); fn object_store() {}",
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
fn lengths_are_counted() {
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
fn panics_need_their_proof() {
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
fn words_and_forgotten_files_are_seen() {
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
fn what_the_format_page_lacks_is_seen() {
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
    let code = "f(*b\"GX\"); g(b\"namespace\");\n#[cfg(test)]\nh(b\"ZZ\")";
    assert_eq!(format::named_keys(code), keys(&["GX"]));
}
