//! Strings side by side in one buffer, and characters read as Python reads them.

mod strings;
mod unicode;

pub use strings::{Interner, StringRows, Strings, StringsRef};
pub use unicode::{is_alphanumeric, is_mark, is_space, lowercase, push_lowercase};

use crate::error::Result;
use crate::interrupt::Steps;

/// Memory that a short `String` takes, with what keeps account of it.
pub(crate) const STRING_BYTES: usize = 64;
/// Bytes of a text that is long enough to ask the caller meanwhile.
pub(crate) const LONG_TEXT: usize = 1 << 20;

/// The first of two ASCII characters at or after `start`, where it is likely to be near.
///
/// Eight bytes fit one machine word, in which a comparison is a subtraction: a byte's high bit
/// shows where it is equal, and a borrow can only add marks above the first true one. A
/// general search follows where the next sixteen bytes hold neither, or do not exist.
#[inline]
pub fn find_near(bytes: &[u8], start: usize, first: u8, second: u8) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let marks = |eight: u64| {
        let equal = |byte: u8| {
            let difference = eight ^ (ONES * u64::from(byte));
            difference.wrapping_sub(ONES) & !difference
        };
        (equal(first) | equal(second)) & (ONES << 7)
    };
    let mut next = start;
    if let Some(sixteen) = bytes.get(next..).and_then(<[u8]>::first_chunk::<16>) {
        let sixteen = u128::from_le_bytes(*sixteen);
        #[expect(clippy::cast_possible_truncation, reason = "each half is taken")]
        let (low, high) = (marks(sixteen as u64), marks((sixteen >> 64) as u64));
        if low | high != 0 {
            // Which half it is cannot be foreseen: both are counted, and one is chosen.
            let in_low = low.trailing_zeros() as usize / 8;
            let in_high = high.trailing_zeros() as usize / 8 + 8;
            return Some(next + if low == 0 { in_high } else { in_low });
        }
        next += 16;
    }
    memchr::memchr2(first, second, bytes.get(next..)?).map(|offset| next + offset)
}

/// Where the first character at or after `start` stands for which something holds, or the end.
///
/// A long text is looked at a part at a time: one word may be as long as the text.
///
/// # Errors
/// The caller stops.
#[inline]
pub fn find_character(
    text: &str,
    mut start: usize,
    steps: &mut Steps,
    holds: impl Fn(char) -> bool,
) -> Result<usize> {
    loop {
        let mut end = text.len().min(start.saturating_add(LONG_TEXT));
        while !text.is_char_boundary(end) {
            end += 1;
        }
        if let Some(length) = text[start..end].find(&holds) {
            return Ok(start + length);
        }
        if end == text.len() {
            return Ok(end);
        }
        steps.take(LONG_TEXT)?;
        start = end;
    }
}
