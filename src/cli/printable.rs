//! Texts of other users and machines in what a command prints for people: names of programs and hosts, settings.
//!
//! A terminal obeys control characters. JSON has them escaped.

/// Replaces control characters by their numbers, `\x1b`.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.push_str(&format!("\\x{:02x}", u32::from(character))),
            false => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_by_their_numbers() {
        assert_eq!(printable("caf\u{e9} \\x"), "caf\u{e9} \\x");
        assert_eq!(printable("a\u{1b}[2Jb\n\u{9b}"), "a\\x1b[2Jb\\x0a\\x9b");
    }
}
