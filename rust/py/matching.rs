//! Binding of [`crate::matching`].

use pyo3::prelude::*;

use super::arrays::{nested_strings, strings, text, thread_count};
use super::lcs::signed;
use crate::matching::{self, Differences, MatchInput, MatchedRow, Matcher};

type Parsed = (Vec<String>, Vec<String>, Vec<String>, String);
type Match = (
    Vec<String>,
    &'static str,
    Vec<i64>,
    Parsed,
    Vec<usize>,
    Vec<usize>,
    Vec<(usize, usize)>,
    Vec<usize>,
);

/// Returns words, labels, labels without a word, and the text after the last label.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub fn parse_generation(py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<Parsed> {
    let text = self::text(text, "text")?;
    Ok(py.detach(|| {
        let mut matcher = Matcher::default();
        matcher.parse(text);
        parsed(matcher.parsed(text))
    }))
}

/// Returns the condition that held, and an alignment of equal words.
#[pyfunction]
#[pyo3(signature = (words, generated, /))]
pub fn align_words(
    py: Python<'_>,
    words: &Bound<'_, PyAny>,
    generated: &Bound<'_, PyAny>,
) -> PyResult<(&'static str, Vec<i64>)> {
    let (words, generated) = (strings(words, "words")?, strings(generated, "generated")?);
    Ok(py.detach(|| {
        let mut matcher = Matcher::default();
        matcher.align_words(words.all(), generated.all());
        (matcher.condition.name(), signed(&matcher.alignment))
    }))
}

/// Returns one label per word, and how it was found.
#[pyfunction]
#[pyo3(signature = (words, generation, label_list, comparison_words, split_generated, /))]
pub fn match_labels(
    py: Python<'_>,
    words: &Bound<'_, PyAny>,
    generation: &Bound<'_, PyAny>,
    label_list: &Bound<'_, PyAny>,
    comparison_words: Option<&Bound<'_, PyAny>>,
    split_generated: bool,
) -> PyResult<Match> {
    let words = strings(words, "words")?;
    let generation = text(generation, "generation")?;
    let label_list = strings(label_list, "label_list")?;
    let comparison =
        comparison_words.map(|given| strings(given, "comparison_words")).transpose()?;
    let input = MatchInput {
        words: words.all(),
        generation,
        label_list: label_list.all(),
        comparison_words: comparison.as_ref().map(crate::text::Strings::all),
    };
    let matched = py.detach(|| matching::match_row(&input, split_generated))?;
    Ok(as_tuple(matched))
}

/// Returns the same for many sentences, computed by several threads.
#[pyfunction]
#[pyo3(signature = (words, generations, label_lists, comparison_words, threads, /))]
pub fn match_labels_batch(
    py: Python<'_>,
    words: &Bound<'_, PyAny>,
    generations: &Bound<'_, PyAny>,
    label_lists: &Bound<'_, PyAny>,
    comparison_words: Option<&Bound<'_, PyAny>>,
    threads: Option<i64>,
) -> PyResult<Vec<Match>> {
    let threads = thread_count(threads)?;
    let words = nested_strings(words, "words")?;
    let generations = strings(generations, "generations")?;
    let label_lists = nested_strings(label_lists, "label_lists")?;
    let comparison =
        comparison_words.map(|given| nested_strings(given, "comparison_words")).transpose()?;
    let matched = py.detach(|| {
        matching::match_batch(&words, generations.all(), &label_lists, comparison.as_ref(), threads)
    })?;
    Ok(matched.into_iter().map(as_tuple).collect())
}

fn parsed(parsed: matching::Parsed) -> Parsed {
    (parsed.words, parsed.labels, parsed.dropped_labels, parsed.trailing_text)
}

fn as_tuple(row: MatchedRow) -> Match {
    let Differences { omitted, added, substituted } = row.differences;
    (
        row.labels,
        row.condition.name(),
        signed(&row.alignment),
        parsed(row.parsed),
        omitted,
        added,
        substituted,
        row.invalid_labels,
    )
}
