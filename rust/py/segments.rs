//! Binding of [`crate::segments`].

use numpy::ndarray::Ix1;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

use super::arrays::{IntoNumpy, Whole, array, in_order, thread_count};
use super::hooks::detach_interruptible;
use crate::segments;

type Array<'py> = Bound<'py, PyArray1<i64>>;
type Listed<'py> = (Bound<'py, PyArray2<i64>>, Array<'py>, Array<'py>);

/// Returns the distinct segments of texts, which one each is, and where those of a text start.
#[pyfunction]
#[pyo3(signature = (ids, offsets, size, /))]
pub fn list_segments<'py>(
    py: Python<'py>,
    ids: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    size: Whole,
) -> PyResult<Listed<'py>> {
    let size = size.at_least(1, "size")?;
    let (ids, offsets) = (array::<i64, Ix1>(ids, "ids")?, array::<i64, Ix1>(offsets, "offsets")?);
    let (ids, offsets) = (in_order(&ids)?, in_order(&offsets)?);
    let found = detach_interruptible(py, || segments::list_segments(&ids, &offsets, size))?;
    let shape = [found.distinct.len() / size, size];
    let distinct = found.distinct.into_numpy(py).reshape(shape)?;
    Ok((distinct, found.inverse.into_numpy(py), found.offsets.into_numpy(py)))
}

/// Returns the ids of texts with masks in place of toxic segments, and where each text starts.
#[pyfunction]
#[pyo3(signature = (ids, offsets, labels, mask_id, size, threads, /))]
pub fn mask_segments<'py>(
    py: Python<'py>,
    ids: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    labels: &Bound<'py, PyAny>,
    mask_id: i64,
    size: Whole,
    threads: Option<Whole>,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let (size, threads) = (size.at_least(1, "size")?, thread_count(threads)?);
    let (ids, offsets) = (array::<i64, Ix1>(ids, "ids")?, array::<i64, Ix1>(offsets, "offsets")?);
    let labels = array::<i64, Ix1>(labels, "labels")?;
    let (ids, offsets, labels) = (in_order(&ids)?, in_order(&offsets)?, in_order(&labels)?);
    let masked = detach_interruptible(py, || {
        segments::mask_segments_batch(&ids, &offsets, &labels, mask_id, size, threads)
    })?;
    Ok((masked.ids.into_numpy(py), masked.offsets.into_numpy(py)))
}
