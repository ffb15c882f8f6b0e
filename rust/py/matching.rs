//! Binding of [`crate::matching`].

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arrays::{Whole, list_of, nested_strings, shared_strings, strings, text, thread_count};
use super::hooks::detach_interruptible;
use super::lcs::signed;
use crate::matching::{self, Differences, MatchInput, MatchedRow, Matcher};

type List<'py> = Bound<'py, PyList>;
type Parsed<'py> = (List<'py>, List<'py>, List<'py>, String);
type Match<'py> =
    (List<'py>, &'static str, List<'py>, Parsed<'py>, List<'py>, List<'py>, List<'py>, List<'py>);

/// Results that become Python objects between two looks for Ctrl-C.
const ROWS_AT_ONCE: usize = 256;

/// Returns words, labels, labels without a word, and the text after the last label.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub fn parse_generation<'py>(py: Python<'py>, text: &Bound<'py, PyAny>) -> PyResult<Parsed<'py>> {
    let text = self::text(text, "text")?;
    let found = detach_interruptible(py, || {
        let mut matcher = Matcher::default();
        matcher.parse(text)?;
        matcher.parsed(text)
    })?;
    parsed(py, found)
}

/// Returns the condition that held, and an alignment of equal words.
#[pyfunction]
#[pyo3(signature = (words, generated, /))]
pub fn align_words<'py>(
    py: Python<'py>,
    words: &Bound<'py, PyAny>,
    generated: &Bound<'py, PyAny>,
) -> PyResult<(&'static str, Bound<'py, PyList>)> {
    let (words, generated) = (strings(words, "words")?, strings(generated, "generated")?);
    let (condition, alignment) = detach_interruptible(py, || {
        let mut matcher = Matcher::default();
        matcher.align_words(words.all(), generated.all())?;
        Ok((matcher.condition.name(), signed(&matcher.alignment)?))
    })?;
    Ok((condition, list_of(py, alignment)?))
}

/// Returns one label per word, and how it was found.
#[pyfunction]
#[pyo3(signature = (words, generation, types, comparison_words, split_generated, /))]
pub fn match_labels<'py>(
    py: Python<'py>,
    words: &Bound<'py, PyAny>,
    generation: &Bound<'py, PyAny>,
    types: &Bound<'py, PyAny>,
    comparison_words: Option<&Bound<'py, PyAny>>,
    split_generated: bool,
) -> PyResult<Match<'py>> {
    let words = strings(words, "words")?;
    let generation = text(generation, "generation")?;
    let types = strings(types, "types")?;
    let comparison =
        comparison_words.map(|given| strings(given, "comparison_words")).transpose()?;
    let input = MatchInput {
        words: words.all(),
        generation,
        label_list: types.all(),
        comparison_words: comparison.as_ref().map(crate::text::Strings::all),
    };
    let matched = detach_interruptible(py, || matching::match_labels(&input, split_generated))?;
    as_tuple(py, matched)
}

/// Returns the same for many sentences, computed by several threads.
#[pyfunction]
#[pyo3(signature = (words, generations, types, comparison_words, threads, /))]
pub fn match_labels_batch<'py>(
    py: Python<'py>,
    words: &Bound<'py, PyAny>,
    generations: &Bound<'py, PyAny>,
    types: &Bound<'py, PyAny>,
    comparison_words: Option<&Bound<'py, PyAny>>,
    threads: Option<Whole>,
) -> PyResult<Bound<'py, PyList>> {
    let threads = thread_count(threads)?;
    let words = nested_strings(words, "words")?;
    let generations = strings(generations, "generations")?;
    let types = shared_strings(types, "types")?;
    let comparison =
        comparison_words.map(|given| nested_strings(given, "comparison_words")).transpose()?;
    let matched = detach_interruptible(py, || {
        matching::match_labels_batch(
            &words,
            generations.all(),
            &types,
            comparison.as_ref(),
            threads,
        )
    })?;
    let list = PyList::empty(py);
    for (index, row) in matched.into_iter().enumerate() {
        if index.is_multiple_of(ROWS_AT_ONCE) {
            py.check_signals()?;
        }
        list.append(as_tuple(py, row)?)?;
    }
    Ok(list)
}

fn parsed(py: Python<'_>, parsed: matching::Parsed) -> PyResult<Parsed<'_>> {
    Ok((
        list_of(py, parsed.words)?,
        list_of(py, parsed.labels)?,
        list_of(py, parsed.dropped_labels)?,
        parsed.trailing_text,
    ))
}

fn as_tuple(py: Python<'_>, row: MatchedRow) -> PyResult<Match<'_>> {
    let Differences { omitted, added, substituted } = row.differences;
    Ok((
        list_of(py, row.labels)?,
        row.condition.name(),
        list_of(py, signed(&row.alignment)?)?,
        parsed(py, row.parsed)?,
        list_of(py, omitted)?,
        list_of(py, added)?,
        list_of(py, substituted)?,
        list_of(py, row.invalid_labels)?,
    ))
}
