//! Sequences of Python strings and arrays of numbers as the core takes them.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::thread;

use numpy::ndarray::{Dimension, Ix1, IxDyn};
use numpy::{
    BorrowError, Element, IntoPyArray, PyArray, PyArray1, PyArrayDyn, PyArrayMethods,
    PyReadonlyArray, PyReadwriteArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyIterator, PyList, PyString, PyTuple};

use super::borrowed::extend_from_list;
use crate::check::out_of_range;
use crate::error::{Error, Result};
use crate::memory;
use crate::text::{StringRows, Strings};

/// Items between two looks for Ctrl-C while the interpreter is held.
const ITEMS_AT_ONCE: usize = 1 << 16;
/// The same for rows of items.
const ROWS_AT_ONCE: usize = 1 << 10;
/// Rows that a new one is compared with: equal ones are kept once.
const REMEMBERED_ROWS: usize = 8;
/// What a sequence of rows holds, for errors.
const SEQUENCES: &str = "sequences of str";

/// The name of a value's type, as users know it.
pub fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string())
}

/// Why a value of the caller's was not taken.
#[derive(Debug)]
pub enum Refusal {
    /// It has the wrong type, in words.
    Type(String),
    /// It has the wrong content, in words.
    Value(String),
    /// The core could not take it.
    Core(Error),
    /// Python code of the caller's raised this while it was looked at: no judgement of ours.
    Raised(PyErr),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl From<Refusal> for PyErr {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Type(text) => PyTypeError::new_err(text),
            Refusal::Value(text) => PyValueError::new_err(text),
            Refusal::Core(error) => error.into(),
            Refusal::Raised(error) => error,
        }
    }
}

/// What was taken of a value, or why it was not.
pub type Taken<T> = std::result::Result<T, Refusal>;

/// The text of a `str`.
pub fn text<'a>(value: &'a Bound<'_, PyAny>, name: impl Display) -> Taken<&'a str> {
    let string = value
        .cast::<PyString>()
        .map_err(|_| Refusal::Type(format!("{name} must be a str: got {}", type_name(value))))?;
    string.to_str().map_err(|error| {
        if error.is_instance_of::<PyUnicodeEncodeError>(value.py()) {
            Refusal::Value(format!("{name} holds a lone surrogate"))
        } else {
            Refusal::Raised(error)
        }
    })
}

/// The name of an item of a sequence, put together only where an error needs it.
struct Item<'a> {
    name: &'a dyn Display,
    index: usize,
}

impl Display for Item<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}[{}]", self.name, self.index)
    }
}

/// The text of an item of a sequence.
#[inline]
fn text_at<'a>(item: &'a Bound<'_, PyAny>, name: &dyn Display, index: usize) -> Taken<&'a str> {
    match item.cast_exact::<PyString>().ok().map(PyStringMethods::to_str) {
        Some(Ok(value)) => Ok(value),
        // Once more, for subclasses and for the message.
        _ => text(item, Item { name, index }),
    }
}

/// Appends the strings of a list, tuple or other sequence; a `str` itself is refused.
pub fn extend_strings(
    strings: &mut Strings,
    sequence: &Bound<'_, PyAny>,
    name: &dyn Display,
) -> Taken<()> {
    extend(strings, sequence, name, None)
}

/// Appends labels: most are "O", which Python keeps once, so that looking suffices.
pub fn extend_labels(
    strings: &mut Strings,
    sequence: &Bound<'_, PyAny>,
    name: &dyn Display,
) -> Taken<()> {
    extend(strings, sequence, name, Some(intern!(sequence.py(), "O")))
}

fn extend(
    strings: &mut Strings,
    sequence: &Bound<'_, PyAny>,
    name: &dyn Display,
    known: Option<&Bound<'_, PyString>>,
) -> Taken<()> {
    let mut done = 0;
    if let Ok(list) = sequence.cast_exact::<PyList>() {
        loop {
            let end = list.len().min(done + ITEMS_AT_ONCE);
            let taken = extend_from_list(strings, list, known, done..end)?;
            if taken < end {
                // This item is no `str`, or holds a lone surrogate.
                done = taken;
                break;
            }
            if end == list.len() {
                return Ok(());
            }
            sequence.py().check_signals()?;
            done = end;
        }
    }
    for (index, item) in items(sequence, name, "str")?.enumerate().skip(done) {
        if index.is_multiple_of(ITEMS_AT_ONCE) {
            sequence.py().check_signals()?;
        }
        strings.append(text_at(&item?, name, index)?)?;
    }
    Ok(())
}

