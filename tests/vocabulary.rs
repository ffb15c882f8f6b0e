//! `lmcore::vocabulary`: counts, ranks and new ids against plain loops.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cmp::Reverse;
use std::collections::BTreeMap;

use lmcore::error::{Error, Kind};
use lmcore::vocabulary::{Ids, Lost, NEW_IDS_END, count_ids, rank_ids, remap_ids};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Ids of a vocabulary of `size`, few of them frequent, and some that it lacks.
fn ids_of(size: i64) -> impl Strategy<Value = Vec<i64>> {
    let few = 0..size.min(3);
    let wild = prop::sample::select(vec![-1, size, size + 1, i64::MIN, i64::MAX, 1 << 32, -5]);
    prop::collection::vec(prop_oneof![5 => 0..size, 5 => few, 1 => wild], 0..70)
}

fn as_ids<T>(values: &[T]) -> Ids<'_, T> {
    Ids { values, shape: &[] }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn counts_are_those_of_a_loop((size, ids) in (1_i64..40).prop_flat_map(|size| (Just(size), ids_of(size)))) {
        let mut expected = vec![7; usize::try_from(size).unwrap()];
        let mut outside = 0;
        for &id in &ids {
            match usize::try_from(id).ok().and_then(|id| expected.get_mut(id)) {
                Some(count) => *count += 1,
                None => outside += 1,
            }
        }
        let mut counts = vec![7; expected.len()];
        prop_assert_eq!(count_ids(as_ids(&ids), &mut counts, true, Some(1)), Ok(outside));
        prop_assert_eq!(&counts, &expected);
        let mut untouched = vec![7; expected.len()];
        let got = count_ids(as_ids(&ids), &mut untouched, false, Some(2));
        if outside > 0 {
            let text = got.unwrap_err().to_string();
            let end = format!("the first of {outside} outside");
            prop_assert!(text.ends_with(&end), "{}", text);
            prop_assert!(untouched.iter().all(|&count| count == 7));
        } else {
            prop_assert_eq!(untouched, expected);
        }
    }

    #[test]
    fn ranks_are_those_of_a_sort(counts in prop::collection::vec(0_i64..5, 0..80)) {
        let mut expected: Vec<usize> = (0..counts.len()).collect();
        expected.sort_by_key(|&id| Reverse(counts[id]));
        let ranked: Vec<usize> =
            rank_ids(&counts).unwrap().into_iter().map(|id| usize::try_from(id).unwrap()).collect();
        prop_assert_eq!(ranked, expected);
    }

    #[test]
    fn new_ids_are_those_of_a_loop(
        (table, ids) in prop::collection::vec(-1_i64..9, 1..30)
            .prop_flat_map(|table| {
                let size = i64::try_from(table.len()).unwrap();
                (Just(table), ids_of(size))
            }),
        fill in -3_i64..3,
    ) {
        let mut expected = Vec::new();
        let mut lost = BTreeMap::new();
        for &id in &ids {
            let new = usize::try_from(id).ok().and_then(|id| table.get(id)).copied();
            let kept = new.filter(|&new| new >= 0);
            if kept.is_none() {
                *lost.entry(id).or_insert(0_u64) += 1;
            }
            expected.push(kept.unwrap_or(fill));
        }
        let mut ranked: Vec<(i64, u64)> = lost.into_iter().collect();
        ranked.sort_by_key(|&(_, count)| Reverse(count));
        let count = ranked.iter().map(|&(_, count)| count).sum();
        let mut out = vec![0_i64; ids.len()];
        let got = remap_ids(as_ids(&ids), &table, Some(fill), true, &mut out, Some(1)).unwrap();
        prop_assert_eq!(got, Lost { count, ids: ranked });
        prop_assert_eq!(out, expected);
        let got = remap_ids(as_ids(&ids), &table, None, false, &mut vec![0_i64; ids.len()], None);
        prop_assert_eq!(got.is_err(), count > 0);
    }
}

