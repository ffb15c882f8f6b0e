//! UL2's denoisers: texts in, the ids of encoder and decoder and the labels out.
//!
//! Source: `OpenBA`, table 3 of its paper, and `OpenBA-V2`, O-UL2. Each sample is a function of
//! (seed, index) alone, so that batches do not depend on threads or order.

mod draw;
mod write;

use crate::check::{float_in, has_length, id_in_range, in_range, one_of, same_length};
use crate::error::{Error, Kind, Result};
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::philox::{Draws, Stream, to_uniform};
use crate::threads;
use draw::Scratch;
use write::{PairRow, Row, WritePairs, WriteRows};

pub use draw::{MIX_SPANS, MIX_SUFFIX};
pub use write::{Id, Token};

/// Texts are shorter than this, and ids below it.
const END: i128 = 1 << 31;
/// One thread takes this many tokens in several times what starting another costs.
const TOKENS_PER_THREAD: usize = 1 << 17;

/// What can go wrong with noise spans alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A text of no length that can be denoised.
    #[error("tokens[{row}] must be at least 2 and below 2**31 ids long: got {length}")]
    Length {
        /// Its row of the batch.
        row: usize,
        /// How long it is.
        length: i64,
    },
    /// More noise spans than there are sentinels.
    #[error("tokens[{row}] must be at most {most} noise spans, one for each sentinel: got {spans}")]
    Sentinels {
        /// The row of the batch.
        row: usize,
        /// How many sentinels there are.
        most: u32,
        /// How many spans there are.
        spans: usize,
    },
    /// An array has no room for a row.
    #[error("{name}[{row}] must be at least {length} ids wide: got {width}")]
    Room {
        /// Name of the array.
        name: &'static str,
        /// The row of the batch.
        row: usize,
        /// How long it is.
        length: usize,
        /// How much room there is.
        width: usize,
    },
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Length { .. } | Self::Sentinels { .. } | Self::Room { .. } => Kind::Value,
        }
    }
}

/// Where the noise of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// In spans all over the text, the last one at its end.
    Spans,
    /// At its end, of a length that is drawn.
    Suffix,
    /// At its end, of the length that the density says.
    FixedSuffix,
    /// In spans of three mean lengths, and one at the end.
    Mix,
}

impl Noise {
    /// The names that [`Noise::from_name`] knows.
    pub const NAMES: [&'static str; 4] = ["spans", "suffix", "fixed_suffix", "mix"];

    /// The noise of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn from_name(name: &str) -> Result<Self> {
        let all = [Self::Spans, Self::Suffix, Self::FixedSuffix, Self::Mix];
        one_of("kind", &Self::NAMES, all, name)
    }
}

/// What happens where noise spans outnumber the sentinels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// There are fewer spans, which are longer.
    Cap,
    /// It is an error.
    Refuse,
    /// Ids below the last sentinel are taken for sentinels.
    RunOn,
}

impl Excess {
    /// The names that [`Excess::from_name`] knows.
    pub const NAMES: [&'static str; 3] = ["cap", "refuse", "run_on"];

    /// The rule of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn from_name(name: &str) -> Result<Self> {
        one_of("excess", &Self::NAMES, [Self::Cap, Self::Refuse, Self::RunOn], name)
    }
}

/// One way to take tokens out of a text.
#[derive(Debug, Clone, Copy)]
pub struct Denoiser {
    /// Where the noise is.
    pub noise: Noise,
    /// Share of the tokens that are noise.
    pub density: f64,
    /// Mean length of a noise span.
    pub mean_span: f64,
    /// First id of the encoder.
    pub prefix: Option<u32>,
    /// How often it is drawn, in proportion to the others.
    pub weight: f64,
    /// The first so many tokens of a text are taken.
    pub max_length: Option<usize>,
    /// What happens where noise spans outnumber the sentinels.
    pub excess: Excess,
}

/// Ids that are no text.
#[derive(Debug, Clone, Copy)]
pub struct SpecialIds {
    /// Ids are below this.
    pub vocabulary_size: u32,
    /// The first sentinel; the next ones count down.
    pub first_sentinel: u32,
    /// How many sentinels there are.
    pub sentinel_count: u32,
    /// Ends the encoder's ids and the labels.
    pub eos: u32,
    /// Begins the decoder's ids.
    pub bos: u32,
    /// Pads ids.
    pub pad: u32,
    /// Pads labels.
    pub label_padding: i32,
}

/// A mixture of denoisers.
#[derive(Debug)]
pub struct Denoising {
    denoisers: Vec<Denoiser>,
    ids: SpecialIds,
    /// Weights of the denoisers up to each.
    sums: Vec<f64>,
}

