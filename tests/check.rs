//! `lmcore::check`: what is in a range passes, and what is not is described as in Python.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use lmcore::check::{has_length, id_in_range, in_range, one_of, same_length};
use lmcore::error::{Error, Kind};

#[test]
fn ranges_are_described() {
    for (error, text) in [
        (in_range("n", -1, 0..5), "n must be at least 0 and below 5: got -1"),
        (in_range("n", 5, 0..5), "n must be at least 0 and below 5: got 5"),
        (in_range("n", 257, 1..=256), "n must be at least 1 and at most 256: got 257"),
        (in_range("n", 0, 1..), "n must be at least 1: got 0"),
        (in_range("n", 1 << 24, 0..1 << 24), "n must be at least 0 and below 2**24: got 16777216"),
        (in_range("n", 1 << 23, 0..1 << 23), "n must be at least 0 and below 8388608: got 8388608"),
        (in_range("n", -1, 0..1 << 64), "n must be at least 0 and below 2**64: got -1"),
        (in_range("n", -1, 0..16_777_217), "n must be at least 0 and below 16777217: got -1"),
        (has_length("n", 3, 4), "n must be 4 values long: got 3"),
        (same_length(("a", 3), ("b", 4)), "a and b must have the same length: got 3 and 4"),
    ] {
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Value, text));
    }
    for value in [0, 4] {
        assert_eq!(in_range("n", value, 0..5), Ok(()));
    }
    assert_eq!(in_range("n", 256, 1..=256), Ok(()));
    assert_eq!(in_range("n", i128::MAX, 1..), Ok(()));
    assert_eq!((has_length("n", 4, 4), same_length(("a", 4), ("b", 4))), (Ok(()), Ok(())));
}

#[test]
fn ids_are_indices_or_refused() {
    for id in [0, 1, 4] {
        assert_eq!(id_in_range("ids", 7, None, id, 0..5), Ok(usize::try_from(id).unwrap()));
    }
    assert_eq!(id_in_range("ids", 7, None, 5, 1..=5), Ok(5));
    for (error, text) in [
        (id_in_range("ids", 7, None, 5, 0..5), "ids[7] must be at least 0 and below 5: got 5"),
        (id_in_range("ids", 7, None, -1, 0..5), "ids[7] must be at least 0 and below 5: got -1"),
        (id_in_range("ids", 7, None, 0, 1..=5), "ids[7] must be at least 1 and at most 5: got 0"),
        (
            id_in_range("ids", 7, Some(2), i64::MIN, 0..0),
            "ids[7] must be at least 0 and below 0: got -9223372036854775808 (row 2)",
        ),
    ] {
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Index, text));
        assert!(matches!(error, Error::IdOutOfRange { .. }));
    }
}

#[test]
fn names_have_values() {
    static NAMES: [&str; 3] = ["one", "two", "three"];
    for (name, value) in NAMES.iter().zip([1, 2, 3]) {
        assert_eq!(one_of("number", &NAMES, [1, 2, 3], name), Ok(value));
    }
    let error = one_of("number", &NAMES, [1, 2, 3], "it's").unwrap_err();
    assert_eq!(error.to_string(), "number must be one of one, two, three: got \"it's\"");
}
