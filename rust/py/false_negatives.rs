//! Binding of [`crate::false_negatives`].

use numpy::ndarray::{Ix2, IxDyn};
use numpy::{
    PyArray1, PyArray2, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::{IntoNumpy, Number, all_values, array, array_mut, by_dtype, values};
use super::hooks::detach_interruptible;
use crate::error::Result;
use crate::false_negatives::{
    self, Item, Positions, Reversed, Scores, State, packed_positions, padded_positions,
};

type Arrays<'py> =
    (Bound<'py, PyArray2<i64>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>);
type StateArrays<'py> = (
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<u64>>,
    Bound<'py, PyArray1<u32>>,
    u64,
);

/// Hard negatives per user and window position, and how often each was presented again.
#[pyclass]
pub struct FalseNegativeMemory(false_negatives::FalseNegativeMemory);

/// Users, and where the valid positions are: padded if they have a length, packed if not.
struct Batch {
    users: Vec<i64>,
    /// Items where a batch is padded, flat indices of positions where it is packed.
    given: Vec<i64>,
    max_length: usize,
    packed: bool,
}

impl Batch {
    fn padded(users: &Bound<'_, PyAny>, positives: &Bound<'_, PyAny>) -> PyResult<Self> {
        let positives = array::<i64, Ix2>(positives, "positives")?;
        let (users, given) = (values(users, "users")?, all_values(&positives)?);
        Ok(Self { users, given, max_length: positives.shape()[1], packed: false })
    }

    fn packed(
        users: &Bound<'_, PyAny>,
        flat_indices: &Bound<'_, PyAny>,
        max_length: usize,
    ) -> PyResult<Self> {
        let (users, given) = (values(users, "users")?, values(flat_indices, "flat_indices")?);
        Ok(Self { users, given, max_length, packed: true })
    }

    fn positions(&self) -> Result<Positions> {
        if self.packed {
            packed_positions(&self.given, self.users.len(), self.max_length)
        } else {
            padded_positions(&self.given, self.max_length)
        }
    }
}

#[pymethods]
impl FalseNegativeMemory {
    #[new]
    #[pyo3(signature = (threshold, max_keys, /))]
    fn new(threshold: Option<u32>, max_keys: Option<usize>) -> Self {
        Self(false_negatives::FalseNegativeMemory::new(threshold, max_keys))
    }

    #[pyo3(signature = (users, positives, negatives, /))]
    fn inject<'py>(
        &mut self,
        py: Python<'py>,
        users: &Bound<'py, PyAny>,
        positives: &Bound<'py, PyAny>,
        negatives: &Bound<'py, PyAny>,
    ) -> PyResult<Arrays<'py>> {
        self.inject_batch(py, &Batch::padded(users, positives)?, negatives)
    }

    #[pyo3(signature = (users, flat_indices, max_length, negatives, /))]
    fn inject_packed<'py>(
        &mut self,
        py: Python<'py>,
        users: &Bound<'py, PyAny>,
        flat_indices: &Bound<'py, PyAny>,
        max_length: usize,
        negatives: &Bound<'py, PyAny>,
    ) -> PyResult<Arrays<'py>> {
        self.inject_batch(py, &Batch::packed(users, flat_indices, max_length)?, negatives)
    }

    #[pyo3(signature = (users, positives, negatives, scores, reversed_, /))]
    fn observe(
        &mut self,
        py: Python<'_>,
        users: &Bound<'_, PyAny>,
        positives: &Bound<'_, PyAny>,
        negatives: &Bound<'_, PyAny>,
        scores: &Bound<'_, PyAny>,
        reversed_: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        self.observe_batch(py, &Batch::padded(users, positives)?, negatives, scores, reversed_)
    }

    #[pyo3(signature = (users, flat_indices, max_length, negatives, scores, reversed_, /))]
    #[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
    fn observe_packed(
        &mut self,
        py: Python<'_>,
        users: &Bound<'_, PyAny>,
        flat_indices: &Bound<'_, PyAny>,
        max_length: usize,
        negatives: &Bound<'_, PyAny>,
        scores: &Bound<'_, PyAny>,
        reversed_: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let batch = Batch::packed(users, flat_indices, max_length)?;
        self.observe_batch(py, &batch, negatives, scores, reversed_)
    }

    fn state<'py>(&self, py: Python<'py>) -> PyResult<StateArrays<'py>> {
        let state = detach_interruptible(py, || self.0.state())?;
        Ok((
            state.hard_keys.into_numpy(py),
            state.hard_offsets.into_numpy(py),
            state.hard_items.into_numpy(py),
            state.count_keys.into_numpy(py),
            state.counts.into_numpy(py),
            state.evicted_count,
        ))
    }

    #[pyo3(signature = (hard_keys, hard_offsets, hard_items, count_keys, counts, evicted_count, /))]
    #[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
    fn load(
        &mut self,
        py: Python<'_>,
        hard_keys: &Bound<'_, PyAny>,
        hard_offsets: &Bound<'_, PyAny>,
        hard_items: &Bound<'_, PyAny>,
        count_keys: &Bound<'_, PyAny>,
        counts: &Bound<'_, PyAny>,
        evicted_count: u64,
    ) -> PyResult<()> {
        let state = State {
            hard_keys: values(hard_keys, "hard_keys")?,
            hard_offsets: values(hard_offsets, "hard_offsets")?,
            hard_items: values(hard_items, "hard_items")?,
            count_keys: values(count_keys, "count_keys")?,
            counts: values(counts, "counts")?,
            evicted_count,
        };
        detach_interruptible(py, || self.0.load(&state))
    }

    #[getter]
    fn hard_count(&self) -> usize {
        self.0.hard_count()
    }

    #[getter]
    fn key_count(&self) -> usize {
        self.0.key_count()
    }

    #[getter]
    fn reversed_key_count(&self) -> usize {
        self.0.reversed_key_count()
    }

    #[getter]
    fn evicted_count(&self) -> u64 {
        self.0.evicted_count()
    }

    #[getter]
    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }
}

