//! `lmcore::ngrams`: BLEU, choices and counts against plain loops.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use lmcore::error::Kind;
use lmcore::ngrams::{
    MOST_ORDER, Smoothing, choose_candidates_batch, count_ngrams, self_bleu, sentence_bleu_batch,
};
use lmcore::text::{StringRows, Strings};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn rows_of<S: AsRef<str>>(rows: &[Vec<S>]) -> StringRows {
    let mut all = StringRows::default();
    for row in rows {
        for text in row {
            all.open().push(text.as_ref());
        }
        all.end_row();
    }
    all
}

fn text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["a", "a", "b", "b", "c", "é", "", "\u{3000}", "\u{1c}"]);
    prop::collection::vec(word, 0..14).prop_map(|words| words.join(" "))
}

fn grams(text: &str, n: usize) -> BTreeMap<Vec<&str>, i64> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
        .filter(|word| !word.is_empty())
        .collect();
    let mut counts = BTreeMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram.to_vec()).or_default() += 1;
    }
    counts
}

/// BLEU with a tenth of an n-gram for none, as a product of powers.
fn plain_bleu(hypothesis: &str, references: &[&str], order: usize) -> f64 {
    let length: i64 = grams(hypothesis, 1).values().sum();
    let lengths = references.iter().map(|text| grams(text, 1).values().sum::<i64>());
    let nearest = lengths.min_by_key(|other| ((other - length).abs(), *other)).unwrap();
    let mut score =
        if length > nearest { 1.0 } else { (1.0 - nearest as f64 / length as f64).exp() };
    for n in 1..=order {
        let own = grams(hypothesis, n);
        let clipped: i64 = own
            .iter()
            .map(|(gram, &count)| {
                let most = references.iter().map(|r| grams(r, n).get(gram).copied().unwrap_or(0));
                count.min(most.max().unwrap_or(0))
            })
            .sum();
        if n == 1 && clipped == 0 {
            return 0.0;
        }
        let total = own.values().sum::<i64>().max(1) as f64;
        let precision = if clipped == 0 { 0.1 / total } else { clipped as f64 / total };
        score *= precision.powf(1.0 / order as f64);
    }
    score
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn bleu_is_that_of_a_loop(
        hypothesis in text(), references in prop::collection::vec(text(), 1..4), order in 1_usize..6
    ) {
        let texts: Strings = [&hypothesis].into_iter().collect();
        let rows = rows_of(std::slice::from_ref(&references));
        let got = sentence_bleu_batch(texts.all(), &rows, order, Smoothing::Method1, Some(1));
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        for (n, score) in (1..=order).zip(got.unwrap()) {
            prop_assert!((score - plain_bleu(&hypothesis, &references, n)).abs() < 1e-12);
        }
    }

    #[test]
    fn self_bleu_is_bleu_against_the_others(texts in prop::collection::vec(text(), 2..7)) {
        let all: Strings = texts.iter().collect();
        let rows: Vec<i64> = (0..).take(texts.len()).collect();
        let others: Vec<Vec<&String>> = (0..texts.len())
            .map(|own| texts.iter().enumerate().filter(|(k, _)| *k != own).map(|(_, t)| t).collect())
            .collect();
        for smoothing in [Smoothing::Method1, Smoothing::Method4] {
            let expected = sentence_bleu_batch(all.all(), &rows_of(&others), 5, smoothing, Some(1));
            prop_assert_eq!(self_bleu(all.all(), &rows, 5, smoothing), expected);
        }
    }

    #[test]
    fn counts_are_those_of_a_loop(texts in prop::collection::vec(text(), 0..5)) {
        let all: Strings = texts.iter().collect();
        let counts = count_ngrams(all.all(), 3).unwrap();
        for n in 1..=3 {
            let mut expected = BTreeMap::new();
            for (row, text) in texts.iter().enumerate() {
                let own = grams(text, n);
                let most = own.values().copied().max().unwrap_or(0);
                prop_assert_eq!(counts.most[row * 3 + n - 1], most);
                for (gram, count) in own {
                    *expected.entry(gram).or_insert(0) += count;
                }
            }
            let mut expected: Vec<i64> = expected.into_values().collect();
            let mut got = counts.occurrences[n - 1].clone();
            expected.sort_unstable();
            got.sort_unstable();
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn threads_change_nothing(groups in prop::collection::vec(prop::collection::vec(text(), 1..4), 0..9)) {
        // More rows than one thread takes at a time.
        let many: Vec<Vec<String>> = groups.iter().cycle().take(groups.len() * 70).cloned().collect();
        let rows = rows_of(&many);
        let one = choose_candidates_batch(&rows, 4, Smoothing::Method4, Some(1)).unwrap();
        prop_assert_eq!(&one, &choose_candidates_batch(&rows, 4, Smoothing::Method4, Some(3)).unwrap());
        let mut start = 0;
        for (group, &best) in many.iter().zip(&one.best) {
            let sums = &one.sums[start..start + group.len()];
            let best = usize::try_from(best).unwrap();
            prop_assert!(sums[..best].iter().all(|&sum| sum < sums[best]));
            prop_assert!(sums[best..].iter().all(|&sum| sum <= sums[best]));
            start += group.len();
        }
    }
}

#[test]
fn sums_that_tie_are_rounded_once() {
    // 1.0 + 2^-53 + 2^-106 is above the middle of two numbers; each logarithm alone is not.
    let texts: Strings = ["a b c d e", "a b c d f"].into_iter().collect();
    let rows = rows_of(&[vec!["a b c x e"], vec!["a b c d f"]]);
    let got = sentence_bleu_batch(texts.all(), &rows, 4, Smoothing::Method1, None).unwrap();
    let first = 0.25 * (0.8_f64.ln() + 0.5_f64.ln() + (1.0_f64 / 3.0).ln() + 0.05_f64.ln());
    assert!((got[3] - first.exp()).abs() < 1e-15);
    assert_eq!(got[7].to_bits(), 1.0_f64.to_bits());
}

#[test]
fn what_cannot_be_is_refused() {
    let texts: Strings = ["a", "b"].into_iter().collect();
    let method = Smoothing::Method4;
    let short = sentence_bleu_batch(texts.all(), &rows_of(&[vec!["a"]]), 4, method, None);
    assert_eq!(
        short.unwrap_err().to_string(),
        "hypotheses and references must have the same length: got 2 and 1"
    );
    let empty = sentence_bleu_batch(texts.all(), &rows_of(&[vec!["a"], vec![]]), 4, method, None);
    let empty = empty.unwrap_err();
    assert_eq!(empty.to_string(), "references[1] must hold at least one text");
    assert_eq!(empty.kind(), Kind::Value);
    let none: Vec<Vec<&str>> = vec![vec![]];
    let none = choose_candidates_batch(&rows_of(&none), 4, method, None).unwrap_err();
    assert_eq!(none.to_string(), "groups[0] must hold at least one text");
    for order in [0, MOST_ORDER + 1] {
        let wrong = count_ngrams(texts.all(), order).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            format!("order must be at least 1 and at most 16: got {order}")
        );
    }
    let row = self_bleu(texts.all(), &[0, 2], 4, method).unwrap_err();
    assert_eq!(row.to_string(), "rows[1] must be at least 0 and below 2: got 2");
    assert_eq!(row.kind(), Kind::Index);
    let one: Strings = ["a"].into_iter().collect();
    let alone = self_bleu(one.all(), &[], 4, method).unwrap_err();
    assert_eq!(alone.to_string(), "the number of texts must be at least 2: got 1");
}
