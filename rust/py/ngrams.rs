//! Binding of [`crate::ngrams`].

use numpy::ndarray::Ix1;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arrays::{IntoNumpy, Whole, array, in_order, nested_strings, strings, thread_count};
use super::hooks::detach_interruptible;
use crate::check::one_of;
use crate::error::Result;
use crate::ngrams::{self, SMOOTHINGS, Smoothing};

type Array<'py, T> = Bound<'py, PyArray1<T>>;
type Table<'py, T> = Bound<'py, PyArray2<T>>;

/// Returns BLEU-1 to BLEU-n of each hypothesis against its references.
#[pyfunction]
#[pyo3(signature = (hypotheses, references, order, smoothing, threads, /))]
pub fn sentence_bleu<'py>(
    py: Python<'py>,
    hypotheses: &Bound<'py, PyAny>,
    references: &Bound<'py, PyAny>,
    order: Whole,
    smoothing: &str,
    threads: Option<Whole>,
) -> PyResult<Table<'py, f64>> {
    let (order, smoothing) = (order.at_least(1, "order")?, smoothing_of(smoothing)?);
    let threads = thread_count(threads)?;
    let hypotheses = strings(hypotheses, "hypotheses")?;
    let references = nested_strings(references, "references")?;
    let scores = detach_interruptible(py, || {
        ngrams::sentence_bleu_batch(hypotheses.all(), &references, order, smoothing, threads)
    })?;
    scores.into_numpy(py).reshape([hypotheses.len(), order])
}

/// Returns BLEU-1 to BLEU-n of texts against all others.
#[pyfunction]
#[pyo3(signature = (texts, rows, order, smoothing, /))]
pub fn self_bleu<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
    rows: &Bound<'py, PyAny>,
    order: Whole,
    smoothing: &str,
) -> PyResult<Table<'py, f64>> {
    let (order, smoothing) = (order.at_least(1, "order")?, smoothing_of(smoothing)?);
    let texts = strings(texts, "texts")?;
    let rows = array::<i64, Ix1>(rows, "rows")?;
    let rows = in_order(&rows)?;
    let scores =
        detach_interruptible(py, || ngrams::self_bleu(texts.all(), &rows, order, smoothing))?;
    scores.into_numpy(py).reshape([rows.len(), order])
}

/// Returns the index of the chosen candidate of each group, and the sum of each candidate.
#[pyfunction]
#[pyo3(signature = (groups, order, smoothing, threads, /))]
pub fn choose_candidates<'py>(
    py: Python<'py>,
    groups: &Bound<'py, PyAny>,
    order: Whole,
    smoothing: &str,
    threads: Option<Whole>,
) -> PyResult<(Array<'py, i64>, Array<'py, f64>)> {
    let (order, smoothing) = (order.at_least(1, "order")?, smoothing_of(smoothing)?);
    let threads = thread_count(threads)?;
    let groups = nested_strings(groups, "groups")?;
    let choices = detach_interruptible(py, || {
        ngrams::choose_candidates_batch(&groups, order, smoothing, threads)
    })?;
    Ok((choices.best.into_numpy(py), choices.sums.into_numpy(py)))
}

/// Returns the occurrences of each n-gram, and of the most frequent one in each text.
#[pyfunction]
#[pyo3(signature = (texts, order, /))]
pub fn count_ngrams<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
    order: Whole,
) -> PyResult<(Bound<'py, PyList>, Table<'py, i64>)> {
    let order = order.at_least(1, "order")?;
    let texts = strings(texts, "texts")?;
    let counts = detach_interruptible(py, || ngrams::count_ngrams(texts.all(), order))?;
    let occurrences = counts.occurrences.into_iter().map(|counts| counts.into_numpy(py));
    let most = counts.most.into_numpy(py).reshape([texts.len(), order])?;
    Ok((PyList::new(py, occurrences)?, most))
}

fn smoothing_of(name: &str) -> Result<Smoothing> {
    one_of("smoothing", &SMOOTHINGS, [Smoothing::Method1, Smoothing::Method4], name)
}
