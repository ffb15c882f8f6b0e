//! Laws of the memory of false negatives, against a definition by maps.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test inputs are small")]
#![expect(clippy::cast_sign_loss, reason = "test inputs are small")]
#![expect(clippy::cast_possible_wrap, reason = "test inputs are small")]

use std::collections::BTreeMap;

use lmcore::error::Error;
use lmcore::false_negatives::{
    FalseNegativeMemory, LARGEST_COUNT, Problem, Reversed, Scores, State, packed_positions,
    padded_positions,
};
use proptest::prelude::*;

const LENGTH: usize = 4;
const SLOTS: usize = 5;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// The definition: one map for the lists, one for the counts.
#[derive(Default)]
struct Maps {
    threshold: u32,
    max_keys: Option<usize>,
    hard: BTreeMap<(i64, usize), Vec<i64>>,
    counts: BTreeMap<(i64, usize, i64), u32>,
    evicted: u64,
}

impl Maps {
    fn inject(&mut self, batch: &Batch, negatives: &mut [i64]) -> Vec<[i64; 4]> {
        let mut reversed = Vec::new();
        for (row, &user) in batch.users.iter().enumerate() {
            for p in (0..LENGTH).rev().take_while(|&p| batch.positives[row * LENGTH + p] != 0) {
                let items = self.hard.get(&(user, p)).cloned().unwrap_or_default();
                for (slot, item) in items.into_iter().enumerate() {
                    negatives[(row * LENGTH + p) * SLOTS + slot] = item;
                    let count = self.counts.entry((user, p, item)).or_default();
                    *count += 1;
                    if *count > self.threshold {
                        reversed.push([row as i64, p as i64, slot as i64, i64::from(*count)]);
                    }
                }
            }
        }
        if let Some(most) = self.max_keys.filter(|&most| self.counts.len() > most) {
            let stored = |&(user, p, item): &(i64, usize, i64)| {
                self.hard.get(&(user, p)).is_some_and(|items| items.contains(&item))
            };
            let mut order: Vec<_> =
                self.counts.iter().map(|(key, &count)| (stored(key), count, *key)).collect();
            order.sort_unstable();
            for (_, _, key) in &order[..order.len() - most * 3 / 4] {
                self.counts.remove(key);
                self.evicted += 1;
            }
        }
        reversed
    }

    fn observe(&mut self, batch: &Batch, negatives: &[i64], reversed: &[[i64; 4]]) {
        for (row, &user) in batch.users.iter().enumerate() {
            for p in (0..LENGTH).rev().take_while(|&p| batch.positives[row * LENGTH + p] != 0) {
                let block = row * LENGTH + p;
                let logits = &batch.logits[block * (SLOTS + 1)..(block + 1) * (SLOTS + 1)];
                let is_reversed = |slot: usize| {
                    reversed.iter().any(|r| r[..3] == [row as i64, p as i64, slot as i64])
                };
                let items = (0..SLOTS)
                    .filter(|&slot| logits[slot + 1] > logits[0] && !is_reversed(slot))
                    .map(|slot| negatives[block * SLOTS + slot]);
                self.hard.insert((user, p), items.collect());
            }
        }
    }

    fn state(&self) -> State {
        let mut state =
            State { evicted_count: self.evicted, hard_offsets: vec![0], ..State::default() };
        for (&(user, p), items) in self.hard.iter().filter(|(_, items)| !items.is_empty()) {
            state.hard_keys.push((user as u32) << 8 | p as u32);
            state.hard_items.extend(items.iter().map(|&item| item as u32));
            state.hard_offsets.push(state.hard_items.len() as i64);
        }
        for (&(user, p, item), &count) in &self.counts {
            state.count_keys.push((user as u64) << 40 | (p as u64) << 32 | item as u64);
            state.counts.push(count);
        }
        state
    }
}

#[derive(Debug, Clone)]
struct Batch {
    users: Vec<i64>,
    positives: Vec<i64>,
    negatives: Vec<i64>,
    logits: Vec<f32>,
}

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let row = (1_i64..5, 0..=LENGTH);
    let batch = prop::collection::vec(row, 0..5).prop_flat_map(|rows| {
        let blocks = rows.len() * LENGTH;
        let negatives = prop::collection::vec(1_i64..12, blocks * SLOTS);
        let logits = prop::collection::vec(0_u8..4, blocks * (SLOTS + 1));
        (negatives, logits).prop_map(move |(negatives, logits)| Batch {
            users: rows.iter().map(|row| row.0).collect(),
            positives: rows
                .iter()
                .flat_map(|row| (0..LENGTH).map(|p| i64::from(p >= row.1)))
                .collect(),
            negatives,
            logits: logits.into_iter().map(f32::from).collect(),
        })
    });
    prop::collection::vec(batch, 1..8)
}

