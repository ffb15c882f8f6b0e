//! Binding of [`crate::negatives`].

use numpy::{
    Element, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadwriteArray1, PyReadwriteArrayDyn,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::arrays::{Whole, thread_count, values};
use crate::error::Error;
use crate::negatives::{self, Id, Order, Settings, Windows};

/// Histories in compressed rows, and all that drawing from them needs.
#[pyclass(frozen, module = "lmcore._core")]
pub struct SequenceSampler(negatives::SequenceSampler);

#[pymethods]
impl SequenceSampler {
    #[new]
    #[pyo3(signature = (
        offsets, items, weights, item_count, batch_size, max_length, negative_count, seed, order,
        threads, /
    ))]
    #[allow(clippy::too_many_arguments)] // all of one call of the facade
    #[allow(clippy::needless_pass_by_value)] // PyO3 hands arrays over by value
    fn new(
        py: Python<'_>,
        offsets: PyReadonlyArray1<'_, i64>,
        items: PyReadonlyArray1<'_, i64>,
        weights: Option<PyReadonlyArray1<'_, u32>>,
        item_count: u32,
        batch_size: usize,
        max_length: usize,
        negative_count: usize,
        seed: u64,
        order: &str,
        threads: Option<Whole>,
    ) -> PyResult<Self> {
        let threads = thread_count(threads)?;
        let order = Order::from_name(order)?;
        let settings =
            Settings { item_count, batch_size, max_length, negative_count, seed, order, threads };
        let (offsets, items) = (values(&offsets), values(&items));
        let weights = weights.as_ref().map(values);
        let sampler = py.detach(|| {
            negatives::SequenceSampler::new(&offsets, &items, weights.as_deref(), settings)
        })?;
        Ok(Self(sampler))
    }

    /// Users with at least two train items.
    #[getter]
    fn eligible_count(&self) -> usize {
        self.0.eligible_count()
    }

    /// Full batches that the eligible users make, at least one.
    #[getter]
    fn steps_per_epoch(&self) -> PyResult<usize> {
        Ok(self.0.steps_per_epoch()?)
    }

    /// Fills the arrays of a padded batch.
    #[pyo3(signature = (epoch, step, users, sequences, positives, negatives, previous, /))]
    #[allow(clippy::too_many_arguments)]
    #[allow(clippy::needless_pass_by_value)]
    fn sample(
        &self,
        py: Python<'_>,
        epoch: u64,
        step: u64,
        users: &Bound<'_, PyAny>,
        sequences: &Bound<'_, PyAny>,
        positives: &Bound<'_, PyAny>,
        negatives: &Bound<'_, PyAny>,
        previous: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<()> {
        let previous = values(&previous);
        let batch = [users, sequences, positives, negatives];
        if is::<i32>(batch[0]) {
            self.sample_as::<i32>(py, epoch, step, batch, &previous)
        } else {
            self.sample_as::<i64>(py, epoch, step, batch, &previous)
        }
    }

    /// Fills the arrays of a packed batch, and returns how many positions are valid.
    #[pyo3(signature = (epoch, step, users, sequences, positives, places, negatives, /))]
    #[allow(clippy::too_many_arguments)]
    #[allow(clippy::needless_pass_by_value)]
    fn sample_packed(
        &self,
        py: Python<'_>,
        epoch: u64,
        step: u64,
        users: &Bound<'_, PyAny>,
        sequences: &Bound<'_, PyAny>,
        positives: &Bound<'_, PyAny>,
        mut places: PyReadwriteArray1<'_, i64>,
        negatives: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let batch = [users, sequences, positives, negatives];
        let places = places.as_slice_mut()?;
        if is::<i32>(batch[0]) {
            self.sample_packed_as::<i32>(py, epoch, step, places, batch)
        } else {
            self.sample_packed_as::<i64>(py, epoch, step, places, batch)
        }
    }

    /// Fills `out`, `[users, count]`, with items outside of histories and exclusions.
    #[pyo3(signature = (users, exclude, seed, out, /))]
    #[allow(clippy::needless_pass_by_value)]
    fn candidates(
        &self,
        py: Python<'_>,
        users: PyReadonlyArray1<'_, i64>,
        exclude: PyReadonlyArray1<'_, i64>,
        seed: u64,
        mut out: PyReadwriteArrayDyn<'_, i64>,
    ) -> PyResult<()> {
        let (users, exclude) = (values(&users), values(&exclude));
        let out = out.as_slice_mut()?;
        Ok(py.detach(|| self.0.candidates(&users, &exclude, seed, out))?)
    }
}

impl SequenceSampler {
    fn sample_as<T: Id + Element>(
        &self,
        py: Python<'_>,
        epoch: u64,
        step: u64,
        batch: [&Bound<'_, PyAny>; 4],
        previous: &[i64],
    ) -> PyResult<()> {
        let mut batch = writable::<T>(batch)?;
        with_slices(&mut batch, |mut windows, negatives| {
            py.detach(|| self.0.sample(epoch, step, &mut windows, negatives, previous))
        })
    }

    fn sample_packed_as<T: Id + Element>(
        &self,
        py: Python<'_>,
        epoch: u64,
        step: u64,
        places: &mut [i64],
        batch: [&Bound<'_, PyAny>; 4],
    ) -> PyResult<usize> {
        let mut batch = writable::<T>(batch)?;
        with_slices(&mut batch, |mut windows, negatives| {
            py.detach(|| self.0.sample_packed(epoch, step, &mut windows, places, negatives))
        })
    }
}

type Batch<'py, T> = [PyReadwriteArrayDyn<'py, T>; 4];

fn is<T: Element>(array: &Bound<'_, PyAny>) -> bool {
    array.cast::<PyArrayDyn<T>>().is_ok()
}

fn writable<'py, T: Element>(batch: [&Bound<'py, PyAny>; 4]) -> PyResult<Batch<'py, T>> {
    let array = |array: &Bound<'py, PyAny>| {
        let array = array.cast::<PyArrayDyn<T>>().map_err(|_| {
            PyTypeError::new_err("the arrays of a batch must all be int64 or all int32")
        })?;
        Ok::<_, PyErr>(array.try_readwrite()?)
    };
    let [users, sequences, positives, negatives] = batch;
    Ok([array(users)?, array(sequences)?, array(positives)?, array(negatives)?])
}

fn with_slices<T: Element, R>(
    [users, sequences, positives, negatives]: &mut Batch<'_, T>,
    call: impl FnOnce(Windows<'_, T>, &mut [T]) -> Result<R, Error>,
) -> PyResult<R> {
    let windows = Windows {
        users: users.as_slice_mut()?,
        sequences: sequences.as_slice_mut()?,
        positives: positives.as_slice_mut()?,
    };
    Ok(call(windows, negatives.as_slice_mut()?)?)
}
