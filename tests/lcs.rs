//! `lmcore::lcs` against patience sorting and the laws of a longest common subsequence.

#![expect(clippy::cast_possible_truncation, reason = "test sequences are short")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use lmcore::lcs::{Lcs, UNMATCHED, align_integers, align_strings};
use lmcore::text::Strings;
use proptest::prelude::*;

/// The definition: matching pairs sorted into piles, walked back from the last pile.
fn align_by_patience(a: &[u32], b: &[u32], ids: usize) -> Vec<u32> {
    let mut places = vec![Vec::new(); ids];
    for (j, &id) in b.iter().enumerate().rev() {
        places[id as usize].push(j as u32);
    }
    let mut tops: Vec<u32> = Vec::new();
    let mut piles: Vec<Vec<(usize, u32, usize)>> = Vec::new();
    for (i, &id) in a.iter().enumerate() {
        for &j in &places[id as usize] {
            let level = tops.partition_point(|&top| top < j);
            if level == tops.len() {
                tops.push(j);
                piles.push(Vec::new());
            }
            tops[level] = j;
            let parent = if level == 0 { 0 } else { piles[level - 1].len() - 1 };
            piles[level].push((i, j, parent));
        }
    }
    let mut alignment = vec![UNMATCHED; a.len()];
    let mut place = piles.last().map_or(0, |pile| pile.len() - 1);
    for pile in piles.iter().rev() {
        let (i, j, parent) = pile[place];
        alignment[i] = j;
        place = parent;
    }
    alignment
}

/// The length alone: one row of bits after the other, no band.
fn count_by_bits(a: &[u32], b: &[u32], ids: usize) -> usize {
    let words = b.len().div_ceil(64);
    let mut masks = vec![vec![0_u64; words]; ids];
    for (j, &id) in b.iter().enumerate() {
        masks[id as usize][j / 64] |= 1 << (j % 64);
    }
    let mut state = vec![u64::MAX; words];
    for &id in a {
        let mut carry = false;
        for (word, mask) in state.iter_mut().zip(&masks[id as usize]) {
            let (sum, one) = word.overflowing_add(*word & mask);
            let (sum, two) = sum.overflowing_add(u64::from(carry));
            carry = one || two;
            *word = sum | (*word & !mask);
        }
    }
    state.iter().map(|word| word.count_zeros() as usize).sum()
}

fn align(a: &[u32], b: &[u32], ids: usize) -> Vec<u32> {
    let mut alignment = Vec::new();
    Lcs::default().align(a, b, ids, &mut alignment).unwrap();
    alignment
}

/// Asserts that the alignment pairs equal items, in order, `length` of them.
fn check(a: &[u32], b: &[u32], alignment: &[u32], length: usize) {
    assert_eq!(alignment.len(), a.len());
    let pairs: Vec<(usize, usize)> = (0..a.len())
        .filter(|&i| alignment[i] != UNMATCHED)
        .map(|i| (i, alignment[i] as usize))
        .collect();
    assert_eq!(pairs.len(), length);
    assert!(pairs.iter().all(|&(i, j)| a[i] == b[j]));
    assert!(pairs.windows(2).all(|two| two[0].1 < two[1].1));
}

/// A small generator of numbers: the long cases need no shrinking.
struct Source(u64);

impl Source {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn ids(&mut self, size: usize, distinct: usize) -> Vec<u32> {
        (0..size).map(|_| self.below(distinct) as u32).collect()
    }

    /// As in a text: few ids are frequent, many are rare.
    fn skewed_ids(&mut self, size: usize, distinct: usize) -> Vec<u32> {
        let mut id = || (0..4).fold(distinct, |bound, _| self.below(bound) + 1) as u32 - 1;
        (0..size).map(|_| id()).collect()
    }

