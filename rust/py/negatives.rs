//! Binding of [`crate::negatives`].

use numpy::PyReadwriteArrayDyn;
use pyo3::prelude::*;

use super::arrays::{Number, Whole, array_mut, by_dtype, thread_count, values};
use super::hooks::detach_interruptible;
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
    #[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
    fn new(
        py: Python<'_>,
        offsets: &Bound<'_, PyAny>,
        items: &Bound<'_, PyAny>,
        weights: Option<&Bound<'_, PyAny>>,
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
        let (offsets, items) = (values(offsets, "offsets")?, values(items, "items")?);
        let weights = weights.map(|weights| values(weights, "weights")).transpose()?;
        let sampler = detach_interruptible(py, || {
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
    #[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
    fn sample(
        &self,
        py: Python<'_>,
        epoch: u64,
        step: u64,
        users: &Bound<'_, PyAny>,
        sequences: &Bound<'_, PyAny>,
        positives: &Bound<'_, PyAny>,
        negatives: &Bound<'_, PyAny>,
        previous: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let previous = values(previous, "previous")?;
        let batch = [users, sequences, positives, negatives];
        by_dtype!(users, "users", {
            i64 => self.sample_as::<i64>(py, epoch, step, batch, &previous),
            i32 => self.sample_as::<i32>(py, epoch, step, batch, &previous),
        })
    }

    /// Fills the arrays of a packed batch, and returns how many positions are valid.
    #[pyo3(signature = (epoch, step, users, sequences, positives, flat_indices, negatives, /))]
    #[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
    fn sample_packed(
        &self,
        py: Python<'_>,
        epoch: u64,
        step: u64,
        users: &Bound<'_, PyAny>,
        sequences: &Bound<'_, PyAny>,
        positives: &Bound<'_, PyAny>,
        flat_indices: &Bound<'_, PyAny>,
        negatives: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let batch = [users, sequences, positives, negatives];
        let mut flat_indices = array_mut(flat_indices, "flat_indices")?;
        let flat_indices = flat_indices.as_slice_mut()?;
        by_dtype!(users, "users", {
            i64 => self.sample_packed_as::<i64>(py, epoch, step, flat_indices, batch),
            i32 => self.sample_packed_as::<i32>(py, epoch, step, flat_indices, batch),
        })
    }

    /// Fills `out`, `[users, count]`, with items outside of histories and exclusions.
    #[pyo3(signature = (users, exclude, seed, out, /))]
    fn candidates(
        &self,
        py: Python<'_>,
        users: &Bound<'_, PyAny>,
        exclude: &Bound<'_, PyAny>,
        seed: u64,
        out: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (users, exclude) = (values(users, "users")?, values(exclude, "exclude")?);
        let mut out = array_mut::<i64>(out, "out")?;
        let out = out.as_slice_mut()?;
        detach_interruptible(py, || self.0.candidates(&users, &exclude, seed, out))
    }
}

impl SequenceSampler {
    fn sample_as<T: Id + Number>(
        &self,
        py: Python<'_>,
        epoch: u64,
        step: u64,
        batch: [&Bound<'_, PyAny>; 4],
        previous: &[i64],
    ) -> PyResult<()> {
        let mut batch = writable::<T>(batch)?;
        with_slices(&mut batch, |mut windows, negatives| {
            detach_interruptible(py, || {
                self.0.sample(epoch, step, &mut windows, negatives, previous)
            })
        })
    }

    fn sample_packed_as<T: Id + Number>(
        &self,
        py: Python<'_>,
        epoch: u64,
        step: u64,
        flat_indices: &mut [i64],
        batch: [&Bound<'_, PyAny>; 4],
    ) -> PyResult<usize> {
        let mut batch = writable::<T>(batch)?;
        with_slices(&mut batch, |mut windows, negatives| {
            detach_interruptible(py, || {
                self.0.sample_packed(epoch, step, &mut windows, flat_indices, negatives)
            })
        })
    }
}

type Batch<'py, T> = [PyReadwriteArrayDyn<'py, T>; 4];

fn writable<'py, T: Number>(batch: [&Bound<'py, PyAny>; 4]) -> PyResult<Batch<'py, T>> {
    let [users, sequences, positives, negatives] = batch;
    Ok([
        array_mut(users, "users")?,
        array_mut(sequences, "sequences")?,
        array_mut(positives, "positives")?,
        array_mut(negatives, "negatives")?,
    ])
}

fn with_slices<T: Number, R>(
    [users, sequences, positives, negatives]: &mut Batch<'_, T>,
    call: impl FnOnce(Windows<'_, T>, &mut [T]) -> PyResult<R>,
) -> PyResult<R> {
    let windows = Windows {
        users: users.as_slice_mut()?,
        sequences: sequences.as_slice_mut()?,
        positives: positives.as_slice_mut()?,
    };
    call(windows, negatives.as_slice_mut()?)
}