fn rows_of(reversed: &Reversed) -> Vec<[i64; 4]> {
    let counts = reversed.counts.iter().map(|&count| i64::from(count));
    reversed
        .coordinates
        .chunks_exact(3)
        .zip(counts)
        .map(|(at, count)| [at[0], at[1], at[2], count])
        .collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_memory_is_two_maps(
        batches in batches(),
        threshold in 0_u32..4,
        max_keys in prop::option::of(1_usize..30),
    ) {
        let mut maps = Maps { threshold, max_keys, ..Maps::default() };
        let mut padded = FalseNegativeMemory::new(Some(threshold), max_keys);
        let mut packed = FalseNegativeMemory::new(Some(threshold), max_keys);
        for batch in &batches {
            let mut expected = batch.negatives.clone();
            let by_maps = maps.inject(batch, &mut expected);
            maps.observe(batch, &expected, &by_maps);

            let positions = padded_positions(&batch.positives, LENGTH).unwrap();
            let mut negatives = batch.negatives.clone();
            let reversed = padded.inject(&batch.users, &positions, SLOTS, &mut negatives).unwrap();
            prop_assert_eq!(&negatives, &expected);
            prop_assert_eq!(&rows_of(&reversed), &by_maps);
            for (at, &block) in reversed.coordinates.chunks_exact(3).zip(&reversed.blocks) {
                prop_assert_eq!(at[0] * LENGTH as i64 + at[1], block);
            }
            let scores = Scores::Single(&batch.logits);
            let stored = padded
                .observe(&batch.users, &positions, SLOTS, &negatives, scores, &reversed.coordinates)
                .unwrap();
            prop_assert!(stored <= positions.len() * SLOTS);
            prop_assert_eq!(padded.state().unwrap(), maps.state());

            // Packed, in 32 bits, with a mask in place of logits.
            let flat: Vec<i64> =
                (0..batch.positives.len()).filter(|&k| batch.positives[k] != 0).map(|k| k as i64)
                .collect();
            let positions = packed_positions(&flat, batch.users.len(), LENGTH).unwrap();
            let mut negatives = Vec::new();
            let mut mask = Vec::new();
            for &block in &flat {
                let block = block as usize;
                negatives.extend(
                    batch.negatives[block * SLOTS..][..SLOTS].iter().map(|&item| item as i32),
                );
                let logits = &batch.logits[block * (SLOTS + 1)..][..=SLOTS];
                mask.extend(logits[1..].iter().map(|&z| u8::from(z > logits[0])));
            }
            let reversed = packed.inject(&batch.users, &positions, SLOTS, &mut negatives).unwrap();
            prop_assert_eq!(&rows_of(&reversed), &by_maps);
            packed
                .observe(
                    &batch.users, &positions, SLOTS, &negatives, Scores::Hard(&mask),
                    &reversed.coordinates,
                )
                .unwrap();
            let state = packed.state().unwrap();
            prop_assert_eq!(&state, &maps.state());

            let above = state.counts.iter().filter(|&&count| count > threshold).count();
            prop_assert_eq!(packed.reversed_key_count(), above);
            prop_assert_eq!(packed.key_count(), state.counts.len());
            prop_assert_eq!(packed.hard_count(), state.hard_items.len());
            prop_assert_eq!(packed.evicted_count(), maps.evicted);

            let mut restored = FalseNegativeMemory::new(Some(threshold), max_keys);
            restored.load(&state).unwrap();
            prop_assert_eq!(restored.state().unwrap(), state);
            prop_assert_eq!(restored.reversed_key_count(), above);
            packed = restored;
        }
    }

    #[test]
    fn packed_positions_are_those_of_the_rows(
        starts in prop::collection::vec(0_usize..=LENGTH, 0..6),
    ) {
        let positives: Vec<i64> =
            starts.iter().flat_map(|&s| (0..LENGTH).map(move |p| i64::from(p >= s))).collect();
        let flat: Vec<i64> =
            (0..positives.len()).filter(|&k| positives[k] != 0).map(|k| k as i64).collect();
        let padded = padded_positions(&positives, LENGTH).unwrap();
        let packed = packed_positions(&flat, starts.len(), LENGTH).unwrap();
        prop_assert_eq!(padded.len(), packed.len());
        for (one, other) in padded.iter().zip(packed.iter()) {
            prop_assert_eq!((one.row, one.column), (other.row, other.column));
            prop_assert_eq!(one.block as i64, flat[other.block]);
        }
    }

    #[test]
    fn any_flat_indices_are_read_or_refused(
        flat in prop::collection::vec(-2_i64..20, 0..6),
        rows in 0_usize..5,
        length in 0_usize..5,
    ) {
        let end = (rows * length) as i64;
        let valid = length > 0
            && flat.iter().all(|index| (0..end).contains(index))
            && flat.windows(2).all(|two| two[0] < two[1]);
        prop_assert_eq!(packed_positions(&flat, rows, length).is_ok(), valid);
    }

    #[test]
    fn any_positives_are_read_or_refused(
        positives in prop::collection::vec(0_i64..2, LENGTH * 2),
    ) {
        let valid = positives.chunks(LENGTH).all(|row| row.windows(2).all(|two| two[0] <= two[1]));
        prop_assert_eq!(padded_positions(&positives, LENGTH).is_ok(), valid);
    }

    #[test]
    fn any_arrays_are_a_state_or_refused(
        hard_keys in prop::collection::vec(256_u32..2_000, 0..3),
        hard_offsets in prop::collection::vec(-1_i64..4, 0..4),
        hard_items in prop::collection::vec(1_u32..5, 0..3),
        count_keys in prop::collection::vec(any::<u64>(), 0..3),
        counts in prop::collection::vec(0_u32..=LARGEST_COUNT + 1, 0..3),
    ) {
        let state =
            State { hard_keys, hard_offsets, hard_items, count_keys, counts, evicted_count: 0 };
        let mut memory = FalseNegativeMemory::new(Some(1), None);
        if let Err(error) = memory.load(&state) {
            let is_named = matches!(error, Error::FalseNegatives(Problem::NotAState { .. }));
            prop_assert!(is_named);
            prop_assert_eq!((memory.hard_count(), memory.key_count()), (0, 0));
        }
    }
}

