//! Generated text as words and labels.

use std::ops::Range;

use super::Matcher;
use crate::error::Result;
use crate::memory;
use crate::text::{find_near, is_space};
use crate::words::split_words;

/// A generated word with its label: byte ranges of the generated text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The word, stripped.
    pub word: Range<usize>,
    /// The label, stripped, as it was written.
    pub label: Range<usize>,
    /// Whether this is a later piece of a word that was cut: its label continues the entity.
    pub continues: bool,
}

impl Pair {
    /// The label as text: a later piece of a word continues with I-.
    pub fn label_text(&self, generation: &str) -> String {
        let label = &generation[self.label.clone()];
        match label.get(2..) {
            Some(kind) if self.continues && label != "O" => format!("I-{kind}"),
            _ => label.to_owned(),
        }
    }
}

/// What was read from a generated text, and what could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The generated words.
    pub words: Vec<String>,
    /// Their labels, as they were written.
    pub labels: Vec<String>,
    /// Labels that had no word before them.
    pub dropped_labels: Vec<String>,
    /// Text after the last label, stripped.
    pub trailing_text: String,
}

impl Matcher {
    /// Reads the words and labels of `word_1(label_1) word_2(label_2) ...`.
    ///
    /// A label is `(B-...)` or `(I-...)` up to the next `)` on the same line, or exactly `(O)`.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops.
    pub fn parse(&mut self, generation: &str) -> Result<()> {
        self.pairs.clear();
        self.dropped_labels.clear();
        let bytes = generation.as_bytes();
        let mut end = 0; // of the last label
        let mut stop = 0; // the nearest ")" or line feed at or after what was searched last
        let mut next = 0;
        while let Some(open) = find_near(bytes, next, b'(', b'(') {
            self.steps.take(1)?;
            next = open + 1;
            let Some(&[first, second]) = bytes.get(next..).and_then(<[u8]>::first_chunk) else {
                break;
            };
            let (close, label) = match (first, second) {
                (b'O', b')') => (open + 2, next..open + 2),
                (b'B' | b'I', b'-') => {
                    if stop < open + 3 {
                        stop = find_near(bytes, open + 3, b')', b'\n').unwrap_or(bytes.len());
                    }
                    if bytes.get(stop) != Some(&b')') {
                        continue;
                    }
                    (stop, strip_range(generation, next..stop))
                }
                _ => continue,
            };
            let word = strip_range(generation, end..open);
            if word.is_empty() {
                memory::push(&mut self.dropped_labels, label)?;
            } else {
                memory::push(&mut self.pairs, Pair { word, label, continues: false })?;
            }
            end = close + 1;
            next = end;
        }
        self.trailing_text = strip_range(generation, end..bytes.len());
        Ok(())
    }

    /// Cuts the generated words as texts are cut.
    pub(super) fn split_pairs(&mut self, generation: &str) -> Result<()> {
        let whole = std::mem::take(&mut self.pairs);
        for pair in whole {
            for (k, piece) in split_words(&generation[pair.word.clone()])?.iter().enumerate() {
                let start = pair.word.start;
                let word = start + piece.start..start + piece.end;
                let label = pair.label.clone();
                memory::push(&mut self.pairs, Pair { word, label, continues: k > 0 })?;
            }
        }
        Ok(())
    }

    /// What was read from the generated text, as strings.
    ///
    /// # Errors
    /// The memory is refused.
    pub fn parsed(&self, generation: &str) -> Result<Parsed> {
        let text = |range: &Range<usize>| generation[range.clone()].to_owned();
        let (pairs, dropped) = (&self.pairs, &self.dropped_labels);
        Ok(Parsed {
            words: memory::collect(pairs.len(), pairs.iter().map(|pair| text(&pair.word)))?,
            labels: memory::collect(
                pairs.len(),
                pairs.iter().map(|pair| pair.label_text(generation)),
            )?,
            dropped_labels: memory::collect(dropped.len(), dropped.iter().map(text))?,
            trailing_text: text(&self.trailing_text),
        })
    }
}

/// The range without white space at its ends.
#[inline]
fn strip_range(text: &str, mut range: Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    range.start += usize::from(range.start < range.end && bytes[range.start] == b' ');
    let is_plain = |at: usize| bytes[at].is_ascii_graphic();
    if range.start < range.end && is_plain(range.start) && is_plain(range.end - 1) {
        return range;
    }
    strip_any_space(text, range)
}

#[cold]
fn strip_any_space(text: &str, range: Range<usize>) -> Range<usize> {
    let end = range.start + text[range.clone()].trim_end_matches(is_space).len();
    let start = end - text[range.start..end].trim_start_matches(is_space).len();
    start..end
}
