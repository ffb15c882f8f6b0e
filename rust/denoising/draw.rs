//! The lengths of kept and noise spans.

use super::{Denoiser, Excess, Noise, Problem, SpecialIds};
use crate::error::Result;
use crate::interrupt::Steps;
use crate::memory;
use crate::philox::{Draws, LANES, Stream, halves, tail};

/// Mean lengths of the spans of a mix, shortest first, with their shares of what is no suffix.
pub const MIX_SPANS: [(f64, f64); 3] = [(3.0, 0.3), (8.0, 0.4), (64.0, 0.3)];
/// Least and largest share of a mix's noise that is its suffix.
pub const MIX_SUFFIX: (f64, f64) = (0.2, 0.3);

/// Words that are made at once.
const GROUP: usize = 4 * LANES;
/// Draws between two looks at whether the caller stops.
const DRAWS_AT_ONCE: usize = 1 << 10;

/// Words of one sample, one after the other.
#[derive(Debug)]
pub struct Words {
    draws: Draws,
    made: Vec<u32>,
    next: usize,
    groups: u32,
}

impl Default for Words {
    fn default() -> Self {
        Self { draws: Draws::new(0, 0, 0), made: Vec::new(), next: 0, groups: 0 }
    }
}

impl Words {
    /// Starts with a sample, of which about `count` words will be asked for.
    #[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
    #[inline(always)]
    fn start(&mut self, draws: Draws, count: usize) -> Result<()> {
        self.draws = draws;
        self.made.clear();
        (self.next, self.groups) = (0, 0);
        // Who asks for more than fits here gets the rest as it is needed.
        for _ in 0..count.div_ceil(GROUP).min(DRAWS_AT_ONCE / GROUP) {
            memory::reserve(&mut self.made, GROUP)?;
            self.made.extend_from_slice(&draws.words(self.groups));
            self.groups += 1;
        }
        Ok(())
    }

    /// The next group, in place of those that are used up.
    #[cold]
    #[inline(never)]
    fn make(&mut self) -> Result<()> {
        self.made.clear();
        memory::reserve(&mut self.made, GROUP)?;
        self.made.extend_from_slice(&self.draws.words(self.groups));
        self.groups = self.groups.wrapping_add(1);
        self.next = 0;
        Ok(())
    }

    /// A number in `0..bound`, by the first word that is not in the biased tail.
    #[inline]
    fn below(&mut self, bound: u32) -> Result<u32> {
        loop {
            if self.next == self.made.len() {
                self.make()?;
            }
            let word = self.made[self.next];
            self.next += 1;
            let [low, high] = halves(u64::from(word) * u64::from(bound));
            // The tail is shorter than the bound, and a division takes long.
            if low >= bound || low >= tail(bound) {
                return Ok(high);
            }
        }
    }
}

/// How much noise a sample has, in how many spans.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Tokens that are taken of the text.
    length: usize,
    /// Tokens that are noise.
    noise: usize,
    /// Noise spans.
    spans: usize,
    /// Of a mix: noise tokens and spans for each mean length.
    mixed: [(usize, usize); 3],
}

impl Counts {
    /// How long the rows of encoder and decoder become.
    pub fn row_lengths(&self, denoiser: &Denoiser) -> [usize; 2] {
        let kept = self.length - self.noise;
        [
            usize::from(denoiser.prefix.is_some()) + kept + self.spans + 1,
            self.noise + self.spans + 1,
        ]
    }
}

/// Memory that rows use one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    words: Words,
    /// A bit for each place between two tokens; 0 between compositions.
    places: Vec<u64>,
    /// Lengths of the noise spans.
    pub noise: Vec<u32>,
    /// Lengths of the kept spans before them.
    pub kept: Vec<u32>,
    pub steps: Steps,
}

impl Scratch {
    /// Draws how much noise there is, and in how many spans.
    pub fn count(
        &mut self,
        denoiser: &Denoiser,
        ids: &SpecialIds,
        length: usize,
        row: usize,
        seed: u64,
        index: u64,
    ) -> Result<Counts> {
        let draws = Draws::new(seed, Stream::NoiseSpans.into(), index);
        self.words.start(draws, 0)?;
        self.go_on_counting(denoiser, ids, length, row)
    }

