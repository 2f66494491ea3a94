//! A source file as the rules read it: its syntax tree, its tokens in order, and which of them only tests see.
//!
//! `syn` parses and `proc_macro2` lexes. The tokens are kept beside the tree because the tree ends at the braces of a macro call:
//! `tokio::select!`, `assert!` and `proptest!` hold code that the rules have to see too.
//! Invariant: comments and doc comments are no tokens; a literal is one token, quotes included.

use proc_macro2::{Delimiter, LineColumn, Spacing, Span, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Meta, Token as Punct};

/// One token: an identifier, a literal, or one character of punctuation (`::` is one token).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// The text.
    pub(crate) text: String,
    /// Where it starts.
    pub(crate) start: LineColumn,
    /// Whether it stands inside an item that only tests see.
    pub(crate) test: bool,
}

impl Token {
    /// Its line, from 1.
    pub(crate) fn line(&self) -> usize {
        self.start.line
    }

    /// Whether it is a name or a keyword.
    pub(crate) fn is_word(&self) -> bool {
        self.text
            .starts_with(|c: char| c.is_alphabetic() || c == '_')
            && !self.text.contains(['"', '\''])
    }
}

/// One source file.
pub(crate) struct Source {
    /// Its path below `src/`, or below the project for tests.
    pub(crate) name: String,
    /// Its lines.
    pub(crate) lines: Vec<String>,
    /// Its tokens in order.
    pub(crate) tokens: Vec<Token>,
    /// Its syntax tree.
    pub(crate) file: syn::File,
    /// Where the items that only tests see start and end.
    tests: Vec<(LineColumn, LineColumn)>,
    /// Whether the whole file is a module of tests.
    pub(crate) is_test: bool,
}

impl Source {
    /// Parses `text`. Panics if it is no Rust source.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| {
            panic!("{name}:{}: {error}", error.span().start().line);
        });
        let mut ranges = TestRanges::default();
        ranges.visit_file(&file);
        let tests = ranges.found;
        let mut tokens = tokenize(text);
        for token in &mut tokens {
            token.test = within(&tests, token.start);
        }
        Self {
            name: name.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            tokens,
            file,
            tests,
            is_test: false,
        }
    }

    /// The top-level module this file belongs to: `store` for `store/tree.rs`, `env` for `env.rs`.
    pub(crate) fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or(&self.name);
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The text of token `at`, or nothing beyond the end.
    pub(crate) fn text(&self, at: usize) -> &str {
        text(&self.tokens, at)
    }

    /// Whether only tests see what is at `span`.
    pub(crate) fn is_test_at(&self, span: Span) -> bool {
        self.is_test || within(&self.tests, span.start())
    }

    /// `name:line` of a span.
    pub(crate) fn place(&self, span: Span) -> String {
        format!("{}:{}", self.name, span.start().line)
    }
}

/// The text of token `at`, or nothing beyond the end.
pub(crate) fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

/// Whether `at` lies in one of `ranges`.
fn within(ranges: &[(LineColumn, LineColumn)], at: LineColumn) -> bool {
    ranges
        .iter()
        .any(|(start, end)| (start..end).contains(&&at))
}

/// Marks the files that are modules of tests only: `#[cfg(test)] mod tests;` in their parent.
pub(crate) fn mark_test_files(sources: &mut [Source]) {
    let mut test_files = Vec::new();
    for source in sources.iter() {
        let directory = module_directory(&source.name);
        for item in &source.file.items {
            let syn::Item::Mod(module) = item else {
                continue;
            };
            if module.content.is_none() && source.is_test_at(module.span()) {
                test_files.extend(path_attribute(source, &module.attrs));
                test_files.push(format!("{directory}{}.rs", module.ident));
                test_files.push(format!("{directory}{}/", module.ident));
            }
        }
    }
    for source in sources.iter_mut() {
        let is_test = test_files.iter().any(|file| {
            source.name == *file || (file.ends_with('/') && source.name.starts_with(file))
        });
        if is_test {
            source.is_test = true;
            source.tokens.iter_mut().for_each(|token| token.test = true);
        }
    }
}

/// The file that `#[path = "file.rs"]` names, beside the file that declares it.
fn path_attribute(source: &Source, attributes: &[Attribute]) -> Option<String> {
    let beside = source
        .name
        .rfind('/')
        .map_or("", |slash| &source.name[..=slash]);
    attributes.iter().find_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        let syn::Expr::Lit(literal) = &pair.value else {
            return None;
        };
        match &literal.lit {
            syn::Lit::Str(file) if pair.path.is_ident("path") => {
                Some(format!("{beside}{}", file.value()))
            }
            _ => None,
        }
    })
}

/// Where the modules that `file` declares lie: `store/` for `store/mod.rs`, `store/tree/` for `store/tree.rs`.
fn module_directory(file: &str) -> String {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    for head in ["mod", "lib", "main"] {
        if stem == head {
            return String::new();
        }
        if let Some(directory) = stem.strip_suffix(&format!("/{head}")) {
            return format!("{directory}/");
        }
    }
    format!("{stem}/")
}

