//! Cleaning texts before a model is trained on them: what rules remove, until nothing is left to.
//!
//! Source: OpenBA-V2 (arXiv 2405.05957), its section on data, which names the rules. What each of
//! them matches stands in `reference/cleaning.py`, in regular expressions; here each is a scanner
//! of its own that looks at a byte a fixed number of times, whatever the text.

mod addresses;
mod edit;
mod html;
mod sentences;

use std::ops::Range;

use crate::error::Result;
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::text::{Strings, StringsRef, is_space};
use crate::threads::{row_ranges, run_blocks};

use edit::Edit;

pub use sentences::split_sentences;

/// The names of the rules, in the order in which they run.
pub const RULES: [&str; 6] =
    ["html", "links", "emails", "phone_numbers", "repeats", "short_sentences"];

/// How often the rules run over a text before it is given up.
pub const MOST_PASSES: usize = 16;

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each rule has a switch")]
pub struct Rules {
    /// Tags, comments, scripts and styles.
    pub html: bool,
    /// Addresses of pages.
    pub links: bool,
    /// Addresses of mail.
    pub emails: bool,
    /// Phone numbers.
    pub phone_numbers: bool,
    /// Longest run of one character that stays; 0 leaves all.
    pub most_repeats: usize,
    /// Words of a sentence that stays; 0 leaves all.
    pub minimum_words: usize,
}

/// What became of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It has something left.
    Kept = 0,
    /// Nothing is left.
    Empty = 1,
    /// Each pass uncovers more to remove.
    Unsettled = 2,
}

/// What rules did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// By rule, the texts that it changed.
    pub documents: [u64; RULES.len()],
    /// By rule, the characters that it removed.
    pub characters: [u64; RULES.len()],
}

impl Counts {
    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.documents.iter_mut().zip(other.documents) {
            *sum += more;
        }
        for (sum, more) in self.characters.iter_mut().zip(other.characters) {
            *sum += more;
        }
    }
}

/// Texts without what the rules remove.
#[derive(Debug, Clone, Default)]
pub struct Cleaned {
    /// What is left of each; empty where it is dropped.
    pub texts: Strings,
    /// What became of each.
    pub outcomes: Vec<u8>,
    /// What the rules did.
    pub counts: Counts,
}

/// Texts without what the rules remove; `threads` does not change the result.
///
/// # Errors
/// The memory is refused, or the caller stops.
pub fn clean_batch(
    texts: StringsRef<'_>,
    rules: &Rules,
    threads: Option<usize>,
) -> Result<Cleaned> {
    let clean_rows = |cleaner: &mut Cleaner, range: Range<usize>| -> Result<Cleaned> {
        let mut cleaned = Cleaned::default();
        for row in range {
            let outcome = cleaner.clean(texts.get(row), rules)?;
            let left = if outcome == Outcome::Kept { cleaner.text() } else { "" };
            cleaned.texts.append(left)?;
            memory::push(&mut cleaned.outcomes, outcome as u8)?;
            cleaned.counts.add(cleaner.counts());
        }
        Ok(cleaned)
    };
    let mut all = Cleaned::default();
    all.texts.reserve(texts.len(), texts.region().len())?;
    let mut ranges = row_ranges(texts.len());
    run_blocks(
        threads,
        &mut || Ok(ranges.next()),
        &clean_rows,
        &mut |part: Result<Cleaned>| {
            let part = part?;
            for text in part.texts.all().iter() {
                all.texts.append(text)?;
            }
            memory::reserve(&mut all.outcomes, part.outcomes.len())?;
            all.outcomes.extend(part.outcomes);
            all.counts.add(&part.counts);
            Ok(())
        },
        &mut interrupt::check,
    )?;
    Ok(all)
}

/// Cleans one text after the other, in the same memory.
#[derive(Debug, Default)]
pub struct Cleaner {
    text: String,
    spare: String,
    counts: Counts,
    steps: Steps,
}

impl Cleaner {
    /// What is left of the last text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the rules did to the last text.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Cleans a text.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops.
    pub fn clean(&mut self, text: &str, rules: &Rules) -> Result<Outcome> {
        self.text.clear();
        memory::reserve_text(&mut self.text, text.len())?;
        self.text.push_str(text);
        self.counts = Counts::default();
        for _ in 0..MOST_PASSES {
            let is_changed = self.run_rules(rules)?;
            if !self.strip() && !is_changed {
                let is_empty = self.text.is_empty();
                return Ok(if is_empty { Outcome::Empty } else { Outcome::Kept });
            }
        }
        Ok(Outcome::Unsettled)
    }

    /// Runs each rule once, and says whether one of them changed the text.
    fn run_rules(&mut self, rules: &Rules) -> Result<bool> {
        let mut is_changed = false;
        let mut run = |index: usize, rule: &dyn Fn(&mut Edit<'_>, &mut Steps) -> Result<()>| {
            self.steps.take(self.text.len() / 8)?;
            let mut edit = Edit::new(&self.text, &mut self.spare);
            rule(&mut edit, &mut self.steps)?;
            let removed = edit.finish();
            if removed > 0 {
                std::mem::swap(&mut self.text, &mut self.spare);
                self.counts.documents[index] = 1;
                self.counts.characters[index] += removed as u64;
                is_changed = true;
            }
            Result::Ok(())
        };
        if rules.html {
            run(0, &html::remove)?;
        }
        if rules.links {
            run(1, &addresses::remove_links)?;
        }
        if rules.emails {
            run(2, &addresses::remove_emails)?;
        }
        if rules.phone_numbers {
            run(3, &addresses::remove_phone_numbers)?;
        }
        if rules.most_repeats > 0 {
            run(4, &|edit, steps| collapse_repeats(edit, rules.most_repeats, steps))?;
        }
        if rules.minimum_words > 0 {
            run(5, &|edit, steps| sentences::remove_short(edit, rules.minimum_words, steps))?;
        }
        Ok(is_changed)
    }

    /// Removes the white space at both ends, and says whether there was some.
    fn strip(&mut self) -> bool {
        let before = self.text.len();
        let end = self.text.trim_end_matches(is_space).len();
        self.text.truncate(end);
        let start = end - self.text.trim_start_matches(is_space).len();
        if start > 0 {
            self.text.drain(..start);
        }
        self.text.len() < before
    }
}

/// Puts one character in place of longer runs of it; those of digits stay.
fn collapse_repeats(edit: &mut Edit<'_>, most: usize, steps: &mut Steps) -> Result<()> {
    let text = edit.text();
    let bytes = text.as_bytes();
    let mut start = 0;
    while let Some(&lead) = bytes.get(start) {
        steps.take(1)?;
        let size = match lead {
            0..0x80 => 1,
            0x80..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let character = &bytes[start..start + size];
        let mut end = start + size;
        if size == 1 {
            // Most characters are of one byte, and other than the one before.
            while bytes.get(end) == Some(&lead) {
                end += 1;
            }
            steps.take((end - start) / 8)?;
        }
        while size > 1 && bytes[end..].starts_with(character) {
            steps.take(1)?;
            end += size;
        }
        if end - start > most.saturating_mul(size) && !is_digit(character) {
            edit.remove(start + size..end, "")?;
        }
        start = end;
    }
    Ok(())
}

/// Whether it is a digit, of ASCII or of full width.
fn is_digit(character: &[u8]) -> bool {
    matches!(character, [b'0'..=b'9'] | [0xef, 0xbc, 0x90..=0x99])
}