    /// Draws the lengths of all spans.
    #[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
    #[inline(always)]
    pub fn draw(
        &mut self,
        denoiser: &Denoiser,
        ids: &SpecialIds,
        length: usize,
        row: usize,
        seed: u64,
        index: u64,
    ) -> Result<Counts> {
        let draws = Draws::new(seed, Stream::NoiseSpans.into(), index);
        self.words.start(draws, expect_words(denoiser, length))?;
        let counts = self.go_on_counting(denoiser, ids, length, row)?;
        self.go_on_composing(denoiser, counts)?;
        Ok(counts)
    }

    /// Takes kept and noise lengths that are given in turn.
    pub fn take_lengths(&mut self, lengths: &[i64]) -> Result<()> {
        for (name, first) in [(&mut self.kept, 0), (&mut self.noise, 1)] {
            name.clear();
            memory::reserve(name, lengths.len() / 2)?;
            let every = lengths.iter().skip(first).step_by(2);
            name.extend(every.map(|&length| u32::try_from(length).unwrap_or(u32::MAX)));
        }
        Ok(())
    }

    fn go_on_counting(
        &mut self,
        denoiser: &Denoiser,
        ids: &SpecialIds,
        length: usize,
        row: usize,
    ) -> Result<Counts> {
        let length = denoiser.max_length.map_or(length, |most| most.min(length));
        let noise = share(length, denoiser.density).clamp(1, length - 1);
        let kept = length - noise;
        let counts = Counts { length, noise, spans: 1, mixed: [(0, 0); 3] };
        match denoiser.noise {
            Noise::FixedSuffix => Ok(counts),
            Noise::Suffix => {
                let noise = 1 + self.words.below(narrow(noise))? as usize;
                Ok(Counts { noise, ..counts })
            }
            Noise::Spans => {
                let spans = divide(noise, denoiser.mean_span).max(1).min(noise).min(kept);
                Ok(Counts { spans: limit(spans, denoiser, ids, row)?, ..counts })
            }
            Noise::Mix => {
                let mixed = self.mix(noise, kept, denoiser, ids)?;
                let spans = 1 + mixed.iter().map(|(_, count)| count).sum::<usize>();
                Ok(Counts { spans: limit(spans, denoiser, ids, row)?, mixed, ..counts })
            }
        }
    }

    /// Noise tokens and spans of a mix for each mean length.
    fn mix(
        &mut self,
        noise: usize,
        kept: usize,
        denoiser: &Denoiser,
        ids: &SpecialIds,
    ) -> Result<[(usize, usize); 3]> {
        let (least, most) = (share(noise, MIX_SUFFIX.0), share(noise, MIX_SUFFIX.1));
        let rest = noise - least - self.words.below(narrow(most - least + 1))? as usize;
        let mut left = noise - 1;
        let mut mixed = [(0, 0); 3];
        for ((size, count), (mean, part)) in mixed.iter_mut().zip(MIX_SPANS) {
            *size = share(rest, part).min(left);
            left -= *size;
            *count = divide(*size, mean).max(1).min(*size);
        }
        // The suffix takes a sentinel and a kept span as well.
        let capped = denoiser.excess == Excess::Cap;
        let sentinels = if capped { ids.sentinel_count as usize } else { kept };
        let limit = kept.min(sentinels) - 1;
        for least in [1, 0] {
            for place in 0..mixed.len() {
                let total: usize = mixed.iter().map(|(_, count)| count).sum();
                let count = &mut mixed[place].1;
                *count -= total.saturating_sub(limit).min(count.saturating_sub(least));
            }
        }
        Ok(mixed)
    }

    fn go_on_composing(&mut self, denoiser: &Denoiser, counts: Counts) -> Result<()> {
        let Self { words, places, noise, kept, steps } = self;
        noise.clear();
        kept.clear();
        let Counts { length, noise: noisy, spans, mixed } = counts;
        match denoiser.noise {
            Noise::Suffix | Noise::FixedSuffix => {
                memory::push(noise, narrow(noisy))?;
                return memory::push(kept, narrow(length - noisy));
            }
            Noise::Spans => compose(words, noisy, spans, places, steps, noise)?,
            Noise::Mix => {
                for (size, count) in mixed.into_iter().filter(|&(_, count)| count > 0) {
                    compose(words, size, count, places, steps, noise)?;
                }
                for last in (1..noise.len()).rev() {
                    steps.take(1)?;
                    noise.swap(last, words.below(narrow(last + 1))? as usize);
                }
                let drawn: usize = noise.iter().map(|&size| size as usize).sum();
                memory::push(noise, narrow(noisy - drawn))?;
            }
        }
        compose(words, length - noisy, spans, places, steps, kept)
    }
}

