//! Labelled sentences as the rows that a model is trained with, in JSON.
//!
//! The rule stands in `reference/examples.py`. A word stands three times in its row, in the list
//! of words, in the instruction and in the target: it is escaped once and copied from there.

use std::ops::Range;

use crate::check::same_length;
use crate::error::{Kind, Result, quote};
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::text::{StringRows, Strings, StringsRef};
use crate::threads::{row_ranges, run_blocks};

/// What can go wrong with examples alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A place of the template that nothing fills.
    #[error("template[{index}] must be types, sentence or dataset: got {}", quote(name))]
    Place {
        /// Index in the template.
        index: usize,
        /// What stands there.
        name: String,
    },
    /// A template with a place for the data set, and no data sets.
    #[error("datasets must be given: the template has a place for them")]
    NoDatasets,
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Place { .. } | Self::NoDatasets => Kind::Value,
        }
    }
}

/// What examples are written from, one row of each per sentence.
#[derive(Debug, Clone, Copy)]
pub struct Sentences<'a> {
    /// The members that stand before all others, in JSON, or nothing.
    pub heads: StringsRef<'a>,
    /// What entities may be, in the order of the instruction.
    pub types: &'a StringRows,
    /// The words.
    pub words: &'a StringRows,
    /// One label per word.
    pub labels: &'a StringRows,
    /// One label per word for the target, where they are written in another way.
    pub target_labels: Option<&'a StringRows>,
    /// Names for the instruction.
    pub datasets: Option<StringsRef<'a>>,
}

/// The rows, and what was noticed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examples {
    /// The rows, each with a line break at its end.
    pub lines: String,
    /// Rows with a word that holds what reads as a label.
    pub unreadable: usize,
}

/// Writes the rows of sentences; they are the same for any number of threads.
///
/// `template` holds text and the names of places in turns; `context` is the number of `O` words
/// that a target keeps on each side of an entity, or all of them.
///
/// # Errors
/// The sequences differ in length, a place has another name, the memory is refused, or the caller
/// stops.
pub fn write_examples_batch(
    sentences: Sentences<'_>,
    template: StringsRef<'_>,
    context: Option<usize>,
    threads: Option<usize>,
) -> Result<Examples> {
    let rows = sentences.words.len();
    same_length(("heads", sentences.heads.len()), ("words", rows))?;
    same_length(("types", sentences.types.len()), ("words", rows))?;
    same_length(("labels", sentences.labels.len()), ("words", rows))?;
    if let Some(given) = sentences.target_labels {
        same_length(("target_labels", given.len()), ("words", rows))?;
    }
    if let Some(given) = sentences.datasets {
        same_length(("datasets", given.len()), ("words", rows))?;
    }
    let template = read_template(template, sentences.datasets.is_some())?;
    let work = |writer: &mut Writer, range: Range<usize>| -> Result<Examples> {
        let mut examples = Examples::default();
        for row in range {
            let sentence = Sentence::of(&sentences, row).map_err(|error| error.in_sentence(row))?;
            writer.write(&mut examples.lines, &sentence, &template, context)?;
            examples.unreadable += usize::from(holds_label(sentence.words));
        }
        Ok(examples)
    };
    let mut all = Examples::default();
    let mut ranges = row_ranges(rows);
    run_blocks(
        threads,
        &mut || Ok(ranges.next()),
        &work,
        &mut |part: Result<Examples>| {
            let part = part?;
            all.unreadable += part.unreadable;
            if all.lines.is_empty() {
                all.lines = part.lines;
                return Ok(());
            }
            memory::reserve_text(&mut all.lines, part.lines.len())?;
            all.lines.push_str(&part.lines);
            Ok(())
        },
        &mut interrupt::check,
    )?;
    Ok(all)
}

/// A part of an instruction.
enum Part {
    /// Text, escaped.
    Text(String),
    Types,
    Sentence,
    Dataset,
}