fn items<'py>(
    sequence: &Bound<'py, PyAny>,
    name: &dyn Display,
    of: &str,
) -> Taken<Bound<'py, PyIterator>> {
    let refuse = || {
        let got = type_name(sequence);
        Refusal::Type(format!("{name} must be a sequence of {of}: got {got}"))
    };
    if sequence.is_instance_of::<PyString>() {
        return Err(refuse());
    }
    let class = sequence.get_type();
    let has =
        |method: &Bound<'py, PyString>| class.getattr(method).is_ok_and(|method| !method.is_none());
    let py = sequence.py();
    sequence.try_iter().map_err(|error| {
        // What has neither method is not iterable; what one of them raises is not ours.
        if has(intern!(py, "__iter__")) || has(intern!(py, "__getitem__")) {
            Refusal::Raised(error)
        } else {
            refuse()
        }
    })
}

/// The strings of a list, tuple or other sequence.
pub fn strings(sequence: &Bound<'_, PyAny>, name: &str) -> Taken<Strings> {
    let mut strings = Strings::default();
    extend_strings(&mut strings, sequence, &name)?;
    Ok(strings)
}

/// The paths of a list, tuple or other sequence. A sequence that says that it is long is not
/// believed: room is made for what it gives.
pub fn paths(sequence: &Bound<'_, PyAny>, name: &str) -> Taken<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (index, item) in items(sequence, &name, "paths")?.enumerate() {
        if index.is_multiple_of(ITEMS_AT_ONCE) {
            sequence.py().check_signals()?;
        }
        memory::reserve(&mut paths, 1)?;
        paths.push(item?.extract()?);
    }
    Ok(paths)
}

/// Appends the strings of one sequence; the second text is its name.
type Extend = fn(&mut Strings, &Bound<'_, PyAny>, &dyn Display) -> Taken<()>;

/// A sequence of sequences of strings.
pub fn nested_strings(sequence: &Bound<'_, PyAny>, name: &str) -> Taken<StringRows> {
    nested(sequence, name, extend_strings)
}

/// A sequence of sequences of labels.
pub fn nested_labels(sequence: &Bound<'_, PyAny>, name: &str) -> Taken<StringRows> {
    nested(sequence, name, extend_labels)
}

fn nested(sequence: &Bound<'_, PyAny>, name: &str, extend: Extend) -> Taken<StringRows> {
    let mut rows = StringRows::default();
    for (index, item) in items(sequence, &name, SEQUENCES)?.enumerate() {
        if index.is_multiple_of(ROWS_AT_ONCE) {
            sequence.py().check_signals()?;
        }
        extend(rows.open(), &item?, &Item { name: &name, index })?;
        rows.reserve_row()?;
        rows.end_row();
    }
    Ok(rows)
}

/// A sequence of sequences of strings, of which many are the same: equal ones are kept once.
pub fn shared_strings(sequence: &Bound<'_, PyAny>, name: &str) -> Taken<StringRows> {
    let mut rows = StringRows::default();
    // Rows that hold something that none before them held, the last ones.
    let mut distinct = VecDeque::new();
    let mut last: Option<(Bound<'_, PyAny>, usize)> = None;
    // Nothing else can change a list between two looks at it, if no code of the caller's runs.
    let is_plain = |value: &Bound<'_, PyAny>| {
        value.is_exact_instance_of::<PyList>() || value.is_exact_instance_of::<PyTuple>()
    };
    let outer_is_plain = is_plain(sequence);
    for (index, item) in items(sequence, &name, SEQUENCES)?.enumerate() {
        if index.is_multiple_of(ROWS_AT_ONCE) {
            sequence.py().check_signals()?;
            last = None;
        }
        let item = item?;
        rows.reserve_row()?;
        if let Some((_, row)) = last.as_ref().filter(|(known, _)| known.is(&item)) {
            rows.repeat_row(*row);
            continue;
        }
        extend_strings(rows.open(), &item, &Item { name: &name, index })?;
        if rows.end_shared_row(distinct.make_contiguous()) {
            if distinct.len() == REMEMBERED_ROWS {
                distinct.pop_front();
            }
            distinct.push_back(index);
        }
        last = (outer_is_plain && is_plain(&item)).then_some((item, index));
    }
    Ok(rows)
}

/// A list for Python; while a long one is made, Ctrl-C is looked for.
pub fn list_of<'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    items: Vec<T>,
) -> PyResult<Bound<'py, PyList>> {
    if items.len() < ITEMS_AT_ONCE {
        return PyList::new(py, items);
    }
    let mut objects = Vec::new();
    memory::reserve(&mut objects, items.len())?;
    for (index, item) in items.into_iter().enumerate() {
        if index.is_multiple_of(ITEMS_AT_ONCE) {
            py.check_signals()?;
        }
        objects.push(item.into_bound_py_any(py)?);
    }
    PyList::new(py, objects)
}

