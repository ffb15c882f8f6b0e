//! Which negatives scored above their positive.

use super::Position;
use crate::error::Result;
use crate::interrupt::Steps;

/// What tells which negatives scored above the positive.
#[derive(Debug, Clone, Copy)]
pub enum Scores<'a> {
    /// N bytes a position: not 0 where it did.
    Hard(&'a [u8]),
    /// 1 + N logits a position, the positive's first.
    Single(&'a [f32]),
    /// The same in double precision.
    Double(&'a [f64]),
}

/// A logit.
trait Logit: Copy + PartialOrd {
    fn is_nan(self) -> bool;
}

impl Logit for f32 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }
}

impl Logit for f64 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }
}

/// Writes a byte for each negative of each position: 1 where it scored above the positive.
///
/// Returns which position has a NaN first, and in which column.
pub fn compare(
    scores: Scores<'_>,
    positions: &[Position],
    count: usize,
    above: &mut [u8],
    steps: &mut Steps,
) -> Result<Option<(usize, usize)>> {
    let with_nan = match scores {
        Scores::Hard(hard) => {
            for (k, position) in positions.iter().enumerate() {
                steps.take(count)?;
                let hard = &hard[position.block * count..][..count];
                let above = &mut above[k * count..][..count];
                above.iter_mut().zip(hard).for_each(|(above, &hard)| *above = u8::from(hard != 0));
            }
            None
        }
        Scores::Single(logits) => {
            pulp::Arch::new().dispatch(Compare { logits, positions, count, above, steps })?
        }
        Scores::Double(logits) => {
            pulp::Arch::new().dispatch(Compare { logits, positions, count, above, steps })?
        }
    };
    let Some(k) = with_nan else { return Ok(None) };
    let first = positions[k].block * (count + 1);
    let column = match scores {
        Scores::Hard(_) => None,
        Scores::Single(logits) => logits[first..].iter().position(|z| z.is_nan()),
        Scores::Double(logits) => logits[first..].iter().position(|z| z.is_nan()),
    };
    Ok(Some((k, column.unwrap_or(0))))
}

/// The work of [`compare`], compiled once for each set of instructions.
struct Compare<'a, F> {
    logits: &'a [F],
    positions: &'a [Position],
    count: usize,
    above: &'a mut [u8],
    steps: &'a mut Steps,
}

impl<F: Logit> pulp::NullaryFnOnce for Compare<'_, F> {
    /// Which position has a NaN first.
    type Output = Result<Option<usize>>;

    #[expect(clippy::inline_always, reason = "or it is compiled for the least processor")]
    #[inline(always)]
    fn call(self) -> Result<Option<usize>> {
        let Self { logits, positions, count, above, steps } = self;
        for (k, position) in positions.iter().enumerate() {
            steps.take(count)?;
            let block = &logits[position.block * (count + 1)..][..=count];
            let Some((&positive, negatives)) = block.split_first() else { continue };
            let above = &mut above[k * count..][..count];
            let mut nan = u8::from(positive.is_nan());
            for (above, &z) in above.iter_mut().zip(negatives) {
                *above = u8::from(z > positive);
                nan |= u8::from(z.is_nan());
            }
            if nan != 0 {
                return Ok(Some(k));
            }
        }
        Ok(None)
    }
}

/// Calls `visit` with the index of each byte that is 1; the others are 0.
pub fn for_each_set(bytes: &[u8], mut visit: impl FnMut(usize) -> Result<()>) -> Result<()> {
    for (group, bytes) in bytes.chunks(64).enumerate() {
        let mut bits = 0;
        let (eights, rest) = bytes.as_chunks::<8>();
        for (k, eight) in eights.iter().enumerate() {
            // Byte i goes to bit 56 + i.
            let high = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080);
            bits |= (high >> 56) << (k * 8);
        }
        for (k, &byte) in rest.iter().enumerate() {
            bits |= u64::from(byte) << (eights.len() * 8 + k);
        }
        while bits != 0 {
            visit(group * 64 + bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
        }
    }
    Ok(())
}
