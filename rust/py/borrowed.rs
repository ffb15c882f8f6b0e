//! Strings of lists without a reference count for each.
//!
//! Under the stable ABI an item of a list costs five calls of the interpreter when it is owned
//! for a moment, and two when it is only looked at (`docs/log.md` has the numbers). The copy of
//! a text, which needs no interpreter, is `rust/append.rs`. An interpreter without its lock gets
//! `owned.rs` in place of this file.

#![expect(unsafe_code, reason = "a bench argued for it")]

use std::mem::offset_of;
use std::ops::Range;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::append::{INLINE_BYTES, SPARE_BYTES, append};
use crate::error::Result;
use crate::memory;
use crate::text::Strings;

/// Bytes of an object before its text, at least: every object begins with its header.
const HEADER_BYTES: usize = offset_of!(ffi::PyObject, ob_type) + size_of::<*mut u8>();

/// Appends strings of a list up to the first item that is no string or holds a lone surrogate;
/// returns where it stands, or the end.
///
/// An item that is the object `known` is not read again; without one, neither is an item that is
/// the object before it.
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
        // lives, and the item lives as long as the list is not changed. The text of an ASCII
        // string stands in the item itself, which begins with its header.
        unsafe {
            append::<HEADER_BYTES>(text, item.cast(), data.cast(), size.cast_unsigned());
        }
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
    #[cfg(target_arch = "x86_64")]
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
    #[cfg(not(target_arch = "x86_64"))]
    let _ = list;
}
