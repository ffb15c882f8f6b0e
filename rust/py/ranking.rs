//! Binding of [`crate::ranking`].

use numpy::{Element, IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::arrays::{Whole, thread_count, type_name, values};
use crate::ranking::{self, Targets, Ties};

type Pair<'py, T, U> = (Bound<'py, PyArray1<T>>, Bound<'py, PyArray1<U>>);

/// Returns the rank of each row's target, and how many other candidates have its score.
#[pyfunction]
#[pyo3(signature = (scores, targets, offsets, excluded, ties, threads, /))]
#[allow(clippy::needless_pass_by_value)] // PyO3 hands arrays over by value
pub fn rank_targets<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    targets: PyReadonlyArray1<'py, i64>,
    offsets: PyReadonlyArray1<'py, i64>,
    excluded: PyReadonlyArray1<'py, i64>,
    ties: &str,
    threads: Option<Whole>,
) -> PyResult<Pair<'py, f64, i64>> {
    let ties = Ties::from_name(ties)?;
    let threads = thread_count(threads)?;
    let (columns, offsets, excluded) = (values(&targets), values(&offsets), values(&excluded));
    let targets = Targets { columns: &columns, offsets: &offsets, excluded: &excluded };
    if let Ok(scores) = scores.extract::<PyReadonlyArray2<'py, f32>>() {
        rank(py, &scores, targets, ties, threads)
    } else if let Ok(scores) = scores.extract::<PyReadonlyArray2<'py, f64>>() {
        rank(py, &scores, targets, ties, threads)
    } else {
        let got = type_name(scores);
        Err(PyTypeError::new_err(format!(
            "scores must be a two-dimensional array of float32 or float64: got {got}"
        )))
    }
}

fn rank<'py, T: Element + PartialOrd + Copy>(
    py: Python<'py>,
    scores: &PyReadonlyArray2<'py, T>,
    targets: Targets<'_>,
    ties: Ties,
    threads: Option<usize>,
) -> PyResult<Pair<'py, f64, i64>> {
    let view = scores.as_array();
    let copied: Vec<T>;
    let rows: Option<Vec<&[T]>> = view.outer_iter().map(|row| row.to_slice()).collect();
    let rows = if let Some(rows) = rows {
        rows
    } else {
        copied = view.iter().copied().collect();
        copied.chunks(view.ncols()).collect()
    };
    let (ranks, ties) = py.detach(|| ranking::rank_targets(&rows, targets, ties, threads))?;
    Ok((ranks.into_pyarray(py), ties.into_pyarray(py)))
}

/// Returns rows and columns of what is no candidate: each once, and no targets.
#[pyfunction]
#[pyo3(signature = (width, targets, offsets, excluded, /))]
#[allow(clippy::needless_pass_by_value)]
pub fn list_excluded<'py>(
    py: Python<'py>,
    width: usize,
    targets: PyReadonlyArray1<'py, i64>,
    offsets: PyReadonlyArray1<'py, i64>,
    excluded: PyReadonlyArray1<'py, i64>,
) -> PyResult<Pair<'py, i64, i64>> {
    let (columns, offsets, excluded) = (values(&targets), values(&offsets), values(&excluded));
    let targets = Targets { columns: &columns, offsets: &offsets, excluded: &excluded };
    let (rows, columns) = py.detach(|| ranking::list_excluded(width, targets))?;
    Ok((rows.into_pyarray(py), columns.into_pyarray(py)))
}

/// Returns HR and NDCG at each cutoff, and the mean reciprocal rank.
#[pyfunction]
#[pyo3(signature = (ranks, cutoffs, /))]
#[allow(clippy::needless_pass_by_value)]
pub fn ranking_metrics(
    py: Python<'_>,
    ranks: PyReadonlyArray1<'_, f64>,
    cutoffs: Vec<i64>,
) -> PyResult<(Vec<f64>, Vec<f64>, f64)> {
    let ranks = values(&ranks);
    let metrics = py.detach(|| ranking::ranking_metrics(&ranks, &cutoffs))?;
    Ok((metrics.hit_rates, metrics.gains, metrics.reciprocal_rank))
}
