//! Binding of [`crate::entities`].

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arrays::{Whole, list_of, nested_labels, nested_strings, strings, text, thread_count};
use super::hooks::detach_interruptible;
use crate::entities::{self, EntityCounts, ErrorKinds, Scheme};

pub type Counts = (u64, u64, u64);
pub type Kinds = (u64, u64, u64, u64);

/// Returns (start, end, type) of each entity that BIO labels spell.
#[pyfunction]
#[pyo3(signature = (labels, scheme, /))]
pub fn decode_spans<'py>(
    py: Python<'py>,
    labels: &Bound<'py, PyAny>,
    scheme: &str,
) -> PyResult<Bound<'py, PyList>> {
    let scheme = Scheme::from_name(scheme)?;
    let labels = strings(labels, "labels")?;
    let spans = detach_interruptible(py, || entities::decode_spans(labels.all(), scheme))?;
    list_of(py, spans)
}

/// Returns lower-case text without punctuation, articles and extra white space.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub fn normalize_text(py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = self::text(text, "text")?;
    detach_interruptible(py, || {
        let mut normalized = String::new();
        entities::normalize_text_into(text, &mut normalized)?;
        Ok(normalized)
    })
}

/// Returns the numbers of gold, predicted and correct entities of one sentence.
#[pyfunction]
#[pyo3(signature = (words, gold, predicted, scheme, /))]
pub fn count_entities(
    py: Python<'_>,
    words: &Bound<'_, PyAny>,
    gold: &Bound<'_, PyAny>,
    predicted: &Bound<'_, PyAny>,
    scheme: &str,
) -> PyResult<Counts> {
    let scheme = Scheme::from_name(scheme)?;
    let words = strings(words, "words")?;
    let (gold, predicted) = (strings(gold, "gold")?, strings(predicted, "predicted")?);
    let (counts, _) = detach_interruptible(py, || {
        entities::count_entities(Some(words.all()), gold.all(), predicted.all(), scheme)
    })?;
    Ok(counts_tuple(counts))
}

/// Returns how gold entities were missed in one sentence.
#[pyfunction]
#[pyo3(signature = (gold, predicted, scheme, /))]
pub fn classify_errors(
    py: Python<'_>,
    gold: &Bound<'_, PyAny>,
    predicted: &Bound<'_, PyAny>,
    scheme: &str,
) -> PyResult<Kinds> {
    let scheme = Scheme::from_name(scheme)?;
    let (gold, predicted) = (strings(gold, "gold")?, strings(predicted, "predicted")?);
    let (_, kinds) = detach_interruptible(py, || {
        entities::count_entities(None, gold.all(), predicted.all(), scheme)
    })?;
    Ok(kinds_tuple(kinds))
}

/// Returns the sums of both over many sentences, computed by several threads.
#[pyfunction]
#[pyo3(signature = (words, gold, predicted, scheme, threads, /))]
pub fn count_entities_batch(
    py: Python<'_>,
    words: Option<&Bound<'_, PyAny>>,
    gold: &Bound<'_, PyAny>,
    predicted: &Bound<'_, PyAny>,
    scheme: &str,
    threads: Option<Whole>,
) -> PyResult<(Counts, Kinds)> {
    let scheme = Scheme::from_name(scheme)?;
    let threads = thread_count(threads)?;
    let words = words.map(|words| nested_strings(words, "words")).transpose()?;
    let gold = nested_labels(gold, "gold")?;
    let predicted = nested_labels(predicted, "predicted")?;
    let (counts, kinds) = detach_interruptible(py, || {
        entities::count_entities_batch(words.as_ref(), &gold, &predicted, scheme, threads)
    })?;
    Ok((counts_tuple(counts), kinds_tuple(kinds)))
}

/// Returns precision, recall and F1 of summed counts.
#[pyfunction]
#[pyo3(signature = (gold, predicted, correct, scheme, /))]
pub fn compute_quality(
    gold: Whole,
    predicted: Whole,
    correct: Whole,
    scheme: &str,
) -> PyResult<(f64, f64, f64)> {
    let scheme = Scheme::from_name(scheme)?;
    let counts = EntityCounts {
        gold: gold.count("gold")?,
        predicted: predicted.count("predicted")?,
        correct: correct.count("correct")?,
    };
    let [precision, recall, f1] = entities::compute_quality(counts, scheme);
    Ok((precision, recall, f1))
}

pub fn counts_tuple(counts: EntityCounts) -> Counts {
    (counts.gold, counts.predicted, counts.correct)
}

pub fn kinds_tuple(kinds: ErrorKinds) -> Kinds {
    (kinds.gold, kinds.unlabelled, kinds.noisy, kinds.boundary)
}
