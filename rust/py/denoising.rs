//! Binding of [`crate::denoising`].

use numpy::PyArray1;
use numpy::ndarray::Ix1;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arrays::{IntoNumpy, Number, Whole, array, array_mut, by_dtype, in_order, thread_count};
use super::hooks::detach_interruptible;
use crate::denoising::{
    self, Denoiser, Excess, Id, Noise, Plan, Samples, SpecialIds, Texts, Token,
};

/// Kind, density, mean length of a span, prefix, weight, largest length, rule for excess.
type Settings = (String, f64, f64, Option<u32>, f64, Option<usize>, String);
/// Size of the vocabulary, first sentinel, sentinels, end, start, padding, padding of labels.
type Ids = (u32, u32, u32, u32, u32, u32, i32);
type Arrays<'a, 'py> = [&'a Bound<'py, PyAny>; 5];
type Row<'py> = Bound<'py, PyArray1<i64>>;

/// A mixture of denoisers.
#[pyclass(frozen, module = "lmcore._core")]
pub struct Denoising(denoising::Denoising);

#[pymethods]
impl Denoising {
    #[new]
    #[pyo3(signature = (denoisers, ids, /))]
    fn new(denoisers: &Bound<'_, PyList>, ids: Ids) -> PyResult<Self> {
        // A list has as many items as it says; a `Vec` would trust the length of any sequence.
        let settings = denoisers.iter().map(|one| one.extract::<Settings>());
        let mut denoisers = Vec::new();
        for one in settings {
            let (kind, density, mean_span, prefix, weight, max_length, excess) = one?;
            let (noise, excess) = (Noise::from_name(&kind)?, Excess::from_name(&excess)?);
            denoisers.push(Denoiser {
                noise,
                density,
                mean_span,
                prefix,
                weight,
                max_length,
                excess,
            });
        }
        let (vocabulary_size, first_sentinel, sentinel_count, eos, bos, pad, label_padding) = ids;
        let ids = SpecialIds {
            vocabulary_size,
            first_sentinel,
            sentinel_count,
            eos,
            bos,
            pad,
            label_padding,
        };
        Ok(Self(denoising::Denoising::new(denoisers, ids)?))
    }

    /// Fills tasks and the lengths of the rows of encoder and decoder.
    #[pyo3(signature = (lengths, indices, seed, given, tasks, encoder_lengths, decoder_lengths, /))]
    #[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
    fn plan(
        &self,
        py: Python<'_>,
        lengths: &Bound<'_, PyAny>,
        indices: &Bound<'_, PyAny>,
        seed: u64,
        given: Option<&Bound<'_, PyAny>>,
        tasks: &Bound<'_, PyAny>,
        encoder_lengths: &Bound<'_, PyAny>,
        decoder_lengths: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (lengths, indices) = (array(lengths, "lengths")?, array(indices, "indices")?);
        let (lengths, indices) = (in_order::<_, Ix1>(&lengths)?, in_order::<_, Ix1>(&indices)?);
        let given = given.map(|given| array::<i64, Ix1>(given, "tasks")).transpose()?;
        let given = given.as_ref().map(in_order).transpose()?;
        let mut tasks = array_mut(tasks, "tasks")?;
        let mut encoder_lengths = array_mut(encoder_lengths, "encoder_lengths")?;
        let mut decoder_lengths = array_mut(decoder_lengths, "decoder_lengths")?;
        let mut plan = Plan {
            tasks: tasks.as_slice_mut()?,
            encoder_lengths: encoder_lengths.as_slice_mut()?,
            decoder_lengths: decoder_lengths.as_slice_mut()?,
        };
        detach_interruptible(py, || {
            self.0.plan(&lengths, &indices, seed, given.as_deref(), &mut plan)
        })
    }

