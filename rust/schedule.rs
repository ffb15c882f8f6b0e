//! Noise schedules of diffusion models, neighbours by noise, and the timesteps of a batch.
//!
//! Source: the text diffusion of Bridge-Gap Diffusion (arXiv 2305.04465) and of what it stands
//! on, Diffusion-LM and `DiffuSeq`, with the code of all three; draws are made by Philox, so that
//! each is a function of (seed, step, row). What a schedule is respaced by, and its coefficients,
//! are a few values made once: `lmcore.ops.schedule` has them in Python.

mod losses;

use std::f64::consts::PI;
use std::hint::black_box;
use std::ops::RangeInclusive;

use crate::check::{float_in, id_in_range, in_range, item_in, one_of, same_length};
use crate::error::Result;
use crate::interrupt::Steps;
use crate::memory;
use crate::philox::{Stream, fill, to_below};

pub use losses::{LARGEST_LOSS, add_losses, draw_by_loss, weigh_timesteps};

/// A schedule has no more timesteps.
pub const MOST_STEPS: usize = 1 << 24;
/// Batches have fewer rows: two draws each.
const ROWS: i128 = 1 << 32;
/// No beta that is made from a cumulative product is larger.
const LARGEST_BETA: f64 = 0.999;

/// How betas grow with the timestep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Betas on a line.
    Linear,
    /// Cumulative products of a squared cosine.
    Cosine,
    /// Cumulative products of one minus a square root.
    Sqrt,
    /// A squared cosine whose first beta is that of its start.
    TruncCos,
    /// Betas on a line that starts higher.
    TruncLin,
    /// Ten betas on a falling line, the others on a rising one.
    PwLin,
}

impl Schedule {
    /// The names that [`Schedule::from_name`] knows.
    pub const NAMES: [&'static str; 6] =
        ["linear", "cosine", "sqrt", "trunc_cos", "trunc_lin", "pw_lin"];

    /// The schedule of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn from_name(name: &str) -> Result<Self> {
        let all =
            [Self::Linear, Self::Cosine, Self::Sqrt, Self::TruncCos, Self::TruncLin, Self::PwLin];
        one_of("name", &Self::NAMES, all, name)
    }

    /// How many timesteps have betas above 0 and below 1.
    fn steps(self) -> RangeInclusive<i128> {
        match self {
            // With fewer, betas reach 1.
            Self::Linear | Self::PwLin => 21..=MOST_STEPS as i128,
            // With more, cumulative products reach 0 before the last timestep.
            Self::Sqrt => 1..=9999,
            Self::Cosine | Self::TruncCos | Self::TruncLin => 1..=MOST_STEPS as i128,
        }
    }
}

/// `[T]`: betas of a schedule of so many timesteps.
///
/// # Errors
/// There are too few timesteps, or too many.
///
/// ```
/// use lmcore::schedule::{Schedule, make_betas};
///
/// let betas = make_betas(Schedule::Sqrt, 2000)?;
/// assert!((betas[0] - 0.014_641_31).abs() < 1e-8 && betas[1999] == 0.999);
/// # Ok::<(), lmcore::error::Error>(())
/// ```
pub fn make_betas(schedule: Schedule, steps: usize) -> Result<Vec<f64>> {
    in_range("steps", steps as i128, schedule.steps())?;
    let mut betas = memory::with_capacity(steps)?;
    let scale = 1000.0 / steps as f64;
    match schedule {
        Schedule::Linear => extend_line(&mut betas, scale * 0.0001, scale * 0.02, steps)?,
        Schedule::TruncLin => {
            let last = scale * 0.02 + 0.01;
            let last = if last > 1.0 { scale * 0.001 + 0.01 } else { last };
            extend_line(&mut betas, scale * 0.0001 + 0.01, last, steps)?;
        }
        Schedule::PwLin => {
            extend_line(&mut betas, scale * 0.0001 + 0.01, scale * 0.0001, 10)?;
            extend_line(&mut betas, scale * 0.0001, scale * 0.02, steps - 10)?;
        }
        Schedule::Cosine => {
            extend_ratios(&mut betas, steps, |u| cosine((u + 0.008) / 1.008), false)?;
        }
        Schedule::TruncCos => extend_ratios(&mut betas, steps, |u| cosine((u + 0.1) / 1.1), true)?,
        Schedule::Sqrt => {
            extend_ratios(&mut betas, steps, |u| 1.0 - (u + 0.0001).sqrt(), false)?;
        }
    }
    Ok(betas)
}

