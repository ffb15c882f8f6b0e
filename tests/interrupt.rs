//! `lmcore::interrupt`: whatever may last in the core ends when its caller wants to stop.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;
use std::time::Duration;

use lmcore::entities::{
    Scheme, Types, count_entities, count_entities_batch, decode_spans, normalize_text_into,
};
use lmcore::error::{Error, Result};
use lmcore::interrupt::{Steps, check, check_now, with_hook};
use lmcore::lcs::{Lcs, align_integers, align_strings};
use lmcore::matching::{MatchInput, Matcher, match_labels, match_labels_batch};
use lmcore::predictions::{
    AlignOptions, Found, Hooks, RowBuffer, RowReader, RowValues, ScoreOptions, ScoredFile, Table,
    align_file, align_row, score_examples, score_files,
};
use lmcore::text::{StringRows, Strings};
use lmcore::words::{locate_words, split_words, to_characters};

/// More than the steps between two looks.
const MANY: usize = 5 << 18;

/// Asserts that the work ends early where the caller stops, and else does not.
fn assert_stops<T>(work: impl Fn() -> Result<T>) {
    let stopped = with_hook(Duration::ZERO, || Err(Error::Stopped), &work);
    assert_eq!(stopped.err(), Some(Error::Stopped));
    assert!(with_hook(Duration::ZERO, || Ok(()), &work).is_ok());
    assert!(work().is_ok());
}

fn repeat(text: &str) -> Strings {
    std::iter::repeat_n(text, MANY).collect()
}

#[test]
fn words() {
    let text = "a ".repeat(MANY);
    let ranges = split_words(&text).unwrap();
    assert_stops(|| split_words(&text));
    assert_stops(|| split_words(&" ".repeat(MANY)));
    assert_stops(|| split_words(&"a".repeat(MANY)));
    assert_stops(|| split_words(&"é".repeat(MANY)));
    assert_stops(|| locate_words(&text, repeat("a").all()));
    assert_stops(|| to_characters(&text, &ranges));
}

#[test]
fn lcs() {
    // Reversed: nothing but a whole table finds that the longest is one.
    let size = 40_000_u32;
    let (a, b): (Vec<u32>, Vec<u32>) = ((0..size).collect(), (0..size).rev().collect());
    assert_stops(|| Lcs::default().align(&a, &b, size as usize, &mut Vec::new()));
    let integers: Vec<i64> = (0..i64::from(size)).collect();
    let reversed: Vec<i64> = integers.iter().rev().copied().collect();
    assert_stops(|| align_integers(&integers, &reversed));
    assert_stops(|| align_integers(&vec![1; MANY], &[1]));
    let (one, many) = (Strings::from_iter(["a"]), repeat("a"));
    assert_stops(|| align_strings(many.all(), one.all()));
    assert_stops(|| align_strings(one.all(), many.all()));
}

#[test]
fn matching() {
    let (words, generation) = (repeat("a"), "a(O) ".repeat(MANY));
    let list = Strings::from_iter(["x"]);
    assert_stops(|| Matcher::default().parse(&generation));
    assert_stops(|| Matcher::default().parse(&"(".repeat(MANY)));
    let input = MatchInput {
        words: words.all(),
        generation: &generation,
        label_list: list.all(),
        comparison_words: None,
    };
    for split in [false, true] {
        assert_stops(|| match_labels(&input, split));
    }
    let (mut rows, mut lists, mut texts) =
        (StringRows::default(), StringRows::default(), Strings::default());
    for _ in 0..600 {
        (0..6000).for_each(|_| rows.open().push("O"));
        rows.end_row();
        lists.open().push("x");
        lists.end_row();
        texts.push("a(O)");
    }
    for threads in [1, 2] {
        assert_stops(|| match_labels_batch(&rows, texts.all(), &lists, None, Some(threads)));
        assert_stops(|| count_entities_batch(None, &rows, &rows, Scheme::Strict, Some(threads)));
    }
}

