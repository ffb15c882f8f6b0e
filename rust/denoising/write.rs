//! Samples written into the caller's arrays.

use pulp::NullaryFnOnce;

use super::draw::Scratch;
use super::{Denoiser, Problem, SpecialIds};
use crate::check::id_in_range;
use crate::error::Result;
use crate::interrupt::Steps;

/// Ids between two looks at whether the caller stops.
const IDS_AT_ONCE: usize = 1 << 16;
/// The same of spans.
const SPANS_AT_ONCE: usize = 1 << 12;
/// Ids that are copied at once; what is too much is written over by what follows.
const CHUNK: usize = 8;

/// An integer that holds tokens.
pub trait Token: Copy + Send + Sync {
    /// Whether it is from 0 to below the size of the vocabulary.
    fn is_below(self, size: u32) -> bool;
    /// The token, which is below 2^31.
    fn to_id(self) -> u32;
    /// The token, whatever it is.
    fn to_i64(self) -> i64;
}

macro_rules! tokens {
    ($($number:ty as $unsigned:ty),*) => {
        $(impl Token for $number {
            #[expect(clippy::allow_attributes, reason = "not all of these numbers are signed")]
            #[allow(clippy::cast_lossless, clippy::cast_sign_loss, reason = "negative: too large")]
            #[inline]
            fn is_below(self, size: u32) -> bool {
                u64::from(self as $unsigned) < u64::from(size)
            }

            #[expect(clippy::allow_attributes, reason = "not all of these numbers are longer")]
            #[allow(
                clippy::cast_lossless,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "below 2^31"
            )]
            #[inline]
            fn to_id(self) -> u32 {
                self as u32
            }

            fn to_i64(self) -> i64 {
                self.into()
            }
        })*
    };
}

tokens!(u16 as u16, u32 as u32, i32 as u32, i64 as u64);

/// An integer that holds ids and paddings.
pub trait Id: Copy + Send + Sync {
    /// The id as this type; ids are below 2^31.
    fn from_id(id: u32) -> Self;
    /// A padding, which may be negative.
    fn from_padding(padding: i32) -> Self;
}

impl Id for i32 {
    #[inline]
    fn from_id(id: u32) -> Self {
        id.cast_signed()
    }

    fn from_padding(padding: i32) -> Self {
        padding
    }
}

impl Id for i64 {
    #[inline]
    fn from_id(id: u32) -> Self {
        Self::from(id)
    }

    fn from_padding(padding: i32) -> Self {
        padding.into()
    }
}

/// What one row needs: its text and denoiser, and where to write.
#[derive(Debug)]
pub struct Row<'a, S, T> {
    /// Which row of the batch it is.
    pub place: usize,
    pub text: &'a [S],
    pub denoiser: &'a Denoiser,
    pub index: u64,
    pub encoder: &'a mut [T],
    pub decoder: &'a mut [T],
    pub labels: &'a mut [T],
}

/// Samples of several rows, compiled once for each set of instructions.
pub struct WriteRows<'a, 'b, S, T> {
    pub ids: &'a SpecialIds,
    pub seed: u64,
    pub scratch: &'a mut Scratch,
    pub rows: Vec<Row<'b, S, T>>,
}

impl<S: Token, T: Id> NullaryFnOnce for WriteRows<'_, '_, S, T> {
    type Output = Result<()>;

    #[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
    #[inline(always)]
    fn call(self) -> Result<()> {
        let Self { ids, seed, scratch, rows } = self;
        for Row { place: row, text, denoiser, index, encoder, decoder, labels } in rows {
            let text = denoiser.max_length.map_or(text, |most| &text[..most.min(text.len())]);
            let counts = scratch.draw(denoiser, ids, text.len(), row, seed, index)?;
            let [source, target] = counts.row_lengths(denoiser);
            for (name, length, width) in
                [("encoder", source, encoder.len()), ("decoder", target, decoder.len())]
            {
                if width < length {
                    return Err(Problem::Room { name, row, length, width }.into());
                }
            }
            check_tokens("tokens", row, text, ids.vocabulary_size, &mut scratch.steps)?;
            assemble(ids, denoiser.prefix, text, scratch, [encoder, decoder, labels])?;
        }
        Ok(())
    }
}

