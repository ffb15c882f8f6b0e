//! `lmcore::entities`: the paper's examples, the laws of counting, and a slow second opinion.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::float_cmp, reason = "the same arithmetic gives the same bits")]

use std::collections::BTreeSet;

use lmcore::entities::{
    EntityCounts, ErrorKinds, SCHEME_NAMES, Scheme, compute_quality, count_entities,
    count_entities_batch, decode_spans, normalize_text_into,
};
use lmcore::text::{StringRows, Strings};
use proptest::prelude::*;

type Span = (usize, usize, String);

fn config() -> ProptestConfig {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn strings(words: &[String]) -> Strings {
    words.iter().collect()
}

fn owned(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

fn normalize(text: &str) -> String {
    let mut out = String::from("kept");
    normalize_text_into(text, &mut out).unwrap();
    out.strip_prefix("kept").unwrap().to_owned()
}

fn spans(labels: &[String], scheme: Scheme) -> Vec<Span> {
    decode_spans(strings(labels).all(), scheme).unwrap()
}

fn count(
    words: &[String],
    gold: &[String],
    predicted: &[String],
    scheme: Scheme,
) -> (EntityCounts, ErrorKinds) {
    let (words, gold, predicted) = (strings(words), strings(gold), strings(predicted));
    count_entities(Some(words.all()), gold.all(), predicted.all(), scheme).unwrap()
}

/// The definition of spans: where each starts, by looking at a label and the one before it.
fn spans_by_neighbours(labels: &[String], scheme: Scheme) -> Vec<Span> {
    let mut found: Vec<Span> = Vec::new();
    let mut open = false;
    for (i, label) in labels.iter().enumerate() {
        let inside = label.starts_with("I-");
        let kind = label.get(2..).unwrap_or_default();
        let same = found.last().is_some_and(|span| span.2 == kind);
        let continues = open && inside && (same || scheme == Scheme::Gner);
        match (label == "O", continues) {
            (true, _) => open = false,
            (false, true) => {
                let last = found.last_mut().unwrap();
                *last = (last.0, i + 1, kind.to_owned());
            }
            (false, false) => {
                open = !(inside && scheme == Scheme::Iob2);
                if open {
                    found.push((i, i + 1, kind.to_owned()));
                }
            }
        }
    }
    found
}

/// Lower case, punctuation out, articles out, white space to single spaces: step by step.
fn normalize_in_steps(text: &str) -> String {
    let lower: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut pieces = vec![String::new()];
    let mut letters = false;
    for character in lower.chars() {
        let letter = lmcore::text::is_alphanumeric(character);
        if letter != letters {
            pieces.push(String::new());
            letters = letter;
        }
        pieces.last_mut().unwrap().push(character);
    }
    let kept: String = pieces
        .iter()
        .map(|piece| if ["a", "an", "the"].contains(&piece.as_str()) { " " } else { piece })
        .collect();
    kept.split(lmcore::text::is_space).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Counts by sets of comparable entities.
fn count_by_sets(
    words: &[String],
    gold: &[String],
    predicted: &[String],
    scheme: Scheme,
) -> EntityCounts {
    let entities = |labels: &[String]| -> BTreeSet<(usize, usize, String, String)> {
        spans_by_neighbours(labels, scheme)
            .into_iter()
            .map(|(start, end, kind)| {
                let text = normalize_in_steps(&words[start..end].join(" "));
                match scheme {
                    Scheme::Gner => (0, 0, text, normalize_in_steps(&kind)),
                    Scheme::UniversalNer => (0, 0, text, kind),
                    _ => (start, end, String::new(), kind),
                }
            })
            .collect()
    };
    let (gold, predicted) = (entities(gold), entities(predicted));
    EntityCounts {
        gold: gold.len() as u64,
        predicted: predicted.len() as u64,
        correct: gold.intersection(&predicted).count() as u64,
    }
}

#[test]
fn entities_of_the_paper() {
    let words = owned("The Beatles and Beatles and U.S. U S x");
    let labels = owned("B-band I-band O B-band O B-loc B-loc I-loc I-per");
    let expected = [(0, 2, "band"), (3, 4, "band"), (5, 6, "loc"), (6, 9, "per")];
    let expected = expected.map(|(start, end, kind)| (start, end, kind.to_owned()));
    assert_eq!(spans(&labels, Scheme::Gner), expected);
    let (counts, _) = count(&words, &labels, &labels, Scheme::Gner);
    assert_eq!(counts, EntityCounts { gold: 3, predicted: 3, correct: 3 });
}

#[test]
fn normal_forms() {
    for (text, normal) in [
        ("The  U.S. Army", "us army"),
        ("!?", ""),
        ("a an the", ""),
        ("A.n answer", "answer"),
        ("a\u{301}", "\u{301}"),
        ("İ ΑΣ", "i\u{307} ας"),
        ("北a京 a", "北a京"),
        ("\u{1c}the\u{85}x", "x"),
    ] {
        assert_eq!(normalize(text), normal);
    }
}

#[test]
fn schemes_have_names() {
    for name in SCHEME_NAMES {
        assert!(Scheme::from_name(name).is_ok());
    }
    let error = Scheme::from_name("Gner").unwrap_err().to_string();
    let names = "gner, universalner, strict, conll, iob2";
    assert!(error.starts_with(&format!("scheme must be one of {names}: got ")), "{error}");
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let (one, two) = (strings(&owned("O")), strings(&owned("O x")));
    let refuse = |words: &Strings, gold: &Strings, predicted: &Strings| {
        let result = count_entities(Some(words.all()), gold.all(), predicted.all(), Scheme::Strict);
        result.unwrap_err().to_string()
    };
    assert_eq!(refuse(&two, &one, &one), "words and gold must have the same length: got 2 and 1");
    assert_eq!(
        refuse(&one, &one, &two),
        "words and predicted must have the same length: got 1 and 2"
    );
    assert!(refuse(&two, &two, &two).ends_with("must be O, B-<type> or I-<type>: got 'x'"));
    let rows = StringRows::default();
    let error =
        count_entities_batch(None, &rows, &rows, Scheme::Gner, None).unwrap_err().to_string();
    assert!(error.starts_with("words are needed"), "{error}");
}

#[test]
fn nothing_over_nothing_is_zero() {
    for name in SCHEME_NAMES {
        let scheme = Scheme::from_name(name).unwrap();
        assert_eq!(compute_quality(EntityCounts::default(), scheme), [0.0; 3]);
    }
}

fn schemes() -> impl Strategy<Value = Scheme> {
    prop::sample::select(SCHEME_NAMES.to_vec()).prop_map(|name| Scheme::from_name(name).unwrap())
}

fn label() -> impl Strategy<Value = String> {
    prop::sample::select(owned("O O B-x I-x B-y I-y B- I- B-The-x I-x! B-é"))
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[abAx.]{0,2}", Just("the".to_owned()), "[aΣİ北\u{301} !]{0,3}", any::<String>()]
}

/// Words, gold labels, and predicted labels that are often the gold ones.
fn sentences() -> impl Strategy<Value = [Vec<String>; 3]> {
    prop::collection::vec((word(), label(), label(), 0..3), 0..24).prop_map(|rows| {
        let mut columns = [const { Vec::new() }; 3];
        for (word, gold, other, kind) in rows {
            columns[2].push(if kind == 0 { other } else { gold.clone() });
            columns[0].push(word);
            columns[1].push(gold);
        }
        columns
    })
}

fn push_row(rows: &mut StringRows, row: &[String]) {
    for string in row {
        rows.open().push(string);
    }
    rows.end_row();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn spans_are_those_of_the_definition(
        labels in prop::collection::vec(label(), 0..16),
        scheme in schemes(),
    ) {
        prop_assert_eq!(spans(&labels, scheme), spans_by_neighbours(&labels, scheme));
    }

    #[test]
    fn spans_are_apart_and_cover_the_labels(
        labels in prop::collection::vec(label(), 0..16),
        scheme in schemes(),
    ) {
        let spans = spans(&labels, scheme);
        prop_assert!(spans.iter().all(|span| span.0 < span.1 && span.1 <= labels.len()));
        prop_assert!(spans.windows(2).all(|two| two[0].1 <= two[1].0));
        let covered = |i: usize| spans.iter().any(|span| (span.0..span.1).contains(&i));
        for (i, label) in labels.iter().enumerate() {
            if scheme == Scheme::Iob2 {
                prop_assert!(!covered(i) || label != "O");
            } else {
                prop_assert_eq!(covered(i), label != "O");
            }
        }
    }

    #[test]
    fn any_label_is_read_or_refused(labels in prop::collection::vec(any::<String>(), 0..5)) {
        let valid = |label: &String| {
            label == "O" || label.starts_with("B-") || label.starts_with("I-")
        };
        let read = decode_spans(strings(&labels).all(), Scheme::Gner);
        prop_assert_eq!(read.is_ok(), labels.iter().all(valid));
    }

    #[test]
    fn normal_forms_are_those_of_the_steps(text in prop_oneof![
        any::<String>(),
        "[athe_.AΣİ北\u{301} \u{1c}\n]{0,20}",
        prop::collection::vec(word(), 0..8).prop_map(|words| words.join(" ")),
    ]) {
        let normal = normalize(&text);
        prop_assert_eq!(&normal, &normalize_in_steps(&text));
        prop_assert_eq!(&normalize(&normal), &normal);
    }

    #[test]
    fn counts_are_those_of_sets([words, gold, predicted] in sentences(), scheme in schemes()) {
        let (counts, _) = count(&words, &gold, &predicted, scheme);
        prop_assert_eq!(counts, count_by_sets(&words, &gold, &predicted, scheme));
    }

    #[test]
    fn swapping_sides_swaps_the_counts(
        [words, gold, predicted] in sentences(),
        scheme in schemes(),
    ) {
        let (counts, _) = count(&words, &gold, &predicted, scheme);
        let (swapped, _) = count(&words, &predicted, &gold, scheme);
        prop_assert_eq!(
            swapped,
            EntityCounts { gold: counts.predicted, predicted: counts.gold, correct: counts.correct }
        );
        let [precision, recall, f1] = compute_quality(counts, scheme);
        let [other_precision, other_recall, other_f1] = compute_quality(swapped, scheme);
        prop_assert!(precision == other_recall && recall == other_precision && f1 == other_f1);
        prop_assert!([precision, recall, f1].iter().all(|value| (0.0..=1.0).contains(value)));
    }

    #[test]
    fn errors_add_up([words, gold, predicted] in sentences(), scheme in schemes()) {
        let (_, kinds) = count(&words, &gold, &predicted, scheme);
        let (wanted, found) = (spans(&gold, scheme), spans(&predicted, scheme));
        let (mut unlabelled, mut noisy, mut boundary) = (0, 0, 0);
        for entity in &wanted {
            let touching: Vec<&Span> =
                found.iter().filter(|s| s.0 < entity.1 && entity.0 < s.1).collect();
            if touching.contains(&entity) {
            } else if touching.is_empty() {
                unlabelled += 1;
            } else if touching.iter().any(|span| span.2 == entity.2) {
                boundary += 1;
            } else {
                noisy += 1;
            }
        }
        let gold = wanted.len() as u64;
        prop_assert_eq!(kinds, ErrorKinds { gold, unlabelled, noisy, boundary });
    }
}

proptest! {
    // Each case starts several pools of threads.
    #![proptest_config(ProptestConfig { cases: config().cases / 16 + 1, ..config() })]

    #[test]
    fn any_number_of_threads_gives_the_sum(
        rows in prop::collection::vec(sentences(), 0..8),
        copies in 1_usize..80,
        scheme in schemes(),
    ) {
        let mut expected = (EntityCounts::default(), ErrorKinds::default());
        let mut columns = [(); 3].map(|()| StringRows::default());
        for row in rows.iter().cycle().take(rows.len() * copies) {
            let (counts, kinds) = count(&row[0], &row[1], &row[2], scheme);
            expected.0 += counts;
            expected.1 += kinds;
            for (column, strings) in columns.iter_mut().zip(row) {
                push_row(column, strings);
            }
        }
        let [words, gold, predicted] = &columns;
        for threads in [Some(1), Some(2), Some(3), Some(8), None] {
            let sums = count_entities_batch(Some(words), gold, predicted, scheme, threads).unwrap();
            prop_assert_eq!(sums, expected);
        }
    }
}
