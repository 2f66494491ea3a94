//! Pages of docs/ against the code: a test that SEMANTICS.md or THREATS.md names exists in the file it names, and a name of GLOSSARY.md's
//! last column exists in the code.

/// The texts between backticks, line breaks as spaces.
fn quoted(page: &str) -> Vec<String> {
    let outside_blocks = page.split("```").step_by(2).collect::<Vec<_>>().join(" ");
    let parts = outside_blocks.split('`').skip(1).step_by(2);
    parts
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Whether `text` has `word` with no letter, digit or underscore beside it.
fn has_word(text: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(joins) && !text[at + word.len()..].starts_with(joins))
}

/// Tests of the page `title`, written `path.rs: name` or as a further `name` of three words or more, that the last named file does
/// not have. `read` gives the text of a file of the project.
pub(crate) fn missing_tests(
    title: &str,
    page: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut findings = Vec::new();
    let mut file = (String::new(), None);
    for part in quoted(page) {
        let name = match part.split_once(".rs: ") {
            Some((path, name)) => {
                let path = format!("{path}.rs");
                file = (path.clone(), read(&path));
                name.to_owned()
            }
            None => part,
        };
        let is_test = name.matches('_').count() >= 2
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let (path, text) = &file;
        if is_test && !text.as_ref().is_some_and(|text| has_word(text, &name)) {
            findings.push(format!(
                "docs/{title} names {path}: {name}, which does not exist"
            ));
        }
    }
    findings
}

/// Names of GLOSSARY.md's last column that `code` does not have. Rows (`C F`) and flags are left out.
pub(crate) fn missing_names(page: &str, code: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let names = cells.flat_map(quoted).flat_map(|cell| {
        let is_name = |part: &&str| part.len() > 1 && !cell.starts_with("--");
        let parts = cell.split(|c: char| !c.is_alphanumeric() && c != '_');
        parts.filter(is_name).map(str::to_owned).collect::<Vec<_>>()
    });
    names
        .filter(|name| !has_word(code, name))
        .map(|name| format!("docs/GLOSSARY.md names {name}, which the code does not have"))
        .collect()
}

#[test]
fn a_test_or_a_type_that_does_not_exist_is_found() {
    let read = |path: &str| (path == "a.rs").then(|| "fn one_two_three() {}".to_owned());
    let page = "It holds. `a.rs:\n  one_two_three`, `one_two`, `copy` `one_two_three_four` `b.rs: one_two_three`";
    assert_eq!(
        missing_tests("SEMANTICS.md", page, read),
        [
            "docs/SEMANTICS.md names a.rs: one_two_three_four, which does not exist",
            "docs/SEMANTICS.md names b.rs: one_two_three, which does not exist",
        ]
    );
    let page = "| word | meaning | in the code |\n| a | `Other` | `Queue`, row `C F`, `Ino::gone`, `--dirty-max` |";
    assert_eq!(
        missing_names(page, "struct Queue; struct Ino;"),
        ["docs/GLOSSARY.md names gone, which the code does not have"]
    );
}