    /// The numbers below `size`, each moved by less than `reach` places, from any place on.
    fn order(&mut self, size: usize, reach: usize) -> Vec<u32> {
        let mut keys: Vec<(usize, u32)> =
            (0..size).map(|k| (k + self.below(reach), k as u32)).collect();
        keys.sort_unstable();
        let mut order: Vec<u32> = keys.into_iter().map(|key| key.1).collect();
        if size > 0 && self.below(2) == 0 {
            let turn = self.below(size);
            order.rotate_left(turn);
        }
        order
    }

    /// A copy in which one item of `every` is lost, replaced or doubled.
    fn edited(&mut self, ids: &[u32], distinct: usize, every: usize) -> Vec<u32> {
        let mut out = Vec::new();
        for &id in ids {
            match self.below(every * 3) {
                0 => {}
                1 => out.push(self.below(distinct) as u32),
                2 => out.extend([id, id]),
                _ => out.push(id),
            }
        }
        out
    }
}

fn config() -> ProptestConfig {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        prop::sample::select(vec![0, 1, 2, 63, 64, 65, 127, 128, 129, 130, 191, 192, 193, 257]),
        0_usize..400,
    ]
}

/// Sequences that have nothing, or almost everything, in common.
fn pairs() -> impl Strategy<Value = (Vec<u32>, Vec<u32>, usize)> {
    let distinct = prop::sample::select(vec![1_usize, 2, 3, 8, 40, 300, 2_000]);
    (distinct, sizes(), sizes(), any::<u64>(), 0_usize..6).prop_map(
        |(distinct, n, m, seed, kind)| {
            let mut source = Source(seed);
            let mut ids = |size| match source.below(2) {
                0 => source.ids(size, distinct),
                _ => source.skewed_ids(size, distinct),
            };
            let (a, other) = (ids(n), ids(m));
            let mut b = match kind {
                0 | 1 => other,
                kind => source.edited(&a, distinct, [2, 8, 30, 200][kind - 2]),
            };
            if kind > 2 && source.below(3) == 0 && !b.is_empty() {
                let turn = source.below(b.len());
                b.rotate_left(turn); // a moved block
            }
            (a, b, distinct)
        },
    )
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn small_sequences_are_those_of_patience(
        a in prop::collection::vec(0_u32..3, 0..9),
        b in prop::collection::vec(0_u32..3, 0..9),
    ) {
        prop_assert_eq!(align(&a, &b, 3), align_by_patience(&a, &b, 3));
    }

    #[test]
    fn alignments_are_those_of_patience((a, b, ids) in pairs()) {
        let alignment = align(&a, &b, ids);
        check(&a, &b, &alignment, count_by_bits(&a, &b, ids));
        prop_assert_eq!(alignment, align_by_patience(&a, &b, ids));
    }

    #[test]
    fn orders_of_distinct_items_are_those_of_patience(
        seed in any::<u64>(),
        (n, m) in (100_usize..900, 100_usize..900),
        reach in prop::sample::select(vec![1, 3, 70, 200, 1_000]),
    ) {
        let mut source = Source(seed);
        let ids = n.max(m);
        let (a, b) = (source.order(n, reach), source.order(m, reach));
        prop_assert_eq!(align(&a, &b, ids), align_by_patience(&a, &b, ids));
    }

    #[test]
    fn memory_of_an_earlier_call_does_not_show(all in prop::collection::vec(pairs(), 1..5)) {
        let (mut lcs, mut alignment) = (Lcs::default(), Vec::new());
        for (a, b, ids) in all {
            lcs.align(&a, &b, ids, &mut alignment).unwrap();
            prop_assert_eq!(&alignment, &align(&a, &b, ids));
        }
    }

    #[test]
    fn items_without_a_number_stay_alone(
        (a, b, ids) in pairs(),
        lost in prop::collection::vec(any::<bool>(), 400),
        number in prop_oneof![Just(UNMATCHED), 2_000..3_000_u32],
    ) {
        let lost = |i: usize| lost[i % lost.len()];
        let with = |number: u32| -> Vec<u32> {
            a.iter().enumerate().map(|(i, &id)| if lost(i) { number } else { id }).collect()
        };
        let expected = align_by_patience(&with(ids as u32), &b, ids + 1);
        prop_assert_eq!(align(&with(number), &b, ids), expected);
    }

    #[test]
    fn integers_and_strings_are_numbered_alike((a, b, ids) in pairs(), offset in any::<i64>()) {
        let expected = align(&a, &b, ids);
        let integers = |all: &[u32]| -> Vec<i64> {
            all.iter().map(|&id| offset.wrapping_add(i64::from(id))).collect()
        };
        prop_assert_eq!(&align_integers(&integers(&a), &integers(&b)).unwrap(), &expected);
        let strings = |all: &[u32]| -> Strings { all.iter().map(|id| format!("é{id}")).collect() };
        prop_assert_eq!(&align_strings(strings(&a).all(), strings(&b).all()).unwrap(), &expected);
    }

    #[test]
    fn any_strings_align(
        a in prop::collection::vec(any::<String>(), 0..6),
        b in prop::collection::vec(any::<String>(), 0..6),
    ) {
        let both: Vec<&String> = a.iter().chain(&b).collect();
        let number = |s: &String| both.iter().position(|other| *other == s).map_or(0, |k| k as u32);
        let (ids_a, ids_b): (Vec<u32>, Vec<u32>) =
            (a.iter().map(number).collect(), b.iter().map(number).collect());
        let (a, b): (Strings, Strings) = (a.iter().collect(), b.iter().collect());
        let expected = align_by_patience(&ids_a, &ids_b, both.len());
        prop_assert_eq!(align_strings(a.all(), b.all()).unwrap(), expected);
    }
}

