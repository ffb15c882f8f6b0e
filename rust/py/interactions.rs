//! Binding of [`crate::interactions`].

use numpy::PyArray1;
use numpy::ndarray::Ix1;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::arrays::{IntoNumpy, Whole, array, in_order, list_of, thread_count};
use super::hooks::detach_interruptible;
use crate::interactions::{self, Layout};

type Coded<'py> = (Bound<'py, PyArray1<i32>>, Bound<'py, PyList>);
type Columns<'py> = (Vec<Coded<'py>>, Bound<'py, PyArray1<i64>>);
type Array<'py> = Bound<'py, PyArray1<i64>>;
type Grouped<'py> = (Array<'py>, Array<'py>, Option<Array<'py>>, usize, usize);

/// Returns the columns of a text from a byte on, or None where a line is unusual.
#[pyfunction]
#[pyo3(signature = (text, start, separator, quoted, width, labels, number, threads, /))]
#[expect(clippy::too_many_arguments, reason = "those of the function in Python")]
pub fn read_columns<'py>(
    py: Python<'py>,
    text: &Bound<'py, PyBytes>,
    start: Whole,
    separator: &str,
    quoted: bool,
    width: Whole,
    labels: Vec<Whole>,
    number: Option<Whole>,
    threads: Option<Whole>,
) -> PyResult<Option<Columns<'py>>> {
    let threads = thread_count(threads)?;
    let (start, width) = (start.at_least(0, "start")?, width.at_least(1, "width")?);
    let labels: Vec<usize> =
        labels.into_iter().map(|column| column.at_least(0, "labels")).collect::<Result<_, _>>()?;
    let number = number.map(|column| column.at_least(0, "number")).transpose()?;
    let text = text.as_bytes().get(start..).unwrap_or_default();
    let layout = Layout { separator, quoted, width, labels: &labels, number };
    let found = detach_interruptible(py, || interactions::read_columns(text, layout, threads))?;
    let Some(found) = found else { return Ok(None) };
    let coded = found
        .codes
        .into_iter()
        .zip(found.names)
        .map(|(codes, names)| Ok((codes.into_numpy(py), list_of(py, names)?)));
    Ok(Some((coded.collect::<PyResult<_>>()?, found.numbers.into_numpy(py))))
}

/// Returns where each user's items start, items and times in the order of time, and two counts.
#[pyfunction]
#[pyo3(signature = (users, items, times, user_count, item_count, /))]
pub fn group_by_user<'py>(
    py: Python<'py>,
    users: &Bound<'py, PyAny>,
    items: &Bound<'py, PyAny>,
    times: Option<&Bound<'py, PyAny>>,
    user_count: Whole,
    item_count: Whole,
) -> PyResult<Grouped<'py>> {
    let counts = (user_count.at_least(0, "user_count")?, item_count.at_least(0, "item_count")?);
    let (users, items) = (array::<i32, Ix1>(users, "users")?, array::<i32, Ix1>(items, "items")?);
    let times = times.map(|times| array::<i64, Ix1>(times, "times")).transpose()?;
    let (users, items) = (in_order(&users)?, in_order(&items)?);
    let times = times.as_ref().map(in_order).transpose()?;
    let found = detach_interruptible(py, || {
        interactions::group_by_user(&users, &items, times.as_deref(), counts)
    })?;
    let (offsets, items) = (found.offsets.into_numpy(py), found.items.into_numpy(py));
    let times = times.is_some().then(|| found.times.into_numpy(py));
    Ok((offsets, items, times, found.unsorted, found.repeated))
}
