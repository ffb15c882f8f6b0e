//! `lmcore::ranking`: ranks against a sort, and the laws that they obey.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::float_cmp, reason = "ranks are multiples of a half")]

use std::cmp::Ordering;
use std::collections::BTreeSet;

use lmcore::error::Error;
use lmcore::ranking::{
    Metrics, TIES_NAMES, Targets, Ties, list_excluded, rank_targets, ranking_metrics,
};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

#[derive(Debug, Clone)]
struct Case {
    rows: Vec<Vec<f32>>,
    columns: Vec<i64>,
    offsets: Vec<i64>,
    excluded: Vec<i64>,
}

impl Case {
    fn targets(&self) -> Targets<'_> {
        Targets { columns: &self.columns, offsets: &self.offsets, excluded: &self.excluded }
    }

    fn rank(&self, ties: Ties, threads: usize) -> lmcore::error::Result<(Vec<f64>, Vec<i64>)> {
        let rows: Vec<&[f32]> = self.rows.iter().map(Vec::as_slice).collect();
        rank_targets(&rows, self.targets(), ties, Some(threads))
    }

    /// The columns that compete with the target of a user.
    fn others(&self, user: usize) -> impl Iterator<Item = usize> {
        let offset = |k: usize| usize::try_from(self.offsets[k]).unwrap();
        let history = self.excluded[offset(user)..offset(user + 1)].to_vec();
        let target = self.columns[user];
        (0_i64..)
            .zip(0..self.rows[user].len())
            .filter(move |(id, _)| *id != target && !history.contains(id))
            .map(|(_, column)| column)
    }
}

/// Rows of one width with scores of few or of many values.
fn cases() -> impl Strategy<Value = Case> {
    let width = prop_oneof![1_usize..6, 62_usize..67, 127_usize..131];
    let few =
        prop::sample::select(vec![0.0_f32, -0.0, 1.0, -2.5, f32::INFINITY, f32::NEG_INFINITY]);
    let many = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO;
    (width, 0_usize..5, any::<bool>()).prop_flat_map(move |(width, users, is_few)| {
        let score = if is_few { few.clone().boxed() } else { many.boxed() };
        let end = i64::try_from(width).unwrap();
        let row = prop::collection::vec(score, width);
        let history = prop::collection::vec(0..end, 0..9);
        prop::collection::vec((row, 0..end, history), users).prop_map(|users| {
            let mut case =
                Case { rows: vec![], columns: vec![], offsets: vec![0], excluded: vec![] };
            for (row, column, history) in users {
                case.rows.push(row);
                case.columns.push(column);
                case.excluded.extend(history);
                case.offsets.push(i64::try_from(case.excluded.len()).unwrap());
            }
            case
        })
    })
}

