//! Binding of [`crate::lcs`].

use numpy::ndarray::Ix1;
use numpy::{PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::arrays::{IntoNumpy, all_values, array, strings};
use super::hooks::detach_interruptible;
use crate::error::Result;
use crate::lcs::{UNMATCHED, align_integers, align_strings, check_length};
use crate::memory;

/// Returns, for each string of `a`, the index of its partner in `b`, or -1.
#[pyfunction]
#[pyo3(signature = (a, b, /))]
pub fn longest_common_subsequence_strings<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let (a, b) = (strings(a, "a")?, strings(b, "b")?);
    let aligned = detach_interruptible(py, || signed(&align_strings(a.all(), b.all())?))?;
    Ok(aligned.into_numpy(py))
}

/// Returns, for each integer of `a`, the index of its partner in `b`, or -1.
#[pyfunction]
#[pyo3(signature = (a, b, /))]
pub fn longest_common_subsequence_integers<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let (a, b) = (array::<i64, Ix1>(a, "a")?, array::<i64, Ix1>(b, "b")?);
    for length in [a.len(), b.len()] {
        check_length(length)?;
        memory::probe(length * size_of::<i64>())?;
    }
    let (a, b) = (all_values(&a)?, all_values(&b)?);
    let aligned = detach_interruptible(py, || signed(&align_integers(&a, &b)?))?;
    Ok(aligned.into_numpy(py))
}

/// An alignment with -1 for items that have no partner.
///
/// # Errors
/// The memory is refused.
pub fn signed(alignment: &[u32]) -> Result<Vec<i64>> {
    let indices = alignment.iter().map(|&j| if j == UNMATCHED { -1 } else { i64::from(j) });
    memory::collect(alignment.len(), indices)
}