fn read_template(template: StringsRef<'_>, has_datasets: bool) -> Result<Vec<Part>> {
    let mut parts = memory::with_capacity(template.len())?;
    for (index, text) in template.iter().enumerate() {
        parts.push(match text {
            _ if index % 2 == 0 => {
                let mut escaped = String::new();
                escape(&mut escaped, text)?;
                Part::Text(escaped)
            }
            "types" => Part::Types,
            "sentence" => Part::Sentence,
            "dataset" if has_datasets => Part::Dataset,
            "dataset" => return Err(Problem::NoDatasets.into()),
            name => return Err(Problem::Place { index, name: name.to_owned() }.into()),
        });
    }
    Ok(parts)
}

/// What one example is written from.
struct Sentence<'a> {
    head: &'a str,
    types: StringsRef<'a>,
    words: StringsRef<'a>,
    labels: StringsRef<'a>,
    target_labels: StringsRef<'a>,
    dataset: &'a str,
}

impl<'a> Sentence<'a> {
    fn of(all: &Sentences<'a>, row: usize) -> Result<Self> {
        let (words, labels) = (all.words.row(row), all.labels.row(row));
        same_length(("labels", labels.len()), ("words", words.len()))?;
        let target_labels = all.target_labels.map_or(labels, |given| given.row(row));
        same_length(("target_labels", target_labels.len()), ("words", words.len()))?;
        let dataset = all.datasets.map_or("", |given| given.get(row));
        let head = all.heads.get(row);
        Ok(Self { head, types: all.types.row(row), words, labels, target_labels, dataset })
    }
}

/// What a thread keeps from row to row.
#[derive(Default)]
struct Writer {
    words: Strings,
    types: Strings,
    /// A label is one of few: each is escaped where it differs from the one before it.
    label: String,
    steps: Steps,
}

impl Writer {
    fn write(
        &mut self,
        row: &mut String,
        sentence: &Sentence<'_>,
        template: &[Part],
        context: Option<usize>,
    ) -> Result<()> {
        escape_all(&mut self.words, sentence.words)?;
        escape_all(&mut self.types, sentence.types)?;
        let (words, types) = (self.words.all(), self.types.all());
        let steps = &mut self.steps;
        // A word stands there three times, and a label twice, with what stands between them.
        let bytes = 3 * (words.region().len() + 4 * words.len())
            + sentence.labels.region().len()
            + sentence.target_labels.region().len()
            + sentence.head.len()
            + 8 * words.len();
        memory::reserve_text(row, bytes + 1024)?;
        row.push('{');
        if !sentence.head.is_empty() {
            row.push_str(sentence.head);
            row.push_str(", ");
        }
        row.push_str("\"types\": ");
        push_list(row, types, steps)?;
        row.push_str(", \"words\": ");
        push_list(row, words, steps)?;
        row.push_str(", \"labels\": [");
        for (index, label) in sentence.labels.iter().enumerate() {
            steps.take(label.len() + 1)?;
            row.push_str(if index == 0 { "\"" } else { ", \"" });
            match label {
                "O" => row.push('O'),
                _ => escape(row, label)?,
            }
            row.push('"');
        }
        row.push_str("], \"instruction\": \"");
        for part in template {
            match part {
                Part::Text(text) => {
                    memory::reserve_text(row, text.len())?;
                    row.push_str(text);
                }
                Part::Types => push_joined(row, types, ", ", steps)?,
                Part::Sentence => push_joined(row, words, " ", steps)?,
                Part::Dataset => escape(row, sentence.dataset)?,
            }
        }
        row.push_str("\", \"target\": \"");
        self.push_target(row, sentence, context)?;
        row.push_str("\"}\n");
        Ok(())
    }