impl FalseNegativeMemory {
    fn inject_batch<'py>(
        &mut self,
        py: Python<'py>,
        batch: &Batch,
        negatives: &Bound<'py, PyAny>,
    ) -> PyResult<Arrays<'py>> {
        let reversed = by_dtype!(negatives, "negatives", {
            i64 => self.inject_items::<i64>(py, batch, negatives),
            i32 => self.inject_items::<i32>(py, batch, negatives),
        })?;
        let shape = [reversed.counts.len(), 3];
        Ok((
            reversed.coordinates.into_numpy(py).reshape(shape)?,
            reversed.counts.into_numpy(py),
            reversed.blocks.into_numpy(py),
        ))
    }

    fn inject_items<T: Item + Number>(
        &mut self,
        py: Python<'_>,
        batch: &Batch,
        negatives: &Bound<'_, PyAny>,
    ) -> PyResult<Reversed> {
        let count = last_length(negatives)?;
        let mut negatives = array_mut::<T>(negatives, "negatives")?;
        let negatives = negatives.as_slice_mut()?;
        let memory = &mut self.0;
        detach_interruptible(py, || {
            let positions = batch.positions()?;
            memory.inject(&batch.users, &positions, count, negatives)
        })
    }

    fn observe_batch(
        &mut self,
        py: Python<'_>,
        batch: &Batch,
        negatives: &Bound<'_, PyAny>,
        scores: &Bound<'_, PyAny>,
        reversed: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let (single, double, hard);
        let scores = by_dtype!(scores, "scores", {
            f32 => {
                single = array::<f32, IxDyn>(scores, "scores")?;
                in_c_order(&single, "scores").map(Scores::Single)
            },
            f64 => {
                double = array::<f64, IxDyn>(scores, "scores")?;
                in_c_order(&double, "scores").map(Scores::Double)
            },
            u8 => {
                hard = array::<u8, IxDyn>(scores, "scores")?;
                in_c_order(&hard, "scores").map(Scores::Hard)
            },
        })?;
        let reversed = array::<i64, Ix2>(reversed, "reversed_")?;
        if reversed.shape()[1] != 3 {
            let got = reversed.shape();
            return Err(PyValueError::new_err(format!(
                "reversed_ must have the shape [R, 3]: got {got:?}"
            )));
        }
        let reversed = all_values(&reversed)?;
        by_dtype!(negatives, "negatives", {
            i64 => self.observe_items::<i64>(py, batch, negatives, scores, &reversed),
            i32 => self.observe_items::<i32>(py, batch, negatives, scores, &reversed),
        })
    }

    fn observe_items<T: Item + Number>(
        &mut self,
        py: Python<'_>,
        batch: &Batch,
        negatives: &Bound<'_, PyAny>,
        scores: Scores<'_>,
        reversed: &[i64],
    ) -> PyResult<usize> {
        let count = last_length(negatives)?;
        let negatives = array::<T, IxDyn>(negatives, "negatives")?;
        let negatives = in_c_order(&negatives, "negatives")?;
        let memory = &mut self.0;
        detach_interruptible(py, || {
            let positions = batch.positions()?;
            memory.observe(&batch.users, &positions, count, negatives, scores, reversed)
        })
    }
}

/// N: the length of the last dimension.
fn last_length(array: &Bound<'_, PyAny>) -> PyResult<usize> {
    Ok(array.cast::<PyUntypedArray>()?.shape().last().copied().unwrap_or(0))
}

fn in_c_order<'a, T: Number>(
    array: &'a PyReadonlyArrayDyn<'_, T>,
    name: &str,
) -> PyResult<&'a [T]> {
    match array.as_slice() {
        Ok(slice) if array.is_c_contiguous() => Ok(slice),
        _ => Err(PyValueError::new_err(format!("{name} must be contiguous, in C order"))),
    }
}
