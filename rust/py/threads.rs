//! Binding of [`crate::threads`].

use pyo3::prelude::*;

use crate::threads;

/// Returns the most threads that a call starts, whatever it is asked for.
#[pyfunction]
#[pyo3(signature = ())]
pub fn most_threads() -> usize {
    threads::most()
}
