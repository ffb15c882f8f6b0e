//! Binding of [`crate::ranking`].

use numpy::ndarray::Ix1;
use numpy::{PyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arrays::{IntoNumpy, Number, Whole, array, by_dtype, in_order, thread_count};
use super::hooks::detach_interruptible;
use crate::check::same_length;
use crate::memory;
use crate::ranking::{self, Targets, Ties};

type Pair<'py, T, U> = (Bound<'py, PyArray1<T>>, Bound<'py, PyArray1<U>>);

/// Returns the rank of each row's target, and how many other candidates have its score.
#[pyfunction]
#[pyo3(signature = (scores, targets, offsets, excluded, ties, threads, /))]
pub fn rank_targets<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    excluded: &Bound<'py, PyAny>,
    ties: &str,
    threads: Option<Whole>,
) -> PyResult<Pair<'py, f64, i64>> {
    let ties = Ties::from_name(ties)?;
    let threads = thread_count(threads)?;
    let (targets, offsets) = (array(targets, "targets")?, array(offsets, "offsets")?);
    let excluded = array(excluded, "excluded")?;
    let (columns, offsets) = (in_order::<_, Ix1>(&targets)?, in_order::<_, Ix1>(&offsets)?);
    let excluded = in_order::<_, Ix1>(&excluded)?;
    let targets = Targets { columns: &columns, offsets: &offsets, excluded: &excluded };
    by_dtype!(scores, "scores", {
        f32 => rank::<f32>(py, &array(scores, "scores")?, targets, ties, threads),
        f64 => rank::<f64>(py, &array(scores, "scores")?, targets, ties, threads),
    })
}

fn rank<'py, T: Number + PartialOrd>(
    py: Python<'py>,
    scores: &PyReadonlyArray2<'py, T>,
    targets: Targets<'_>,
    ties: Ties,
    threads: Option<usize>,
) -> PyResult<Pair<'py, f64, i64>> {
    let (rows, width) = (scores.shape()[0], scores.shape()[1]);
    // A view may have more rows than memory has room for, but not more than targets.
    same_length(("targets", targets.columns.len()), ("scores", rows))?;
    let view = scores.as_array();
    let mut slices = memory::with_capacity(rows)?;
    slices.extend(view.outer_iter().map_while(|row| row.to_slice()));
    let copied;
    if slices.len() < rows {
        copied = in_order(scores)?;
        slices.clear();
        slices.extend(copied.chunks(width.max(1)));
    }
    let (ranks, ties) =
        detach_interruptible(py, || ranking::rank_targets(&slices, targets, ties, threads))?;
    Ok((ranks.into_numpy(py), ties.into_numpy(py)))
}

/// Returns rows and columns of what is no candidate: each once, and no targets.
#[pyfunction]
#[pyo3(signature = (width, targets, offsets, excluded, /))]
pub fn list_excluded<'py>(
    py: Python<'py>,
    width: usize,
    targets: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    excluded: &Bound<'py, PyAny>,
) -> PyResult<Pair<'py, i64, i64>> {
    let (targets, offsets) = (array(targets, "targets")?, array(offsets, "offsets")?);
    let excluded = array(excluded, "excluded")?;
    let (columns, offsets) = (in_order::<_, Ix1>(&targets)?, in_order::<_, Ix1>(&offsets)?);
    let excluded = in_order::<_, Ix1>(&excluded)?;
    let targets = Targets { columns: &columns, offsets: &offsets, excluded: &excluded };
    let (rows, columns) = detach_interruptible(py, || ranking::list_excluded(width, targets))?;
    Ok((rows.into_numpy(py), columns.into_numpy(py)))
}

/// Returns HR and NDCG at each cutoff, and the mean reciprocal rank.
#[pyfunction]
#[pyo3(signature = (ranks, cutoffs, /))]
pub fn ranking_metrics(
    py: Python<'_>,
    ranks: &Bound<'_, PyAny>,
    cutoffs: &Bound<'_, PyList>,
) -> PyResult<(Vec<f64>, Vec<f64>, f64)> {
    let ranks = array::<f64, Ix1>(ranks, "ranks")?;
    let ranks = in_order(&ranks)?;
    // A list has as many items as it says; a `Vec` would trust the length of any sequence.
    let cutoffs = cutoffs.iter().map(|k| k.extract()).collect::<PyResult<Vec<i64>>>()?;
    let metrics = detach_interruptible(py, || ranking::ranking_metrics(&ranks, &cutoffs))?;
    Ok((metrics.hit_rates, metrics.gains, metrics.reciprocal_rank))
}
