//! Philox4x32-10: random numbers as a pure function of (seed, stream, item, position).
//!
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3.

use crate::error::{Error, Result};
use crate::interrupt::Steps;
use crate::memory;

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
#[expect(clippy::cast_possible_truncation, reason = "the low half of a product is meant")]
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

/// How many blocks [`philox4x32_lanes`] makes at once.
pub const LANES: usize = 16;

/// The blocks of `LANES` counters under one key: word `w` of block `l` at `[w][l]`.
///
/// A lane is 64 bits wide because a product is; only its lower half counts, going in and
/// coming out. Inlined, so that it is compiled for the instructions of its caller.
///
/// ```
/// use lmcore::philox::{LANES, philox4x32_lanes};
///
/// let words = philox4x32_lanes([[0; LANES]; 4], [0; 2]);
/// assert_eq!(words[0][LANES - 1] & 0xFFFF_FFFF, 0x6627_e8d5);
/// ```
// Always: a call would leave the instructions of the caller.
#[inline(always)]
pub fn philox4x32_lanes(counters: [[u64; LANES]; 4], key: [u32; 2]) -> [[u64; LANES]; 4] {
    const LOW: u64 = 0xFFFF_FFFF;
    let [mut c0, mut c1, mut c2, mut c3] = counters;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        for lane in 0..LANES {
            let product_0 = u64::from(MULTIPLIERS[0]) * (c0[lane] & LOW);
            let product_1 = u64::from(MULTIPLIERS[1]) * (c2[lane] & LOW);
            // The upper halves of c1 and c3 are never read.
            c0[lane] = (product_1 >> 32) ^ c1[lane] ^ u64::from(k0);
            c1[lane] = product_1;
            c2[lane] = (product_0 >> 32) ^ c3[lane] ^ u64::from(k1);
            c3[lane] = product_0;
        }
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

    /// The words of `LANES` neighbouring blocks from `LANES * group`: word `w` of block `l` of
    /// them at `w * LANES + l`.
    #[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
    #[expect(clippy::cast_possible_truncation, reason = "the lower halves are meant")]
    #[inline(always)]
    pub fn words(&self, group: u32) -> [u32; 4 * LANES] {
        let mut counters = [[0; LANES]; 4];
        for (lane, block) in counters[0].iter_mut().enumerate() {
            *block = u64::from(group.wrapping_mul(LANES as u32) + lane as u32);
        }
        counters[1] = [u64::from(self.item[0]); LANES];
        counters[2] = [u64::from(self.item[1]); LANES];
        counters[3] = [u64::from(self.stream); LANES];
        let blocks = philox4x32_lanes(counters, self.key);
        let mut words = [0; 4 * LANES];
        for word in 0..4 {
            for lane in 0..LANES {
                words[word * LANES + lane] = blocks[word][lane] as u32;
            }
        }
        words
    }

    /// 64 random bits at `position`, of which the lower 33 bits count.
    #[expect(clippy::cast_possible_truncation, reason = "positions are below 2^33")]
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
    let mut values = memory::with_capacity(memory::size(&[items.len(), count])?)?;
    let task = Fill { seed, stream, items, position, end, make, values: &mut values };
    pulp::Arch::new().dispatch(task)?;
    Ok(values)
}

/// The work of [`fill`], compiled once for each set of instructions.
struct Fill<'a, T, F> {
    seed: u64,
    stream: u32,
    items: &'a [u64],
    position: u64,
    end: u64,
    make: F,
    values: &'a mut Vec<T>,
}

impl<T, F: Fn(u64) -> T> pulp::NullaryFnOnce for Fill<'_, T, F> {
    type Output = Result<()>;

    #[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
    #[inline(always)]
    fn call(self) -> Result<()> {
        let Self { seed, stream, items, position, end, make, values } = self;
        let mut steps = Steps::default();
        // Items follow each other through the lanes, so that short rows share them too.
        let per_item = end.div_ceil(2) - position / 2;
        let (mut item, mut block) = (0, 0);
        while position < end && item < items.len() {
            steps.take(2 * LANES)?;
            let mut counters = [[0; LANES]; 4];
            let mut used = 0;
            while used < LANES && item < items.len() {
                counters[0][used] = position / 2 + block;
                counters[1][used] = items[item];
                counters[2][used] = items[item] >> 32;
                counters[3][used] = u64::from(stream);
                used += 1;
                block += 1;
                if block == per_item {
                    (item, block) = (item + 1, 0);
                }
            }
            let words = philox4x32_lanes(counters, halves(seed));
            for lane in 0..used {
                let place = 2 * counters[0][lane];
                let word = |index: usize| words[index][lane] & 0xFFFF_FFFF;
                if place >= position {
                    values.push(make(word(1) << 32 | word(0)));
                }
                if place + 1 < end {
                    values.push(make(word(3) << 32 | word(2)));
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}