#[test]
fn long_sequences_are_those_of_patience() {
    let mut source = Source(1);
    // States of 20,000 rows take 2^21 words where the band is wider than 105 words.
    for (n, m, distinct) in
        [(20_000, 20_000, 2_000), (30_000, 9_000, 1_000), (9_000, 30_000, 1_000), (3_000, 3_000, 9)]
    {
        let (a, b) = (source.ids(n, distinct), source.ids(m, distinct));
        assert_eq!(align(&a, &b, distinct), align_by_patience(&a, &b, distinct), "{n} {m}");
    }
    for (n, distinct, every) in [(20_000, 5_000, 200), (20_000, 900, 2), (3_000, 2, 5)] {
        let a = source.ids(n, distinct);
        let mut b = source.edited(&a, distinct, every);
        assert_eq!(align(&a, &b, distinct), align_by_patience(&a, &b, distinct), "{n} {every}");
        let turn = b.len() / 3;
        b.rotate_left(turn);
        assert_eq!(align(&a, &b, distinct), align_by_patience(&a, &b, distinct), "{n} moved");
    }
}

#[test]
fn alignments_at_the_edge_of_the_band_are_those_of_patience() {
    // What stands before one of two equal sequences makes the band so wide that states are
    // computed again from checkpoints, and lets the walk run along its edge.
    let mut source = Source(5);
    for (distinct, skewed) in [(100, false), (50_000, false), (3_000, true), (20_000, true)] {
        let mut ids = |size| {
            if skewed { source.skewed_ids(size, distinct) } else { source.ids(size, distinct) }
        };
        let (both, before) = (ids(18_000), ids(9_000));
        let longer = [before, both.clone()].concat();
        let expected = align_by_patience(&both, &longer, distinct);
        assert!(align(&both, &longer, distinct) == expected, "insertion {distinct}");
        let expected = align_by_patience(&longer, &both, distinct);
        assert!(align(&longer, &both, distinct) == expected, "omission {distinct}");
    }
}

