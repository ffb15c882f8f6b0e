//! `lmcore::examples`: rows of examples, their escapes, and the words that a target keeps.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use lmcore::error::Kind;
use lmcore::examples::{Examples, Sentences, write_examples_batch};
use lmcore::text::{StringRows, Strings};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn rows<S: AsRef<str>>(given: &[Vec<S>]) -> StringRows {
    let mut rows = StringRows::default();
    for row in given {
        for item in row {
            rows.open().push(item.as_ref());
        }
        rows.end_row();
    }
    rows
}

fn template(parts: &[&str]) -> Strings {
    parts.iter().copied().collect()
}

fn write(words: &[&str], labels: &[&str], context: Option<usize>) -> String {
    let (types, words, labels) =
        (rows(&[vec!["x"]]), rows(&[words.to_vec()]), rows(&[labels.to_vec()]));
    let heads = template(&["\"id\": 1"]);
    let sentences = Sentences {
        heads: heads.all(),
        types: &types,
        words: &words,
        labels: &labels,
        target_labels: None,
        datasets: None,
    };
    let parts = template(&["", "sentence", "|"]);
    write_examples_batch(sentences, parts.all(), context, None).unwrap().lines
}

fn target(row: &str) -> &str {
    row.split_once("\"target\": \"").unwrap().1.strip_suffix("\"}\n").unwrap()
}

#[test]
fn row() {
    assert_eq!(
        write(&["Ada", "ran"], &["B-x", "O"], None),
        "{\"id\": 1, \"types\": [\"x\"], \"words\": [\"Ada\", \"ran\"], \"labels\": [\"B-x\", \"O\"], \
         \"instruction\": \"Ada ran|\", \"target\": \"Ada(B-x) ran(O)\"}\n"
    );
    assert!(write(&[], &[], None).contains("\"types\": [\"x\"], \"words\": [], \"labels\": []"));
}

#[test]
fn context() {
    let words: Vec<String> = (0..9).map(|number| number.to_string()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let labels = ["O", "O", "B-x", "I-x", "O", "O", "O", "B-x", "O"];
    for (context, expected) in [
        (0, "2(B-x) 3(I-x) 7(B-x)"),
        (1, "1(O) 2(B-x) 3(I-x) 4(O) 6(O) 7(B-x) 8(O)"),
        (usize::MAX, "0(O) 1(O) 2(B-x) 3(I-x) 4(O) 5(O) 6(O) 7(B-x) 8(O)"),
    ] {
        assert_eq!(target(&write(&words, &labels, Some(context))), expected);
    }
    assert_eq!(target(&write(&words[..2], &labels[..2], Some(3))), "");
}

#[test]
fn escapes() {
    let hidden: String =
        "\"\\\n\r\t\u{8}\u{c}\0\u{1b}\u{7f}\u{9b}\u{61c}\u{200e}\u{2028}\u{2069}\u{feff}".into();
    let expected =
        "\\\"\\\\\\n\\r\\t\\b\\f\\u0000\\u001b\\u007f\\u009b\\u061c\\u200e\\u2028\\u2069\\ufeff";
    let row = write(&[&hidden], &["O"], None);
    assert_eq!(target(&row), format!("{expected}(O)"));
    assert!(row.contains(&format!("\"instruction\": \"{expected}|\"")));
    for plain in ["é\u{ad}", "\u{a0}", "\u{600}", "\u{2026}…", "～\u{fffd}", "👍🏽", "北京"]
    {
        assert_eq!(target(&write(&[plain], &["O"], None)), format!("{plain}(O)"));
    }
}

#[test]
fn problems() {
    let (one, two) = (rows(&[vec!["a"]]), rows(&[vec!["a"], vec!["b"]]));
    let long = rows(&[vec!["a", "b"]]);
    let (none, some) = (template(&[]), template(&[""]));
    let headless = Sentences {
        heads: none.all(),
        types: &one,
        words: &one,
        labels: &one,
        target_labels: None,
        datasets: None,
    };
    let sentences = |types, labels, target_labels| Sentences {
        heads: some.all(),
        types,
        words: &one,
        labels,
        target_labels,
        datasets: None,
    };
    let parts = template(&["", "sentence"]);
    for (sentences, text) in [
        (headless, "heads and words must have the same length: got 0 and 1"),
        (sentences(&two, &one, None), "types and words must have the same length: got 2 and 1"),
        (sentences(&one, &two, None), "labels and words must have the same length: got 2 and 1"),
        (
            sentences(&one, &long, None),
            "sentence [0]: labels and words must have the same length: got 2 and 1",
        ),
        (
            sentences(&one, &one, Some(&long)),
            "sentence [0]: target_labels and words must have the same length: got 2 and 1",
        ),
    ] {
        let error = write_examples_batch(sentences, parts.all(), None, None).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Value, text));
    }
    for (parts, text) in [
        (["", "Ada"], "template[1] must be types, sentence or dataset: got 'Ada'"),
        (["", "dataset"], "datasets must be given: the template has a place for them"),
    ] {
        let sentences = sentences(&one, &one, None);
        let error = write_examples_batch(sentences, template(&parts).all(), None, None);
        assert_eq!(error.unwrap_err().to_string(), text);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn threads_change_nothing(
        sentences in prop::collection::vec(prop::collection::vec("[a-c\"(北]{0,3}|\\(B-x", 0..4), 0..4),
        threads in 1_usize..5,
    ) {
        // More rows than one thread takes at a time.
        let count = 300 * sentences.len().min(2);
        let words: Vec<Vec<String>> = sentences.iter().cycle().take(count).cloned().collect();
        let labels: Vec<Vec<&str>> = words.iter().map(|row| vec!["O"; row.len()]).collect();
        let types: Vec<Vec<&str>> = words.iter().map(|_| vec!["x"]).collect();
        let is_empty = words.is_empty();
        let (types, words, labels) = (rows(&types), rows(&words), rows(&labels));
        let heads: Strings = (0..count).map(|_| "").collect();
        let given = Sentences {
            heads: heads.all(), types: &types, words: &words, labels: &labels,
            target_labels: None, datasets: None,
        };
        let parts = template(&["?", "sentence"]);
        let expected = write_examples_batch(given, parts.all(), None, Some(1)).unwrap();
        let got = write_examples_batch(given, parts.all(), None, Some(threads)).unwrap();
        prop_assert_eq!(&got, &expected);
        prop_assert_eq!(is_empty, got == Examples::default());
    }
}
