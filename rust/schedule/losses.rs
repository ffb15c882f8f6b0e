//! Timesteps that are drawn by their losses: a history of the last losses of each.
//!
//! Source: the sampler by second moments of `DiffuSeq`, which has it from improved diffusion.

use super::{Batch, MOST_STEPS, as_i64, draw_timesteps};
use crate::check::{float_in, id_in_range, in_range, item_in, item_in_range, same_length};
use crate::error::Result;
use crate::interrupt::Steps;
use crate::memory;
use crate::philox::{Stream, to_uniform};

/// Losses are no larger: the squares of all that a history holds have a sum.
pub const LARGEST_LOSS: f64 = 1e150;

/// `[T]`: how likely each timestep is: in proportion to the root of its mean squared loss, mixed
/// with all of them alike. None while some timestep has fewer losses than a history holds.
///
/// `history` is `[T, H]`, the oldest loss first; `counts` is `[T]`, of the losses it holds.
///
/// # Errors
/// Lengths that do not fit, or a value out of its range.
pub fn weigh_timesteps(
    history: &[f64],
    counts: &[i64],
    uniform_share: f64,
) -> Result<Option<Vec<f64>>> {
    let length = history_length(history, counts)?;
    let is_share = (0.0..=1.0).contains(&uniform_share);
    float_in("uniform_share", uniform_share, is_share, "at least 0 and at most 1")?;
    let mut is_full = true;
    for (index, &count) in counts.iter().enumerate() {
        item_in_range("counts", index, count.into(), 0..=length as i128)?;
        is_full &= count == as_i64(length);
    }
    if !is_full {
        return Ok(None);
    }
    let mut steps = Steps::default();
    let mut weights = memory::with_capacity(counts.len())?;
    for (row, losses) in history.chunks_exact(length).enumerate() {
        steps.take(length)?;
        if let Some(place) = losses.iter().position(|&loss| !is_loss(loss)) {
            item_in("history", &[row, place], losses[place], false, LOSSES)?;
        }
        let squares = losses.iter().fold(0.0, |sum, loss| sum + loss * loss);
        weights.push((squares / length as f64).sqrt());
    }
    let sum = weights.iter().fold(0.0, |sum: f64, weight| sum + weight);
    let alike = 1.0 / counts.len() as f64;
    for weight in &mut weights {
        let share = if sum > 0.0 { *weight / sum } else { alike };
        *weight = share * (1.0 - uniform_share) + uniform_share * alike;
    }
    Ok(Some(weights))
}

/// Timesteps as likely as [`weigh_timesteps`] says, and the weights of their losses: what makes
/// the mean of weighted losses that of timesteps which are all as likely.
///
/// # Errors
/// See [`weigh_timesteps`].
pub fn draw_by_loss(
    history: &[f64],
    counts: &[i64],
    uniform_share: f64,
    rows: usize,
    batch: Batch,
) -> Result<(Vec<i64>, Vec<f64>)> {
    let Some(weights) = weigh_timesteps(history, counts, uniform_share)? else {
        let timesteps = draw_timesteps(counts.len(), rows, batch)?;
        return Ok((timesteps, memory::repeat(1.0, rows)?));
    };
    let bits = batch.draw(Stream::Timesteps, rows, 1)?;
    let mut sums = memory::with_capacity(weights.len())?;
    let mut sum = 0.0;
    for weight in &weights {
        sum += weight;
        sums.push(sum);
    }
    let mut steps = Steps::default();
    let (mut timesteps, mut scales) = (memory::with_capacity(rows)?, memory::with_capacity(rows)?);
    for bits in bits {
        steps.take(1 << 5)?;
        let number = to_uniform(bits) * sum;
        let drawn = sums.partition_point(|&most| most <= number).min(sums.len() - 1);
        timesteps.push(as_i64(drawn));
        scales.push(1.0 / (sums.len() as f64 * (weights[drawn] / sum)));
    }
    Ok((timesteps, scales))
}

/// Adds losses to the histories of their timesteps, in their order; a full one loses its oldest.
///
/// With an error, histories are as they were.
///
/// # Errors
/// Lengths that do not fit, or a timestep or loss out of its range.
pub fn add_losses(
    history: &mut [f64],
    counts: &mut [i64],
    timesteps: &[i64],
    losses: &[f64],
) -> Result<()> {
    let length = history_length(history, counts)?;
    same_length(("timesteps", timesteps.len()), ("losses", losses.len()))?;
    let mut steps = Steps::default();
    for (index, (&timestep, &loss)) in timesteps.iter().zip(losses).enumerate() {
        steps.take(1)?;
        let row = id_in_range("timesteps", index, None, timestep, 0..counts.len())?;
        item_in_range("counts", row, counts[row].into(), 0..=length as i128)?;
        item_in("losses", &[index], loss, is_loss(loss), LOSSES)?;
    }
    for (&timestep, &loss) in timesteps.iter().zip(losses) {
        let Ok(row) = usize::try_from(timestep) else { continue };
        let kept = &mut history[row * length..][..length];
        let count = usize::try_from(counts[row]).unwrap_or(length);
        if count < length {
            kept[count] = loss;
            counts[row] += 1;
        } else {
            kept.copy_within(1.., 0);
            kept[length - 1] = loss;
        }
    }
    Ok(())
}

/// What losses are, in words.
const LOSSES: &str = "at least -1e150 and at most 1e150";

fn is_loss(value: f64) -> bool {
    value.abs() <= LARGEST_LOSS
}

/// H, where the lengths fit.
fn history_length(history: &[f64], counts: &[i64]) -> Result<usize> {
    in_range("the length of counts", counts.len() as i128, 1..=MOST_STEPS as i128)?;
    let length = history.len() / counts.len();
    in_range("the length of a history", length as i128, 1..)?;
    same_length(("history", history.len()), ("counts * H", counts.len() * length))?;
    Ok(length)
}
