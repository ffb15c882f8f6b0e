//! Rows to aligned rows: labels, entities with offsets, and what did not match.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use serde::Serialize;

use super::back_tokens::BackTokens;
use super::blocks::{LineBlocks, Lines, file_error};
use super::row::RowBuffer;
use super::{Hooks, LISTED_BAD_ROWS, TOKENIZED_BLOCK_BYTES};
use crate::entities::{Scheme, Span, Types, decode_spans};
use crate::error::{Error, Result, RowProblem};
use crate::matching::Matcher;
use crate::text::{Strings, StringsRef};
use crate::threads::run_blocks;
use crate::words::{Range, locate_words, split_words, to_characters};

/// Bytes of a file that one thread works on at a time.
const BLOCK_BYTES: usize = 1 << 19;

/// How to align, and what to do with rows that cannot be used.
#[derive(Debug, Clone, Copy)]
pub struct AlignOptions {
    /// How BIO labels are read.
    pub scheme: Scheme,
    /// Threads; the machine's if not given.
    pub threads: Option<usize>,
    /// Whether bad rows are left out and listed, instead of ending the work.
    pub skip_bad_rows: bool,
}

/// What became of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlignSummary {
    /// Rows written.
    pub rows: u64,
    /// Rows left out.
    pub bad_rows: u64,
    /// The first of them.
    pub listed_bad_rows: Vec<Error>,
}

/// An aligned row as it is written.
#[derive(Debug, Serialize)]
struct AlignedRow<'a> {
    labels: Vec<String>,
    entities: Vec<Entity<'a>>,
    matching: &'static str,
    omitted: Vec<Word<'a>>,
    added: Vec<GeneratedWord<'a>>,
    substituted: Vec<Substitution<'a>>,
    invalid_labels: Vec<GeneratedWord<'a>>,
    dropped_labels: Vec<&'a str>,
    trailing_text: &'a str,
}

#[derive(Debug, Serialize)]
struct Entity<'a> {
    start: usize,
    end: usize,
    #[serde(rename = "type")]
    kind: &'a str,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct Word<'a> {
    index: usize,
    word: &'a str,
}

#[derive(Debug, Serialize)]
struct GeneratedWord<'a> {
    index: usize,
    word: &'a str,
    label: String,
}

#[derive(Debug, Serialize)]
struct Substitution<'a> {
    index: usize,
    word: &'a str,
    generated: GeneratedWord<'a>,
}

/// Aligns every row of the file `input` into the file `output`, which appears when it is whole.
///
/// # Errors
/// A file cannot be read or written, the input holds no rows, a row cannot be used, or the
/// caller stopped.
pub fn align_file(
    input: &str,
    output: &str,
    options: &AlignOptions,
    hooks: &mut Hooks<'_>,
) -> Result<AlignSummary> {
    let tokenized = hooks.back_tokenize.is_some();
    let block_bytes = if tokenized { TOKENIZED_BLOCK_BYTES } else { BLOCK_BYTES };
    let mut blocks = LineBlocks::open(input, block_bytes)?;
    let mut writer = BufWriter::new(Target::create(output)?);
    let tokens = RwLock::new(BackTokens::default());
    let mut buffer = RowBuffer::default();
    let mut summary = AlignSummary::default();
    let done = Cell::new(0);
    let Hooks { progress, back_tokenize } = hooks;
    run_blocks(
        options.threads,
        &mut || {
            let Some(lines) = blocks.next_block()? else { return Ok(None) };
            if let Some(back_tokenize) = back_tokenize {
                let mut tokens = tokens.write().unwrap_or_else(PoisonError::into_inner);
                let mut cut = Strings::default();
                for (_, line) in lines.rows() {
                    if let (Ok(()), Ok((row, text, has_words))) =
                        (buffer.read(line), buffer.aligned())
                    {
                        match text {
                            Some(text) if !has_words => {
                                cut_words(text, &mut cut);
                                tokens.note(cut.all());
                            }
                            _ => tokens.note(row.words),
                        }
                    }
                }
                tokens.ask(back_tokenize)?;
            }
            Ok(Some(lines))
        },
        &|worker: &mut Worker, lines: Lines| {
            let tokens = tokens.read().unwrap_or_else(PoisonError::into_inner);
            let tokens = tokenized.then_some(&*tokens);
            let mut part = Part { end: lines.end, ..Part::default() };
            for (number, line) in lines.rows() {
                match worker.align(line, options.scheme, tokens, &mut part.bytes) {
                    Ok(()) => part.rows += 1,
                    Err(problem) => {
                        part.bad_rows.push((number, problem));
                        if !options.skip_bad_rows {
                            break;
                        }
                    }
                }
            }
            part
        },
        &mut |part: Part| {
            done.set(part.end);
            summary.rows += part.rows;
            for (line, problem) in part.bad_rows {
                let error = Error::Line { path: input.to_owned(), line, problem };
                if !options.skip_bad_rows {
                    return Err(error);
                }
                summary.bad_rows += 1;
                if summary.listed_bad_rows.len() < LISTED_BAD_ROWS {
                    summary.listed_bad_rows.push(error);
                }
            }
            writer.write_all(&part.bytes).map_err(|error| file_error(output, &error))
        },
        &mut || progress(done.get()),
    )?;
    progress(done.get())?;
    if summary.rows == 0 && summary.bad_rows == 0 {
        return Err(Error::EmptyFile { path: input.to_owned() });
    }
    let target = writer.into_inner().map_err(|error| file_error(output, error.error()))?;
    target.keep(output)?;
    Ok(summary)
}

/// Where rows go: a file under another name until it is whole, or a device or pipe.
enum Target {
    Temporary(tempfile::NamedTempFile),
    Device(File),
}

