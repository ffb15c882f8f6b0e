//! Sequences of Python strings and arrays of numbers as the core takes them.

use std::fmt::{self, Display};

use numpy::{PyReadonlyArray1, PyReadonlyArrayDyn};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyString};

use super::borrowed::extend_from_list;
use crate::error::Error;
use crate::text::{StringRows, Strings};

/// The name of a value's type, as users know it.
pub fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string())
}

/// The text of a `str`.
pub fn text<'a>(value: &'a Bound<'_, PyAny>, name: impl Display) -> PyResult<&'a str> {
    let string = value.cast::<PyString>().map_err(|_| {
        PyTypeError::new_err(format!("{name} must be a str: got {}", type_name(value)))
    })?;
    string.to_str().map_err(|_| PyValueError::new_err(format!("{name} holds a lone surrogate")))
}

/// The name of an item of a sequence, put together only where an error needs it.
struct Place<'a> {
    name: &'a dyn Display,
    index: usize,
}

impl Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}[{}]", self.name, self.index)
    }
}

/// The text of an item of a sequence.
#[inline]
fn text_at<'a>(item: &'a Bound<'_, PyAny>, name: &dyn Display, index: usize) -> PyResult<&'a str> {
    match item.cast_exact::<PyString>().ok().map(PyStringMethods::to_str) {
        Some(Ok(value)) => Ok(value),
        // Once more, for subclasses and for the message.
        _ => text(item, Place { name, index }),
    }
}

/// Appends the strings of a list, tuple or other sequence; a `str` itself is refused.
pub fn extend_strings(
    strings: &mut Strings,
    sequence: &Bound<'_, PyAny>,
    name: &dyn Display,
) -> PyResult<()> {
    extend(strings, sequence, name, None)
}

/// Appends labels: most are "O", which Python keeps once, so that looking suffices.
pub fn extend_labels(
    strings: &mut Strings,
    sequence: &Bound<'_, PyAny>,
    name: &dyn Display,
) -> PyResult<()> {
    extend(strings, sequence, name, Some(intern!(sequence.py(), "O")))
}

fn extend(
    strings: &mut Strings,
    sequence: &Bound<'_, PyAny>,
    name: &dyn Display,
    known: Option<&Bound<'_, PyString>>,
) -> PyResult<()> {
    let mut done = 0;
    if let Ok(list) = sequence.cast_exact::<PyList>() {
        done = extend_from_list(strings, list, known);
        if done == list.len() {
            return Ok(());
        }
    }
    for (index, item) in items(sequence, name)?.enumerate().skip(done) {
        strings.push(text_at(&item?, name, index)?);
    }
    Ok(())
}

fn items<'py>(
    sequence: &Bound<'py, PyAny>,
    name: &dyn Display,
) -> PyResult<Bound<'py, PyIterator>> {
    let refuse = || {
        let got = type_name(sequence);
        PyTypeError::new_err(format!("{name} must be a sequence of str: got {got}"))
    };
    if sequence.is_instance_of::<PyString>() {
        return Err(refuse());
    }
    sequence.try_iter().map_err(|_| refuse())
}

/// The strings of a list, tuple or other sequence.
pub fn strings(sequence: &Bound<'_, PyAny>, name: &str) -> PyResult<Strings> {
    let mut strings = Strings::default();
    extend_strings(&mut strings, sequence, &name)?;
    Ok(strings)
}

/// Appends the strings of one sequence; the second text is its name.
type Extend = fn(&mut Strings, &Bound<'_, PyAny>, &dyn Display) -> PyResult<()>;

/// A sequence of sequences of strings.
pub fn nested_strings(sequence: &Bound<'_, PyAny>, name: &str) -> PyResult<StringRows> {
    nested(sequence, name, extend_strings)
}

/// A sequence of sequences of labels.
pub fn nested_labels(sequence: &Bound<'_, PyAny>, name: &str) -> PyResult<StringRows> {
    nested(sequence, name, extend_labels)
}

fn nested(sequence: &Bound<'_, PyAny>, name: &str, extend: Extend) -> PyResult<StringRows> {
    let items = sequence.try_iter().map_err(|_| {
        let got = type_name(sequence);
        PyTypeError::new_err(format!("{name} must be a sequence of sequences of str: got {got}"))
    })?;
    let mut rows = StringRows::default();
    for (index, item) in items.enumerate() {
        extend(rows.open(), &item?, &Place { name: &name, index })?;
        rows.end_row();
    }
    Ok(rows)
}

/// The values of a one-dimensional array.
pub fn values<T: numpy::Element + Copy>(array: &PyReadonlyArray1<'_, T>) -> Vec<T> {
    array.as_slice().map_or_else(|_| array.as_array().iter().copied().collect(), <[T]>::to_vec)
}

/// The values of an array of any shape, in C order, and the shape.
pub fn shaped_values<T: numpy::Element + Copy>(
    array: &PyReadonlyArrayDyn<'_, T>,
) -> (Vec<T>, Vec<usize>) {
    let view = array.as_array();
    (view.iter().copied().collect(), view.shape().to_vec())
}

/// A number of threads: at least one, or none for the machine's.
pub fn thread_count(threads: Option<i64>) -> PyResult<Option<usize>> {
    let refuse = |got: i64| Error::OutOfRange {
        name: "threads",
        range: "at least 1".to_owned(),
        got: got.to_string(),
    };
    threads
        .map(|count| usize::try_from(count).ok().filter(|&n| n > 0).ok_or_else(|| refuse(count)))
        .transpose()
        .map_err(PyErr::from)
}
