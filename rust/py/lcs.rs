//! Binding of [`crate::lcs`].

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use super::arrays::{strings, values};
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
    Ok(aligned.into_pyarray(py))
}

/// Returns, for each integer of `a`, the index of its partner in `b`, or -1.
#[pyfunction]
#[pyo3(signature = (a, b, /))]
#[allow(clippy::needless_pass_by_value)] // PyO3 hands arrays over by value
pub fn longest_common_subsequence_integers<'py>(
    py: Python<'py>,
    a: PyReadonlyArray1<'py, i64>,
    b: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    for array in [&a, &b] {
        check_length(array.len()?)?;
        memory::probe(array.len()? * size_of::<i64>())?;
    }
    let (a, b) = (values(&a), values(&b));
    let aligned = detach_interruptible(py, || signed(&align_integers(&a, &b)?))?;
    Ok(aligned.into_pyarray(py))
}

/// An alignment with -1 for items that have no partner.
///
/// # Errors
/// The memory is refused.
pub fn signed(alignment: &[u32]) -> Result<Vec<i64>> {
    let indices = alignment.iter().map(|&j| if j == UNMATCHED { -1 } else { i64::from(j) });
    memory::collect(alignment.len(), indices)
}