impl Target {
    fn create(path: &str) -> Result<Self> {
        let fail = |error: &io::Error| file_error(path, error);
        if fs::metadata(path).is_ok_and(|known| !known.is_file()) {
            let device = File::options().write(true).open(path).map_err(|error| fail(&error))?;
            return Ok(Self::Device(device));
        }
        let folder = match Path::new(path).parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.prefix(".lmcore-").tempfile_in(folder);
        temporary.map(Self::Temporary).map_err(|error| fail(&error))
    }

    fn keep(self, path: &str) -> Result<()> {
        match self {
            Self::Temporary(file) => {
                file.persist(path).map_err(|error| file_error(path, &error.error))?;
            }
            Self::Device(_) => {}
        }
        Ok(())
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Temporary(file) => file.write(bytes),
            Self::Device(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Temporary(file) => file.flush(),
            Self::Device(file) => file.flush(),
        }
    }
}

/// Aligns one row, given as a line of JSON, and returns the aligned row as JSON.
///
/// # Errors
/// The row cannot be used.
pub fn align_line(line: &str, scheme: Scheme) -> std::result::Result<String, RowProblem> {
    let mut bytes = Vec::new();
    Worker::default().align(line.as_bytes(), scheme, None, &mut bytes)?;
    Ok(String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned())
}

#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    rows: u64,
    bad_rows: Vec<(u64, RowProblem)>,
    end: u64,
}

/// The memory of one thread.
#[derive(Default)]
struct Worker {
    buffer: RowBuffer,
    matcher: Matcher,
    types: Types,
    cut: Strings,
    joined: String,
    lower: String,
    translated: Strings,
    spans: Vec<Span>,
}

impl Worker {
    fn align(
        &mut self,
        line: &[u8],
        scheme: Scheme,
        tokens: Option<&BackTokens>,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), RowProblem> {
        self.buffer.read(line)?;
        let (row, text, has_words) = self.buffer.aligned()?;
        let fail = |error: Error| RowProblem::value(Some("words"), error.to_string());

        // The text that offsets count in, the words, and where they stand in it.
        let (text, words, places) = match text {
            Some(text) if has_words => {
                (text, row.words, locate_words(text, row.words).map_err(fail)?)
            }
            Some(text) => {
                let places = cut_words(text, &mut self.cut);
                (text, self.cut.all(), places)
            }
            None => {
                let places = join_words(row.words, &mut self.joined);
                (self.joined.as_str(), row.words, places)
            }
        };
        self.types.allow(row.label_list);
        if let Some(tokens) = tokens {
            tokens.translate(words, &mut self.lower, &mut self.translated);
        }
        let comparison = tokens.map(|_| self.translated.all());
        let (matcher, types) = (&mut self.matcher, &self.types);
        if has_words {
            matcher.match_words(words, row.prediction, types, comparison).map_err(fail)?;
        } else {
            matcher.match_split_words(words, row.prediction, types, comparison).map_err(fail)?;
        }
        decode_spans(&matcher.labels, scheme, &mut self.spans);
        let aligned = describe(matcher, types, &self.spans, (text, words, &places), row.prediction);
        serde_json::to_writer(&mut *out, &aligned)
            .map_err(|error| RowProblem::value(None, error.to_string()))?;
        out.push(b'\n');
        Ok(())
    }
}

fn describe<'a>(
    matcher: &Matcher,
    types: &'a Types,
    spans: &[Span],
    (text, words, places): (&'a str, StringsRef<'a>, &[Range]),
    generation: &'a str,
) -> AlignedRow<'a> {
    let generated = |index: usize| {
        let pair = &matcher.pairs[index];
        let word = &generation[pair.word.clone()];
        GeneratedWord { index, word, label: pair.label_text(generation) }
    };
    let ranges: Vec<Range> = spans
        .iter()
        .map(|span| Range { start: places[span.start].start, end: places[span.end - 1].end })
        .collect();
    let characters = to_characters(text, &ranges);
    let entities =
        spans.iter().zip(&ranges).zip(&characters).map(|((span, bytes), place)| Entity {
            start: place.start,
            end: place.end,
            kind: types.name(span.type_id),
            text: &text[bytes.start..bytes.end],
        });
    let differences = matcher.list_differences();
    AlignedRow {
        labels: matcher.labels.iter().map(|&label| types.label_text(label)).collect(),
        entities: entities.collect(),
        matching: matcher.condition.name(),
        omitted: differences
            .omitted
            .iter()
            .map(|&index| Word { index, word: words.get(index) })
            .collect(),
        added: differences.added.iter().map(|&index| generated(index)).collect(),
        substituted: differences
            .substituted
            .iter()
            .map(|&(index, other)| Substitution {
                index,
                word: words.get(index),
                generated: generated(other),
            })
            .collect(),
        invalid_labels: matcher.invalid_labels.iter().map(|&index| generated(index)).collect(),
        dropped_labels: matcher.dropped_labels.iter().map(|r| &generation[r.clone()]).collect(),
        trailing_text: &generation[matcher.trailing_text.clone()],
    }
}

/// Cuts a text into words and returns where they stand, in bytes.
fn cut_words(text: &str, words: &mut Strings) -> Vec<Range> {
    let places = split_words(text);
    words.clear();
    for place in &places {
        words.push(&text[place.start..place.end]);
    }
    places
}

/// Joins words with spaces and returns where they stand, in bytes.
fn join_words(words: StringsRef<'_>, joined: &mut String) -> Vec<Range> {
    joined.clear();
    words
        .iter()
        .enumerate()
        .map(|(index, word)| {
            if index > 0 {
                joined.push(' ');
            }
            let start = joined.len();
            joined.push_str(word);
            Range { start, end: joined.len() }
        })
        .collect()
}
