//! What a usable row is, in one rule and one text for lines of files and for rows of lists.

use crate::error::{Error, RowProblem, quote};

/// A row's part, or why the row cannot be used.
pub type RowResult<T> = std::result::Result<T, RowProblem>;

/// The names of a key of a sentence: at the top of a row, and in its `instance`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentenceKeys {
    at_top: &'static str,
    in_instance: &'static str,
}

/// The key of what entities may be.
pub(super) const TYPES: &str = "types";
/// The authors' name of it.
pub(super) const LABEL_LIST: &str = "label_list";
/// The problem of a key that its object has twice.
pub(super) const TWICE: &str = "this key stands twice in its object";
/// The problem of types under both names.
pub(super) const BOTH: &str = "label_list stands in this row, too";

pub(super) const WORDS: SentenceKeys =
    SentenceKeys { at_top: "words", in_instance: "instance.words" };
pub(super) const LABELS: SentenceKeys =
    SentenceKeys { at_top: "labels", in_instance: "instance.labels" };

/// What stands under a key of a sentence, which may be at the top of a row or in its `instance`.
#[derive(Debug, Clone, Copy)]
pub struct Found<V> {
    /// The value at the top.
    pub at_top: Option<V>,
    /// The value in `instance`.
    pub in_instance: Option<V>,
}

impl<V> Found<V> {
    /// The value, with the name of its key. Of two it cannot be known which one counts.
    #[inline]
    pub(super) fn choose(self, keys: SentenceKeys) -> RowResult<(V, &'static str)> {
        match (self.at_top, self.in_instance) {
            (Some(value), None) => Ok((value, keys.at_top)),
            (None, Some(value)) => Ok((value, keys.in_instance)),
            (None, None) => Err(missing(keys.at_top)),
            (Some(_), Some(_)) => Err(RowProblem::value(
                Some(keys.at_top),
                "this key stands at the top of the row and in its instance",
            )),
        }
    }
}

/// The problem of a key that a row does not have.
pub(super) fn missing(key: &str) -> RowProblem {
    RowProblem::value(Some(key), "this key is missing")
}

/// Checks that a row has as many words as labels; `key` names the labels.
pub(super) fn check_lengths(key: &str, words: usize, labels: usize) -> RowResult<()> {
    if words == labels {
        return Ok(());
    }
    let reason = format!("words and labels must have the same length: got {words} and {labels}");
    Err(RowProblem::value(Some(key), reason))
}

/// The problem of a gold label that the row's label list does not allow.
pub(super) fn label_outside_list(index: usize, label: &str) -> RowProblem {
    RowProblem::value(Some("labels"), format!("[{index}] {} is not in types", quote(label)))
}

/// An error that came of the value under a key: what is wrong with it is a problem of the row.
#[cold]
pub(super) fn under_key(key: &str, error: Error) -> Error {
    match error {
        Error::Row { problem } => RowProblem { key: Some(key.to_owned()), ..problem }.into(),
        error if error.ends_call() => error,
        error => RowProblem::value(Some(key), error.to_string()).into(),
    }
}

/// An error that came of a row's words.
pub(super) fn of_words(error: Error) -> Error {
    under_key("words", error)
}
