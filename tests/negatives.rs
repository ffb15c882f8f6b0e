//! `lmcore::negatives`: the laws of batches.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use lmcore::negatives::{Order, SequenceSampler, Settings, Windows};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

#[derive(Debug, PartialEq)]
struct Batch {
    users: Vec<i64>,
    sequences: Vec<i64>,
    positives: Vec<i64>,
    negatives: Vec<i64>,
}

fn sample(sampler: &SequenceSampler, epoch: u64, step: u64) -> Batch {
    let Settings { batch_size: rows, max_length, negative_count, .. } = *sampler.settings();
    let size = rows * max_length;
    let mut batch = Batch {
        users: vec![-1; rows],
        sequences: vec![-1; size],
        positives: vec![-1; size],
        negatives: vec![-1; size * negative_count],
    };
    let Batch { users, sequences, positives, negatives } = &mut batch;
    let mut windows = Windows { users, sequences, positives };
    sampler.sample(epoch, step, &mut windows, negatives, &[]).unwrap();
    batch
}

fn sample_packed(sampler: &SequenceSampler, epoch: u64, step: u64) -> (Batch, Vec<i64>) {
    let Settings { batch_size: rows, max_length, negative_count, .. } = *sampler.settings();
    let size = rows * max_length;
    let (mut users, mut sequences, mut positives) =
        (vec![-1; rows], vec![-1; size], vec![-1; size]);
    let (mut flat_indices, mut negatives) = (vec![-1; size], vec![-1_i32; size * negative_count]);
    let mut windows =
        Windows { users: &mut users, sequences: &mut sequences, positives: &mut positives };
    let valid = sampler
        .sample_packed(epoch, step, &mut windows, &mut flat_indices, &mut negatives)
        .unwrap();
    flat_indices.truncate(valid);
    let widen = |ids: &[i32]| ids.iter().copied().map(i64::from).collect();
    let batch = Batch {
        users: widen(&users),
        sequences: widen(&sequences),
        positives: widen(&positives),
        negatives: widen(&negatives[..valid * negative_count]),
    };
    (batch, flat_indices)
}

prop_compose! {
    fn samplers()(
        rows in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..40), 1..12),
        item_count in prop_oneof![2_u32..90, 300_u32..2_000, Just(100_000)],
        batch_size in 1_usize..9,
        max_length in 1_usize..30,
        negative_count in 1_usize..40,
        seed in any::<u64>(),
        shuffle in any::<bool>(),
        popular in any::<bool>(),
    ) -> Option<(SequenceSampler, Vec<Vec<i64>>)> {
        let rows: Vec<Vec<i64>> = rows
            .iter()
            .map(|row| row.iter().map(|i| i64::try_from(i.index(item_count as usize) + 1).unwrap()).collect())
            .collect();
        let mut offsets = vec![0];
        for row in &rows {
            offsets.push(offsets.last().unwrap() + i64::try_from(row.len()).unwrap());
        }
        let weights: Vec<u32> = (0..item_count).map(|item| item % 7).collect();
        let order = if shuffle { Order::Shuffle } else { Order::Replacement };
        let settings = Settings {
            item_count, batch_size, max_length, negative_count, seed, order, threads: Some(1),
        };
        let weights = popular.then_some(&weights[..]);
        let sampler = SequenceSampler::new(&offsets, &rows.concat(), weights, settings);
        // Users without an item left are an error, and without enough items nothing is drawn.
        sampler.ok().filter(|sampler| sampler.eligible_count() > 0).map(|sampler| (sampler, rows))
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn batches_hold_windows_and_what_is_outside(
        made in samplers(),
        epoch in 0_u64..1 << 24,
        step in any::<prop::sample::Index>(),
    ) {
        let Some((sampler, rows)) = made else { return Ok(()) };
        let Settings { item_count, max_length: length, negative_count, .. } = *sampler.settings();
        let step = step.index(sampler.steps_per_epoch().unwrap()) as u64;
        let batch = sample(&sampler, epoch, step);
        for (row, &user) in batch.users.iter().enumerate() {
            let train = &rows[usize::try_from(user).unwrap() - 1];
            let valid = (train.len() - 1).min(length);
            prop_assert!(valid > 0);
            let start = (row + 1) * length - valid;
            let window = &train[train.len() - valid - 1..];
            prop_assert_eq!(&batch.sequences[start..start + valid], &window[..valid]);
            prop_assert_eq!(&batch.positives[start..start + valid], &window[1..]);
            prop_assert!(batch.sequences[row * length..start].iter().all(|&item| item == 0));
            prop_assert!(batch.positives[row * length..start].iter().all(|&item| item == 0));
            let negatives = &batch.negatives[row * length * negative_count..];
            let (padding, drawn) = negatives[..length * negative_count]
                .split_at((length - valid) * negative_count);
            prop_assert!(padding.iter().all(|&item| item == 0));
            for item in drawn {
                prop_assert!((1..=i64::from(item_count)).contains(item));
                prop_assert!(!train.contains(item));
            }
        }
        prop_assert_eq!(&sample(&sampler, epoch, step), &batch);
        let (packed, flat_indices) = sample_packed(&sampler, epoch, step);
        prop_assert_eq!(&packed.users, &batch.users);
        prop_assert_eq!(&packed.sequences, &batch.sequences);
        prop_assert_eq!(&packed.positives, &batch.positives);
        let valid: Vec<usize> =
            (0..batch.positives.len()).filter(|&flat| batch.positives[flat] != 0).collect();
        prop_assert_eq!(flat_indices.len(), valid.len());
        for (index, (&flat, expected)) in flat_indices.iter().zip(valid).enumerate() {
            prop_assert_eq!(usize::try_from(flat).unwrap(), expected);
            let of = |block: usize| block * negative_count..(block + 1) * negative_count;
            prop_assert_eq!(&packed.negatives[of(index)], &batch.negatives[of(expected)]);
        }
    }

    #[test]
    fn candidates_are_outside(made in samplers(), count in 0_usize..200, seed in any::<u64>()) {
        let Some((sampler, rows)) = made else { return Ok(()) };
        let users: Vec<i64> = (1..).take(rows.len()).collect();
        let mut out = vec![0_i64; users.len() * count];
        sampler.candidates(&users, &[], seed, &mut out).unwrap();
        for (row, train) in rows.iter().enumerate() {
            let drawn = &out[row * count..(row + 1) * count];
            prop_assert!(drawn.iter().all(|item| *item > 0 && !train.contains(item)));
            let mut alone = vec![0_i32; count];
            sampler.candidates(&users[row..=row], &[], seed, &mut alone).unwrap();
            prop_assert!(alone.iter().zip(drawn).all(|(&a, &b)| i64::from(a) == b));
        }
    }
}