    /// Fills the arrays of a batch whose tasks are planned.
    #[pyo3(signature = (
        tokens, starts, ends, indices, seed, tasks, encoder, encoder_offsets, decoder, labels,
        decoder_offsets, threads, /
    ))]
    #[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
    fn write<'py>(
        &self,
        py: Python<'py>,
        tokens: &Bound<'py, PyAny>,
        starts: &Bound<'py, PyAny>,
        ends: &Bound<'py, PyAny>,
        indices: &Bound<'py, PyAny>,
        seed: u64,
        tasks: &Bound<'py, PyAny>,
        encoder: &Bound<'py, PyAny>,
        encoder_offsets: &Bound<'py, PyAny>,
        decoder: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        decoder_offsets: &Bound<'py, PyAny>,
        threads: Option<Whole>,
    ) -> PyResult<()> {
        let threads = thread_count(threads)?;
        let texts = [tokens, starts, ends];
        let given = [indices, tasks];
        let out = [encoder, encoder_offsets, decoder, labels, decoder_offsets];
        by_dtype!(encoder, "encoder", {
            i64 => self.write_into::<i64>(py, texts, given, seed, out, threads),
            i32 => self.write_into::<i32>(py, texts, given, seed, out, threads),
        })
    }

    /// Returns encoder, decoder and labels of a text whose spans are given.
    #[pyo3(signature = (tokens, lengths, prefix, /))]
    fn apply_spans<'py>(
        &self,
        py: Python<'py>,
        tokens: &Bound<'py, PyAny>,
        lengths: &Bound<'py, PyAny>,
        prefix: Option<u32>,
    ) -> PyResult<(Row<'py>, Row<'py>, Row<'py>)> {
        let (tokens, lengths) = (array(tokens, "tokens")?, array(lengths, "lengths")?);
        let (tokens, lengths) = (in_order::<i64, Ix1>(&tokens)?, in_order::<_, Ix1>(&lengths)?);
        let [encoder, decoder, labels] =
            detach_interruptible(py, || self.0.apply_spans(&tokens, &lengths, prefix))?;
        Ok((encoder.into_numpy(py), decoder.into_numpy(py), labels.into_numpy(py)))
    }

    /// Fills the arrays of a batch of sources and targets.
    #[pyo3(signature = (
        sources, source_offsets, targets, target_offsets, prefix, encoder, encoder_offsets,
        decoder, labels, decoder_offsets, encoder_lengths, decoder_lengths, dropped, /
    ))]
    #[expect(clippy::too_many_arguments, reason = "all of one call of the facade")]
    fn write_pairs<'py>(
        &self,
        py: Python<'py>,
        sources: &Bound<'py, PyAny>,
        source_offsets: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        target_offsets: &Bound<'py, PyAny>,
        prefix: Option<u32>,
        encoder: &Bound<'py, PyAny>,
        encoder_offsets: &Bound<'py, PyAny>,
        decoder: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        decoder_offsets: &Bound<'py, PyAny>,
        encoder_lengths: &Bound<'py, PyAny>,
        decoder_lengths: &Bound<'py, PyAny>,
        dropped: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let (sources, targets) = (array(sources, "sources")?, array(targets, "targets")?);
        let (sources, targets) = (in_order::<i64, Ix1>(&sources)?, in_order::<i64, Ix1>(&targets)?);
        let source_offsets = array::<i64, Ix1>(source_offsets, "source_offsets")?;
        let target_offsets = array::<i64, Ix1>(target_offsets, "target_offsets")?;
        let source_offsets = in_order(&source_offsets)?;
        let target_offsets = in_order(&target_offsets)?;
        let pairs = [texts(&sources, &source_offsets), texts(&targets, &target_offsets)];
        let mut encoder_lengths = array_mut(encoder_lengths, "encoder_lengths")?;
        let mut decoder_lengths = array_mut(decoder_lengths, "decoder_lengths")?;
        let mut dropped = array_mut(dropped, "dropped")?;
        let found = [
            encoder_lengths.as_slice_mut()?,
            decoder_lengths.as_slice_mut()?,
            dropped.as_slice_mut()?,
        ];
        let out = [encoder, encoder_offsets, decoder, labels, decoder_offsets];
        with_samples::<i64>(out, |samples| {
            detach_interruptible(py, || self.0.write_pairs(pairs, prefix, samples, found))
        })
    }
}

impl Denoising {
    fn write_into<'py, T: Id + Number>(
        &self,
        py: Python<'py>,
        texts: [&Bound<'py, PyAny>; 3],
        given: [&Bound<'py, PyAny>; 2],
        seed: u64,
        out: Arrays<'_, 'py>,
        threads: Option<usize>,
    ) -> PyResult<()> {
        by_dtype!(texts[0], "tokens", {
            u16 => self.write_as::<u16, T>(py, texts, given, seed, out, threads),
            i32 => self.write_as::<i32, T>(py, texts, given, seed, out, threads),
            u32 => self.write_as::<u32, T>(py, texts, given, seed, out, threads),
            i64 => self.write_as::<i64, T>(py, texts, given, seed, out, threads),
        })
    }

    fn write_as<'py, S: Token + Number, T: Id + Number>(
        &self,
        py: Python<'py>,
        [tokens, starts, ends]: [&Bound<'py, PyAny>; 3],
        [indices, tasks]: [&Bound<'py, PyAny>; 2],
        seed: u64,
        out: Arrays<'_, 'py>,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let tokens = array::<S, Ix1>(tokens, "tokens")?;
        let (starts, ends) = (array(starts, "starts")?, array(ends, "ends")?);
        let (indices, tasks) = (array(indices, "indices")?, array(tasks, "tasks")?);
        let tokens = in_order(&tokens)?;
        let (starts, ends) = (in_order::<_, Ix1>(&starts)?, in_order::<_, Ix1>(&ends)?);
        let (indices, tasks) = (in_order::<_, Ix1>(&indices)?, in_order::<_, Ix1>(&tasks)?);
        let texts = Texts { tokens: &tokens, starts: &starts, ends: &ends };
        with_samples::<T>(out, |samples| {
            detach_interruptible(py, || {
                self.0.write(texts, &indices, seed, &tasks, samples, threads)
            })
        })
    }
}

/// Texts that stand one after the other.
fn texts<'a>(tokens: &'a [i64], offsets: &'a [i64]) -> Texts<'a, i64> {
    let rows = offsets.len().saturating_sub(1);
    Texts { tokens, starts: &offsets[..rows], ends: offsets.get(1..).unwrap_or_default() }
}

fn with_samples<T: Number>(
    [encoder, encoder_offsets, decoder, labels, decoder_offsets]: Arrays<'_, '_>,
    call: impl FnOnce(Samples<'_, T>) -> PyResult<()>,
) -> PyResult<()> {
    let encoder_offsets = array::<i64, Ix1>(encoder_offsets, "encoder_offsets")?;
    let decoder_offsets = array::<i64, Ix1>(decoder_offsets, "decoder_offsets")?;
    let (mut encoder, mut decoder) =
        (array_mut(encoder, "encoder")?, array_mut(decoder, "decoder")?);
    let mut labels = array_mut(labels, "labels")?;
    call(Samples {
        encoder: encoder.as_slice_mut()?,
        encoder_offsets: &in_order(&encoder_offsets)?,
        decoder: decoder.as_slice_mut()?,
        labels: labels.as_slice_mut()?,
        decoder_offsets: &in_order(&decoder_offsets)?,
    })
}
