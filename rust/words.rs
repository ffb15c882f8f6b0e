//! Cutting raw text into words that remember where they stood.
//!
//! The rule stands in `reference/words.py`: white space separates; Chinese and Japanese
//! characters are words of their own; letters, marks, numbers and "_" run together, single
//! "-" between two runs joins them; any other character is a word with what modifies it.

use crate::error::{Kind, Result, quote};
use crate::interrupt::Steps;
use crate::memory;
use crate::text::{StringsRef, find_character, is_alphanumeric, is_mark, is_space};

/// Finding a word costs as much as so many machine words that are looked at.
const FOUND_STEPS: usize = 16;

/// What can go wrong with words alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A given word does not occur in the text where it should.
    #[error("words[{index}] {} is not in text after character {after}", quote(word))]
    NotInText {
        /// Which of the words.
        index: usize,
        /// The word.
        word: String,
        /// Characters of the text already used.
        after: usize,
    },
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::NotInText { .. } => Kind::Value,
        }
    }
}

/// A half-open range of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its first byte or character.
    pub start: usize,
    /// The one after the last.
    pub end: usize,
}

/// The words of a text: their ranges in bytes.
///
/// ```
/// let text = "EU-wide ban.";
/// let words: Vec<&str> =
///     lmcore::words::split_words(text)?.iter().map(|r| &text[r.start..r.end]).collect();
/// assert_eq!(words, ["EU-wide", "ban", "."]);
/// # Ok::<(), lmcore::error::Error>(())
/// ```
///
/// # Errors
/// The memory is refused, or the caller stops.
pub fn split_words(text: &str) -> Result<Vec<Range>> {
    let mut words = Vec::new();
    let mut steps = Steps::default();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        steps.take(1)?;
        if is_space(first) {
            start += first.len_utf8();
            continue;
        }
        let end = if starts_run(first) {
            let mut end = end_of_run(text, start, &mut steps)?;
            while let Some(joined) = text[end..].strip_prefix('-') {
                if !joined.starts_with(starts_run) {
                    break;
                }
                end = end_of_run(text, end + 1, &mut steps)?;
            }
            end
        } else {
            end_of_character(text, start)
        };
        memory::push(&mut words, Range { start, end })?;
        start = end;
    }
    Ok(words)
}

/// Where each of the given words stands in `text`, in bytes, each after the one before.
///
/// # Errors
/// A word that is not found, with its index and the number of characters already used; the
/// memory is refused, or the caller stops.
pub fn locate_words(text: &str, words: StringsRef<'_>) -> Result<Vec<Range>> {
    let mut ranges = Vec::new();
    memory::reserve(&mut ranges, words.len())?;
    let mut steps = Steps::default();
    let mut end = 0;
    for (index, word) in words.iter().enumerate() {
        steps.take(FOUND_STEPS)?;
        let found = memchr::memmem::find(&text.as_bytes()[end..], word.as_bytes());
        let Some(offset) = found else {
            let after = text[..end].chars().count();
            return Err(Problem::NotInText { index, word: word.to_owned(), after }.into());
        };
        let start = end + offset;
        end = start + word.len();
        ranges.push(Range { start, end });
    }
    Ok(ranges)
}

/// Turns ranges in bytes, in order and without overlap, into ranges in characters.
///
/// # Errors
/// The memory is refused, or the caller stops.
pub fn to_characters(text: &str, ranges: &[Range]) -> Result<Vec<Range>> {
    let (mut byte, mut character) = (0, 0);
    let mut advance = |to: usize| {
        character += text[byte..to].chars().count();
        byte = to;
        character
    };
    let mut characters = Vec::new();
    memory::reserve(&mut characters, ranges.len())?;
    let mut steps = Steps::default();
    for range in ranges {
        steps.take(FOUND_STEPS)?;
        characters.push(Range { start: advance(range.start), end: advance(range.end) });
    }
    Ok(characters)
}

pub(crate) fn is_unspaced(character: char) -> bool {
    matches!(u32::from(character),
        0x3005..=0x3007      // iteration mark, closing mark, zero
        | 0x3041..=0x3096    // Hiragana
        | 0x309B..=0x30FF    // voicing marks that stand alone, Katakana
        | 0x31F0..=0x31FF    // Katakana phonetic extensions
        | 0x3400..=0x4DBF    // CJK extension A
        | 0x4E00..=0x9FFF    // CJK unified ideographs
        | 0xF900..=0xFAFF    // CJK compatibility ideographs
        | 0xFF66..=0xFF9F    // half-width Katakana
        | 0x20000..=0x3FFFF  // CJK extensions B and later
    )
}

fn starts_run(character: char) -> bool {
    (character == '_' || is_alphanumeric(character) || is_mark(character))
        && !is_unspaced(character)
}

fn end_of_run(text: &str, start: usize, steps: &mut Steps) -> Result<usize> {
    find_character(text, start, steps, |character| !starts_run(character))
}

fn end_of_character(text: &str, start: usize) -> usize {
    let mut rest = text[start..].chars();
    let first = rest.next();
    if first.is_some_and(is_flag_half) && rest.as_str().starts_with(is_flag_half) {
        rest.next();
    }
    loop {
        let mut ahead = rest.clone();
        match ahead.next() {
            Some(c) if is_mark(c) || ('\u{1f3fb}'..='\u{1f3ff}').contains(&c) => rest = ahead,
            Some('\u{200d}') if ahead.next().is_some_and(|c| !is_space(c)) => rest = ahead,
            _ => return text.len() - rest.as_str().len(),
        }
    }
}

fn is_flag_half(character: char) -> bool {
    ('\u{1f1e6}'..='\u{1f1ff}').contains(&character)
}
