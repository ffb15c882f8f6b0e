//! Files and lists of predictions: from rows to scores, or to aligned rows.
//!
//! The definition is `reference/predictions.py`. Rows stream through in blocks; blocks are
//! worked on by any number of threads and merged in order, so the result does not depend on
//! the number of threads, and memory does not depend on the length of the input.

mod align;
mod back_tokens;
mod json;
mod row;
mod rules;
mod scan;
mod score;
mod table;

pub use align::{AlignOptions, AlignSummary, align_file, align_row};
pub use back_tokens::BackTokenize;
pub use row::{RowBuffer, RowRef};
pub use rules::Found;
pub use score::{
    DatasetScore, Evaluation, ScoreOptions, ScoredFile, WorstRow, score_examples, score_files,
};
pub use table::{RowReader, RowValues, Table};

use crate::error::{Kind, Result};

/// Bytes that are read at a time with a tokenizer, which is asked once per block.
const TOKENIZED_BLOCK_BYTES: usize = 1 << 22;
/// Bad rows that are listed; the others are only counted.
const LISTED_BAD_ROWS: usize = 1000;

/// What can go wrong with predictions alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The caller's tokenizer answered with another number of words than it was asked for.
    #[error(
        "back_tokenize must return one string for each word that it is given: got {got} for {asked}"
    )]
    TokenizerAnswer {
        /// Strings that it returned.
        got: usize,
        /// Words that it was given.
        asked: usize,
    },
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::TokenizerAnswer { .. } => Kind::Value,
        }
    }
}

/// What the caller can do while the core works.
pub struct Hooks<'h> {
    /// Called often, with the number of bytes or rows done so far; an error stops the work, as
    /// does an error of the [`crate::interrupt`] hook of the calling thread.
    pub progress: &'h mut dyn FnMut(u64) -> Result<()>,
    /// Maps distinct lower-case words to what a tokenizer makes of them (back tokenisation).
    pub back_tokenize: Option<&'h mut BackTokenize<'h>>,
}