#[test]
fn entities() {
    let labels = repeat("B-x");
    assert_stops(|| decode_spans(labels.all(), Scheme::Gner));
    assert_stops(|| Types::default().read_all("labels", labels.all(), &mut Vec::new()));
    assert_stops(|| count_entities(None, labels.all(), labels.all(), Scheme::Strict));
    for text in ["a b.", "Ä b."] {
        assert_stops(|| normalize_text_into(&text.repeat(MANY / 2), &mut String::new()));
    }
}

/// A row of many words, each of them "O".
struct LongRow;

impl RowReader for LongRow {
    type Value = usize;

    fn find(&mut self, _: usize) -> Result<RowValues<usize>> {
        let many = Found { at_top: Some(MANY), in_instance: None };
        Ok(RowValues {
            types: None,
            dataset: None,
            label_list: Some(0),
            instance_problem: None,
            words: many,
            labels: many,
            prediction: Some(1),
        })
    }

    fn text<'v>(&self, _: &'v usize) -> Result<&'v str> {
        Ok("a(O)")
    }

    fn extend_strings(&self, count: &usize, strings: &mut Strings) -> Result<()> {
        (0..*count).for_each(|_| strings.push("O"));
        Ok(())
    }

    fn is_same(&self, _: &usize, _: &usize) -> bool {
        false
    }
}

#[test]
fn predictions() {
    // More words than what a list grows by at a time.
    let size = MANY;
    let words = vec!["\"a\""; size].join(",");
    let labels = vec!["\"O\""; size].join(",");
    let line = format!(
        r#"{{"label_list": [], "words": [{words}], "labels": [{labels}], "prediction": "a(O)"}}"#
    );
    assert_stops(|| RowBuffer::default().read(line.as_bytes()));
    let unusual = line.replacen(',', "\t,", 1);
    assert_stops(|| RowBuffer::default().read(unusual.as_bytes()));
    assert_stops(|| align_row(&line, Scheme::Gner));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(line.as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let scheme = Scheme::Gner;
    for (threads, tokenized) in [(1, false), (2, true)] {
        let threads = Some(threads);
        assert_stops(|| {
            let options = ScoreOptions { scheme, threads, worst: 1, skip_bad_rows: true };
            let mut same = |words: &[String]| Ok(words.to_vec());
            let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
            if tokenized {
                hooks.back_tokenize = Some(&mut same);
            }
            score_files(&[ScoredFile::new(file.path())], &options, &mut hooks)
        });
        assert_stops(|| {
            let options = AlignOptions { scheme, threads, skip_bad_rows: true };
            let output = folder.path().join("out.jsonl");
            let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
            align_file(file.path(), &output, &options, &mut hooks)
        });
    }
    assert_stops(|| {
        let mut left = 1;
        let mut next = |table: &mut Table, _| {
            let rows = std::mem::take(&mut left);
            table.extend(&mut LongRow, 0..rows)
        };
        let options = ScoreOptions { scheme, threads: Some(1), worst: 0, skip_bad_rows: true };
        let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
        score_examples(&mut next, &options, &mut hooks)
    });
}

#[test]
fn a_hook_is_asked_when_its_time_has_come() {
    let asked = std::rc::Rc::new(std::cell::Cell::new(0));
    let ask = {
        let asked = asked.clone();
        move || {
            asked.set(asked.get() + 1);
            Ok(())
        }
    };
    with_hook(Duration::from_secs(3600), ask, || {
        let mut steps = Steps::default();
        for _ in 0..MANY {
            assert_eq!((steps.take(1), check()), (Ok(()), Ok(())));
        }
        assert_eq!(asked.get(), 0);
        // A hook within the hook hides it, and gives it back.
        with_hook(Duration::ZERO, || Ok(()), || assert_eq!(check(), Ok(())));
        assert_eq!(asked.get(), 0);
        assert_eq!(check_now(), Ok(()));
    });
    assert_eq!(asked.get(), 1);
    assert_eq!(check_now(), Ok(()));
    assert_eq!(asked.get(), 1);
}
