//! Strings of lists without a reference count for each: the one file with `unsafe`.
//!
//! Under the stable ABI an item of a list costs five calls of the interpreter when it is owned
//! for a moment, and two when it is only looked at. Words are short and of all lengths, so a
//! general copy of memory guesses wrong about most of them: here, those of up to sixteen bytes
//! are copied as one or two machine words (`docs/log.md` has the numbers).

#![expect(unsafe_code, reason = "a bench argued for it")]

use std::mem::offset_of;
use std::ops::Range;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::error::Result;
use crate::memory;
use crate::text::Strings;

/// Bytes of an object before its text, at least: every object begins with its header.
const HEADER_BYTES: usize = offset_of!(ffi::PyObject, ob_type) + size_of::<*mut u8>();
/// Bytes that [`append`] may write behind a text for a moment.
const SPARE_BYTES: usize = 8;
/// The text of an ASCII string stands in the object itself, not far from its start.
const INLINE_BYTES: usize = 64;

/// Appends strings of a list up to the first item that is no string or holds a lone surrogate;
/// returns where it stands, or the end.
///
/// On an interpreter without its lock another thread may change the list meanwhile: there every
/// item is left to the loop that owns it.
#[cfg(Py_GIL_DISABLED)]
pub fn extend_from_list(
    strings: &mut Strings,
    list: &Bound<'_, PyList>,
    known: Option<&Bound<'_, PyString>>,
    items: Range<usize>,
) -> Result<usize> {
    let _ = (strings, list, known);
    Ok(items.start)
}

/// Appends strings of a list up to the first item that is no string or holds a lone surrogate;
/// returns where it stands, or the end.
///
/// An item that is the object `known` is not read again; without one, neither is an item that is
/// the object before it.
#[cfg(not(Py_GIL_DISABLED))]
pub fn extend_from_list(
    strings: &mut Strings,
    list: &Bound<'_, PyList>,
    known: Option<&Bound<'_, PyString>>,
    items: Range<usize>,
) -> Result<usize> {
    let end = items.end.min(list.len());
    let mut previous = known.map_or(std::ptr::null_mut(), Bound::as_ptr);
    let mut kept =
        known.and_then(|text| text.to_str().ok()).map_or((0, 0), |text| strings.keep(text));
    let (text, ranges) = strings.parts();
    // SAFETY: only whole strings are appended, so that it stays UTF-8.
    let text = unsafe { text.as_mut_vec() };
    memory::reserve(ranges, end.saturating_sub(items.start))?;
    let keeps_first = known.is_some();
    for index in items.start..end {
        // SAFETY: the interpreter is held, as `list` shows; `index` is below the list's length,
        // and nothing in this loop runs Python code that could change the list. The item is
        // borrowed from the list until the end of this turn.
        let item = unsafe { ffi::PyList_GetItem(list.as_ptr(), index.cast_signed()) };
        if item == previous {
            ranges.push(kept);
            continue;
        }
        let mut size = 0;
        // SAFETY: `item` is a live object; anything but a `str` makes the call fail.
        let data = unsafe { ffi::PyUnicode_AsUTF8AndSize(item, &raw mut size) };
        if data.is_null() {
            // SAFETY: the interpreter is held.
            unsafe { ffi::PyErr_Clear() };
            return Ok(index);
        }
        let start = text.len();
        memory::reserve(text, size.cast_unsigned() + SPARE_BYTES)?;
        // SAFETY: the interpreter keeps `size` bytes of UTF-8 at `data` as long as the item
        // lives, and the item lives as long as the list is not changed.
        unsafe { append(text, item.cast(), data.cast(), size.cast_unsigned()) };
        let range = (start, text.len());
        ranges.push(range);
        if !keeps_first {
            (previous, kept) = (item, range);
        }
    }
    Ok(end)
}

/// Asks the processor to bring the items of a list near, if it is one.
///
/// Strings stand scattered in memory; waiting for one after the other is what costs most.
pub fn prefetch_items(list: &Bound<'_, PyAny>) {
    #[cfg(all(target_arch = "x86_64", not(Py_GIL_DISABLED)))]
    if let Ok(list) = list.cast_exact::<PyList>() {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        for index in 0..list.len() {
            // SAFETY: as in `extend_from_list`; nothing is read from the item itself.
            unsafe {
                let item = ffi::PyList_GetItem(list.as_ptr(), index.cast_signed()).cast::<i8>();
                _mm_prefetch::<_MM_HINT_T0>(item);
                _mm_prefetch::<_MM_HINT_T0>(item.wrapping_add(INLINE_BYTES - 16));
            }
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(Py_GIL_DISABLED))))]
    let _ = list;
}

/// Appends the `size` bytes at `data`, the text of `item`.
///
/// # Safety
/// Both pointers are valid, `item` begins with the header of an object, and `text` has room for
/// `size` bytes and [`SPARE_BYTES`] more.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most eight")]
unsafe fn append(text: &mut Vec<u8>, item: *const u8, data: *const u8, size: usize) {
    let length = text.len();
    // SAFETY: the caller vouches for the room behind the text.
    let end = unsafe { text.as_mut_ptr().add(length) };
    let distance = data.addr().wrapping_sub(item.addr());
    let is_inline = (HEADER_BYTES..=INLINE_BYTES).contains(&distance);
    if size <= 8 && is_inline {
        // The eight bytes that end with the text begin in the header at the earliest.
        // SAFETY: `distance` says so.
        let eight = unsafe { data.add(size).sub(8).cast::<u64>().read_unaligned() };
        // A shift by 64, of an empty text, gives any value: none of its bytes is kept.
        let eight = u64::from_le(eight).wrapping_shr(64 - 8 * size as u32);
        // SAFETY: there is room for eight bytes; the first `size` of them are the text.
        unsafe {
            end.cast::<u64>().write_unaligned(eight.to_le());
            text.set_len(length + size);
        }
        return;
    }
    // SAFETY: the caller vouches for the bytes.
    let bytes = unsafe { std::slice::from_raw_parts(data, size) };
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        // SAFETY: there is room for `size` bytes, which the two chunks cover.
        (Some(first), Some(last)) if size <= 16 => unsafe {
            end.cast::<[u8; 8]>().write(*first);
            end.add(size - 8).cast::<[u8; 8]>().write(*last);
            text.set_len(length + size);
        },
        _ => text.extend_from_slice(bytes),
    }
}