#[test]
fn what_stands_in_the_way_at_the_edge_is_stepped_over() {
    // Along the edge of the band `b` repeats what comes later in `a`: later states have piles
    // there, the states of these rows must not.
    let mut source = Source(7);
    for distinct in [2_000, 100_000] {
        let (first, second) = (source.ids(6_000, distinct), source.ids(12_000, distinct));
        let before = source.ids(9_000, distinct);
        for start in [0, 500, 4_000] {
            let again = second[start..start + 300].to_vec();
            let b = [before.clone(), first.clone(), again, second.clone()].concat();
            let a = [first.clone(), second.clone()].concat();
            assert!(align(&a, &b, distinct) == align_by_patience(&a, &b, distinct), "{start}");
        }
    }
}

#[test]
fn long_orders_of_distinct_items_are_those_of_patience() {
    // Every item once and near its place: carries run from word to word.
    let mut source = Source(8);
    for reach in [90, 150, 400, 2_000] {
        for _ in 0..6 {
            let (a, b) = (source.order(20_000, reach), source.order(20_000, reach));
            assert!(align(&a, &b, 20_000) == align_by_patience(&a, &b, 20_000), "{reach}");
        }
    }
}

#[test]
fn frequent_and_rare_items_are_those_of_patience() {
    let mut source = Source(6);
    for (n, m, distinct) in [(20_000, 20_000, 6_000), (20_000, 3_000, 2_000), (3_000, 9_000, 500)] {
        let (a, b) = (source.skewed_ids(n, distinct), source.skewed_ids(m, distinct));
        assert!(align(&a, &b, distinct) == align_by_patience(&a, &b, distinct), "{n} {m}");
        let b = source.edited(&a, distinct, 3);
        assert!(align(&a, &b, distinct) == align_by_patience(&a, &b, distinct), "{n} edited");
    }
}

#[test]
fn two_symbols_over_checkpoints_obey_the_laws() {
    let mut source = Source(2);
    // Two symbols: most words are in the band, so 20,000 rows need 6 million words of states.
    for (n, m) in [(20_000, 20_000), (40_000, 12_000), (12_000, 40_000)] {
        let (a, b) = (source.ids(n, 2), source.ids(m, 2));
        check(&a, &b, &align(&a, &b, 2), count_by_bits(&a, &b, 2));
    }
}

#[test]
fn disjoint_halves_need_the_whole_matrix() {
    let mut source = Source(3);
    let (low, high) = (source.ids(15_000, 2), source.ids(15_000, 2));
    let high: Vec<u32> = high.iter().map(|id| id + 2).collect();
    let a: Vec<u32> = low.iter().chain(&high).copied().collect();
    let b: Vec<u32> = high.iter().chain(&low).copied().collect();
    check(&a, &b, &align(&a, &b, 4), count_by_bits(&a, &b, 4));
}

#[test]
fn checkpoints_within_checkpoints_are_those_of_patience() {
    // 110,000 rows of 4,688 words: 2^20 words of checkpoints leave parts above 2^21 words.
    let mut source = Source(4);
    let (a, b) = (source.ids(110_000, 20_000), source.ids(300_000, 20_000));
    assert!(align(&a, &b, 20_000) == align_by_patience(&a, &b, 20_000));
}

#[test]
fn equal_items_align_from_the_end() {
    let (a, b) = (vec![0; 3_000], vec![0; 2_900]);
    let alignment = align(&a, &b, 1);
    assert!(alignment[..100].iter().all(|&j| j == UNMATCHED));
    assert!(alignment[100..].iter().copied().eq(0..2_900));
}

#[test]
fn nothing_aligns_with_nothing() {
    assert!(align(&[], &[], 0).is_empty());
    assert!(align(&[], &[0; 100], 1).is_empty());
    assert_eq!(align(&[0; 100], &[], 1), [UNMATCHED; 100]);
    assert_eq!(align(&[0; 100], &[1; 100], 2), [UNMATCHED; 100]);
}
