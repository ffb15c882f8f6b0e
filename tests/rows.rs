//! `lmcore::rows`: offsets that cut all values into rows, and what others are told.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_wrap,
    reason = "small numbers, and a test may panic"
)]

use lmcore::error::{Error, Kind};
use lmcore::rows::{Fault, OwnedRows, Rows};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rows_are_what_was_cut(
        given in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..8),
    ) {
        let mut offsets = vec![0];
        let mut owned = OwnedRows::with_capacity(0, 0).unwrap();
        for row in &given {
            offsets.push(offsets.last().unwrap() + row.len() as i64);
            owned.push(row).unwrap();
        }
        let values = given.concat();
        let rows = Rows::new(&offsets, &values).unwrap();
        prop_assert_eq!(rows.len(), given.len());
        prop_assert_eq!(rows.is_empty(), given.is_empty());
        prop_assert!(rows.iter().eq(given.iter().map(Vec::as_slice)));
        prop_assert!(rows.iter().rev().eq(given.iter().rev().map(Vec::as_slice)));
        prop_assert!(owned.rows().iter().eq(rows.iter()));
        let mapped = OwnedRows::map(rows, |index, &value| Ok((index, value))).unwrap();
        for (r, row) in given.iter().enumerate() {
            let range = rows.range(r);
            prop_assert_eq!(&values[range.clone()], &row[..]);
            let expected: Vec<_> = range.zip(row.iter().copied()).collect();
            prop_assert_eq!(mapped.row(r), &expected[..]);
        }
    }

    #[test]
    fn any_offsets_cut_or_are_refused(
        offsets in prop::collection::vec(-2_i64..6, 0..6),
        count in 0_usize..6,
    ) {
        let values = vec![0_u8; count];
        let cuts = offsets.first() == Some(&0)
            && offsets.is_sorted()
            && offsets.last() == Some(&(count as i64));
        match Rows::new(&offsets, &values) {
            Ok(rows) => {
                prop_assert!(cuts);
                prop_assert_eq!(rows.iter().map(<[u8]>::len).sum::<usize>(), count);
            }
            Err(fault) => {
                prop_assert!(!cuts);
                prop_assert_eq!(fault.of("offsets", "items").kind(), Kind::Value);
                if let Fault::Descent { row, before, got } = fault {
                    prop_assert_eq!([offsets[row], offsets[row + 1]], [before, got]);
                }
            }
        }
    }
}

#[test]
fn faults_are_named() {
    for (offsets, text) in [
        (&[][..], "offsets must be at least 1 value long: got 0"),
        (&[1, 3], "offsets[0] must be 0: got 1"),
        (&[0, 2, 1, 3], "offsets[2] must be at least 2: got 1"),
        (&[0, 2, 4], "offsets[2] must be 3, the length of items: got 4"),
        (&[0, i64::MAX], "offsets[1] must be 3, the length of items: got 9223372036854775807"),
        (&[0, i64::MIN], "offsets[1] must be at least 0: got -9223372036854775808"),
    ] {
        let fault = Rows::new(offsets, &[1, 2, 3]).unwrap_err();
        assert_eq!(fault.of("offsets", "items").to_string(), text);
    }
}

#[test]
fn the_first_value_that_is_refused_comes_out() {
    let rows = Rows::new(&[0, 1, 3], &[1, 2, 3]).unwrap();
    let refuse = |index: usize, &value: &i32| {
        if value < 2 { Ok(value) } else { Err(Error::Memory { values: index as u128 }) }
    };
    assert_eq!(OwnedRows::map(rows, refuse).unwrap_err(), Error::Memory { values: 1 });
}

#[test]
fn a_value_is_known_by_its_own_index_in_any_block() {
    let values: Vec<usize> = (0..3_000).collect();
    let rows = Rows::new(&[0, 700, 3_000], &values).unwrap();
    let made = OwnedRows::map(rows, |index, &value| Ok(index == value)).unwrap();
    assert!(made.rows().iter().flatten().all(|&is_own| is_own));
    for refused in [0, 1_023, 1_024, 2_500] {
        let refuse = |index: usize, &value: &usize| {
            let error = Error::Memory { values: index as u128 };
            if value == refused { Err(error) } else { Ok(value) }
        };
        assert_eq!(
            OwnedRows::map(rows, refuse).unwrap_err(),
            Error::Memory { values: refused as u128 }
        );
    }
}