/// A source and a target, and where to write.
#[derive(Debug)]
pub struct PairRow<'a, S, T> {
    pub pair: [&'a [S]; 2],
    pub out: [&'a mut [T]; 3],
    pub encoder_length: &'a mut i64,
    pub decoder_length: &'a mut i64,
    pub dropped: &'a mut [i64],
}

/// Samples of pairs.
pub struct WritePairs<'a, 'b, S, T> {
    pub ids: &'a SpecialIds,
    pub prefix: Option<u32>,
    pub steps: Steps,
    pub rows: Vec<PairRow<'b, S, T>>,
}

impl<S: Token, T: Id> NullaryFnOnce for WritePairs<'_, '_, S, T> {
    type Output = Result<()>;

    #[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
    #[inline(always)]
    fn call(self) -> Result<()> {
        let Self { ids, prefix, mut steps, rows } = self;
        let (special, sentinel) = (usize::from(prefix.is_some()) + 2, ids.first_sentinel);
        for (row, made) in rows.into_iter().enumerate() {
            let PairRow { pair: [source, target], out, .. } = made;
            let [encoder, decoder, labels] = out;
            for (name, length, width) in
                [("encoder", special, encoder.len()), ("decoder", 2, decoder.len())]
            {
                if width < length {
                    return Err(Problem::Room { name, row, length, width }.into());
                }
            }
            check_tokens("sources", row, source, ids.vocabulary_size, &mut steps)?;
            check_tokens("targets", row, target, ids.vocabulary_size, &mut steps)?;
            let read = &source[..source.len().min(encoder.len() - special)];
            let fed = &target[..target.len().min(decoder.len() - 2)];
            let asked = &target[..target.len().min(labels.len() - 1)];
            let mut writer = Writer { out: encoder, next: 0 };
            if let Some(prefix) = prefix {
                writer.put(prefix);
            }
            writer.copy(read, &mut steps)?;
            writer.put(sentinel);
            writer.put(ids.eos);
            *made.encoder_length = super::as_i64(writer.next);
            writer.pad(T::from_id(ids.pad), &mut steps)?;
            let mut writer = Writer { out: decoder, next: 0 };
            writer.put(ids.bos);
            writer.put(sentinel);
            writer.copy(fed, &mut steps)?;
            *made.decoder_length = super::as_i64(writer.next);
            writer.pad(T::from_id(ids.pad), &mut steps)?;
            let mut writer = Writer { out: labels, next: 0 };
            writer.put(sentinel);
            writer.copy(asked, &mut steps)?;
            writer.pad(T::from_padding(ids.label_padding), &mut steps)?;
            made.dropped[0] = super::as_i64(source.len() - read.len());
            made.dropped[1] = super::as_i64(target.len() - asked.len());
        }
        Ok(())
    }
}

/// Writes a sample whose spans were drawn into rows that have room for it.
#[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
#[inline(always)]
pub fn assemble<S: Token, T: Id>(
    ids: &SpecialIds,
    prefix: Option<u32>,
    mut text: &[S],
    scratch: &mut Scratch,
    [encoder, decoder, labels]: [&mut [T]; 3],
) -> Result<()> {
    let Scratch { noise, kept, steps, .. } = scratch;
    let mut source = Writer { out: encoder, next: 0 };
    let mut target = Writer { out: labels, next: 0 };
    if let Some(prefix) = prefix {
        source.put(prefix);
    }
    let mut sentinel = ids.first_sentinel;
    for (kept, noise) in kept.chunks(SPANS_AT_ONCE).zip(noise.chunks(SPANS_AT_ONCE)) {
        steps.take(noise.len())?;
        for (&kept, &noise) in kept.iter().zip(noise) {
            // A whole text follows, of which the first tokens are copied.
            source.copy_first(text, kept as usize, steps)?;
            source.put(sentinel);
            text = &text[kept as usize..];
            target.put(sentinel);
            target.copy_first(text, noise as usize, steps)?;
            text = &text[noise as usize..];
            sentinel = sentinel.wrapping_sub(1);
        }
    }
    source.copy(text, steps)?;
    source.put(ids.eos);
    source.pad(T::from_id(ids.pad), steps)?;
    target.put(ids.eos);
    let length = target.next;
    target.pad(T::from_padding(ids.label_padding), steps)?;
    let mut input = Writer { out: decoder, next: 0 };
    input.put(ids.bos);
    input.repeat(&labels[..length - 1], steps)?;
    input.pad(T::from_id(ids.pad), steps)
}

/// Checks that all tokens are in the vocabulary.
///
/// # Errors
/// One is not, or the caller stops.
#[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
#[inline(always)]
pub fn check_tokens<S: Token>(
    name: &'static str,
    row: usize,
    text: &[S],
    size: u32,
    steps: &mut Steps,
) -> Result<()> {
    for (block, tokens) in text.chunks(IDS_AT_ONCE).enumerate() {
        steps.take(tokens.len())?;
        // No early end: a loop without one is done for many tokens at once.
        if !tokens.iter().fold(true, |all, token| all & token.is_below(size)) {
            for (place, token) in tokens.iter().enumerate() {
                let place = block * IDS_AT_ONCE + place;
                id_in_range(name, place, Some(row), token.to_i64(), 0..size as usize)?;
            }
        }
    }
    Ok(())
}

/// Fills an array from its start.
struct Writer<'a, T> {
    out: &'a mut [T],
    next: usize,
}