/// More ids than a block holds, the most frequent one in every second place.
fn many_ids() -> Vec<u16> {
    (0..5_000_011_u32).map(|k| if k % 2 == 0 { 3 } else { (k * 31 % 997) as u16 }).collect()
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let ids = many_ids();
    let threes = ids.iter().filter(|&&id| id == 3).count();
    let table: Vec<i64> = (0..997).map(|id| if id % 5 == 0 { -1 } else { 996 - id }).collect();
    let run = |threads| {
        let mut counts = vec![0; 997];
        let outside = count_ids(as_ids(&ids), &mut counts, false, Some(threads)).unwrap();
        let mut out = vec![0_u16; ids.len()];
        let lost = remap_ids(as_ids(&ids), &table, Some(999), true, &mut out, Some(threads));
        (outside, counts, out, lost.unwrap())
    };
    let expected = run(1);
    assert_eq!(usize::try_from(expected.1[3]).unwrap(), threes);
    assert_eq!(expected.1.iter().sum::<i64>(), 5_000_011);
    assert_eq!(expected.3.ids.len(), 200);
    assert_eq!(expected.2[..2], [993, expected.2[1]]);
    for threads in [2, 3, 8] {
        assert!(run(threads) == expected);
    }
}

#[test]
fn long_rankings_are_merged() {
    let counts: Vec<i64> = (0..700_001_i64).map(|id| id * 7_919 % 1_000).collect();
    let ranked = rank_ids(&counts).unwrap();
    let key = |id: i64| (Reverse(counts[usize::try_from(id).unwrap()]), id);
    assert!(ranked.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
    assert_eq!(ranked.len(), counts.len());
}

#[test]
fn every_type_of_ids_is_read() {
    fn check<T: lmcore::vocabulary::Id>(values: &[T], outside: u64) {
        let mut counts = vec![0; 9];
        assert_eq!(count_ids(as_ids(values), &mut counts, true, None), Ok(outside));
        assert_eq!(counts, [0, 0, 2, 0, 0, 0, 0, 0, 1]);
    }
    check(&[2_u16, 8, 2, 9, u16::MAX], 2);
    check(&[2_u32, 8, 2, 9, u32::MAX], 2);
    check(&[2_i32, 8, 2, 9, i32::MIN, -1], 3);
    check(&[2_i64, 8, 2, 9, i64::MIN, -1, (1 << 32) + 2], 4);
}

#[test]
fn refusals_say_what_is_wrong() {
    let ids = Ids { values: &[0_i32, 1, 2, 1, -3, 9], shape: &[2, 3] };
    let count = |size| count_ids(ids, &mut vec![0; size], false, Some(1)).unwrap_err();
    let remap = |table: &[i64], fill| {
        remap_ids(ids, table, fill, true, &mut [0_u16; 6], Some(1)).unwrap_err()
    };
    for (error, kind, text) in [
        (
            count(9),
            Kind::Index,
            "ids[1, 1] must be at least 0 and below 9: got -3, the first of 2 outside",
        ),
        (count(0), Kind::Value, "vocabulary_size must be at least 1 and at most 2147483648: got 0"),
        (
            remap(&[3, 4, -1], None),
            Kind::Index,
            "ids[0, 2] must have a new id in the table: got 2, the first of 3 without",
        ),
        (
            remap(&[3, 65_536], None),
            Kind::Value,
            "table[1] must be at least -1 and below 65536: got 65536",
        ),
        (remap(&[-2], None), Kind::Value, "table[0] must be at least -1 and below 65536: got -2"),
        (remap(&[0], Some(-1)), Kind::Value, "fill must be at least 0 and below 65536: got -1"),
        (
            remap(&[], None),
            Kind::Value,
            "the length of table must be at least 1 and at most 2147483648: got 0",
        ),
        (rank_ids(&[0, -1]).unwrap_err(), Kind::Value, "counts[1] must be at least 0: got -1"),
    ] {
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), kind);
    }
    let short = remap_ids(ids, &[0], None, false, &mut [0_i32; 5], None).unwrap_err();
    assert!(matches!(short, Error::LengthMismatch { .. }));
    let large = remap_ids(ids, &[NEW_IDS_END], None, false, &mut [0_i64; 6], None).unwrap_err();
    let end = format!("below {NEW_IDS_END}: got {NEW_IDS_END}");
    assert!(large.to_string().ends_with(&end));
}
