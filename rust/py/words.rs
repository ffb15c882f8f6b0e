//! Binding of [`crate::words`].

use pyo3::prelude::*;

use super::arrays::{strings, text};
use crate::words::{self, Range, to_characters};

/// Returns the (start, end) of each word of a text, in characters.
#[pyfunction]
#[pyo3(signature = (text, /))]
#[pyo3(name = "split_words")]
pub fn split_words(py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<Vec<(usize, usize)>> {
    let text = self::text(text, "text")?;
    Ok(py.detach(|| pairs(&to_characters(text, &words::split_words(text)))))
}

/// Returns where each word stands in a text, in characters.
#[pyfunction]
#[pyo3(signature = (text, words, /))]
pub fn locate_words(
    py: Python<'_>,
    text: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
) -> PyResult<Vec<(usize, usize)>> {
    let text = self::text(text, "text")?;
    let words = strings(words, "words")?;
    Ok(py.detach(|| {
        words::locate_words(text, words.all()).map(|ranges| pairs(&to_characters(text, &ranges)))
    })?)
}

fn pairs(ranges: &[Range]) -> Vec<(usize, usize)> {
    ranges.iter().map(|range| (range.start, range.end)).collect()
}
