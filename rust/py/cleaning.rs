//! Binding of [`crate::cleaning`].

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arrays::{IntoNumpy, Whole, list_of, strings, thread_count};
use super::hooks::detach_interruptible;
use crate::cleaning::{self, Counts, Rules};
use crate::memory;
use crate::text::Strings;

/// The rules as the facade hands them over: four switches and two numbers.
pub type RulesTuple = (bool, bool, bool, bool, Whole, Whole);

type Table = Vec<(u64, u64)>;
type Cleaned<'py> = (Bound<'py, PyList>, Bound<'py, PyArray1<u8>>, Table);

/// Returns texts without what the rules remove, what became of each, and what each rule did.
#[pyfunction]
#[pyo3(signature = (texts, rules, threads, /))]
pub fn clean_texts<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
    rules: RulesTuple,
    threads: Option<Whole>,
) -> PyResult<Cleaned<'py>> {
    let (rules, threads) = (rules_of(rules)?, thread_count(threads)?);
    let texts = strings(texts, "texts")?;
    let cleaned = detach_interruptible(py, || cleaning::clean_batch(texts.all(), &rules, threads))?;
    let left = left_of(py, &cleaned.texts, &cleaned.outcomes)?;
    Ok((left, cleaned.outcomes.into_numpy(py), table_of(&cleaned.counts)))
}

/// The rules of the core.
pub fn rules_of(
    (html, links, emails, phone_numbers, most_repeats, minimum_words): RulesTuple,
) -> PyResult<Rules> {
    let most_repeats = most_repeats.at_least(0, "most_repeats")?;
    let minimum_words = minimum_words.at_least(0, "minimum_words")?;
    Ok(Rules { html, links, emails, phone_numbers, most_repeats, minimum_words })
}

/// By rule, the texts that it changed and the characters that it removed.
pub fn table_of(counts: &Counts) -> Table {
    counts.documents.into_iter().zip(counts.characters).collect()
}

/// What is left of texts; None where one is dropped.
pub fn left_of<'py>(
    py: Python<'py>,
    texts: &Strings,
    outcomes: &[u8],
) -> PyResult<Bound<'py, PyList>> {
    let left = texts.all().iter().zip(outcomes);
    let left = left.map(|(text, &outcome)| (outcome == 0).then_some(text));
    list_of(py, memory::collect(outcomes.len(), left)?)
}