#[test]
fn numbers_in_the_tail_are_drawn_again() {
    // With 3 * 2^29 items a quarter of the words is in the tail of the multiplication: without
    // rejection two items of three would be made by three words, and the third by two.
    let item_count = 3_u32 << 29;
    let settings = Settings {
        item_count,
        batch_size: 1,
        max_length: 1,
        negative_count: 60_000,
        seed: 3,
        order: Order::Replacement,
        threads: None,
    };
    let sampler = SequenceSampler::new(&[0, 2], &[1, 2], None, settings).unwrap();
    let drawn = sample(&sampler, 0, 0).negatives;
    let mut cells = [0_u32; 3];
    for item in drawn {
        cells[usize::try_from(item % 3).unwrap()] += 1;
    }
    assert!(cells.iter().all(|&cell| cell.abs_diff(20_000) < 600), "{cells:?}");
}

#[test]
fn slices_of_other_lengths_are_refused() {
    let settings = Settings {
        item_count: 5,
        batch_size: 2,
        max_length: 3,
        negative_count: 2,
        seed: 3,
        order: Order::Shuffle,
        threads: None,
    };
    let sampler = SequenceSampler::new(&[0, 2], &[1, 2], None, settings).unwrap();
    let (mut users, mut sequences, mut positives) = ([0_i64; 2], [0; 6], [0; 6]);
    let mut windows =
        Windows { users: &mut users, sequences: &mut sequences, positives: &mut positives };
    let error = sampler.sample(0, 0, &mut windows, &mut [0; 11], &[]).unwrap_err();
    assert_eq!(error.to_string(), "negatives must be 12 values long: got 11");
    let error = sampler.sample_packed(0, 0, &mut windows, &mut [0; 5], &mut [0; 12]).unwrap_err();
    assert_eq!(error.to_string(), "flat_indices must be 6 values long: got 5");
    let error = sampler.sample(0, 1, &mut windows, &mut [0; 12], &[]).unwrap_err();
    assert_eq!(error.to_string(), "step must be at least 0 and below 1: got 1");
    let error = sampler.candidates(&[1], &[], 0, &mut [0_i64; 0]);
    assert_eq!(error, Ok(()));
}
