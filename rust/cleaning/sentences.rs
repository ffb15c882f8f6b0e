//! Sentences, and how many words they have.

use crate::error::Result;
use crate::interrupt::Steps;
use crate::memory;
use crate::text::{LONG_TEXT, is_alphanumeric, is_space};
use crate::words::{Range, is_unspaced};

use super::edit::Edit;

/// After these a point ends no sentence, in order.
const ABBREVIATIONS: [&str; 39] = [
    "al", "approx", "capt", "cf", "ch", "co", "col", "corp", "dept", "dr", "ed", "eds", "eq",
    "etc", "fig", "figs", "gen", "gov", "inc", "jr", "lt", "ltd", "messrs", "mr", "mrs", "ms",
    "mt", "pp", "prof", "rep", "rev", "sec", "sen", "sgt", "sr", "st", "vol", "vols", "vs",
];

/// Bytes of the longest abbreviation.
const LONGEST: usize = 6;

/// What the end of a sentence begins with.
const END_STARTS: [bool; 256] = {
    let mut marks = [false; 256];
    let starts = b"\n.!?\xe2\xe3\xef";
    let mut index = 0;
    while index < starts.len() {
        marks[starts[index] as usize] = true;
        index += 1;
    }
    marks
};

/// The first byte at or after `start` that is marked, or the end.
pub fn find_marked(
    bytes: &[u8],
    mut start: usize,
    marks: &[bool; 256],
    steps: &mut Steps,
) -> Result<usize> {
    loop {
        let end = bytes.len().min(start.saturating_add(LONG_TEXT));
        if let Some(offset) = bytes[start..end].iter().position(|&byte| marks[byte as usize]) {
            return Ok(start + offset);
        }
        if end == bytes.len() {
            return Ok(end);
        }
        steps.take(LONG_TEXT)?;
        start = end;
    }
}

/// Removes the sentences that have fewer words.
pub fn remove_short(edit: &mut Edit<'_>, minimum: usize, steps: &mut Steps) -> Result<()> {
    let text = edit.text();
    let mut start = 0;
    while start < text.len() {
        let end = find_end(text, start, steps)?;
        if has_fewer_words(&text[start..end], minimum, steps)? {
            edit.remove(start..end, "")?;
        }
        start = end;
    }
    Ok(())
}

/// The sentences of a text, each with the white space after it: their ranges in bytes.
///
/// ```
/// let text = "Mr. Li said: “Go!” 他说：“走。”Then";
/// let sentences = lmcore::cleaning::split_sentences(text)?;
/// let sentences: Vec<&str> = sentences.iter().map(|r| &text[r.start..r.end]).collect();
/// assert_eq!(sentences, ["Mr. Li said: “Go!” ", "他说：“走。”", "Then"]);
/// # Ok::<(), lmcore::error::Error>(())
/// ```
///
/// # Errors
/// The memory is refused, or the caller stops.
pub fn split_sentences(text: &str) -> Result<Vec<Range>> {
    let mut sentences = Vec::new();
    let mut steps = Steps::default();
    let mut start = 0;
    while start < text.len() {
        let end = find_end(text, start, &mut steps)?;
        memory::push(&mut sentences, Range { start, end })?;
        start = end;
    }
    Ok(sentences)
}

/// Where the sentence ends that begins here, with the white space after it.
fn find_end(text: &str, start: usize, steps: &mut Steps) -> Result<usize> {
    let bytes = text.as_bytes();
    let mut next = start;
    loop {
        let place = find_marked(bytes, next, &END_STARTS, steps)?;
        steps.take((place - next) / 8 + 1)?;
        if place == bytes.len() {
            return Ok(place);
        }
        if bytes[place] == b'\n' {
            return skip_space(text, place + 1, steps);
        }
        let (marks, is_wide) = end_of_marks(text, place, steps)?;
        if marks == place {
            next = place + 1;
            while !text.is_char_boundary(next) {
                next += 1;
            }
            continue;
        }
        let end = end_of_run(text, marks, steps, |character| {
            matches!(
                character,
                '"' | '\'' | '”' | '’' | '」' | '』' | '）' | '》' | '】' | ')' | ']'
            )
        })?;
        if is_wide || is_end(text, start, place..marks, end, steps)? {
            return skip_space(text, end, steps);
        }
        next = end;
    }
}

/// Where the marks end that may end a sentence, and whether one of them is of full width.
fn end_of_marks(text: &str, start: usize, steps: &mut Steps) -> Result<(usize, bool)> {
    let mut is_wide = false;
    let mut end = start;
    for character in text[start..].chars() {
        match character {
            '.' | '!' | '?' => {}
            '。' | '．' | '｡' | '！' | '？' | '…' => is_wide = true,
            _ => break,
        }
        steps.take(1)?;
        end += character.len_utf8();
    }
    Ok((end, is_wide))
}

fn end_of_run(
    text: &str,
    start: usize,
    steps: &mut Steps,
    is_in: impl Fn(char) -> bool,
) -> Result<usize> {
    let mut end = start;
    for character in text[start..].chars().take_while(|&character| is_in(character)) {
        steps.take(1)?;
        end += character.len_utf8();
    }
    Ok(end)
}

fn skip_space(text: &str, start: usize, steps: &mut Steps) -> Result<usize> {
    end_of_run(text, start, steps, is_space)
}

/// Whether a sentence ends with these marks of ASCII.
fn is_end(
    text: &str,
    start: usize,
    marks: std::ops::Range<usize>,
    end: usize,
    steps: &mut Steps,
) -> Result<bool> {
    let after = skip_space(text, end, steps)?;
    if after == end && end < text.len() {
        return Ok(false);
    }
    let bytes = text.as_bytes();
    if bytes[marks.clone()].iter().any(|&mark| mark != b'.') {
        return Ok(true);
    }
    if bytes.get(after).is_some_and(u8::is_ascii_lowercase) {
        return Ok(false);
    }
    if marks.len() > 1 {
        return Ok(true);
    }
    let before = bytes[start..marks.start].iter().rev();
    let size = before.take_while(|&&byte| byte.is_ascii_alphabetic() || byte == b'.').count();
    steps.take(size / 8)?;
    let word = &bytes[marks.start - size..marks.start];
    Ok(!(size == 1 || word.contains(&b'.') || is_abbreviation(word)))
}

fn is_abbreviation(word: &[u8]) -> bool {
    let mut lower = [0; LONGEST];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    ABBREVIATIONS.binary_search_by_key(&&*lower, |known| known.as_bytes()).is_ok()
}

/// Whether a text has fewer words than this.
fn has_fewer_words(text: &str, minimum: usize, steps: &mut Steps) -> Result<bool> {
    let (mut words, mut has_word) = (0, false);
    for character in text.chars() {
        steps.take(1)?;
        if character.is_ascii() {
            if !has_word && character.is_ascii_alphanumeric() {
                words += 1;
                has_word = true;
            } else if has_word && is_space(character) {
                has_word = false;
            }
        } else if is_unspaced(character) {
            words += 1;
            has_word = false;
        } else if is_space(character) {
            has_word = false;
        } else if !has_word && is_alphanumeric(character) {
            words += 1;
            has_word = true;
        }
        if words >= minimum {
            return Ok(false);
        }
    }
    Ok(true)
}
