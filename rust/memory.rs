//! Memory that may be refused: an error of the call instead of the end of the process.
//!
//! What grows with one row, one text or one array is asked for here.

use crate::error::{Error, Result};
use crate::interrupt;

/// Items that a long vector grows by: it asks the system and the caller once in so many.
const GROWTH: usize = 1 << 20;

/// Bytes that are asked for with care; a process that lacks less is lost anyway.
const MUCH: usize = 1 << 20;

/// The error of so many values that were refused.
pub fn refused(values: usize) -> Error {
    Error::Memory { values: values as u128 }
}

/// Makes room for more items.
///
/// # Errors
/// The memory is refused.
#[inline]
pub fn reserve<T>(items: &mut Vec<T>, more: usize) -> Result<()> {
    if items.capacity() - items.len() >= more {
        return Ok(());
    }
    reserve_more(items, more)
}

#[cold]
fn reserve_more<T>(items: &mut Vec<T>, more: usize) -> Result<()> {
    // Twice as much as before, for the next row; or else no more than is needed.
    let bytes = more.saturating_mul(size_of::<T>());
    items
        .try_reserve(more)
        .or_else(|_| items.try_reserve_exact(more))
        .map_err(|_| refused(items.len().saturating_add(more)))
        .and_then(|()| leave_some(bytes))
}

/// After much memory was taken: whether there is a little left for what does not ask.
fn leave_some(bytes: usize) -> Result<()> {
    if bytes < MUCH {
        return Ok(());
    }
    Vec::<u8>::new().try_reserve_exact(MUCH).map_err(|_| refused(bytes))
}

/// Makes room for more bytes of text.
///
/// # Errors
/// The memory is refused.
#[inline]
pub fn reserve_text(text: &mut String, more: usize) -> Result<()> {
    if text.capacity() - text.len() >= more {
        return Ok(());
    }
    text.try_reserve(more)
        .or_else(|_| text.try_reserve_exact(more))
        .map_err(|_| refused(text.len().saturating_add(more)))?;
    leave_some(more)
}

/// Appends one item; a vector that grows long asks the caller whether to go on.
///
/// # Errors
/// The memory is refused, or the caller stops.
#[inline]
pub fn push<T>(items: &mut Vec<T>, item: T) -> Result<()> {
    if items.len() == items.capacity() {
        grow(items)?;
    }
    items.push(item);
    Ok(())
}

#[cold]
fn grow<T>(items: &mut Vec<T>) -> Result<()> {
    if items.len() >= GROWTH {
        interrupt::check()?;
    }
    let more = items.len().clamp(4, GROWTH);
    items.try_reserve_exact(more).map_err(|_| refused(items.len().saturating_add(more)))?;
    leave_some(more.saturating_mul(size_of::<T>()))
}

/// Makes a vector hold `length` times one value.
///
/// # Errors
/// The memory is refused.
#[inline]
pub fn fill<T: Copy>(items: &mut Vec<T>, length: usize, value: T) -> Result<()> {
    items.clear();
    reserve(items, length)?;
    items.resize(length, value);
    Ok(())
}

/// Asks for memory and gives it back at once, before work that cannot be refused what it takes.
///
/// What asks for less than a mebibyte is not looked at.
///
/// # Errors
/// The memory is refused.
pub fn probe(bytes: usize) -> Result<()> {
    if bytes < MUCH {
        return Ok(());
    }
    reserve(&mut Vec::<u8>::new(), bytes)
}

/// The items in a vector of their own; `length` is how many there are.
///
/// # Errors
/// The memory is refused.
pub fn collect<T>(length: usize, items: impl IntoIterator<Item = T>) -> Result<Vec<T>> {
    let mut collected = Vec::new();
    reserve(&mut collected, length)?;
    collected.extend(items);
    Ok(collected)
}

/// An empty vector with room for `values` values, and no more.
///
/// # Errors
/// The memory is refused.
pub fn with_capacity<T>(values: usize) -> Result<Vec<T>> {
    let mut room = Vec::new();
    room.try_reserve_exact(values).map_err(|_| refused(values))?;
    Ok(room)
}

/// A vector that holds one value `values` times.
///
/// # Errors
/// The memory is refused.
pub fn repeat<T: Clone>(value: T, values: usize) -> Result<Vec<T>> {
    let mut all = with_capacity(values)?;
    all.resize(values, value);
    Ok(all)
}

/// How many values an array of this shape holds.
///
/// # Errors
/// More than can be counted.
pub fn size(shape: &[usize]) -> Result<usize> {
    shape.iter().try_fold(1_usize, |size, &length| size.checked_mul(length)).ok_or_else(|| {
        let factors = shape.iter().map(|&length| length as u128);
        Error::Memory { values: factors.fold(1, u128::saturating_mul) }
    })
}
