//! Short texts appended as one or two machine words: this file and `rust/py/borrowed.rs` alone
//! have `unsafe`.
//!
//! Words are short and of all lengths, so a general copy of memory guesses wrong about most of
//! them (`docs/log.md` has the numbers). What is here knows of the interpreter only that a text
//! may stand in an object, so that `tests/append.rs` reaches it.

#![expect(unsafe_code, reason = "a bench argued for it")]

/// Bytes that [`append`] may write behind a text for a moment.
pub const SPARE_BYTES: usize = 8;
/// A text that stands in its object begins at most so far from the object's start.
pub const INLINE_BYTES: usize = 64;

/// Appends the `size` bytes at `data`, which may stand in an object that begins at `object`.
///
/// # Safety
/// `size` bytes can be read at `data`. Where `data` is [`INLINE_BYTES`] behind `object` at most,
/// and `HEADER_BYTES` at least, which are 8 or more, so can the bytes between them. `text` has
/// room for `size` bytes and [`SPARE_BYTES`] more.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most eight")]
pub unsafe fn append<const HEADER_BYTES: usize>(
    text: &mut Vec<u8>,
    object: *const u8,
    data: *const u8,
    size: usize,
) {
    const { assert!(HEADER_BYTES >= 8) };
    let length = text.len();
    // SAFETY: the caller vouches for the room behind the text.
    let end = unsafe { text.as_mut_ptr().add(length) };
    let distance = data.addr().wrapping_sub(object.addr());
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
