//! Binding of [`crate::vocabulary`].

use numpy::ndarray::{Ix1, IxDyn};
use numpy::{PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::arrays::{IntoNumpy, Number, Whole, array, array_mut, by_dtype, in_order, thread_count};
use super::hooks::detach_interruptible;
use crate::vocabulary::{self, Id, Ids, NewId};

type Lost<'py> = (u64, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

/// Adds how often each id occurs to an array of counts, and returns how many are outside.
#[pyfunction]
#[pyo3(signature = (ids, counts, unknown, threads, /))]
pub fn count_ids(
    py: Python<'_>,
    ids: &Bound<'_, PyAny>,
    counts: &Bound<'_, PyAny>,
    unknown: bool,
    threads: Option<Whole>,
) -> PyResult<u64> {
    let threads = thread_count(threads)?;
    by_dtype!(ids, "ids", {
        i32 => count::<i32>(py, ids, counts, unknown, threads),
        u16 => count::<u16>(py, ids, counts, unknown, threads),
        i64 => count::<i64>(py, ids, counts, unknown, threads),
        u32 => count::<u32>(py, ids, counts, unknown, threads),
    })
}

fn count<T: Number + Id>(
    py: Python<'_>,
    ids: &Bound<'_, PyAny>,
    counts: &Bound<'_, PyAny>,
    unknown: bool,
    threads: Option<usize>,
) -> PyResult<u64> {
    let ids = array::<T, IxDyn>(ids, "ids")?;
    let mut counts = array_mut::<i64>(counts, "counts")?;
    let counts = counts.as_slice_mut()?;
    let values = in_order(&ids)?;
    let ids = Ids { values: &values, shape: ids.shape() };
    detach_interruptible(py, || vocabulary::count_ids(ids, counts, unknown, threads))
}

/// Returns the ids by falling count.
#[pyfunction]
#[pyo3(signature = (counts, /))]
pub fn rank_ids<'py>(
    py: Python<'py>,
    counts: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let counts = array::<i64, Ix1>(counts, "counts")?;
    let counts = in_order(&counts)?;
    Ok(detach_interruptible(py, || vocabulary::rank_ids(&counts))?.into_numpy(py))
}

/// Writes new ids into an array, and returns how many have none, which, and how many of each.
#[pyfunction]
#[pyo3(signature = (ids, table, fill, report, out, threads, /))]
pub fn remap_ids<'py>(
    py: Python<'py>,
    ids: &Bound<'py, PyAny>,
    table: &Bound<'py, PyAny>,
    fill: Option<i64>,
    report: bool,
    out: &Bound<'py, PyAny>,
    threads: Option<Whole>,
) -> PyResult<Lost<'py>> {
    let table = array::<i64, Ix1>(table, "table")?;
    let table = in_order(&table)?;
    let call = Call { table: &table, fill, report, threads: thread_count(threads)? };
    by_dtype!(ids, "ids", {
        i32 => call.read::<i32>(py, ids, out),
        u16 => call.read::<u16>(py, ids, out),
        i64 => call.read::<i64>(py, ids, out),
        u32 => call.read::<u32>(py, ids, out),
    })
}

/// What stays the same whatever types the ids have.
struct Call<'a> {
    table: &'a [i64],
    fill: Option<i64>,
    report: bool,
    threads: Option<usize>,
}

impl Call<'_> {
    fn read<'py, T: Number + Id>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        out: &Bound<'py, PyAny>,
    ) -> PyResult<Lost<'py>> {
        by_dtype!(out, "out", {
            i32 => self.write::<T, i32>(py, ids, out),
            u16 => self.write::<T, u16>(py, ids, out),
            i64 => self.write::<T, i64>(py, ids, out),
        })
    }

    fn write<'py, T: Number + Id, N: Number + NewId>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        out: &Bound<'py, PyAny>,
    ) -> PyResult<Lost<'py>> {
        let ids = array::<T, IxDyn>(ids, "ids")?;
        let mut out = array_mut::<N>(out, "out")?;
        let out = out.as_slice_mut()?;
        let values = in_order(&ids)?;
        let ids = Ids { values: &values, shape: ids.shape() };
        let Self { table, fill, report, threads } = *self;
        let lost = detach_interruptible(py, || {
            vocabulary::remap_ids(ids, table, fill, report, out, threads)
        })?;
        let (known, counts): (Vec<_>, Vec<_>) =
            lost.ids.into_iter().map(|(id, count)| (id, count.cast_signed())).unzip();
        Ok((lost.count, known.into_numpy(py), counts.into_numpy(py)))
    }
}
