//! The one error type: cases carry the numbers, `Display` writes the text, [`Error::kind`] says
//! what others make of it.
//!
//! What only one concept can meet stands in an enum of its own, `Problem`, beside that concept.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::{
    denoising, duplicates, entities, examples, false_negatives, matching, negatives, ngrams,
    predictions, vocabulary, words,
};

/// What kind of thing went wrong: who calls the core needs to know no more than this and the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A wrong value.
    Value,
    /// A value of the wrong type.
    Type,
    /// An id, a column or a position that does not exist.
    Index,
    /// Memory was refused.
    Memory,
    /// The operating system refused a file, or threads.
    Os,
    /// The caller ended the work, or a function of the caller's failed: it knows why.
    Caller,
}

/// What can go wrong in the core.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A label that is neither `O` nor `B-<type>` nor `I-<type>`.
    #[error("{name}[{index}] must be O, B-<type> or I-<type>: got {}", quote(label))]
    LabelForm {
        /// Name of the sequence.
        name: &'static str,
        /// Index in the label sequence.
        index: usize,
        /// The label that was given.
        label: String,
    },
    /// Two sequences that belong together differ in length.
    #[error(
        "{first} and {second} must have the same length: got {first_length} and {second_length}"
    )]
    LengthMismatch {
        /// Name of the first sequence.
        first: &'static str,
        /// Name of the second sequence.
        second: &'static str,
        /// Length of the first sequence.
        first_length: usize,
        /// Length of the second sequence.
        second_length: usize,
    },
    /// One sentence of a batch is at fault.
    #[error("sentence [{row}]: {error}")]
    Sentence {
        /// Its index in the batch.
        row: usize,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// More values than memory holds.
    #[error("not enough memory for {values} values")]
    Memory {
        /// Number of values.
        values: u128,
    },
    /// A number outside its range.
    #[error("{name} must be {range}: got {got}")]
    OutOfRange {
        /// Name of the argument.
        name: &'static str,
        /// The range in words.
        range: String,
        /// The value that was given.
        got: String,
    },
    /// An item of an argument outside its range.
    #[error("{name}[{index}] must be {range}: got {got}")]
    ItemOutOfRange {
        /// Name of the argument.
        name: &'static str,
        /// Index of the item, with several dimensions as `row, column`.
        index: String,
        /// The range in words.
        range: String,
        /// The value that was given.
        got: String,
    },
    /// An id that names nothing.
    #[error("{name}[{index}] must be {range}: got {got}")]
    IdOutOfRange {
        /// Name of the argument.
        name: &'static str,
        /// Index of the id.
        index: String,
        /// The range in words.
        range: String,
        /// The id that was given.
        got: String,
    },
    /// A row of a predictions file or list that cannot be used.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file's path, as [`show_path`] writes it.
        path: String,
        /// Line number, from 1.
        line: u64,
        /// Key and reason.
        problem: RowProblem,
    },
    /// A row that cannot be used, and stands alone.
    #[error("{problem}")]
    Row {
        /// Key and reason.
        problem: RowProblem,
    },
    /// A row of a list that cannot be used.
    #[error("examples[{index}]: {problem}")]
    Example {
        /// Index in the list, from 0.
        index: u64,
        /// Key and reason.
        problem: RowProblem,
    },
    /// A file that holds no rows.
    #[error("{path}: the file holds no rows")]
    EmptyFile {
        /// The file's path, as [`show_path`] writes it.
        path: String,
    },
    /// The operating system refused a file.
    #[error("{}: {reason}", show_path(path))]
    File {
        /// The file's path.
        path: PathBuf,
        /// The system's words.
        reason: String,
        /// The system's number, where it gave one.
        code: Option<i32>,
    },
    /// The thread pool could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Number of threads asked for.
        threads: usize,
        /// The system's words.
        reason: String,
    },
    /// A name that is not one of those that exist.
    #[error("{name} must be one of {}: got {}", known.join(", "), quote(given))]
    UnknownName {
        /// Name of the argument.
        name: &'static str,
        /// The names that exist.
        known: &'static [&'static str],
        /// The name that was given.
        given: String,
    },
    /// A problem of the entities alone.
    #[error(transparent)]
    Entities(#[from] entities::Problem),
    /// A problem of the matching alone.
    #[error(transparent)]
    Matching(#[from] matching::Problem),
    /// A problem of the predictions alone.
    #[error(transparent)]
    Predictions(#[from] predictions::Problem),
    /// A problem of the words alone.
    #[error(transparent)]
    Words(#[from] words::Problem),
    /// A problem of the training batches alone.
    #[error(transparent)]
    Negatives(#[from] negatives::Problem),
    /// A problem of the noise spans alone.
    #[error(transparent)]
    Denoising(#[from] denoising::Problem),
    /// A problem of the examples alone.
    #[error(transparent)]
    Examples(#[from] examples::Problem),
    /// A problem of the memory of false negatives alone.
    #[error(transparent)]
    FalseNegatives(#[from] false_negatives::Problem),
    /// A problem of the vocabulary alone.
    #[error(transparent)]
    Vocabulary(#[from] vocabulary::Problem),
    /// A problem of the duplicates alone.
    #[error(transparent)]
    Duplicates(#[from] duplicates::Problem),
    /// A problem of the n-grams alone.
    #[error(transparent)]
    Ngrams(#[from] ngrams::Problem),
    /// The caller asked to stop: the work ends at once.
    #[error("stopped by the caller")]
    Stopped,
    /// A function of the caller's failed; an error in what came before it comes first.
    #[error("a function of the caller's failed")]
    Raised,
}

/// Why a row cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", key.as_deref().map(|k| format!("{k}: ")).unwrap_or_default())]
pub struct RowProblem {
    /// The key whose value is at fault, where one is.
    pub key: Option<String>,
    /// What was expected and what came.
    pub reason: String,
    /// Whether the value has the wrong type, rather than a wrong content.
    pub wrong_type: bool,
}

impl RowProblem {
    fn kind(&self) -> Kind {
        if self.wrong_type { Kind::Type } else { Kind::Value }
    }

    /// A problem with the content of the row or of one key.
    pub fn value(key: Option<&str>, reason: impl Into<String>) -> Self {
        Self { key: key.map(str::to_owned), reason: reason.into(), wrong_type: false }
    }

    /// A value of the wrong type.
    pub fn of_type(key: &str, expected: &str, got: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            reason: format!("expected {expected}, got {got}"),
            wrong_type: true,
        }
    }
}

impl Error {
    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::LabelForm { .. }
            | Self::LengthMismatch { .. }
            | Self::OutOfRange { .. }
            | Self::ItemOutOfRange { .. }
            | Self::EmptyFile { .. }
            | Self::UnknownName { .. } => Kind::Value,
            Self::IdOutOfRange { .. } => Kind::Index,
            Self::Sentence { error, .. } => error.kind(),
            Self::Line { problem, .. } | Self::Row { problem } | Self::Example { problem, .. } => {
                problem.kind()
            }
            Self::File { .. } | Self::Threads { .. } => Kind::Os,
            Self::Memory { .. } => Kind::Memory,
            Self::Entities(problem) => problem.kind(),
            Self::Matching(problem) => problem.kind(),
            Self::Predictions(problem) => problem.kind(),
            Self::Words(problem) => problem.kind(),
            Self::Negatives(problem) => problem.kind(),
            Self::Denoising(problem) => problem.kind(),
            Self::Examples(problem) => problem.kind(),
            Self::FalseNegatives(problem) => problem.kind(),
            Self::Vocabulary(problem) => problem.kind(),
            Self::Duplicates(problem) => problem.kind(),
            Self::Ngrams(problem) => problem.kind(),
            Self::Stopped | Self::Raised => Kind::Caller,
        }
    }

    /// The error of one sentence of a batch; what ends the whole call stays as it is.
    #[must_use]
    pub fn in_sentence(self, row: usize) -> Self {
        if self.ends_call() { self } else { Self::Sentence { row, error: Box::new(self) } }
    }

    /// Whether it is no problem of a row: memory is refused, or the caller stopped.
    pub fn ends_call(&self) -> bool {
        matches!(self.kind(), Kind::Memory | Kind::Caller)
    }
}

impl From<RowProblem> for Error {
    fn from(problem: RowProblem) -> Self {
        Self::Row { problem }
    }
}

/// A path for people: bytes that are no UTF-8 are written as `\xff`.
pub fn show_path(path: &Path) -> String {
    let mut shown = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        shown.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Result with the core's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Writes a text as Python's `repr` writes a simple string, so that both sides agree.
pub fn quote(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(mark);
    for character in text.chars() {
        match character {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c == mark => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c == ' ' || is_printable(c) => quoted.push(c),
            c => {
                let code = u32::from(c);
                // Writing to a string cannot fail.
                let _ = if code <= 0xff {
                    write!(quoted, "\\x{code:02x}")
                } else if code <= 0xffff {
                    write!(quoted, "\\u{code:04x}")
                } else {
                    write!(quoted, "\\U{code:08x}")
                };
            }
        }
    }
    quoted.push(mark);
    quoted
}

/// Writes a number as Python's `repr` writes a float, so that both sides agree.
pub fn display_float(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string().to_lowercase();
    }
    // The shortest digits that give this number back. Where several do, Python takes those that
    // are nearest and, of two, the even ones: so does writing with that number of digits, but
    // beside a power of two what is written so may be another number.
    let shortest = format!("{value:e}");
    let decimals = shortest.split_once('e').map_or("", |(digits, _)| digits);
    let decimals = decimals.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let nearest = format!("{value:.decimals$e}");
    let written = if nearest.parse() == Ok(value) { nearest } else { shortest };
    let (digits, power) = written.split_once('e').unwrap_or((&written, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    if !(-4..16).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", power.abs());
    }
    // At least one decimal.
    let decimals = i32::try_from(decimals).unwrap_or(i32::MAX).saturating_sub(power).max(1);
    let fixed = format!("{value:.*}", decimals.unsigned_abs() as usize);
    if fixed.parse() == Ok(value) { fixed } else { value.to_string() }
}

/// Whether Python's `str.isprintable` holds.
fn is_printable(character: char) -> bool {
    !matches!(
        character.general_category_group(),
        GeneralCategoryGroup::Other | GeneralCategoryGroup::Separator
    )
}