/// Texts that lie anywhere in an array of tokens: text r at `starts[r]..ends[r]`.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a, S> {
    /// The array.
    pub tokens: &'a [S],
    /// `[B]`: where texts start.
    pub starts: &'a [i64],
    /// `[B]`: where they end.
    pub ends: &'a [i64],
}

/// Where samples are written to: row r of the encoder to
/// `encoder[encoder_offsets[r]..encoder_offsets[r + 1]]`, of which the rest is padding.
#[derive(Debug)]
pub struct Samples<'a, T> {
    /// Ids of the encoder.
    pub encoder: &'a mut [T],
    /// `[B + 1]`: where its rows start.
    pub encoder_offsets: &'a [i64],
    /// Ids of the decoder.
    pub decoder: &'a mut [T],
    /// Labels.
    pub labels: &'a mut [T],
    /// `[B + 1]`: where the rows of decoder and labels start.
    pub decoder_offsets: &'a [i64],
}

/// What is known of samples before a token is looked at, `[B]` each.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Which of the denoisers, from 0.
    pub tasks: &'a mut [i64],
    /// Ids of the encoder.
    pub encoder_lengths: &'a mut [i64],
    /// Ids of the decoder, and as many labels.
    pub decoder_lengths: &'a mut [i64],
}

/// One sample: ids of the encoder, ids of the decoder, labels.
pub type Sample<T> = [Vec<T>; 3];

impl Denoising {
    /// A mixture of denoisers.
    ///
    /// # Errors
    /// A setting is out of its range, or there is no denoiser.
    pub fn new(denoisers: Vec<Denoiser>, ids: SpecialIds) -> Result<Self> {
        let size = i128::from(ids.vocabulary_size);
        in_range("vocabulary_size", size, 1..END)?;
        for (name, id) in [
            ("first_sentinel", ids.first_sentinel),
            ("eos", ids.eos),
            ("bos", ids.bos),
            ("pad", ids.pad),
        ] {
            in_range(name, id.into(), 0..size)?;
        }
        let most = i128::from(ids.first_sentinel) + 1;
        in_range("sentinel_count", ids.sentinel_count.into(), 1..=most)?;
        let mut sums = memory::with_capacity(denoisers.len())?;
        let mut sum = 0.0;
        for denoiser in &denoisers {
            let Denoiser { density, mean_span, prefix, weight, max_length, .. } = *denoiser;
            float_in("density", density, 0.0 < density && density < 1.0, "above 0 and below 1")?;
            let is_span = (1.0..f64::INFINITY).contains(&mean_span);
            float_in("mean_span", mean_span, is_span, "finite and at least 1")?;
            let is_weight = (0.0..f64::INFINITY).contains(&weight);
            float_in("weight", weight, is_weight, "finite and at least 0")?;
            in_range("prefix", prefix.unwrap_or(0).into(), 0..size)?;
            in_range("max_length", max_length.unwrap_or(2) as i128, 2..END)?;
            sum += weight;
            sums.push(sum);
        }
        float_in("weights", sum, sum > 0.0 && sum.is_finite(), "finite and above 0 in sum")?;
        Ok(Self { denoisers, ids, sums })
    }

    /// Says which denoiser each sample gets, where `tasks` does not, and how long it will be.
    ///
    /// # Errors
    /// A text is too short or has too many noise spans, a task does not exist, or slices are of
    /// other lengths.
    pub fn plan(
        &self,
        lengths: &[i64],
        indices: &[u64],
        seed: u64,
        tasks: Option<&[i64]>,
        plan: &mut Plan<'_>,
    ) -> Result<()> {
        let rows = indices.len();
        same_length(("lengths", lengths.len()), ("indices", rows))?;
        same_length(("indices", rows), ("tasks", tasks.map_or(rows, <[i64]>::len)))?;
        has_length("tasks", plan.tasks.len(), rows)?;
        has_length("encoder_lengths", plan.encoder_lengths.len(), rows)?;
        has_length("decoder_lengths", plan.decoder_lengths.len(), rows)?;
        let mut scratch = Scratch::default();
        for (row, (&length, &index)) in lengths.iter().zip(indices).enumerate() {
            scratch.steps.take(1 << 6)?;
            let length = check_text(row, length)?;
            let task = match tasks {
                Some(tasks) => self.check_task(row, tasks[row])?,
                None => self.draw_task(seed, index),
            };
            let denoiser = &self.denoisers[task];
            let found = scratch.count(denoiser, &self.ids, length, row, seed, index)?;
            let [encoder, decoder] = found.row_lengths(denoiser);
            plan.tasks[row] = as_i64(task);
            plan.encoder_lengths[row] = as_i64(encoder);
            plan.decoder_lengths[row] = as_i64(decoder);
        }
        Ok(())
    }

