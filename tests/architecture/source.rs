//! A source file cut into tokens: enough of a lexer to see paths, braces and comments, and which of them are tests.
//!
//! Invariant: strings, characters and comments never look like code; every token knows its line.

/// One token: an identifier, or one character of punctuation (`::` is one token).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// The text.
    pub(crate) text: String,
    /// Its line, from 1.
    pub(crate) line: usize,
    /// Whether it stands inside an item that only tests see.
    pub(crate) test: bool,
}

/// One source file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path below `src/`, or below the project for tests.
    pub(crate) name: String,
    /// Its lines.
    pub(crate) lines: Vec<String>,
    /// Its tokens in order.
    pub(crate) tokens: Vec<Token>,
}

impl Source {
    /// Cuts `text` into tokens.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let mut tokens = tokenize(text);
        mark_tests(&mut tokens);
        Self {
            name: name.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            tokens,
        }
    }

    /// The top-level module this file belongs to: `store` for `store/tree.rs`, `env` for `env.rs`.
    pub(crate) fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or(&self.name);
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The text of token `at`, or nothing beyond the end.
    pub(crate) fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }
}

/// Marks the files that are modules of tests only: `#[cfg(test)] mod tests;` in their parent.
pub(crate) fn mark_test_files(sources: &mut [Source]) {
    let mut test_files = Vec::new();
    for source in sources.iter() {
        let directory = module_directory(&source.name);
        for (at, token) in source.tokens.iter().enumerate() {
            if token.test && token.text == "mod" && source.text(at + 2) == ";" {
                let name = source.text(at + 1);
                test_files.extend(path_attribute(source, token.line));
                test_files.push(format!("{directory}{name}.rs"));
                test_files.push(format!("{directory}{name}/"));
            }
        }
    }
    for source in sources.iter_mut() {
        let is_test = test_files.iter().any(|file| {
            source.name == *file || (file.ends_with('/') && source.name.starts_with(file))
        });
        if is_test {
            source.tokens.iter_mut().for_each(|token| token.test = true);
        }
    }
}

/// The file that a `#[path = "file.rs"]` above the module on `line` names, beside the file that declares it.
fn path_attribute(source: &Source, line: usize) -> Option<String> {
    let above = source.lines[..line - 1].iter().rev();
    let attribute = above
        .take_while(|text| text.trim_start().starts_with(['#', '/']))
        .find(|text| text.trim_start().starts_with("#[path"))?;
    let beside = source
        .name
        .rfind('/')
        .map_or("", |slash| &source.name[..=slash]);
    attribute
        .split('"')
        .nth(1)
        .map(|file| format!("{beside}{file}"))
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

/// Cuts text into tokens, dropping comments, strings and characters.
fn tokenize(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let next = skip_text(&chars, at);
        if next > at {
            line += chars[at..next].iter().filter(|c| **c == '\n').count();
            at = next;
            continue;
        }
        let start = at;
        if is_word(chars[at]) {
            while at < chars.len() && is_word(chars[at]) {
                at += 1;
            }
        } else if chars[at] == ':' && chars.get(at + 1) == Some(&':') {
            at += 2;
        } else {
            at += 1;
        }
        let text: String = chars[start..at].iter().collect();
        if text == "\n" {
            line += 1;
        } else if !text.trim().is_empty() {
            tokens.push(Token {
                text,
                line,
                test: false,
            });
        }
    }
    tokens
}

/// Where the comment, string or character literal that starts at `at` ends; `at` itself if none starts there.
fn skip_text(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n'),
        ['/', '*', ..] => Some(block_comment(rest)),
        ['r' | 'b' | 'c', ..] if at == 0 || !is_word(chars[at - 1]) => {
            return at + prefixed_string(rest);
        }
        ['"', ..] => Some(string(rest)),
        // A character, not a lifetime: it closes after one character or an escape.
        ['\'', '\\', ..] => rest.iter().skip(3).position(|c| *c == '\'').map(|n| n + 4),
        ['\'', _, '\'', ..] => Some(3),
        _ => Some(0),
    };
    at + length.unwrap_or(rest.len()).min(rest.len())
}

/// The length of a raw, byte or C string at the start of `rest`; 0 if there is none (a word like `read`).
fn prefixed_string(rest: &[char]) -> usize {
    let letters = rest
        .iter()
        .take_while(|c| matches!(c, 'r' | 'b' | 'c'))
        .count();
    let hashes = rest[letters..].iter().take_while(|c| **c == '#').count();
    let raw = rest[..letters].contains(&'r');
    match rest.get(letters + hashes) {
        Some('"') if raw => {
            let body = letters + hashes + 1;
            let end: Vec<char> = std::iter::once('"')
                .chain(std::iter::repeat_n('#', hashes))
                .collect();
            let length = rest[body..]
                .windows(end.len())
                .position(|window| window == end);
            length.map_or(rest.len(), |length| body + length + end.len())
        }
        Some('"') if hashes == 0 => letters + string(&rest[letters..]),
        Some('\'') if hashes == 0 && letters == 1 && rest[0] == 'b' => 1 + skip_text(&rest[1..], 0),
        _ => 0,
    }
}

/// The length of the string literal at the start of `rest`, quotes counted.
fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of the (nested) block comment at the start of `rest`.
fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Whether `c` may stand in an identifier or number.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Marks the tokens of items under `#[test]` and `#[cfg(test)]`.
fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text != "#" || tokens.get(at + 1).is_none_or(|token| token.text != "[") {
            at += 1;
            continue;
        }
        let close = matching(tokens, at + 1);
        let words = || {
            tokens[at + 2..close]
                .iter()
                .map(|token| token.text.as_str())
        };
        let for_tests = words().any(|word| word == "test") && !words().any(|word| word == "not");
        let end = if for_tests {
            item_end(tokens, close + 1)
        } else {
            close
        };
        if for_tests {
            tokens[at..=end]
                .iter_mut()
                .for_each(|token| token.test = true);
        }
        at = end + 1;
    }
}

/// The last token of the item that starts at `start`: its closing brace, or the semicolon of an item without one.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => return matching(tokens, at),
            ";" => return at,
            "(" | "[" => at = matching(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len() - 1
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
