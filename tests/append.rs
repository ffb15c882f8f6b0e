//! `lmcore::append`: texts in objects and apart from them are appended as they are.
//!
//! Miri and valgrind see what a comparison does not: a byte read or written where there is none.

#![expect(unsafe_code, reason = "the function is unsafe, and is what is tested")]

use lmcore::append::{INLINE_BYTES, SPARE_BYTES, append};
use proptest::prelude::*;

const HEADER_BYTES: usize = 16;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Appends to `before` with no more room than is asked for.
fn appended(before: &[u8], object: *const u8, data: *const u8, size: usize) -> Vec<u8> {
    let mut text = Vec::new();
    text.reserve_exact(before.len() + size + SPARE_BYTES);
    text.extend_from_slice(before);
    // SAFETY: callers hand out texts that stand in their objects or apart; there is room.
    unsafe { append::<HEADER_BYTES>(&mut text, object, data, size) };
    text
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn texts_are_appended(
        before in prop::collection::vec(any::<u8>(), 0..20),
        words in prop::collection::vec(any::<u8>(), 0..40),
        distance in HEADER_BYTES..INLINE_BYTES + 10,
        fill in any::<u8>(),
    ) {
        let expected = [&before[..], &words].concat();
        // In an object: nothing stands behind the text.
        let object = [&vec![fill; distance][..], &words].concat();
        let data = object[distance..].as_ptr();
        let inside = object.as_ptr().wrapping_add(distance);
        prop_assert_eq!(data, inside);
        prop_assert_eq!(&appended(&before, object.as_ptr(), inside, words.len()), &expected);
        // Apart from it: nothing stands around the text.
        let apart: Box<[u8]> = words.clone().into();
        let far = object.as_ptr().wrapping_sub(1 << 20);
        prop_assert_eq!(&appended(&before, far, apart.as_ptr(), words.len()), &expected);
        let behind = apart.as_ptr().wrapping_add(1);
        prop_assert_eq!(&appended(&before, behind, apart.as_ptr(), words.len()), &expected);
    }
}

#[test]
fn all_lengths_at_all_distances() {
    let words: Vec<u8> = (1..=40).collect();
    for distance in HEADER_BYTES..=INLINE_BYTES + 1 {
        for size in 0..=words.len() {
            let object = [&vec![0xff; distance][..], &words[..size]].concat();
            let data = object.as_ptr().wrapping_add(distance);
            let text = appended(b"before", object.as_ptr(), data, size);
            assert_eq!(text, [b"before", &words[..size]].concat());
        }
    }
}
