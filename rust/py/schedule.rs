//! Binding of [`crate::schedule`].

use numpy::PyArray1;
use numpy::ndarray::{Ix1, IxDyn};
use pyo3::prelude::*;

use super::arrays::{IntoNumpy, array, array_mut, in_order};
use super::hooks::detach_interruptible;
use crate::schedule::{self, Batch, Schedule};

type Steps<'py> = Bound<'py, PyArray1<i64>>;
type Floats<'py> = Bound<'py, PyArray1<f64>>;

/// Returns the betas of a schedule.
#[pyfunction]
#[pyo3(signature = (name, steps, /))]
pub fn make_betas<'py>(py: Python<'py>, name: &str, steps: usize) -> PyResult<Floats<'py>> {
    let schedule = Schedule::from_name(name)?;
    Ok(detach_interruptible(py, || schedule::make_betas(schedule, steps))?.into_numpy(py))
}

/// Returns the farthest later and earlier timesteps of similar noise, -1 where there is none.
#[pyfunction]
#[pyo3(signature = (betas, tolerance, /))]
pub fn find_neighbours<'py>(
    py: Python<'py>,
    betas: &Bound<'py, PyAny>,
    tolerance: f64,
) -> PyResult<(Steps<'py>, Steps<'py>)> {
    let betas = array::<f64, Ix1>(betas, "betas")?;
    let betas = in_order(&betas)?;
    let found = detach_interruptible(py, || schedule::find_neighbours(&betas, tolerance))?;
    Ok((found.up.into_numpy(py), found.down.into_numpy(py)))
}

/// Returns a neighbour of each timestep of a batch.
#[pyfunction]
#[pyo3(signature = (timesteps, up, down, far, seed, step, first_row, /))]
#[expect(clippy::too_many_arguments, reason = "arguments of Python")]
pub fn draw_neighbours<'py>(
    py: Python<'py>,
    timesteps: &Bound<'py, PyAny>,
    up: &Bound<'py, PyAny>,
    down: &Bound<'py, PyAny>,
    far: bool,
    seed: u64,
    step: u64,
    first_row: u64,
) -> PyResult<Steps<'py>> {
    let timesteps = array::<i64, Ix1>(timesteps, "timesteps")?;
    let (up, down) = (array::<i64, Ix1>(up, "up")?, array::<i64, Ix1>(down, "down")?);
    let (timesteps, up, down) = (in_order(&timesteps)?, in_order(&up)?, in_order(&down)?);
    let batch = Batch { seed, step, first_row };
    let drawn =
        detach_interruptible(py, || schedule::draw_neighbours(&timesteps, &up, &down, far, batch))?;
    Ok(drawn.into_numpy(py))
}

/// Returns the timesteps so many later or earlier.
#[pyfunction]
#[pyo3(signature = (timesteps, total, distance, seed, step, first_row, /))]
pub fn shift_timesteps<'py>(
    py: Python<'py>,
    timesteps: &Bound<'py, PyAny>,
    total: usize,
    distance: usize,
    seed: u64,
    step: u64,
    first_row: u64,
) -> PyResult<Steps<'py>> {
    let timesteps = array::<i64, Ix1>(timesteps, "timesteps")?;
    let timesteps = in_order(&timesteps)?;
    let batch = Batch { seed, step, first_row };
    let shifted =
        detach_interruptible(py, || schedule::shift_timesteps(&timesteps, total, distance, batch))?;
    Ok(shifted.into_numpy(py))
}

/// Returns timesteps that are all as likely.
#[pyfunction]
#[pyo3(signature = (total, rows, seed, step, first_row, /))]
pub fn draw_timesteps(
    py: Python<'_>,
    total: usize,
    rows: usize,
    seed: u64,
    step: u64,
    first_row: u64,
) -> PyResult<Steps<'_>> {
    let batch = Batch { seed, step, first_row };
    let drawn = detach_interruptible(py, || schedule::draw_timesteps(total, rows, batch))?;
    Ok(drawn.into_numpy(py))
}

/// Returns how likely each timestep is, None while histories fill.
#[pyfunction]
#[pyo3(signature = (history, counts, uniform_share, /))]
pub fn weigh_timesteps<'py>(
    py: Python<'py>,
    history: &Bound<'py, PyAny>,
    counts: &Bound<'py, PyAny>,
    uniform_share: f64,
) -> PyResult<Option<Floats<'py>>> {
    let (history, counts) =
        (array::<f64, IxDyn>(history, "history")?, array::<i64, Ix1>(counts, "counts")?);
    let (history, counts) = (in_order(&history)?, in_order(&counts)?);
    let weights =
        detach_interruptible(py, || schedule::weigh_timesteps(&history, &counts, uniform_share))?;
    Ok(weights.map(|weights| weights.into_numpy(py)))
}

/// Returns timesteps that are as likely as their losses are large, and the weights of the losses.
#[pyfunction]
#[pyo3(signature = (history, counts, uniform_share, rows, seed, step, first_row, /))]
#[expect(clippy::too_many_arguments, reason = "arguments of Python")]
pub fn draw_by_loss<'py>(
    py: Python<'py>,
    history: &Bound<'py, PyAny>,
    counts: &Bound<'py, PyAny>,
    uniform_share: f64,
    rows: usize,
    seed: u64,
    step: u64,
    first_row: u64,
) -> PyResult<(Steps<'py>, Floats<'py>)> {
    let (history, counts) =
        (array::<f64, IxDyn>(history, "history")?, array::<i64, Ix1>(counts, "counts")?);
    let (history, counts) = (in_order(&history)?, in_order(&counts)?);
    let batch = Batch { seed, step, first_row };
    let (timesteps, weights) = detach_interruptible(py, || {
        schedule::draw_by_loss(&history, &counts, uniform_share, rows, batch)
    })?;
    Ok((timesteps.into_numpy(py), weights.into_numpy(py)))
}

/// Adds losses to the histories of their timesteps.
#[pyfunction]
#[pyo3(signature = (history, counts, timesteps, losses, /))]
pub fn add_losses(
    py: Python<'_>,
    history: &Bound<'_, PyAny>,
    counts: &Bound<'_, PyAny>,
    timesteps: &Bound<'_, PyAny>,
    losses: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let mut history = array_mut::<f64>(history, "history")?;
    let mut counts = array_mut::<i64>(counts, "counts")?;
    let (timesteps, losses) =
        (array::<i64, Ix1>(timesteps, "timesteps")?, array::<f64, Ix1>(losses, "losses")?);
    let (history, counts) = (history.as_slice_mut()?, counts.as_slice_mut()?);
    let (timesteps, losses) = (in_order(&timesteps)?, in_order(&losses)?);
    detach_interruptible(py, || schedule::add_losses(history, counts, &timesteps, &losses))
}