/// Lets numpy's functions be found, once, before anything of numpy's is asked for.
///
/// Finding them runs Python code, and the crate that does it panics if Ctrl-C comes in between:
/// most results become an array just when an impatient user presses it. Python answers signals in
/// its main thread alone, so that the search in another one is never interrupted.
fn find_numpy(py: Python<'_>) {
    static FOUND: PyOnceLock<()> = PyOnceLock::new();
    FOUND.get_or_init(py, || {
        let search = || {
            Python::attach(|py| drop(PyArray1::<f64>::zeros(py, 1, false).try_readonly()));
        };
        // Without a thread more, the first array searches.
        let _ = py.detach(|| thread::Builder::new().spawn(search).map(thread::JoinHandle::join));
    });
}

/// Numbers of the core's that become an array of numpy's.
pub trait IntoNumpy<T: Element> {
    /// The array; nothing is copied.
    fn into_numpy(self, py: Python<'_>) -> Bound<'_, PyArray1<T>>;
}

impl<T: Element> IntoNumpy<T> for Vec<T> {
    fn into_numpy(self, py: Python<'_>) -> Bound<'_, PyArray1<T>> {
        find_numpy(py);
        self.into_pyarray(py)
    }
}

/// A number that the core's arrays hold.
pub trait Number: Element + Copy {
    /// Its name in numpy.
    const NAME: &'static str;
}

macro_rules! numbers {
    ($($kind:ty = $name:literal),*) => {
        $(impl Number for $kind {
            const NAME: &'static str = $name;
        })*
    };
}

numbers!(i32 = "int32", i64 = "int64", u8 = "uint8");
numbers!(u16 = "uint16", u32 = "uint32", u64 = "uint64");
numbers!(f32 = "float32", f64 = "float64");

/// Whether this is an array of these numbers, in the byte order of the machine.
pub fn holds<T: Number>(value: &Bound<'_, PyAny>) -> bool {
    find_numpy(value.py());
    value.cast::<PyArrayDyn<T>>().is_ok()
}

/// Borrows an array to read it. Every array comes in through here or [`array_mut`]: an
/// address that is no multiple of the number's size must never become a slice or a view.
pub fn array<'py, T: Number, D: Dimension>(
    value: &Bound<'py, PyAny>,
    name: &str,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    checked::<T, D>(value, name)?.try_readonly().map_err(|_| in_use(name))
}

/// Borrows an array to write into it: one in C order, as all of its memory is handed out.
pub fn array_mut<'py, T: Number>(
    value: &Bound<'py, PyAny>,
    name: &str,
) -> PyResult<PyReadwriteArrayDyn<'py, T>> {
    let array = checked::<T, IxDyn>(value, name)?;
    if !array.is_c_contiguous() {
        return Err(PyValueError::new_err(format!("{name} must be contiguous, in C order")));
    }
    array.try_readwrite().map_err(|error| match error {
        BorrowError::NotWriteable => PyValueError::new_err(format!("{name} must be writeable")),
        _ => in_use(name),
    })
}

fn in_use(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name} is in use: another argument or call writes into it"))
}

