//! Binding of [`crate::false_negatives`].

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayDyn, PyArrayMethods, PyReadonlyArray1,
    PyReadonlyArray2, PyReadonlyArrayDyn, PyUntypedArrayMethods, ToPyArray,
};
use pyo3::prelude::*;

use super::arrays::{type_name, values};
use crate::error::Result;
use crate::false_negatives::{
    Item, Memory, Place, Reversed, Scores, State, packed_places, padded_places,
};
use pyo3::exceptions::PyTypeError;

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
pub struct FalseNegativeMemory {
    memory: Memory,
}

/// Users, and where the valid positions are: padded if they have a length, packed if not.
struct Batch {
    users: Vec<i64>,
    places: Vec<i64>,
    max_length: usize,
    packed: bool,
}

impl Batch {
    fn padded(users: &PyReadonlyArray1<'_, i64>, positives: &PyReadonlyArray2<'_, i64>) -> Self {
        let places = positives
            .as_slice()
            .map_or_else(|_| positives.as_array().iter().copied().collect(), <[i64]>::to_vec);
        Self { users: values(users), places, max_length: positives.shape()[1], packed: false }
    }

    fn packed(
        users: &PyReadonlyArray1<'_, i64>,
        places: &PyReadonlyArray1<'_, i64>,
        max_length: usize,
    ) -> Self {
        Self { users: values(users), places: values(places), max_length, packed: true }
    }

    fn places(&self) -> Result<Vec<Place>> {
        if self.packed {
            packed_places(&self.places, self.users.len(), self.max_length)
        } else {
            padded_places(&self.places, self.max_length)
        }
    }
}

#[pymethods]
#[allow(clippy::needless_pass_by_value)] // PyO3 hands arrays over by value
impl FalseNegativeMemory {
    #[new]
    #[pyo3(signature = (threshold, max_keys, /))]
    fn new(threshold: Option<u32>, max_keys: Option<usize>) -> Self {
        Self { memory: Memory::new(threshold, max_keys) }
    }

    #[pyo3(signature = (users, positives, negatives, /))]
    fn inject<'py>(
        &mut self,
        py: Python<'py>,
        users: PyReadonlyArray1<'py, i64>,
        positives: PyReadonlyArray2<'py, i64>,
        negatives: &Bound<'py, PyAny>,
    ) -> PyResult<Arrays<'py>> {
        self.inject_batch(py, &Batch::padded(&users, &positives), negatives)
    }

    #[pyo3(signature = (users, places, max_length, negatives, /))]
    fn inject_packed<'py>(
        &mut self,
        py: Python<'py>,
        users: PyReadonlyArray1<'py, i64>,
        places: PyReadonlyArray1<'py, i64>,
        max_length: usize,
        negatives: &Bound<'py, PyAny>,
    ) -> PyResult<Arrays<'py>> {
        self.inject_batch(py, &Batch::packed(&users, &places, max_length), negatives)
    }

    #[pyo3(signature = (users, positives, negatives, scores, reversed_, /))]
    fn observe<'py>(
        &mut self,
        py: Python<'py>,
        users: PyReadonlyArray1<'py, i64>,
        positives: PyReadonlyArray2<'py, i64>,
        negatives: &Bound<'py, PyAny>,
        scores: &Bound<'py, PyAny>,
        reversed_: PyReadonlyArray2<'py, i64>,
    ) -> PyResult<usize> {
        let batch = Batch::padded(&users, &positives);
        self.observe_batch(py, &batch, negatives, scores, &reversed_)
    }

    #[pyo3(signature = (users, places, max_length, negatives, scores, reversed_, /))]
    #[allow(clippy::too_many_arguments)]
    fn observe_packed<'py>(
        &mut self,
        py: Python<'py>,
        users: PyReadonlyArray1<'py, i64>,
        places: PyReadonlyArray1<'py, i64>,
        max_length: usize,
        negatives: &Bound<'py, PyAny>,
        scores: &Bound<'py, PyAny>,
        reversed_: PyReadonlyArray2<'py, i64>,
    ) -> PyResult<usize> {
        let batch = Batch::packed(&users, &places, max_length);
        self.observe_batch(py, &batch, negatives, scores, &reversed_)
    }

    fn state<'py>(&self, py: Python<'py>) -> StateArrays<'py> {
        let state = py.detach(|| self.memory.state());
        (
            state.hard_keys.to_pyarray(py),
            state.hard_offsets.to_pyarray(py),
            state.hard_items.to_pyarray(py),
            state.count_keys.to_pyarray(py),
            state.counts.to_pyarray(py),
            state.evicted_count,
        )
    }

    #[pyo3(signature = (hard_keys, hard_offsets, hard_items, count_keys, counts, evicted_count, /))]
    #[allow(clippy::too_many_arguments)]
    fn load(
        &mut self,
        py: Python<'_>,
        hard_keys: PyReadonlyArray1<'_, u32>,
        hard_offsets: PyReadonlyArray1<'_, i64>,
        hard_items: PyReadonlyArray1<'_, u32>,
        count_keys: PyReadonlyArray1<'_, u64>,
        counts: PyReadonlyArray1<'_, u32>,
        evicted_count: u64,
    ) -> PyResult<()> {
        let state = State {
            hard_keys: values(&hard_keys),
            hard_offsets: values(&hard_offsets),
            hard_items: values(&hard_items),
            count_keys: values(&count_keys),
            counts: values(&counts),
            evicted_count,
        };
        Ok(py.detach(|| self.memory.load(&state))?)
    }

    #[getter]
    fn hard_count(&self) -> usize {
        self.memory.hard_count()
    }

    #[getter]
    fn key_count(&self) -> usize {
        self.memory.key_count()
    }

    #[getter]
    fn reversed_key_count(&self) -> usize {
        self.memory.reversed_key_count()
    }

    #[getter]
    fn evicted_count(&self) -> u64 {
        self.memory.evicted_count()
    }

    #[getter]
    fn memory_bytes(&self) -> usize {
        self.memory.memory_bytes()
    }
}

