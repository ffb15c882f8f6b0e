//! Segments: the runs of n tokens of each text, which ones are distinct, and texts without some.
//!
//! Source: Detox-Chain (arXiv 2308.08295), section 2: a segment is a pair of adjacent tokens; the
//! table of its section 2.4 compares runs of one, two and three.
//!
//! Frequent segments recur, so that a scorer need see each distinct one once: a table over slices
//! of the ids finds them in one walk. Masking is one walk, too: how far the last toxic segment
//! reaches decides on each token, whatever n is, and a mask behind a mask is not written.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::check::{has_length, in_range, item_in_range};
use crate::error::Result;
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::rows::Rows;
use crate::threads::{row_ranges, run_blocks};

/// The most tokens of a segment.
pub const MOST_SIZE: usize = 16;

/// Segments of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments {
    /// `[distinct, size]`: the ids of each distinct segment, in the order of first appearance.
    pub distinct: Vec<i64>,
    /// Of each segment, text by text, the index of the distinct one that it is.
    pub inverse: Vec<i64>,
    /// Text r has the segments `offsets[r]..offsets[r + 1]`.
    pub offsets: Vec<i64>,
}

/// Texts with masks in place of toxic segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masked {
    /// The ids, text by text.
    pub ids: Vec<i64>,
    /// Text r has the ids `offsets[r]..offsets[r + 1]`.
    pub offsets: Vec<i64>,
}

/// How many segments of `size` tokens a text of `length` has: none if it is shorter.
fn count_segments(length: usize, size: usize) -> usize {
    (length + 1).saturating_sub(size)
}

/// Where the segments of each text start among all of them, and behind the last one where it ends.
fn segment_offsets(texts: Rows<'_, i64>, size: usize) -> Result<Vec<i64>> {
    let mut offsets = memory::with_capacity(texts.len().saturating_add(1))?;
    let (mut total, mut steps) = (0_usize, Steps::default());
    offsets.push(0);
    for text in texts.iter() {
        steps.take(1)?;
        total += count_segments(text.len(), size);
        // No vector is longer than `i64::MAX`.
        offsets.push(total.cast_signed() as i64);
    }
    Ok(offsets)
}

fn check_size(size: usize) -> Result<()> {
    in_range("size", size as i128, 1..=MOST_SIZE as i128)
}

/// The distinct segments of texts, and which one each segment is.
///
/// # Errors
/// A size outside its range, offsets that do not fit, or memory that is refused.
pub fn list_segments(ids: &[i64], offsets: &[i64], size: usize) -> Result<Segments> {
    check_size(size)?;
    let texts = Rows::new(offsets, ids).map_err(|fault| fault.of("offsets", "ids"))?;
    let offsets = segment_offsets(texts, size)?;
    let total = offsets.last().copied().and_then(|total| usize::try_from(total).ok()).unwrap_or(0);
    let mut found = Segments { distinct: Vec::new(), inverse: Vec::new(), offsets };
    memory::reserve(&mut found.inverse, total)?;
    let mut known: HashMap<&[i64], i64, RandomState> = HashMap::default();
    let mut steps = Steps::default();
    for text in texts.iter() {
        for segment in text.windows(size) {
            steps.take(size)?;
            let next = known.len().cast_signed() as i64;
            let number = if let Some(&number) = known.get(segment) {
                number
            } else {
                known.try_reserve(1).map_err(|_| memory::refused(known.len()))?;
                known.insert(segment, next);
                memory::reserve(&mut found.distinct, size)?;
                found.distinct.extend_from_slice(segment);
                next
            };
            found.inverse.push(number);
        }
    }
    Ok(found)
}

/// Replaces all tokens of each toxic segment by the mask, and each run of masks by one.
///
/// `labels` are 1 for a toxic segment and 0 for another, text by text; a token that was the mask
/// before is a mask. `threads` does not change the result.
///
/// # Errors
/// A size outside its range, offsets or labels that do not fit, or memory that is refused.
pub fn mask_segments_batch(
    ids: &[i64],
    offsets: &[i64],
    labels: &[i64],
    mask_id: i64,
    size: usize,
    threads: Option<usize>,
) -> Result<Masked> {
    check_size(size)?;
    let texts = Rows::new(offsets, ids).map_err(|fault| fault.of("offsets", "ids"))?;
    let starts = segment_offsets(texts, size)?;
    let total = starts.last().copied().and_then(|total| usize::try_from(total).ok()).unwrap_or(0);
    has_length("labels", labels.len(), total)?;
    let toxic = Rows::new(&starts, labels).map_err(|fault| fault.of("offsets", "labels"))?;
    let mask_texts = |steps: &mut Steps, range: Range<usize>| -> Result<(Vec<i64>, Vec<i64>)> {
        let mut lengths = memory::with_capacity(range.len())?;
        let mut masked = Vec::new();
        for row in range {
            let (text, before) = (texts.row(row), masked.len());
            steps.take(text.len())?;
            memory::reserve(&mut masked, text.len())?;
            mask_text(text, (toxic.row(row), toxic.range(row).start), mask_id, size, &mut masked)?;
            lengths.push((masked.len() - before).cast_signed() as i64);
        }
        Ok((masked, lengths))
    };
    let mut all = Masked { ids: Vec::new(), offsets: memory::with_capacity(texts.len() + 1)? };
    all.offsets.push(0);
    let (mut end, mut ranges) = (0, row_ranges(texts.len()));
    run_blocks(
        threads,
        &mut || Ok(ranges.next()),
        &mask_texts,
        &mut |part: Result<(Vec<i64>, Vec<i64>)>| {
            let (masked, lengths) = part?;
            memory::reserve(&mut all.ids, masked.len())?;
            all.ids.extend(masked);
            for length in lengths {
                end += length;
                all.offsets.push(end);
            }
            Ok(())
        },
        &mut interrupt::check,
    )?;
    Ok(all)
}

/// Appends a masked text; `first` is the index of its first label among all of them.
fn mask_text(
    text: &[i64],
    (labels, first): (&[i64], usize),
    mask_id: i64,
    size: usize,
    masked: &mut Vec<i64>,
) -> Result<()> {
    let (mut end, mut after_mask) = (0, false);
    for (place, &id) in text.iter().enumerate() {
        if let Some(&label) = labels.get(place) {
            if label == 1 {
                end = place + size;
            } else if label != 0 {
                item_in_range("labels", first + place, label.into(), 0..=1)?;
            }
        }
        let is_mask = place < end || id == mask_id;
        if !is_mask {
            masked.push(id);
        } else if !after_mask {
            masked.push(mask_id);
        }
        after_mask = is_mask;
    }
    Ok(())
}
