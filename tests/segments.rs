//! `lmcore::segments`: distinct segments and masked texts against plain loops.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use lmcore::error::Kind;
use lmcore::segments::{MOST_SIZE, list_segments, mask_segments_batch};
use proptest::prelude::*;

const MASK: i64 = 3;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn texts() -> impl Strategy<Value = Vec<Vec<i64>>> {
    let id = prop::sample::select(vec![0, 1, 2, MASK, -1, i64::MAX]);
    prop::collection::vec(prop::collection::vec(id, 0..9), 0..6)
}

fn flat(texts: &[Vec<i64>]) -> (Vec<i64>, Vec<i64>) {
    let mut offsets = vec![0];
    for text in texts {
        offsets.push(offsets[offsets.len() - 1] + i64::try_from(text.len()).unwrap());
    }
    (texts.concat(), offsets)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn segments_are_those_of_a_loop(texts in texts(), size in 1_usize..5) {
        let (ids, offsets) = flat(&texts);
        let found = list_segments(&ids, &offsets, size).unwrap();
        let (mut place, mut distinct) = (0, Vec::<Vec<i64>>::new());
        for (row, text) in texts.iter().enumerate() {
            prop_assert_eq!(found.offsets[row], i64::try_from(place).unwrap());
            for segment in text.windows(size) {
                if !distinct.iter().any(|known| known == segment) {
                    distinct.push(segment.to_vec());
                }
                let number = usize::try_from(found.inverse[place]).unwrap();
                prop_assert_eq!(&distinct[number], segment);
                place += 1;
            }
        }
        prop_assert_eq!(found.inverse.len(), place);
        prop_assert_eq!(found.distinct, distinct.concat());
    }

    #[test]
    fn masks_are_those_of_a_loop(texts in texts(), size in 1_usize..5, bits in any::<u64>()) {
        // More rows than one thread takes at a time.
        let texts: Vec<Vec<i64>> = texts.iter().cycle().take(texts.len() * 99).cloned().collect();
        let (ids, offsets) = flat(&texts);
        let total = list_segments(&ids, &offsets, size).unwrap().inverse.len();
        let labels: Vec<i64> = (0..total).map(|k| i64::from(bits >> (k % 61) & 1 == 1)).collect();
        let (mut first, mut expected) = (0, Vec::new());
        for text in &texts {
            let mut tokens = text.clone();
            for start in 0..(text.len() + 1).saturating_sub(size) {
                if labels[first] == 1 {
                    tokens[start..start + size].fill(MASK);
                }
                first += 1;
            }
            tokens.dedup_by(|later, earlier| *later == MASK && *earlier == MASK);
            expected.push(tokens);
        }
        for threads in [1, 3] {
            let got = mask_segments_batch(&ids, &offsets, &labels, MASK, size, Some(threads));
            let (ids, offsets) = flat(&expected);
            let got = got.unwrap();
            prop_assert_eq!(got.ids, ids);
            prop_assert_eq!(got.offsets, offsets);
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let list = |ids: &[i64], offsets: &[i64], size| {
        list_segments(ids, offsets, size).unwrap_err().to_string()
    };
    for size in [0, MOST_SIZE + 1] {
        let text = format!("size must be at least 1 and at most 16: got {size}");
        assert_eq!(list(&[], &[0], size), text);
    }
    assert_eq!(list(&[], &[], 2), "offsets must be at least 1 value long: got 0");
    assert_eq!(list(&[5], &[0], 2), "offsets[0] must be 1, the length of ids: got 0");
    assert_eq!(list(&[5], &[0, 2, 1], 2), "offsets[2] must be at least 2: got 1");
    let mask = |labels: &[i64]| {
        mask_segments_batch(&[1, 2, 4], &[0, 1, 3], labels, MASK, 2, None).unwrap_err()
    };
    assert_eq!(mask(&[]).to_string(), "labels must be 1 values long: got 0");
    let error = mask(&[2]);
    assert_eq!(error.to_string(), "labels[0] must be at least 0 and at most 1: got 2");
    assert_eq!(error.kind(), Kind::Value);
}