impl FalseNegativeMemory {
    fn inject_batch<'py>(
        &mut self,
        py: Python<'py>,
        batch: &Batch,
        negatives: &Bound<'py, PyAny>,
    ) -> PyResult<Arrays<'py>> {
        let reversed = if let Ok(wide) = negatives.cast::<PyArrayDyn<i64>>() {
            self.inject_items(py, batch, wide)?
        } else if let Ok(narrow) = negatives.cast::<PyArrayDyn<i32>>() {
            self.inject_items(py, batch, narrow)?
        } else {
            return Err(refuse("negatives", "int64 or int32", negatives));
        };
        let shape = [reversed.counts.len(), 3];
        Ok((
            reversed.coordinates.into_pyarray(py).reshape(shape)?,
            reversed.counts.into_pyarray(py),
            reversed.blocks.into_pyarray(py),
        ))
    }

    fn inject_items<T: Item + numpy::Element>(
        &mut self,
        py: Python<'_>,
        batch: &Batch,
        negatives: &Bound<'_, PyArrayDyn<T>>,
    ) -> PyResult<Reversed> {
        let count = negatives.shape().last().copied().unwrap_or(0);
        let mut negatives = negatives.try_readwrite()?;
        let negatives = negatives.as_slice_mut()?;
        let memory = &mut self.memory;
        Ok(py.detach(|| {
            let places = batch.places()?;
            memory.inject(&batch.users, &places, count, negatives)
        })?)
    }

    fn observe_batch(
        &mut self,
        py: Python<'_>,
        batch: &Batch,
        negatives: &Bound<'_, PyAny>,
        scores: &Bound<'_, PyAny>,
        reversed: &PyReadonlyArray2<'_, i64>,
    ) -> PyResult<usize> {
        let (single, double, hard);
        let scores = if let Ok(array) = scores.extract::<PyReadonlyArrayDyn<'_, f32>>() {
            single = array;
            Scores::Single(single.as_slice()?)
        } else if let Ok(array) = scores.extract::<PyReadonlyArrayDyn<'_, f64>>() {
            double = array;
            Scores::Double(double.as_slice()?)
        } else if let Ok(array) = scores.extract::<PyReadonlyArrayDyn<'_, u8>>() {
            hard = array;
            Scores::Hard(hard.as_slice()?)
        } else {
            return Err(refuse("scores", "float32, float64 or uint8", scores));
        };
        let reversed: Vec<i64> = reversed.as_array().iter().copied().collect();
        if let Ok(wide) = negatives.extract::<PyReadonlyArrayDyn<'_, i64>>() {
            self.observe_items(py, batch, &wide, scores, &reversed)
        } else if let Ok(narrow) = negatives.extract::<PyReadonlyArrayDyn<'_, i32>>() {
            self.observe_items(py, batch, &narrow, scores, &reversed)
        } else {
            Err(refuse("negatives", "int64 or int32", negatives))
        }
    }

    fn observe_items<T: Item + numpy::Element>(
        &mut self,
        py: Python<'_>,
        batch: &Batch,
        negatives: &PyReadonlyArrayDyn<'_, T>,
        scores: Scores<'_>,
        reversed: &[i64],
    ) -> PyResult<usize> {
        let count = negatives.shape().last().copied().unwrap_or(0);
        let negatives = negatives.as_slice()?;
        let memory = &mut self.memory;
        Ok(py.detach(|| {
            let places = batch.places()?;
            memory.observe(&batch.users, &places, count, negatives, scores, reversed)
        })?)
    }
}

fn refuse(name: &str, expected: &str, got: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("{name} must be an array of {expected}: got {}", type_name(got)))
}
