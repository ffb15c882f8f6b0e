//! Binding of [`crate::philox`].

use numpy::ndarray::IxDyn;
use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::arrays::{IntoNumpy, Number, array, in_order};
use super::hooks::detach_interruptible;
use crate::philox::{self, to_below, to_uniform};

/// Returns the four words that Philox4x32-10 makes of a counter and a key.
#[pyfunction]
#[pyo3(signature = (counter, key, /))]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox::philox4x32(counter, key)
}

/// Returns 64 random bits for each item and position.
#[pyfunction]
#[pyo3(signature = (seed, stream, items, position, count, /))]
pub fn random_bits<'py>(
    py: Python<'py>,
    seed: u64,
    stream: u32,
    items: &Bound<'py, PyAny>,
    position: u64,
    count: usize,
) -> PyResult<Bound<'py, PyArrayDyn<u64>>> {
    draw(py, seed, stream, items, (position, count), |bits| bits)
}

/// Returns a number in [0, 1) for each item and position.
#[pyfunction]
#[pyo3(signature = (seed, stream, items, position, count, /))]
pub fn random_uniform<'py>(
    py: Python<'py>,
    seed: u64,
    stream: u32,
    items: &Bound<'py, PyAny>,
    position: u64,
    count: usize,
) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
    draw(py, seed, stream, items, (position, count), to_uniform)
}

/// Returns an integer in [0, bound) for each item and position.
#[pyfunction]
#[pyo3(signature = (seed, stream, items, position, count, bound, /))]
pub fn random_below<'py>(
    py: Python<'py>,
    seed: u64,
    stream: u32,
    items: &Bound<'py, PyAny>,
    position: u64,
    count: usize,
    bound: u64,
) -> PyResult<Bound<'py, PyArrayDyn<u64>>> {
    draw(py, seed, stream, items, (position, count), |bits| to_below(bits, bound))
}

fn draw<'py, T: Number>(
    py: Python<'py>,
    seed: u64,
    stream: u32,
    items: &Bound<'py, PyAny>,
    (position, count): (u64, usize),
    make: impl Fn(u64) -> T + Send,
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let items = array::<u64, IxDyn>(items, "items")?;
    let mut shape = items.shape().to_vec();
    shape.push(count);
    // Items are read where they are, and draws are written where they stay.
    let items = in_order(&items)?;
    let values =
        detach_interruptible(py, || philox::fill(seed, stream, &items, position, count, make))?;
    values.into_numpy(py).reshape(IxDyn(&shape))
}
