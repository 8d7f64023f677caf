//! A source taken apart into words, as far as the paths in it need: no comments, no text in quotes,
//! and none of what is compiled for tests alone.

use std::{iter::Peekable, str::Chars};

/// The words and signs of a source. `::` is one sign, every other is a character.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut left = text.chars().peekable();
    while let Some(first) = left.next() {
        match first {
            '/' if left.peek() == Some(&'/') => {
                left.by_ref().find(|it| *it == '\n');
            }
            '"' => skip_text(&mut left),
            '\'' => skip_character(&mut left),
            ':' if left.next_if_eq(&':').is_some() => words.push("::".to_owned()),
            first if is_of_a_word(first) => {
                let mut word = first.to_string();
                while let Some(next) = left.next_if(|it| is_of_a_word(*it)) {
                    word.push(next);
                }
                if !(word.ends_with('r') && skip_raw_text(&word, &mut left)) {
                    words.push(word);
                }
            }
            first if first.is_whitespace() => {}
            first => words.push(first.to_string()),
        }
    }
    words
}

fn is_of_a_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn skip_text(left: &mut Peekable<Chars<'_>>) {
    while let Some(next) = left.next() {
        match next {
            '\\' => drop(left.next()),
            '"' => return,
            _ => {}
        }
    }
}

/// Skips the rest of `r"…"` and of `r#"…"#`, if that is what the word begins.
fn skip_raw_text(word: &str, left: &mut Peekable<Chars<'_>>) -> bool {
    let rest: String = left.clone().take_while(|it| matches!(it, '#' | '"')).collect();
    let hashes = rest.chars().take_while(|it| *it == '#').count();
    if !matches!(word, "r" | "br") || !rest[hashes..].starts_with('"') {
        return false;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let text: String = left.clone().collect();
    let begins = hashes + 1;
    let length = text[begins..]
        .find(&end)
        .map_or(text.len(), |at| begins + text[begins..begins + at].chars().count() + end.len());
    left.take(length).for_each(drop);
    true
}

/// Skips the rest of a character in quotes; a lifetime has one quote and is a word like others.
fn skip_character(left: &mut Peekable<Chars<'_>>) {
    let mut ahead = left.clone();
    let is_character = match ahead.next() {
        Some('\\') => true,
        _ => ahead.next() == Some('\''),
    };
    if !is_character {
        return;
    }
    if left.next() == Some('\\') {
        left.next();
    }
    left.by_ref().find(|it| *it == '\'');
}

/// The words without those of items that are compiled for tests or fuzzing alone, and the modules
/// among those items that are files of their own.
pub(super) fn without_tests(words: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < words.len() {
        if !is_for_tests(&words[at..]) {
            kept.push(words[at].clone());
            at += 1;
            continue;
        }
        while words.get(at).is_some_and(|word| word == "#") {
            at = end_of_group(words, at + 1);
        }
        let end = end_of_item(words, at);
        let module = words[at..end].iter().position(|word| word == "mod");
        if let (Some(module), Some(";")) = (module, words.get(end - 1).map(String::as_str)) {
            modules.push(words[at + module + 1].clone());
        }
        at = end;
    }
    (kept, modules)
}

fn is_for_tests(words: &[String]) -> bool {
    let begins =
        |with: &[&str]| words.iter().zip(with).filter(|(a, b)| a == b).count() == with.len();
    begins(&["#", "[", "cfg", "(", "test", ")"]) || begins(&["#", "[", "cfg", "(", "feature"])
}

/// Behind the bracket that closes the one at `at`.
fn end_of_group(words: &[String], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, word) in words.iter().enumerate().skip(at) {
        match word.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    words.len()
}

/// Behind the item that begins at `at`: it ends with a semicolon, or with its block.
fn end_of_item(words: &[String], at: usize) -> usize {
    let is_statement = words[at..]
        .iter()
        .find(|word| !matches!(word.as_str(), "pub" | "(" | ")" | "crate" | "super"))
        .is_some_and(|word| matches!(word.as_str(), "use" | "const" | "static" | "type"));
    let mut index = at;
    while index < words.len() {
        match words[index].as_str() {
            ";" => return index + 1,
            "{" if !is_statement => return end_of_group(words, index),
            "(" | "[" | "{" => index = end_of_group(words, index),
            _ => index += 1,
        }
    }
    words.len()
}
