//! Binding of [`crate::words`].

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arrays::{list_of, strings, text};
use super::hooks::detach_interruptible;
use crate::memory;
use crate::words::{self, Range, to_characters};

/// Returns the (start, end) of each word of a text, in characters.
#[pyfunction]
#[pyo3(signature = (text, /))]
#[pyo3(name = "split_words")]
pub fn split_words<'py>(py: Python<'py>, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let text = self::text(text, "text")?;
    let ranges = detach_interruptible(py, || to_characters(text, &words::split_words(text)?))?;
    pairs(py, &ranges)
}

/// Returns where each word stands in a text, in characters.
#[pyfunction]
#[pyo3(signature = (text, words, /))]
pub fn locate_words<'py>(
    py: Python<'py>,
    text: &Bound<'py, PyAny>,
    words: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyList>> {
    let text = self::text(text, "text")?;
    let words = strings(words, "words")?;
    let ranges =
        detach_interruptible(py, || to_characters(text, &words::locate_words(text, words.all())?))?;
    pairs(py, &ranges)
}

fn pairs<'py>(py: Python<'py>, ranges: &[Range]) -> PyResult<Bound<'py, PyList>> {
    let pairs = ranges.iter().map(|range| (range.start, range.end));
    list_of(py, memory::collect(ranges.len(), pairs)?)
}
