//! Philox4x32-10: random numbers as a pure function of (seed, stream, item, position).
//!
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3.

use crate::check::in_range;
use crate::error::Result;
use crate::interrupt::Steps;
use crate::memory;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Positions are below 2^33: two 64-bit draws share one block of four words.
pub const POSITION_BITS: u32 = 33;

/// Which use of randomness a draw belongs to: the one table of all of them.
///
/// Two uses with one number would draw the same, and with another number a use draws something
/// else: numbers are given once. The compiler refuses one that is there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// English sentences of a generated corpus.
    EnglishSentences = 1,
    /// Chinese sentences of a generated corpus.
    ChineseSentences = 2,
    /// Damage to generated text.
    Damage = 3,
    /// Lengths of sentences that are timed.
    SentenceLengths = 4,
    /// Which entity types make a domain of a generated corpus.
    Domains = 5,
    /// Sentences of the domains.
    DomainSentences = 6,
    /// English documents of a generated corpus.
    EnglishDocuments = 7,
    /// Chinese documents of a generated corpus.
    ChineseDocuments = 8,
    /// Genres of a generated catalogue.
    Genres = 16,
    /// Which way tastes turn.
    Turns = 17,
    /// Items of a generated catalogue.
    Items = 18,
    /// Tastes of generated users.
    Tastes = 19,
    /// What generated users choose.
    Choices = 20,
    /// The user of a row of a training batch.
    Users = 101,
    /// Negatives of a row of a training batch.
    Negatives = 102,
    /// The order of the users in an epoch.
    Shuffle = 103,
    /// Candidates among which a target is ranked.
    Candidates = 104,
    /// Which sentences of a large data set are taken.
    SentenceChoices = 121,
    /// The order in which an instruction names the entity types.
    TypeOrders = 122,
    /// Which types that a sentence lacks an instruction names.
    TypeChoices = 123,
    /// Which types an instruction leaves out.
    TypeDrops = 124,
    /// Which denoiser a text gets.
    Denoisers = 141,
    /// Which tokens of a text are noise.
    NoiseSpans = 142,
    /// Which token a text goes on with.
    NextTokens = 143,
    /// Which heads, inner and hidden units a random pruning keeps.
    KeptIndices = 161,
    /// Which neighbour a timestep of diffusion is paired with.
    Neighbours = 181,
    /// The timesteps of diffusion that a batch is trained at.
    Timesteps = 182,
    /// What each step of sampling a text by diffusion adds.
    SamplingNoise = 183,
    /// What sampling a text by diffusion starts with.
    StartNoise = 184,
    /// Rows of predictions that a bootstrap takes.
    ResampledRows = 201,
    /// Which generations judges compare, and on which side each stands.
    JudgedPairs = 221,
    /// What a model in training continues its chains with, to be contrasted with.
    ChainAnchors = 227,
    /// Chains that a model writes for a prompt.
    ChainSamples = 228,
    /// What a filler puts in the place of masks, of each attempt.
    MaskFills = 232,
    /// What a language model continues a prompt with.
    Continuations = 233,
    /// Which weights attention drops.
    AttentionDropout = 241,
    /// Which rows of a task instructions are made of.
    InstructionRows = 251,
    /// Which template a row becomes an instruction by.
    InstructionTemplates = 252,
    /// The order in which instructions are written.
    InstructionOrder = 253,
    /// The order in which the sources of a mixture take turns.
    MixtureOrders = 256,
    /// Seeds of the sources of a mixture.
    MixtureSeeds = 257,
    /// Exercises of a generated fine-tune.
    Exercises = 258,
    /// How far the gates of a model that is to be pruned are open, of each step.
    Gates = 259,
    /// Seeds of torch's generators.
    TorchSeeds = 0x7E3D,
    /// Orders of training examples.
    Orders = 0x7E3E,
}

impl From<Stream> for u32 {
    fn from(stream: Stream) -> Self {
        stream as Self
    }
}

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

/// Products of words and `bound` whose lower half is below this are drawn again: without them
/// each number is made by as many words.
pub fn tail(bound: u32) -> u32 {
    bound.wrapping_neg() % bound.max(1)
}

/// Words of one item, one after the other, of which numbers are made without bias.
#[derive(Debug)]
pub struct Words {
    draws: Draws,
    /// Words that are made at once: a block or a group.
    size: usize,
    made: [u32; 4 * LANES],
    next: usize,
    count: u32,
}

impl Words {
    /// Words in the order of their blocks: for few of them.
    pub fn by_block(draws: Draws) -> Self {
        Self::new(draws, 4)
    }

    /// Words in the order of [`Draws::words`]: for many of them.
    pub fn by_group(draws: Draws) -> Self {
        Self::new(draws, 4 * LANES)
    }

    fn new(draws: Draws, size: usize) -> Self {
        Self { draws, size, made: [0; 4 * LANES], next: size, count: 0 }
    }

    /// A number in `0..bound`, by the first word that is not in the biased tail.
    pub fn below(&mut self, bound: u32) -> u32 {
        loop {
            if self.next == self.size {
                if self.size == 4 {
                    let [first, second] = self.draws.block(self.count).map(halves);
                    self.made[..2].copy_from_slice(&first);
                    self.made[2..4].copy_from_slice(&second);
                } else {
                    self.made = self.draws.words(self.count);
                }
                self.count = self.count.wrapping_add(1);
                self.next = 0;
            }
            let word = self.made[self.next];
            self.next += 1;
            let [low, high] = halves(u64::from(word) * u64::from(bound));
            if low >= tail(bound) {
                return high;
            }
        }
    }
}

/// Puts items into an order that every other is as likely as: Fisher and Yates from the last
/// position down, by words in groups. There are fewer than 2^32 items.
///
/// ```
/// use lmcore::philox::{Draws, shuffle};
///
/// let mut order = [1, 2, 3, 4, 5];
/// shuffle(&mut order, Draws::new(0, 0, 0))?;
/// assert_ne!(order, [1, 2, 3, 4, 5]);
/// order.sort_unstable();
/// assert_eq!(order, [1, 2, 3, 4, 5]);
/// # Ok::<(), lmcore::error::Error>(())
/// ```
///
/// # Errors
/// The caller stops.
pub fn shuffle<T>(items: &mut [T], draws: Draws) -> Result<()> {
    let mut words = Words::by_group(draws);
    let mut steps = Steps::default();
    for last in (1..items.len()).rev() {
        steps.take(1)?;
        let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
        items.swap(last, words.below(bound) as usize);
    }
    Ok(())
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
    // No draws at the end of all positions are draws, too.
    in_range("position", i128::from(end.saturating_sub(1)), 0..1 << POSITION_BITS)?;
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
                let first = 2 * counters[0][lane];
                let word = |index: usize| words[index][lane] & 0xFFFF_FFFF;
                if first >= position {
                    values.push(make(word(1) << 32 | word(0)));
                }
                if first + 1 < end {
                    values.push(make(word(3) << 32 | word(2)));
                }
            }
        }
        Ok(())
    }
}

/// The lower and the upper half.
#[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
#[inline(always)]
pub fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}
