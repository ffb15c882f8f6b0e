//! Rows to aligned rows: labels, entities with offsets, and what did not match.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::RwLock;

use serde::{Serialize, Serializer};

use super::back_tokens::{BackTokens, Questions, lock};
use super::row::RowBuffer;
use super::rules::of_words;
use super::{Hooks, LISTED_BAD_ROWS, TOKENIZED_BLOCK_BYTES};
use crate::entities::{Label, Scheme, Span, Types, find_spans};
use crate::error::{Error, Result, RowProblem, show_path};
use crate::lines::{LineBlocks, Lines, file_error};
use crate::matching::{Matcher, Pair};
use crate::memory;
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
    labels: Labels<'a>,
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
    label: PairLabel<'a>,
}

/// Labels, written without a string for each.
#[derive(Debug)]
struct Labels<'a> {
    labels: &'a [Label],
    types: &'a Types,
}

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.labels.iter().map(|&label| self.types.label_text(label)))
    }
}

/// The label of a generated word as it is written.
#[derive(Debug)]
struct PairLabel<'a> {
    pair: &'a Pair,
    generation: &'a str,
}

impl Serialize for PairLabel<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.pair.label_text(self.generation))
    }
}

/// Bytes that grow while there is memory.
struct Growing<'b>(&'b mut Vec<u8>);