    fn push_target(
        &mut self,
        row: &mut String,
        sentence: &Sentence<'_>,
        context: Option<usize>,
    ) -> Result<()> {
        let (words, labels) = (self.words.all(), sentence.target_labels);
        let mut is_first = true;
        let (steps, escaped) = (&mut self.steps, &mut self.label);
        let mut push = |index: usize| -> Result<()> {
            steps.take(words.bytes(index).len() + 1)?;
            if !is_first {
                row.push(' ');
            }
            is_first = false;
            row.push_str(words.get(index));
            row.push('(');
            let label = labels.get(index);
            if label == "O" {
                row.push('O');
            } else {
                escaped.clear();
                escape(escaped, label)?;
                row.push_str(escaped);
            }
            row.push(')');
            Ok(())
        };
        let Some(context) = context else {
            return (0..words.len()).try_for_each(push);
        };
        let mut start = 0;
        while start < words.len() {
            if !labels.is_letter(start, b'O') {
                push(start)?;
                start += 1;
                continue;
            }
            let mut end = start;
            while end < words.len() && labels.is_letter(end, b'O') {
                end += 1;
            }
            // An entity stands before the run, unless the sentence begins with it.
            let behind = if start > 0 { end.min(start.saturating_add(context)) } else { start };
            let before =
                if end < words.len() { behind.max(end.saturating_sub(context)) } else { end };
            (start..behind).chain(before..end).try_for_each(&mut push)?;
            start = end;
        }
        Ok(())
    }
}

/// Whether a word holds what a parser takes for a label.
fn holds_label(words: StringsRef<'_>) -> bool {
    memchr::memchr(b'(', words.region().as_bytes()).is_some() && words.iter().any(reads_as_label)
}

fn reads_as_label(word: &str) -> bool {
    let mut rest = word;
    while let Some((_, behind)) = rest.split_once('(') {
        if behind.starts_with("B-") || behind.starts_with("I-") || behind.starts_with("O)") {
            return true;
        }
        rest = behind;
    }
    false
}

fn push_list(row: &mut String, items: StringsRef<'_>, steps: &mut Steps) -> Result<()> {
    if items.is_empty() {
        row.push_str("[]");
        return Ok(());
    }
    row.push_str("[\"");
    push_joined(row, items, "\", \"", steps)?;
    row.push_str("\"]");
    Ok(())
}

fn push_joined(
    row: &mut String,
    items: StringsRef<'_>,
    between: &str,
    steps: &mut Steps,
) -> Result<()> {
    memory::reserve_text(row, items.region().len() + items.len() * between.len() + 4)?;
    for (index, item) in items.iter().enumerate() {
        steps.take(item.len())?;
        if index > 0 {
            row.push_str(between);
        }
        row.push_str(item);
    }
    Ok(())
}

fn escape_all(escaped: &mut Strings, texts: StringsRef<'_>) -> Result<()> {
    escaped.clear();
    if !texts.region().bytes().any(may_need_escape) {
        escaped.reserve(texts.len(), texts.region().len())?;
        texts.iter().for_each(|text| escaped.push(text));
        return Ok(());
    }
    let mut one = String::new();
    for text in texts.iter() {
        one.clear();
        escape(&mut one, text)?;
        escaped.append(&one)?;
    }
    Ok(())
}

/// Bytes that begin a character which is escaped, or may: all of them below, `"`, `\` and DEL, and
/// the first bytes of U+0080 to U+00BF, U+0600 to U+063F, U+2000 to U+2FFF and U+F000 to U+FFFF.
fn may_need_escape(byte: u8) -> bool {
    matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f | 0xc2 | 0xd8 | 0xe2 | 0xef)
}

/// Appends a text as it stands in a string of JSON in which nothing acts on a terminal.
fn escape(target: &mut String, text: &str) -> Result<()> {
    memory::reserve_text(target, text.len())?;
    if !text.bytes().any(may_need_escape) {
        target.push_str(text);
        return Ok(());
    }
    let mut clean = 0;
    for (place, character) in text.char_indices() {
        let short = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            _ if is_hidden(character) => "",
            _ => continue,
        };
        target.push_str(&text[clean..place]);
        memory::reserve_text(target, 6 + text.len() - place)?;
        target.push_str(short);
        if short.is_empty() {
            target.push_str("\\u");
            for shift in [12, 8, 4, 0] {
                let digit = u32::from(character) >> shift & 15;
                target.push(char::from_digit(digit, 16).unwrap_or('0'));
            }
        }
        clean = place + character.len_utf8();
    }
    target.push_str(&text[clean..]);
    Ok(())
}

/// Control characters, what ends a line, and marks that change the direction of writing.
fn is_hidden(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
