//! `lmcore::philox`: the published vectors and the laws of draws.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::float_cmp, reason = "powers of two multiply without rounding")]

use std::convert::identity;

use lmcore::philox::{
    Draws, LANES, POSITION_BITS, Words, fill, halves, philox4x32, shuffle, tail, to_below,
    to_uniform,
};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// From the known-answer file of the Random123 library.
#[test]
fn published_vectors() {
    for (counter, key, expected) in [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ] {
        assert_eq!(philox4x32(counter, key), expected);
    }
}

#[test]
fn positions_end_at_2_to_the_33() {
    let last = (1 << POSITION_BITS) - 1;
    assert_eq!(fill(1, 2, &[3], last, 1, identity).unwrap(), [Draws::new(1, 2, 3).bits(last)]);
    for (position, count) in [(last, 2), (last + 1, 1), (u64::MAX, 1), (0, 1 << 40)] {
        let error = fill(1, 2, &[3], position, count, identity).unwrap_err().to_string();
        assert!(error.starts_with("position must be at least 0 and below 2**33: got "), "{error}");
    }
    assert!(fill(1, 2, &[3], last + 1, 0, identity).unwrap().is_empty());
}

#[test]
fn bits_are_even() {
    let drawn = fill(9, 0, &(0..4_096).collect::<Vec<u64>>(), 0, 16, identity).unwrap();
    let expected = drawn.len() as f64 / 2.0;
    let deviation = (drawn.len() as f64 / 4.0).sqrt();
    for bit in 0..64 {
        let ones = drawn.iter().filter(|&&value| value >> bit & 1 == 1).count() as f64;
        assert!((ones - expected).abs() < 5.0 * deviation, "bit {bit}: {ones} of {}", drawn.len());
    }
    let mut distinct = drawn.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), drawn.len());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_block_can_be_run_backwards(counter in any::<[u32; 4]>(), key in any::<[u32; 2]>()) {
        // Each round is a bijection: odd multipliers have inverses modulo 2^32.
        let [mut c0, mut c1, mut c2, mut c3] = philox4x32(counter, key);
        for round in (0..10).rev() {
            let k0 = key[0].wrapping_add(0x9E37_79B9_u32.wrapping_mul(round));
            let k1 = key[1].wrapping_add(0xBB67_AE85_u32.wrapping_mul(round));
            let x2 = c1.wrapping_mul(inverse(0xCD9E_8D57));
            let x0 = c3.wrapping_mul(inverse(0xD251_1F53));
            let x1 = high(x2, 0xCD9E_8D57) ^ c0 ^ k0;
            let x3 = high(x0, 0xD251_1F53) ^ c2 ^ k1;
            (c0, c1, c2, c3) = (x0, x1, x2, x3);
        }
        prop_assert_eq!([c0, c1, c2, c3], counter);
    }

    #[test]
    fn draws_depend_on_their_position_alone(
        seed in any::<u64>(),
        stream in any::<u32>(),
        items in prop::collection::vec(any::<u64>(), 0..5),
        position in prop_oneof![0_u64..8, 0_u64..(1 << 33) - 8],
        count in 0_usize..8,
    ) {
        let drawn = fill(seed, stream, &items, position, count, identity).unwrap();
        prop_assert_eq!(drawn.len(), items.len() * count);
        for (k, &value) in drawn.iter().enumerate() {
            let draws = Draws::new(seed, stream, items[k / count]);
            prop_assert_eq!(value, draws.bits(position + (k % count) as u64));
        }
    }

    #[test]
    fn words_out_of_the_tail_make_numbers(
        seed in any::<u64>(),
        item in any::<u64>(),
        bounds in prop::collection::vec(prop_oneof![1_u32..9, any::<u32>()], 1..200),
    ) {
        let draws = Draws::new(seed, 7, item);
        let by_block = (0..).flat_map(|block| draws.block(block)).flat_map(halves);
        let by_group = (0..).flat_map(|group| draws.words(group));
        let mut given: [(Words, Box<dyn Iterator<Item = u32>>); 2] = [
            (Words::by_block(draws), Box::new(by_block)),
            (Words::by_group(draws), Box::new(by_group)),
        ];
        for bound in bounds.into_iter().filter(|&bound| bound > 0) {
            for (words, left) in &mut given {
                // Numbers that more words make than others lose the surplus.
                let product = left
                    .map(|word| u64::from(word) * u64::from(bound))
                    .find(|product| product & 0xFFFF_FFFF >= (1 << 32) % u64::from(bound));
                prop_assert_eq!(u64::from(words.below(bound)), product.unwrap() >> 32);
            }
            prop_assert_eq!(u64::from(tail(bound)), (1 << 32) % u64::from(bound));
        }
    }

    #[test]
    fn a_shuffle_swaps_with_what_is_before(
        seed in any::<u64>(),
        count in 0_usize..150,
    ) {
        let draws = Draws::new(seed, 3, 5);
        let (mut order, mut swapped): (Vec<usize>, Vec<usize>) = ((0..count).collect(), (0..count).collect());
        shuffle(&mut order, draws).unwrap();
        let mut words = Words::by_group(draws);
        for last in (1..count).rev() {
            swapped.swap(last, words.below(u32::try_from(last + 1).unwrap()) as usize);
        }
        prop_assert_eq!(order, swapped);
    }

    #[test]
    fn two_draws_share_a_block(
        seed in any::<u64>(),
        stream in any::<u32>(),
        item in any::<u64>(),
        block in any::<u32>(),
    ) {
        let half = |value: u64, shift: u32| u32::try_from((value >> shift) & 0xFFFF_FFFF).unwrap();
        let counter = [block, half(item, 0), half(item, 32), stream];
        let words = philox4x32(counter, [half(seed, 0), half(seed, 32)]).map(u64::from);
        let draws = Draws::new(seed, stream, item);
        let position = u64::from(block) * 2;
        prop_assert_eq!(draws.bits(position), words[1] << 32 | words[0]);
        prop_assert_eq!(draws.bits(position + 1), words[3] << 32 | words[2]);
    }

    #[test]
    fn numbers_come_from_the_bits(bits in any::<u64>(), bound in any::<u64>()) {
        let uniform = to_uniform(bits);
        prop_assert!((0.0..1.0).contains(&uniform));
        prop_assert_eq!(uniform * 2_f64.powi(53), (bits >> 11) as f64);
        let below = to_below(bits, bound);
        prop_assert!(below < bound.max(1));
        prop_assert_eq!(u128::from(below), (u128::from(bits) * u128::from(bound)) >> 64);
    }
}