    /// Writes the samples of texts, whose denoisers are those of [`Denoising::plan`].
    ///
    /// # Errors
    /// A text is too short, has too many noise spans or a token outside of the vocabulary, a row
    /// has no room, or offsets do not cut the arrays.
    pub fn write<S: Token, T: Id>(
        &self,
        texts: Texts<'_, S>,
        indices: &[u64],
        seed: u64,
        tasks: &[i64],
        samples: Samples<'_, T>,
        threads: Option<usize>,
    ) -> Result<()> {
        let count = indices.len();
        same_length(("indices", count), ("tasks", tasks.len()))?;
        let (texts, total) = cut_texts("tokens", texts, count)?;
        let outs = cut_samples(samples, count)?;
        let mut rows = memory::with_capacity(count)?;
        for (row, (text, [encoder, decoder, labels])) in texts.into_iter().zip(outs).enumerate() {
            check_text(row, as_i64(text.len()))?;
            let denoiser = &self.denoisers[self.check_task(row, tasks[row])?];
            let index = indices[row];
            rows.push(Row { place: row, text, denoiser, index, encoder, decoder, labels });
        }
        let ids = &self.ids;
        let write = |scratch: &mut Scratch, rows| {
            pulp::Arch::new().dispatch(WriteRows { ids, seed, scratch, rows })
        };
        let useful = (total / TOKENS_PER_THREAD).min(count);
        if useful <= 1 {
            // Asking how many threads there are takes as long as a small batch.
            return write(&mut Scratch::default(), rows);
        }
        let threads = threads::count(threads).min(useful);
        // Several parts a thread, as rows differ in length.
        let size = count.div_ceil(4 * threads);
        let mut rows = rows.into_iter();
        threads::run_blocks(
            Some(threads),
            &mut || {
                let part: Vec<_> = rows.by_ref().take(size).collect();
                Ok(Some(part).filter(|part| !part.is_empty()))
            },
            &write,
            &mut |written| written,
            &mut interrupt::check,
        )
    }

    /// The sample of a text whose kept and noise spans have these lengths in turn; what is left
    /// of the text is kept.
    ///
    /// # Errors
    /// Lengths that are negative, of an odd number or longer than the text, a noise span without
    /// tokens, more spans than ids below the first sentinel, or a token outside of the vocabulary.
    pub fn apply_spans<S: Token, T: Id>(
        &self,
        tokens: &[S],
        lengths: &[i64],
        prefix: Option<u32>,
    ) -> Result<Sample<T>> {
        let wrong = |range: &str, got: String| Error::OutOfRange {
            name: "lengths",
            range: range.to_owned(),
            got,
        };
        let ids = &self.ids;
        in_range("prefix", prefix.unwrap_or(0).into(), 0..i128::from(ids.vocabulary_size))?;
        in_range("tokens", tokens.len() as i128, 0..END)?;
        if !lengths.len().is_multiple_of(2) {
            return Err(wrong("an even number of values", lengths.len().to_string()));
        }
        let mut scratch = Scratch::default();
        let (mut used, mut noise) = (0_i128, 0_i128);
        for (index, &length) in lengths.iter().enumerate() {
            scratch.steps.take(1)?;
            let least = i64::from(index % 2 == 1);
            if length < least {
                let (name, index) = ("lengths", index.to_string());
                let (range, got) = (format!("at least {least}"), length.to_string());
                return Err(Error::ItemOutOfRange { name, index, range, got });
            }
            used += i128::from(length);
            noise += i128::from(least * length);
        }
        if used > tokens.len() as i128 {
            return Err(wrong(&format!("at most {} in sum", tokens.len()), used.to_string()));
        }
        let spans = lengths.len() / 2;
        if spans > ids.first_sentinel as usize + 1 {
            return Err(Problem::Sentinels { row: 0, most: ids.first_sentinel + 1, spans }.into());
        }
        scratch.take_lengths(lengths)?;
        let noise = usize::try_from(noise).unwrap_or(usize::MAX);
        let width = usize::from(prefix.is_some()) + tokens.len() - noise + spans + 1;
        let mut sample = [
            memory::repeat(T::from_id(0), width)?,
            memory::repeat(T::from_id(0), noise + spans + 1)?,
            memory::repeat(T::from_id(0), noise + spans + 1)?,
        ];
        write::check_tokens("tokens", 0, tokens, ids.vocabulary_size, &mut scratch.steps)?;
        let [encoder, decoder, labels] = &mut sample;
        write::assemble(ids, prefix, tokens, &mut scratch, [encoder, decoder, labels])?;
        Ok(sample)
    }