/// Points on a line, the last of them exactly at its end.
fn extend_line(betas: &mut Vec<f64>, first: f64, last: f64, count: usize) -> Result<()> {
    let mut steps = Steps::default();
    let width = (last - first) / count.saturating_sub(1).max(1) as f64;
    for k in 0..count {
        steps.take(1)?;
        betas.push(if k > 0 && k + 1 == count { last } else { k as f64 * width + first });
    }
    Ok(())
}

/// Betas whose cumulative products are those of a function of u = t / T, but for the bound.
fn extend_ratios(
    betas: &mut Vec<f64>,
    count: usize,
    product: impl Fn(f64) -> f64,
    truncated: bool,
) -> Result<()> {
    let mut steps = Steps::default();
    let mut before = product(0.0);
    if truncated {
        betas.push((1.0 - before).min(LARGEST_BETA));
    }
    for k in 1..=count - usize::from(truncated) {
        steps.take(1 << 3)?;
        let after = product(k as f64 / count as f64);
        betas.push((1.0 - after / before).min(LARGEST_BETA));
        before = after;
    }
    Ok(())
}

/// The squared cosine of a share of a quarter of a circle.
fn cosine(share: f64) -> f64 {
    // Small betas are differences of what is near 1: the last bit of a square, which a compiler
    // would make of a known exponent, is one in the tenth digit of theirs.
    (share * PI / 2.0).cos().powf(black_box(2.0))
}

/// For each timestep the farthest ones whose noise is similar, -1 where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbours {
    /// `[T]`: the last one whose noise is no higher by more than the tolerance; -1 where that
    /// would be the last timestep of all.
    pub up: Vec<i64>,
    /// `[T]`: the first one whose noise is no lower by more than it; -1 where that is timestep 0.
    pub down: Vec<i64>,
}

/// Finds neighbours by noise: those whose sqrt(1 - cumulative product) differs by no more.
///
/// # Errors
/// A beta, or the tolerance, is out of its range.
pub fn find_neighbours(betas: &[f64], tolerance: f64) -> Result<Neighbours> {
    let is_in = tolerance > 0.0 && tolerance.is_finite();
    float_in("tolerance", tolerance, is_in, "finite and above 0")?;
    let noise = noise_levels(betas)?;
    let (mut up, mut down) =
        (memory::with_capacity(noise.len())?, memory::with_capacity(noise.len())?);
    let mut steps = Steps::default();
    let (mut end, mut start) = (0, 0);
    for level in &noise {
        steps.take(4)?;
        while noise.get(end).is_some_and(|other| other - level <= tolerance) {
            end += 1;
        }
        while level - noise[start] > tolerance {
            start += 1;
        }
        up.push(if end < noise.len() { as_i64(end) - 1 } else { -1 });
        down.push(if start > 0 { as_i64(start) } else { -1 });
    }
    Ok(Neighbours { up, down })
}

/// `[T]`: sqrt(1 - cumulative product) of each timestep.
fn noise_levels(betas: &[f64]) -> Result<Vec<f64>> {
    in_range("the length of betas", betas.len() as i128, 1..=MOST_STEPS as i128)?;
    let mut levels = memory::with_capacity(betas.len())?;
    let mut steps = Steps::default();
    let mut product = 1.0;
    for (index, &beta) in betas.iter().enumerate() {
        steps.take(1)?;
        item_in("betas", &[index], beta, 0.0 < beta && beta < 1.0, "above 0 and below 1")?;
        product *= 1.0 - beta;
        levels.push((1.0 - product).sqrt());
    }
    Ok(levels)
}