fn checked<'a, 'py, T: Number, D: Dimension>(
    value: &'a Bound<'py, PyAny>,
    name: &str,
) -> PyResult<&'a Bound<'py, PyArray<T, D>>> {
    find_numpy(value.py());
    let array = value.cast::<PyArrayDyn<T>>().map_err(|_| refuse_dtype(value, name, &[T::NAME]))?;
    if !array.is_aligned() {
        return Err(PyValueError::new_err(format!("{name} must be aligned: copy the array")));
    }
    value.cast::<PyArray<T, D>>().map_err(|_| {
        let dimensions = D::NDIM.unwrap_or_default();
        let got = array.ndim();
        PyValueError::new_err(format!("{name} must have {dimensions} dimensions: got {got}"))
    })
}

/// Calls the arm for the numbers that an array holds; other arrays are refused by dtype.
macro_rules! by_dtype {
    ($array:expr, $name:expr, { $($number:ty => $call:expr),+ $(,)? }) => {{
        use $crate::py::arrays::{Number, holds, refuse_dtype};
        $(if holds::<$number>($array) { $call } else)+ {
            Err(refuse_dtype($array, $name, &[$(<$number as Number>::NAME),+]))
        }
    }};
}
pub(super) use by_dtype;

/// The error of an array of other numbers than these.
pub fn refuse_dtype(value: &Bound<'_, PyAny>, name: &str, known: &[&str]) -> PyErr {
    let expected = match known {
        [before @ .., last] if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => known.concat(),
    };
    let got = dtype_name(value);
    PyTypeError::new_err(format!("{name} must be an array of {expected}: got {got}"))
}

/// The dtype of an array, the type of anything else.
fn dtype_name(value: &Bound<'_, PyAny>) -> String {
    let Ok(array) = value.cast::<PyUntypedArray>() else { return type_name(value) };
    array.dtype().str().map_or_else(|_| "an array".to_owned(), |name| name.to_string())
}

/// The values of an array in C order: where they are, or copied from where they lie apart.
pub fn in_order<'a, T: Number, D: Dimension>(
    array: &'a PyReadonlyArray<'_, T, D>,
) -> PyResult<Cow<'a, [T]>> {
    match array.as_slice() {
        Ok(slice) if array.is_c_contiguous() => Ok(Cow::Borrowed(slice)),
        _ => all_values(array).map(Cow::Owned),
    }
}

/// The values of a one-dimensional array.
pub fn values<T: Number>(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<T>> {
    all_values(&array::<T, Ix1>(value, name)?)
}

/// The values of an array of any shape, in C order.
pub fn all_values<T: Number, D: Dimension>(array: &PyReadonlyArray<'_, T, D>) -> PyResult<Vec<T>> {
    let mut values = memory::with_capacity(array.len())?;
    if let (true, Ok(slice)) = (array.is_c_contiguous(), array.as_slice()) {
        values.extend_from_slice(slice);
    } else {
        values.extend(array.as_array().iter().copied());
    }
    Ok(values)
}

/// A whole number of any size, as Python has it.
#[derive(Debug)]
pub struct Whole {
    /// The number, or the nearest that 128 bits hold.
    value: i128,
    shown: String,
}

impl<'py> FromPyObject<'_, 'py> for Whole {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<i128>() {
            Ok(number) => Ok(Self { value: number, shown: number.to_string() }),
            Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
                let negative = value.lt(0)?;
                let value_shown = value.str().map(|text| text.to_string());
                // Python does not write numbers of very many digits.
                let shown = value_shown.unwrap_or_else(|_| "a number of many digits".to_owned());
                Ok(Self { value: if negative { i128::MIN } else { i128::MAX }, shown })
            }
            Err(error) => Err(error),
        }
    }
}

impl Whole {
    /// The number, if it is at least this; numbers too large for the machine become its largest.
    pub fn at_least(self, least: usize, name: &'static str) -> Result<usize> {
        let range = least as i128..;
        if !range.contains(&self.value) {
            return Err(out_of_range(name, self.shown, &range));
        }
        Ok(usize::try_from(self.value).unwrap_or(usize::MAX))
    }

    /// The number, if 64 bits hold it.
    pub fn count(self, name: &'static str) -> Result<u64> {
        let count = u64::try_from(self.value);
        count.map_err(|_| out_of_range(name, self.shown, &(0..1 << 64)))
    }
}

/// A number of threads: at least one, or none for the machine's.
pub fn thread_count(threads: Option<Whole>) -> Result<Option<usize>> {
    threads.map(|count| count.at_least(1, "threads")).transpose()
}
