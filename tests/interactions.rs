//! `lmcore::interactions`: columns and rows by user against plain loops.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;

use lmcore::error::Kind;
use lmcore::interactions::{Layout, group_by_user, read_columns};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

const LAYOUT: Layout<'_> =
    Layout { separator: ",", quoted: true, width: 3, labels: &[0, 2], number: Some(1) };

fn field() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a",
        "b",
        "é",
        "7",
        "07",
        "longer than fifteen bytes",
        "longer than fifteen byteS",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rows_come_back_from_any_blocks(
        rows in prop::collection::vec((field(), any::<i32>(), field(), any::<bool>()), 1..20),
        repeats in 1_usize..2_000,
        threads in 1_usize..4,
    ) {
        let mut text = String::new();
        for (user, time, item, is_quoted) in rows.iter().cycle().take(rows.len() * repeats) {
            let quote = if *is_quoted { "\"" } else { "" };
            let _ = writeln!(text, "{user},{time},{quote}{item}{quote}");
        }
        let found = read_columns(text.as_bytes(), LAYOUT, Some(threads)).unwrap().unwrap();
        prop_assert_eq!(found.numbers.len(), rows.len() * repeats);
        for (row, (user, time, item, _)) in rows.iter().cycle().take(rows.len() * repeats).enumerate() {
            for (column, expected) in [user, item].into_iter().enumerate() {
                let code = usize::try_from(found.codes[column][row]).unwrap();
                prop_assert_eq!(found.names[column][code], expected.as_str());
            }
            prop_assert_eq!(found.numbers[row], i64::from(*time));
        }
        for names in &found.names {
            let mut distinct = names.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), names.len());
        }
    }

    #[test]
    fn rows_are_those_of_a_stable_sort(
        rows in prop::collection::vec((1_i32..5, 1_i32..9, -3_i64..3), 0..60),
        with_times in any::<bool>(),
    ) {
        let (users, items): (Vec<i32>, Vec<i32>) = rows.iter().map(|row| (row.0, row.1)).unzip();
        let times: Vec<i64> = rows.iter().map(|row| row.2).collect();
        let found =
            group_by_user(&users, &items, with_times.then_some(&times[..]), (4, 8)).unwrap();
        let mut sorted = rows.clone();
        sorted.sort_by_key(|row| (row.0, if with_times { row.2 } else { 0 }));
        let expected: Vec<i64> = sorted.iter().map(|row| row.1.into()).collect();
        prop_assert_eq!(&found.items, &expected);
        if with_times {
            prop_assert_eq!(&found.times, &sorted.iter().map(|row| row.2).collect::<Vec<_>>());
        }
        let mut distinct: Vec<(i32, i32)> = rows.iter().map(|row| (row.0, row.1)).collect();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(found.repeated, rows.len() - distinct.len());
        prop_assert_eq!(found.offsets.len(), 5);
    }
}

#[test]
fn a_user_longer_than_a_run_is_sorted() {
    let count = 300_001;
    let times: Vec<i64> = (0..count).map(|row| row * 7_919 % 1_000).collect();
    let ones = vec![1; times.len()];
    let items: Vec<i32> = (1..=i32::try_from(count).unwrap()).collect();
    let found = group_by_user(&ones, &items, Some(&times), (1, times.len())).unwrap();
    let mut expected: Vec<(i64, i64)> =
        times.iter().copied().zip(items.iter().map(|item| i64::from(*item))).collect();
    expected.sort_by_key(|row| row.0);
    assert_eq!(found.items, expected.iter().map(|row| row.1).collect::<Vec<_>>());
    assert!(found.times.is_sorted());
}

#[test]
fn what_is_unusual_is_left_to_others() {
    for text in [
        "a,1,b\n\n",
        "a,1\n",
        "a,1,b,c\n",
        ",1,b",
        "a,1,",
        "a,x,b",
        "a,,b",
        "a,-,b",
        "a,+1,b",
        "a,1.0,b",
        "a,1234567890123456789,b",
        "a,1,b\r\n",
        "a,1,\"b",
        "a,1,\"b\"c",
        "a,1,b\"",
        "a,1,\"\"",
        "a,1,\"b\"\"c\"",
        "a,1,\"b\nc\"",
    ] {
        assert_eq!(read_columns(text.as_bytes(), LAYOUT, Some(1)).unwrap(), None, "{text:?}");
    }
    assert_eq!(read_columns(b"a,1,\xff", LAYOUT, Some(1)).unwrap(), None);
    for text in ["", "a,1,b", "a,-1,\"b,c\"\n", "\"a\",\"1\",\"b\""] {
        assert!(read_columns(text.as_bytes(), LAYOUT, Some(1)).unwrap().is_some(), "{text:?}");
    }
}

#[test]
fn wrong_arguments_are_errors() {
    for layout in [
        Layout { separator: "", ..LAYOUT },
        Layout { width: 0, ..LAYOUT },
        Layout { width: 2, ..LAYOUT },
        Layout { number: Some(3), ..LAYOUT },
    ] {
        assert_eq!(read_columns(b"", layout, None).unwrap_err().kind(), Kind::Value);
    }
    assert_eq!(group_by_user(&[0], &[1], None, (1, 1)).unwrap_err().kind(), Kind::Index);
    assert_eq!(group_by_user(&[1], &[2], None, (1, 1)).unwrap_err().kind(), Kind::Index);
    assert_eq!(group_by_user(&[1], &[], None, (1, 1)).unwrap_err().kind(), Kind::Value);
    assert_eq!(group_by_user(&[], &[], Some(&[1]), (1, 1)).unwrap_err().kind(), Kind::Value);
}