#[test]
fn the_largest_bits_stay_below_the_bound() {
    assert!(to_uniform(u64::MAX) < 1.0);
    assert_eq!(to_uniform(0), 0.0);
    assert_eq!(to_below(u64::MAX, u64::MAX), u64::MAX - 1);
    assert_eq!((to_below(u64::MAX, 1), to_below(0, 7), to_below(u64::MAX, 7)), (0, 0, 6));
}

fn high(value: u32, multiplier: u32) -> u32 {
    u32::try_from((u64::from(value) * u64::from(multiplier)) >> 32).unwrap()
}

/// The number that undoes a multiplication modulo 2^32 (Newton's iteration).
fn inverse(odd: u32) -> u32 {
    (0..5).fold(odd, |x, _| x.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(x))))
}

#[test]
fn every_order_is_as_likely() {
    let mut counts = std::collections::BTreeMap::new();
    for item in 0..6_000 {
        let mut order = [0, 1, 2];
        shuffle(&mut order, Draws::new(1, 2, item)).unwrap();
        *counts.entry(order).or_insert(0_u32) += 1;
    }
    assert_eq!(counts.len(), 6);
    assert!(counts.values().all(|count| count.abs_diff(1_000) < 150), "{counts:?}");
}

#[test]
fn lanes_hold_the_blocks() {
    for group in [0, 1, 77, u32::MAX / 16] {
        let words = Draws::new(5 << 40 | 3, 9, 7 << 35 | 1).words(group);
        for (index, &word) in words.iter().enumerate() {
            let block = group * 16 + u32::try_from(index % LANES).unwrap();
            let expected = philox4x32([block, 1, 7 << 3, 9], [3, 5 << 8]);
            assert_eq!(word, expected[index / LANES], "group {group}, word {index}");
        }
    }
}