/// Appends `count` positive parts of `total`, all compositions of it alike: of the places between
/// its units, count - 1 are chosen by Floyd's algorithm.
fn compose(
    words: &mut Words,
    total: usize,
    count: usize,
    places: &mut Vec<u64>,
    steps: &mut Steps,
    parts: &mut Vec<u32>,
) -> Result<()> {
    memory::reserve(parts, count)?;
    if count == 1 {
        parts.push(narrow(total));
        return Ok(());
    }
    let size = total.div_ceil(64);
    if places.len() < size {
        *places = memory::repeat(0, size)?;
    }
    let places = &mut places[..size];
    if let Err(ended) = choose(words, total, count, places, steps) {
        places.fill(0);
        return Err(ended);
    }
    let mut start = 0;
    for word in 0..size {
        if let Err(ended) = steps.take(64) {
            places.fill(0);
            return Err(ended);
        }
        let bits = &mut places[word];
        while *bits != 0 {
            let end = 64 * word + bits.trailing_zeros() as usize + 1;
            parts.push(narrow(end - start));
            start = end;
            *bits &= *bits - 1;
        }
    }
    parts.push(narrow(total - start));
    Ok(())
}

/// Sets the bits of the places that are chosen.
fn choose(
    words: &mut Words,
    total: usize,
    count: usize,
    places: &mut [u64],
    steps: &mut Steps,
) -> Result<()> {
    let mut first = total - count;
    while first < total - 1 {
        let end = (first + DRAWS_AT_ONCE).min(total - 1);
        steps.take(end - first)?;
        for place in first..end {
            let drawn = words.below(narrow(place + 1))? as usize;
            let is_chosen = places[drawn / 64] >> (drawn % 64) & 1 == 1;
            let chosen = if is_chosen { place } else { drawn };
            places[chosen / 64] |= 1 << (chosen % 64);
        }
        first = end;
    }
    Ok(())
}

/// About how many words a sample takes.
fn expect_words(denoiser: &Denoiser, length: usize) -> usize {
    let length = denoiser.max_length.map_or(length, |most| most.min(length));
    let noise = share(length, denoiser.density);
    match denoiser.noise {
        Noise::FixedSuffix => 0,
        Noise::Suffix => 1,
        Noise::Spans => (2 * divide(noise, denoiser.mean_span)).saturating_sub(2),
        // Three for a span, of which there is one in eight tokens.
        Noise::Mix => noise / 8 * 3 + 9,
    }
}

/// How many noise spans there are.
fn limit(spans: usize, denoiser: &Denoiser, ids: &SpecialIds, row: usize) -> Result<usize> {
    let most = match denoiser.excess {
        Excess::Cap => return Ok(spans.min(ids.sentinel_count as usize)),
        Excess::Refuse => ids.sentinel_count,
        Excess::RunOn => ids.first_sentinel + 1,
    };
    if spans > most as usize {
        return Err(Problem::Sentinels { row, most, spans }.into());
    }
    Ok(spans)
}

/// A share of tokens, to the nearest number, the even one of two.
fn share(tokens: usize, share: f64) -> usize {
    nearest(tokens as f64 * share)
}

/// How many spans of a mean length there are.
fn divide(tokens: usize, mean: f64) -> usize {
    nearest(tokens as f64 / mean)
}

#[expect(clippy::cast_possible_truncation, reason = "numbers of tokens are below 2^31")]
#[expect(clippy::cast_sign_loss, reason = "no factor is negative")]
fn nearest(value: f64) -> usize {
    value.round_ties_even() as usize
}

#[expect(clippy::cast_possible_truncation, reason = "texts are shorter than 2^31")]
fn narrow(value: usize) -> u32 {
    value as u32
}