/// The tokens of `text`. Panics if its brackets do not match.
pub(crate) fn tokenize(text: &str) -> Vec<Token> {
    let stream: TokenStream = text
        .parse()
        .unwrap_or_else(|error| panic!("{error} in: {text}"));
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    tokens
}

/// Adds the tokens of `stream` in order, brackets among them and doc comments left out.
fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let mut rest = stream.into_iter().peekable();
    while let Some(tree) = rest.next() {
        match tree {
            TokenTree::Group(group) => {
                if is_doc(&group) && ends_with_hash(tokens) {
                    let marks = if text(tokens, tokens.len() - 1) == "!" {
                        2
                    } else {
                        1
                    };
                    tokens.truncate(tokens.len() - marks);
                    continue;
                }
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                tokens.push(token(open.to_owned(), group.span_open()));
                flatten(group.stream(), tokens);
                tokens.push(token(close.to_owned(), group.span_close()));
            }
            TokenTree::Punct(mark) => {
                let is_path = mark.as_char() == ':'
                    && mark.spacing() == Spacing::Joint
                    && matches!(rest.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
                if is_path {
                    rest.next();
                    tokens.push(token("::".to_owned(), mark.span()));
                } else {
                    tokens.push(token(mark.as_char().to_string(), mark.span()));
                }
            }
            TokenTree::Ident(name) => tokens.push(token(name.to_string(), name.span())),
            TokenTree::Literal(value) => tokens.push(token(value.to_string(), value.span())),
        }
    }
}

/// Whether a group is what the lexer makes of a doc comment: `[doc = ".."]`.
fn is_doc(group: &proc_macro2::Group) -> bool {
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Bracket
        && matches!(first, Some(TokenTree::Ident(name)) if name == "doc")
}

/// Whether the last tokens are `#` or `#!`, which begin an attribute.
fn ends_with_hash(tokens: &[Token]) -> bool {
    match tokens {
        [.., hash, mark] if mark.text == "!" => hash.text == "#",
        [.., hash] => hash.text == "#",
        [] => false,
    }
}

/// A token that no test range has been applied to.
fn token(text: String, span: Span) -> Token {
    Token {
        text,
        start: span.start(),
        test: false,
    }
}

/// The token that closes the bracket at `open`.
pub(crate) fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len() - 1
}

/// Collects where the nodes start and end that have `#[test]` or `#[cfg(test)]`.
#[derive(Default)]
struct TestRanges<'ast> {
    /// The nodes around the current one, outermost first.
    around: Vec<&'ast dyn Spanned>,
    /// What was found.
    found: Vec<(LineColumn, LineColumn)>,
}

/// Visits one kind of node with the node on the stack.
macro_rules! with_owner {
    ($($method:ident: $node:ty),+ $(,)?) => {
        $(fn $method(&mut self, node: &'ast $node) {
            self.around.push(node);
            visit::$method(self, node);
            self.around.pop();
        })+
    };
}

impl<'ast> Visit<'ast> for TestRanges<'ast> {
    with_owner! {
        visit_file: syn::File,
        visit_item: syn::Item,
        visit_impl_item: syn::ImplItem,
        visit_trait_item: syn::TraitItem,
        visit_foreign_item: syn::ForeignItem,
        visit_stmt: syn::Stmt,
        visit_expr: syn::Expr,
        visit_arm: syn::Arm,
        visit_field: syn::Field,
        visit_field_value: syn::FieldValue,
        visit_field_pat: syn::FieldPat,
        visit_fn_arg: syn::FnArg,
        visit_variant: syn::Variant,
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if is_for_tests(&attribute.meta) {
            let owner = self
                .around
                .last()
                .expect("an attribute has an owner")
                .span();
            self.found.push((owner.start(), owner.end()));
        }
    }
}

/// Whether an attribute leaves its item to tests: `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, ..))]`.
fn is_for_tests(meta: &Meta) -> bool {
    let last = meta.path().segments.last();
    let is_test = last.is_some_and(|segment| segment.ident == "test");
    let is_cfg = meta.path().is_ident("cfg");
    is_test || (is_cfg && conditions(meta).iter().all(needs_test) && !conditions(meta).is_empty())
}

/// Whether a condition of `cfg` holds in tests only.
fn needs_test(condition: &Meta) -> bool {
    let path = condition.path();
    match conditions(condition) {
        _ if path.is_ident("test") => true,
        inner if path.is_ident("all") => inner.iter().any(needs_test),
        inner if path.is_ident("any") => !inner.is_empty() && inner.iter().all(needs_test),
        _ => false,
    }
}

/// The conditions in the parentheses of `cfg`, `all` or `any`.
fn conditions(meta: &Meta) -> Vec<Meta> {
    let Meta::List(list) = meta else {
        return Vec::new();
    };
    let parse = Punctuated::<Meta, Punct![,]>::parse_terminated;
    list.parse_args_with(parse)
        .map(|inner| inner.into_iter().collect())
        .unwrap_or_default()
}