#[test]
fn many_counts_of_one_user() {
    let mut memory = FalseNegativeMemory::new(Some(0), None);
    let positions = packed_positions(&[3], 1, LENGTH).unwrap();
    let count = 5_000_usize;
    let mut negatives: Vec<i64> = (1..=count as i64).map(|item| item * 7_919).collect();
    let mask = vec![1_u8; count];
    memory.observe(&[1], &positions, count, &negatives, Scores::Hard(&mask), &[]).unwrap();
    for visit in 1..4 {
        let reversed = memory.inject(&[1], &positions, count, &mut negatives).unwrap();
        assert!(reversed.counts.iter().all(|&times| times == visit));
        assert_eq!((reversed.counts.len(), memory.key_count()), (count, count));
    }
    assert_eq!(memory.reversed_key_count(), count);
    assert!(memory.memory_bytes() < count * 24 + 4_096);
}

#[test]
fn what_is_out_of_range_is_named() {
    let positions = packed_positions(&[0, 1], 1, 2).unwrap();
    let mut memory = FalseNegativeMemory::new(None, None);
    for (user, text) in [(0, "got 0 at row 0"), (1 << 24, "got 16777216 at row 0")] {
        let error = memory.inject(&[user], &positions, 1, &mut [1_i64, 2]).unwrap_err().to_string();
        assert!(error.ends_with(text), "{error}");
    }
    for got in [0_i64, -1, 1 << 32] {
        let negatives = [5, got];
        let hard = Scores::Hard(&[1, 1]);
        let error = memory.observe(&[1], &positions, 1, &negatives, hard, &[]).unwrap_err();
        assert_eq!(error, Problem::ItemRange { got, row: 0, position: 1, slot: 0 }.into());
        assert_eq!(memory.hard_count(), 0);
    }
    let logits = [0.0, 1.0, 0.0, f64::NAN];
    let error = memory.observe(&[1], &positions, 1, &[1_i64, 2], Scores::Double(&logits), &[]);
    assert_eq!(error, Err(Problem::NanLogit { row: 0, position: 1, column: 1 }.into()));
    let error = memory.observe(&[1], &positions, 1, &[1_i64, 2], Scores::Hard(&[1, 1]), &[0, 1, 1]);
    assert_eq!(error, Err(Problem::NotReversed { coordinates: [0, 1, 1], index: 0 }.into()));
}

#[test]
fn lengths_that_do_not_fit_are_named() {
    let positions = padded_positions(&[1, 1], 1).unwrap();
    let mut memory = FalseNegativeMemory::new(Some(0), None);
    let error = memory.inject(&[1], &positions, 1, &mut [1_i64, 2]).unwrap_err().to_string();
    assert_eq!(error, "positives and users must have the same length: got 2 and 1");
    let error = memory.inject(&[1, 2], &positions, 2, &mut [1_i64; 3]).unwrap_err().to_string();
    assert_eq!(error, "negatives must be 4 values long: got 3");
    let (users, negatives) = ([1, 2], [1_i64, 2]);
    for (scores, text) in [
        (Scores::Hard(&[1]), "scores must be 2 values long: got 1"),
        (Scores::Single(&[0.0; 3]), "scores must be 4 values long: got 3"),
        (Scores::Double(&[0.0; 5]), "scores must be 4 values long: got 5"),
    ] {
        let error = memory.observe(&users, &positions, 1, &negatives, scores, &[]);
        assert_eq!(error.unwrap_err().to_string(), text);
    }
    let error = memory.observe(&users, &positions, 1, &negatives, Scores::Hard(&[1, 1]), &[0, 0]);
    assert_eq!(error.unwrap_err().to_string(), "reversed_ must be 0 values long: got 2");
    let error = padded_positions(&[1, 1, 1], 2).unwrap_err().to_string();
    assert_eq!(error, "positives must be 2 values long: got 3");
}