impl<T: Id> Writer<'_, T> {
    #[inline]
    fn put(&mut self, id: u32) {
        self.out[self.next] = T::from_id(id);
        self.next += 1;
    }

    /// Copies the first tokens of a text. What follows them may be copied as well, to where the
    /// next ids come.
    #[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
    #[inline(always)]
    fn copy_first<S: Token>(&mut self, text: &[S], count: usize, steps: &mut Steps) -> Result<()> {
        if count <= CHUNK
            && let Some(tokens) = text.first_chunk::<CHUNK>()
            && let Some(out) = self.out[self.next..].first_chunk_mut::<CHUNK>()
        {
            for (out, token) in out.iter_mut().zip(tokens) {
                *out = T::from_id(token.to_id());
            }
            self.next += count;
            return Ok(());
        }
        self.copy(&text[..count], steps)
    }

    #[expect(clippy::inline_always, reason = "see `philox4x32_lanes`")]
    #[inline(always)]
    fn copy<S: Token>(&mut self, tokens: &[S], steps: &mut Steps) -> Result<()> {
        for tokens in tokens.chunks(IDS_AT_ONCE) {
            steps.take(tokens.len())?;
            let end = self.next + tokens.len();
            for (out, token) in self.out[self.next..end].iter_mut().zip(tokens) {
                *out = T::from_id(token.to_id());
            }
            self.next = end;
        }
        Ok(())
    }

    fn repeat(&mut self, ids: &[T], steps: &mut Steps) -> Result<()> {
        for ids in ids.chunks(IDS_AT_ONCE) {
            steps.take(ids.len())?;
            let end = self.next + ids.len();
            self.out[self.next..end].copy_from_slice(ids);
            self.next = end;
        }
        Ok(())
    }

    fn pad(&mut self, padding: T, steps: &mut Steps) -> Result<()> {
        for rest in self.out[self.next..].chunks_mut(IDS_AT_ONCE) {
            steps.take(rest.len())?;
            rest.fill(padding);
        }
        Ok(())
    }
}