    /// Writes sources and targets as the authors' multi-task samples, and says how long the rows
    /// became, `[B]` each, and how many tokens of source and target found no room, `[B, 2]`.
    ///
    /// # Errors
    /// A token outside of the vocabulary, a row without room for its special tokens, or offsets
    /// that do not cut the arrays.
    pub fn write_pairs<S: Token, T: Id>(
        &self,
        [sources, targets]: [Texts<'_, S>; 2],
        prefix: Option<u32>,
        samples: Samples<'_, T>,
        [encoder_lengths, decoder_lengths, dropped]: [&mut [i64]; 3],
    ) -> Result<()> {
        let count = sources.starts.len();
        let ids = &self.ids;
        in_range("prefix", prefix.unwrap_or(0).into(), 0..i128::from(ids.vocabulary_size))?;
        same_length(("sources", count), ("targets", targets.starts.len()))?;
        has_length("encoder_lengths", encoder_lengths.len(), count)?;
        has_length("decoder_lengths", decoder_lengths.len(), count)?;
        has_length("dropped", dropped.len(), memory::size(&[2, count])?)?;
        let (sources, _) = cut_texts("sources", sources, count)?;
        let (targets, _) = cut_texts("targets", targets, count)?;
        let outs = cut_samples(samples, count)?;
        let mut rows = memory::with_capacity(count)?;
        let lengths = encoder_lengths.iter_mut().zip(decoder_lengths).zip(dropped.chunks_mut(2));
        let pairs = sources.into_iter().zip(targets).zip(outs).zip(lengths);
        for ((pair, out), ((encoder_length, decoder_length), dropped)) in pairs {
            rows.push(PairRow { pair: pair.into(), out, encoder_length, decoder_length, dropped });
        }
        pulp::Arch::new().dispatch(WritePairs { ids, prefix, steps: Steps::default(), rows })
    }

    fn draw_task(&self, seed: u64, index: u64) -> usize {
        let bits = Draws::new(seed, Stream::Denoisers.into(), index).bits(0);
        let total = self.sums.last().copied().unwrap_or(0.0);
        let number = to_uniform(bits) * total;
        self.sums.iter().position(|&most| number < most).unwrap_or(self.sums.len() - 1)
    }

    fn check_task(&self, row: usize, task: i64) -> Result<usize> {
        id_in_range("tasks", row, None, task, 0..self.denoisers.len())
    }
}

fn check_text(row: usize, length: i64) -> Result<usize> {
    match usize::try_from(length) {
        Ok(found) if (2..END).contains(&i128::from(length)) => Ok(found),
        _ => Err(Problem::Length { row, length }.into()),
    }
}

fn as_i64(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The texts, and how many tokens they have together.
fn cut_texts<'a, S: Copy>(
    name: &'static str,
    texts: Texts<'a, S>,
    count: usize,
) -> Result<(Vec<&'a [S]>, usize)> {
    same_length(("starts", texts.starts.len()), ("indices", count))?;
    same_length(("ends", texts.ends.len()), ("indices", count))?;
    let (mut cut, mut total) = (memory::with_capacity(count)?, 0_usize);
    for (row, (&start, &end)) in texts.starts.iter().zip(texts.ends).enumerate() {
        let most = texts.tokens.len();
        let last = id_in_range(name, row, None, end, 0..=most)?;
        let first = id_in_range(name, row, None, start, 0..=last)?;
        cut.push(&texts.tokens[first..last]);
        total = total.saturating_add(last - first);
    }
    Ok((cut, total))
}

/// The rows of encoder, decoder and labels.
fn cut_samples<T>(samples: Samples<'_, T>, count: usize) -> Result<Vec<[&mut [T]; 3]>> {
    let Samples { encoder, encoder_offsets, decoder, labels, decoder_offsets } = samples;
    let encoder = cut_rows("encoder_offsets", encoder_offsets, encoder, count)?;
    let decoder = cut_rows("decoder_offsets", decoder_offsets, decoder, count)?;
    let labels = cut_rows("decoder_offsets", decoder_offsets, labels, count)?;
    let mut rows = memory::with_capacity(count)?;
    for ((encoder, decoder), labels) in encoder.into_iter().zip(decoder).zip(labels) {
        rows.push([encoder, decoder, labels]);
    }
    Ok(rows)
}

fn cut_rows<'a, T>(
    name: &'static str,
    offsets: &[i64],
    mut array: &'a mut [T],
    count: usize,
) -> Result<Vec<&'a mut [T]>> {
    has_length(name, offsets.len(), count.saturating_add(1))?;
    let mut rows = memory::with_capacity(count)?;
    let mut before = id_in_range(name, 0, None, offsets[0], 0..=0)?;
    let size = array.len();
    for (row, &end) in offsets[1..].iter().enumerate() {
        let end = id_in_range(name, row + 1, None, end, before..=size)?;
        let (out, rest) = array.split_at_mut(end - before);
        rows.push(out);
        (array, before) = (rest, end);
    }
    if array.is_empty() {
        return Ok(rows);
    }
    let range = format!("{size} at the end, the size of the array");
    Err(Error::OutOfRange { name, range, got: before.to_string() })
}