/// Which batch draws are for: each is a function of (seed, step, row) alone.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The seed.
    pub seed: u64,
    /// The step of the training.
    pub step: u64,
    /// The row of the whole batch that is the first one here.
    pub first_row: u64,
}

impl Batch {
    /// So many draws for each row.
    fn draw(self, stream: Stream, rows: usize, each: usize) -> Result<Vec<u64>> {
        in_range("first_row", self.first_row.into(), 0..=ROWS - rows as i128)?;
        let (position, count) = (self.first_row * each as u64, memory::size(&[rows, each])?);
        fill(self.seed, stream.into(), &[self.step], position, count, |bits| bits)
    }
}

/// `[B]`: a neighbour of each timestep: a later or an earlier one, half of them each, out of the
/// window, all as likely, or the far end of it. Without a window it is the timestep itself.
///
/// # Errors
/// A timestep or an entry out of its range, or lengths that differ.
pub fn draw_neighbours(
    timesteps: &[i64],
    up: &[i64],
    down: &[i64],
    far: bool,
    batch: Batch,
) -> Result<Vec<i64>> {
    same_length(("up", up.len()), ("down", down.len()))?;
    let total = up.len();
    let bits = batch.draw(Stream::Neighbours, timesteps.len(), 2)?;
    let mut drawn = memory::with_capacity(timesteps.len())?;
    let mut steps = Steps::default();
    for (index, (&timestep, &[direction, place])) in
        timesteps.iter().zip(bits.as_chunks::<2>().0).enumerate()
    {
        steps.take(1 << 3)?;
        let here = id_in_range("timesteps", index, None, timestep, 0..total)?;
        // The window without the timestep itself, and its far end.
        let (first, end, last) = match (is_later(direction), up[here], down[here]) {
            (true, -1, _) | (false, _, -1) => (here, here, here),
            (true, last, _) => {
                let last = id_in_range("up", here, None, last, here..total)?;
                (here + 1, last + 1, last)
            }
            (false, _, last) => {
                let last = id_in_range("down", here, None, last, 0..=here)?;
                (last, here, last)
            }
        };
        let found = if far || first >= end {
            as_i64(last)
        } else {
            as_i64(first) + to_below(place, (end - first) as u64).cast_signed()
        };
        drawn.push(found);
    }
    Ok(drawn)
}

/// `[B]`: the timestep so many later or earlier, half of them each, and no farther than the ends.
///
/// # Errors
/// A timestep, or an argument, out of its range.
pub fn shift_timesteps(
    timesteps: &[i64],
    total: usize,
    distance: usize,
    batch: Batch,
) -> Result<Vec<i64>> {
    in_range("total", total as i128, 1..=MOST_STEPS as i128)?;
    in_range("distance", distance as i128, 0..=MOST_STEPS as i128)?;
    let bits = batch.draw(Stream::Neighbours, timesteps.len(), 2)?;
    let mut shifted = memory::with_capacity(timesteps.len())?;
    let mut steps = Steps::default();
    for (index, (&timestep, &[direction, _])) in
        timesteps.iter().zip(bits.as_chunks::<2>().0).enumerate()
    {
        steps.take(1 << 3)?;
        let here = id_in_range("timesteps", index, None, timestep, 0..total)?;
        shifted.push(as_i64(if is_later(direction) {
            (here + distance).min(total - 1)
        } else {
            here.saturating_sub(distance)
        }));
    }
    Ok(shifted)
}

fn is_later(bits: u64) -> bool {
    to_below(bits, 2) == 1
}

/// `[B]`: timesteps that are all as likely.
///
/// # Errors
/// An argument is out of its range.
pub fn draw_timesteps(total: usize, rows: usize, batch: Batch) -> Result<Vec<i64>> {
    in_range("total", total as i128, 1..=MOST_STEPS as i128)?;
    let mut bits = batch.draw(Stream::Timesteps, rows, 1)?;
    for drawn in &mut bits {
        *drawn = to_below(*drawn, total as u64);
    }
    memory::collect(rows, bits.into_iter().map(u64::cast_signed))
}

fn as_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