fn rules() -> impl Strategy<Value = Ties> {
    prop::sample::select(vec![Ties::Average, Ties::Optimistic, Ties::Pessimistic])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn ranks_are_places_in_a_sorted_list(case in cases(), rule in rules()) {
        let (ranks, ties) = case.rank(rule, 1).unwrap();
        for user in 0..case.rows.len() {
            let row = &case.rows[user];
            let score = row[usize::try_from(case.columns[user]).unwrap()];
            let mut sorted: Vec<f32> = case.others(user).map(|column| row[column]).collect();
            sorted.sort_by(|x, y| y.partial_cmp(x).unwrap_or(Ordering::Equal));
            let first = sorted.partition_point(|&x| x > score);
            let last = sorted.partition_point(|&x| x >= score);
            let expected = match rule {
                Ties::Average => f64::midpoint(first as f64, last as f64),
                Ties::Optimistic => first as f64,
                Ties::Pessimistic => last as f64,
            };
            prop_assert_eq!(ranks[user], expected);
            prop_assert_eq!(ties[user], i64::try_from(last - first).unwrap());
        }
    }

    #[test]
    fn what_is_no_number_is_named(
        mut case in cases(),
        nans in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 1..4),
        rule in rules(),
    ) {
        if case.rows.is_empty() {
            return Ok(());
        }
        for [row, column] in nans {
            let row: &mut Vec<f32> = row.get_mut(&mut case.rows);
            *column.get_mut(row) = f32::NAN;
        }
        let first = (0..case.rows.len()).find_map(|user| {
            let target = usize::try_from(case.columns[user]).unwrap();
            let candidates: BTreeSet<usize> = case.others(user).chain([target]).collect();
            let mut unordered = candidates.into_iter().filter(|&c| case.rows[user][c].is_nan());
            unordered.next().map(|column| format!("scores[{user}, {column}] must be a number: got nan"))
        });
        let error = case.rank(rule, 2).err().map(|error| error.to_string());
        prop_assert_eq!(error, first);
    }

    #[test]
    fn excluded_places_are_listed_once(case in cases()) {
        let width = case.rows.first().map_or(5, Vec::len);
        let (rows, columns) = list_excluded(width, case.targets()).unwrap();
        let listed: BTreeSet<(i64, i64)> = rows.iter().copied().zip(columns.clone()).collect();
        prop_assert_eq!(listed.len(), rows.len());
        for (user, id) in (0..case.rows.len()).zip(0_i64..) {
            let out = listed.iter().filter(|pair| pair.0 == id).count();
            prop_assert_eq!(out + case.others(user).count() + 1, width);
        }
    }

    #[test]
    fn metrics_are_means(
        ranks in prop::collection::vec(0_u32..40, 1..30),
        cutoffs in prop::collection::vec(1_i64..30, 0..4),
    ) {
        let ranks: Vec<f64> = ranks.iter().map(|&twice| f64::from(twice) / 2.0).collect();
        let Metrics { hit_rates, gains, reciprocal_rank } =
            ranking_metrics(&ranks, &cutoffs).unwrap();
        let count = ranks.len() as f64;
        for ((&k, &rate), &gain) in cutoffs.iter().zip(&hit_rates).zip(&gains) {
            let hits: Vec<f64> = ranks.iter().copied().filter(|&rank| rank < k as f64).collect();
            prop_assert_eq!(rate, hits.len() as f64 / count);
            let expected = hits.iter().map(|rank| 1.0 / (rank + 2.0).log2()).sum::<f64>() / count;
            prop_assert!((gain - expected).abs() < 1e-12);
            prop_assert!(gain <= rate && gain >= 0.0);
        }
        let expected = ranks.iter().map(|rank| 1.0 / (rank + 1.0)).sum::<f64>() / count;
        prop_assert!((reciprocal_rank - expected).abs() < 1e-12);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_ranks() {
    let rows: Vec<Vec<f32>> = (0..700_u16)
        .map(|user| {
            (0..97_u16).map(|c| f32::from(user.wrapping_mul(31) ^ (c * 7)) % 50.0).collect()
        })
        .collect();
    let case = Case {
        columns: (0..700).map(|user| user % 97).collect(),
        offsets: (0..=700).map(|user| user * 3).collect(),
        excluded: (0..2_100).map(|k| k * 13 % 97).collect(),
        rows,
    };
    let expected = case.rank(Ties::Average, 1).unwrap();
    assert!(expected.1.iter().any(|&ties| ties > 0));
    for threads in [2, 3, 8] {
        assert_eq!(case.rank(Ties::Average, threads).unwrap(), expected);
    }
}

#[test]
fn counts_of_long_rows_do_not_overflow_a_block() {
    let row = vec![1.0_f64; 200_001];
    let mut other = row.clone();
    other[7] = 0.0;
    let targets = Targets { columns: &[7, 7], offsets: &[0, 0, 0], excluded: &[] };
    let ranked = rank_targets(&[&row, &other], targets, Ties::Pessimistic, Some(1)).unwrap();
    assert_eq!(ranked, (vec![200_000.0; 2], vec![200_000, 0]));
}

#[test]
fn refusals_say_what_is_wrong() {
    let row: &[f32] = &[0.0, 1.0, 2.0];
    let refuse = |rows: &[&[f32]], columns: &[i64], offsets: &[i64], excluded: &[i64]| {
        let targets = Targets { columns, offsets, excluded };
        rank_targets(rows, targets, Ties::Average, Some(1)).unwrap_err()
    };
    for (error, text) in [
        (
            refuse(&[row], &[], &[0, 0], &[]),
            "targets and scores must have the same length: got 0 and 1",
        ),
        (refuse(&[row], &[0], &[0], &[]), "the length of offsets must be 2: got 1"),
        (refuse(&[row], &[0], &[1, 0], &[]), "offsets[0] must be 0: got 1"),
        (refuse(&[row; 2], &[0, 0], &[0, 1, 0], &[0]), "offsets[2] must be at least 1: got 0"),
        (
            refuse(&[row], &[0], &[0, 2], &[1]),
            "offsets[1] must be 1, the length of excluded: got 2",
        ),
        (refuse(&[row], &[3], &[0, 0], &[]), "targets[0] must be at least 0 and below 3: got 3"),
        (
            refuse(&[row; 2], &[0, 0], &[0, 1, 2], &[1, -1]),
            "excluded[1] must be at least 0 and below 3: got -1 (row 1)",
        ),
        (
            refuse(&[row, &row[..2]], &[0, 0], &[0, 0, 0], &[]),
            "scores[1] must be of length 3: got 2",
        ),
        (ranking_metrics(&[], &[1]).unwrap_err(), "the length of ranks must be at least 1: got 0"),
        (
            ranking_metrics(&[0.0, -1e-7], &[1]).unwrap_err(),
            "ranks[1] must be at least 0 and finite: got -1e-07",
        ),
        (
            ranking_metrics(&[0.0], &[1, 0]).unwrap_err(),
            "cutoffs[1] must be at least 1 and below 2**63: got 0",
        ),
        (
            Ties::from_name("it's").unwrap_err(),
            "ties must be one of average, optimistic, pessimistic: got \"it's\"",
        ),
    ] {
        assert_eq!(error.to_string(), text);
        let is_id = text.starts_with("targets[") || text.starts_with("excluded[");
        assert_eq!(matches!(error, Error::IdOutOfRange { .. }), is_id, "{text}");
    }
    let rules = [Ties::Average, Ties::Optimistic, Ties::Pessimistic];
    assert_eq!(TIES_NAMES.map(|name| Ties::from_name(name).unwrap()), rules);
}
