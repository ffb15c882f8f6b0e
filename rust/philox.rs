//! Philox4x32-10: random numbers as a pure function of (seed, stream, item, position).
//!
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3.

use crate::error::{Error, Result};

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Positions are below 2^33: two 64-bit draws share one block of four words.
pub const POSITION_BITS: u32 = 33;

/// The four words that Philox4x32-10 makes of a counter and a key.
///
/// ```
/// assert_eq!(lmcore::philox::philox4x32([0; 4], [0; 2])[0], 0x6627_e8d5);
/// ```
#[allow(clippy::cast_possible_truncation)] // the low half of a product is meant
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let product_0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let product_1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        c0 = (product_1 >> 32) as u32 ^ c1 ^ k0;
        c1 = product_1 as u32;
        c2 = (product_0 >> 32) as u32 ^ c3 ^ k1;
        c3 = product_0 as u32;
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// One stream of random numbers for one item.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    key: [u32; 2],
    stream: u32,
    item: [u32; 2],
}

impl Draws {
    /// The draws of `item` in `stream` under `seed`.
    pub fn new(seed: u64, stream: u32, item: u64) -> Self {
        Self { key: halves(seed), stream, item: halves(item) }
    }

    /// The 128 random bits of two neighbouring positions, `2 * block` and the next.
    pub fn block(&self, block: u32) -> [u64; 2] {
        let words = philox4x32([block, self.item[0], self.item[1], self.stream], self.key);
        let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        [join(words[0], words[1]), join(words[2], words[3])]
    }

    /// 64 random bits at `position`, of which the lower 33 bits count.
    #[allow(clippy::cast_possible_truncation)] // positions are below 2^33
    pub fn bits(&self, position: u64) -> u64 {
        self.block((position >> 1) as u32)[(position & 1) as usize]
    }
}

/// A number in [0, 1) from 53 of 64 random bits.
pub fn to_uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 * (f64::EPSILON / 2.0)
}

/// An integer in [0, bound) from 64 random bits.
pub fn to_below(bits: u64, bound: u64) -> u64 {
    let product = u128::from(bits) * u128::from(bound);
    u64::try_from(product >> 64).unwrap_or(u64::MAX)
}

/// Makes a value of the bits at `count` positions from `position`, for each item.
///
/// # Errors
/// The last position is not below 2^33, or memory does not suffice.
#[allow(clippy::cast_possible_truncation)] // positions are below 2^33
pub fn fill<T>(
    seed: u64,
    stream: u32,
    items: &[u64],
    position: u64,
    count: usize,
    make: impl Fn(u64) -> T,
) -> Result<Vec<T>> {
    let end = position.saturating_add(count as u64);
    if end > 1 << POSITION_BITS {
        return Err(Error::OutOfRange {
            name: "position",
            range: format!("at least 0 and below 2**{POSITION_BITS}"),
            got: end.saturating_sub(1).to_string(),
        });
    }
    let memory = || Error::Memory { values: items.len() as u128 * count as u128 };
    let mut values = Vec::new();
    let size = items.len().checked_mul(count).ok_or_else(memory)?;
    values.try_reserve_exact(size).map_err(|_| memory())?;
    for &item in items {
        let draws = Draws::new(seed, stream, item);
        let mut place = position;
        while place < end {
            let bits = draws.block((place >> 1) as u32);
            for &bits in &bits[(place & 1) as usize..] {
                if place < end {
                    values.push(make(bits));
                }
                place += 1;
            }
        }
    }
    Ok(values)
}

#[allow(clippy::cast_possible_truncation)] // both halves are taken
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}
