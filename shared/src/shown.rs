//! Text that comes from elsewhere, on its way to a terminal or a log: what would move the cursor,
//! end the line, or turn the order of letters around is written out as an escape.

use std::{borrow::Cow, fmt, fmt::Write};

/// Text of one line for people. Every character that can be seen stays as it is, in whatever
/// script.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'t>(&'t str);

/// Wraps a text so that it can be printed.
pub fn shown(text: &str) -> Shown<'_> {
    Shown(text)
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_control(c) { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// Text of several lines for people.
pub fn lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(|line| shown(line).to_string()).collect();
    lines.join("\n")
}

/// JSON without such characters: it has them within strings alone, where JSON has an escape too.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_control(c) {
            // All of them are of the basic plane, and writing to a string does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

/// C0, DEL and C1; what separates lines and paragraphs; what sets the direction of text.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_letter_is_written_out_and_what_is_one_stays() {
        for (text, printed) in [
            ("team/app:1.0", "team/app:1.0"),
            ("größe 名前 \u{5e9}\u{5dc} 'a' \"b\" \\", "größe 名前 \u{5e9}\u{5dc} 'a' \"b\" \\"),
            ("\x1b]0;own\x07", "\\u{1b}]0;own\\u{7}"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\u{0}"),
            ("\x7f\u{80}\u{9b}\u{9f}\u{a0}", "\\u{7f}\\u{80}\\u{9b}\\u{9f}\u{a0}"),
            ("\u{61b}\u{61c}\u{200d}\u{200e}\u{200f}", "\u{61b}\\u{61c}\u{200d}\\u{200e}\\u{200f}"),
            (
                "\u{2027}\u{2028}\u{2029}\u{202a}\u{202e}",
                "\u{2027}\\u{2028}\\u{2029}\\u{202a}\\u{202e}",
            ),
            (
                "\u{202f}\u{2065}\u{2066}\u{2069}\u{206a}",
                "\u{202f}\u{2065}\\u{2066}\\u{2069}\u{206a}",
            ),
        ] {
            assert_eq!(shown(text).to_string(), printed);
        }
    }

    #[test]
    fn of_several_lines_only_their_ends_stay() {
        assert_eq!(lines("a\x1b[2J\r\n  b\u{202e}\n"), "a\\u{1b}[2J\\r\n  b\\u{202e}\n");
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = "a\u{202e}\u{9b}\u{7f}\u{2028}\n\"ö";
        let text = serde_json::to_string(value).unwrap();
        assert!(text.contains(is_control));
        let escaped = json(&text);
        assert_eq!(escaped, "\"a\\u202e\\u009b\\u007f\\u2028\\n\\\"ö\"");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), value);
    }
}