impl Write for Growing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        memory::reserve(self.0, bytes.len()).map_err(io::Error::other)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
/// A file cannot be read or written, the input holds no rows, a row cannot be used, the memory is
/// refused, or the caller stopped.
pub fn align_file(
    input: &Path,
    output: &Path,
    options: &AlignOptions,
    hooks: &mut Hooks<'_>,
) -> Result<AlignSummary> {
    let tokenized = hooks.back_tokenize.is_some();
    let block_bytes = if tokenized { TOKENIZED_BLOCK_BYTES } else { BLOCK_BYTES };
    let mut blocks = LineBlocks::open(input, block_bytes)?;
    let mut writer = BufWriter::new(Target::create(output)?);
    let input = &show_path(input);
    let tokens = RwLock::new(BackTokens::default());
    let mut questions = Questions::default();
    let mut buffer = RowBuffer::default();
    let mut summary = AlignSummary::default();
    let done = Cell::new(0);
    let Hooks { progress, back_tokenize } = hooks;
    run_blocks(
        options.threads,
        &mut || {
            let Some(lines) = blocks.next_block()? else { return Ok(None) };
            if let Some(back_tokenize) = back_tokenize {
                let mut cut = Strings::default();
                for (_, line) in lines.rows() {
                    match buffer.read(line) {
                        Ok(()) => {}
                        Err(Error::Row { .. }) => continue,
                        Err(error) => return Err(error),
                    }
                    match buffer.aligned() {
                        Ok((_, Some(text), false)) => {
                            cut_words(text, &mut cut)?;
                            questions.note(&lock(&tokens), cut.all())?;
                        }
                        Ok((row, ..)) => questions.note(&lock(&tokens), row.words)?,
                        Err(_) => {}
                    }
                }
                questions.ask(&tokens, back_tokenize)?;
            }
            Ok(Some(lines))
        },
        &|worker: &mut Worker, lines: Lines| {
            let tokens = lock(&tokens);
            let tokens = tokenized.then_some(&*tokens);
            let mut part = Part { end: lines.end, ..Part::default() };
            for (number, line) in lines.rows() {
                match worker.align(line, options.scheme, tokens, &mut part.bytes) {
                    Ok(()) => part.rows += 1,
                    Err(Error::Row { problem }) => {
                        part.bad_rows.push((number, problem));
                        if !options.skip_bad_rows {
                            break;
                        }
                    }
                    Err(error) => {
                        part.failed = Some(error);
                        break;
                    }
                }
            }
            part
        },
        &mut |part: Part| {
            done.set(part.end);
            summary.rows += part.rows;
            for (line, problem) in part.bad_rows {
                let error = Error::Line { path: input.clone(), line, problem };
                if !options.skip_bad_rows {
                    return Err(error);
                }
                summary.bad_rows += 1;
                if summary.listed_bad_rows.len() < LISTED_BAD_ROWS {
                    summary.listed_bad_rows.push(error);
                }
            }
            if let Some(error) = part.failed {
                return Err(error);
            }
            writer.write_all(&part.bytes).map_err(|error| file_error(output, &error))
        },
        &mut || progress(done.get()),
    )?;
    progress(done.get())?;
    if summary.rows == 0 && summary.bad_rows == 0 {
        return Err(Error::EmptyFile { path: input.clone() });
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
    fn create(path: &Path) -> Result<Self> {
        let fail = |error: &io::Error| file_error(path, error);
        if fs::metadata(path).is_ok_and(|known| !known.is_file()) {
            let device = File::options().write(true).open(path).map_err(|error| fail(&error))?;
            return Ok(Self::Device(device));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.prefix(".lmcore-").tempfile_in(folder);
        temporary.map(Self::Temporary).map_err(|error| fail(&error))
    }

    fn keep(self, path: &Path) -> Result<()> {
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
/// The row cannot be used, the memory is refused, or the caller stopped.
pub fn align_row(line: &str, scheme: Scheme) -> Result<String> {
    let mut bytes = Vec::new();
    Worker::default().align(line.as_bytes(), scheme, None, &mut bytes)?;
    memory::probe(bytes.len())?;
    Ok(String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned())
}

#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    rows: u64,
    bad_rows: Vec<(u64, RowProblem)>,
    failed: Option<Error>,
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
    ) -> Result<()> {
        self.buffer.read(line)?;
        let (row, text, has_words) = self.buffer.aligned()?;

        // The text that offsets count in, the words, and where they stand in it.
        let (text, words, ranges) = match text {
            Some(text) if has_words => {
                (text, row.words, locate_words(text, row.words).map_err(of_words)?)
            }
            Some(text) => {
                let ranges = cut_words(text, &mut self.cut)?;
                (text, self.cut.all(), ranges)
            }
            None => {
                let ranges = join_words(row.words, &mut self.joined)?;
                (self.joined.as_str(), row.words, ranges)
            }
        };
        self.types.allow(row.label_list)?;
        if let Some(tokens) = tokens {
            tokens.translate(words, &mut self.lower, &mut self.translated)?;
        }
        let comparison = tokens.map(|_| self.translated.all());
        let (matcher, types) = (&mut self.matcher, &self.types);
        if has_words {
            matcher.match_words(words, row.prediction, types, comparison).map_err(of_words)?;
        } else {
            matcher
                .match_split_words(words, row.prediction, types, comparison)
                .map_err(of_words)?;
        }
        find_spans(&matcher.labels, scheme, &mut self.spans)?;
        let aligned =
            describe(matcher, types, &self.spans, (text, words, &ranges), row.prediction)?;
        // Nothing but memory can be wrong with the writing.
        serde_json::to_writer(Growing(out), &aligned).map_err(|_| memory::refused(out.len()))?;
        memory::push(out, b'\n')?;
        Ok(())
    }
}

fn describe<'a>(
    matcher: &'a Matcher,
    types: &'a Types,
    spans: &[Span],
    (text, words, word_ranges): (&'a str, StringsRef<'a>, &[Range]),
    generation: &'a str,
) -> Result<AlignedRow<'a>> {
    let generated = |index: usize| {
        let pair = &matcher.pairs[index];
        let word = &generation[pair.word.clone()];
        GeneratedWord { index, word, label: PairLabel { pair, generation } }
    };
    let ranges = spans.iter().map(|span| Range {
        start: word_ranges[span.start].start,
        end: word_ranges[span.end - 1].end,
    });
    let ranges = memory::collect(spans.len(), ranges)?;
    let characters = to_characters(text, &ranges)?;
    let entities =
        spans.iter().zip(&ranges).zip(&characters).map(|((span, bytes), characters)| Entity {
            start: characters.start,
            end: characters.end,
            kind: types.name(span.type_id),
            text: &text[bytes.start..bytes.end],
        });
    let differences = matcher.list_differences()?;
    let all_generated =
        |indices: &[usize]| memory::collect(indices.len(), indices.iter().map(|&k| generated(k)));
    let omitted = differences.omitted.iter().map(|&index| Word { index, word: words.get(index) });
    let substituted = differences.substituted.iter().map(|&(index, other)| Substitution {
        index,
        word: words.get(index),
        generated: generated(other),
    });
    let dropped = matcher.dropped_labels.iter().map(|range| &generation[range.clone()]);
    Ok(AlignedRow {
        labels: Labels { labels: &matcher.labels, types },
        entities: memory::collect(spans.len(), entities)?,
        matching: matcher.condition.name(),
        omitted: memory::collect(differences.omitted.len(), omitted)?,
        added: all_generated(&differences.added)?,
        substituted: memory::collect(differences.substituted.len(), substituted)?,
        invalid_labels: all_generated(&matcher.invalid_labels)?,
        dropped_labels: memory::collect(matcher.dropped_labels.len(), dropped)?,
        trailing_text: &generation[matcher.trailing_text.clone()],
    })
}

/// Cuts a text into words and returns where they stand, in bytes.
fn cut_words(text: &str, words: &mut Strings) -> Result<Vec<Range>> {
    let ranges = split_words(text)?;
    words.clear();
    for range in &ranges {
        words.append(&text[range.start..range.end])?;
    }
    Ok(ranges)
}

/// Joins words with spaces and returns where they stand, in bytes.
fn join_words(words: StringsRef<'_>, joined: &mut String) -> Result<Vec<Range>> {
    joined.clear();
    let bytes: usize = words.iter().map(|word| word.len() + 1).sum();
    memory::reserve_text(joined, bytes)?;
    let ranges = words.iter().enumerate().map(|(index, word)| {
        if index > 0 {
            joined.push(' ');
        }
        let start = joined.len();
        joined.push_str(word);
        Range { start, end: joined.len() }
    });
    memory::collect(words.len(), ranges)
}
