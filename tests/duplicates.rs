//! `lmcore::duplicates`: what stood before against sets of texts.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashSet;

use lmcore::cleaning::Rules;
use lmcore::duplicates::{Duplicates, ENTRY_BYTES, Key, Search};
use lmcore::error::Kind;
use lmcore::text::Strings;
use proptest::prelude::*;

const KEY: [u8; 16] = [7; 16];
const RULES: Rules = Rules {
    html: false,
    links: false,
    emails: false,
    phone_numbers: false,
    most_repeats: 0,
    minimum_words: 0,
};

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn new() -> Duplicates {
    Duplicates::new(Key::new(KEY), None).unwrap()
}

fn documents() -> impl Strategy<Value = Vec<String>> {
    let sentence = prop::sample::select(vec!["It rains. ", "他走了。", "We stay.\n", "Go! ", "x"]);
    let document = prop::collection::vec(sentence, 0..7).prop_map(|parts| parts.concat());
    prop::collection::vec(document, 0..6)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_stood_before_is_known(texts in prop::collection::vec(".{0,9}", 0..40), many in 1..9_u8) {
        let texts: Vec<String> = (0..many).flat_map(|_| texts.clone()).collect();
        let mut known = HashSet::new();
        let expected: Vec<bool> = texts.iter().map(|text| !known.insert(text.clone())).collect();
        for threads in [1, 3] {
            let mut seen = new();
            let strings: Strings = texts.iter().collect();
            prop_assert_eq!(&seen.add_batch(strings.all(), Some(threads)).unwrap(), &expected);
            prop_assert_eq!(seen.table().len(), known.len());
        }
    }

    #[test]
    fn nothing_stands_twice_in_what_is_left(texts in documents(), sentences in 0_usize..4) {
        let search = Search { documents: true, sentences, rules: RULES };
        let strings: Strings = texts.iter().collect();
        let once = new().remove_batch(strings.all(), &search, Some(1)).unwrap();
        let left: Strings =
            once.texts.all().iter().zip(&once.fates).filter(|row| *row.1 == 0).map(|r| r.0).collect();
        let again = new().remove_batch(left.all(), &search, Some(3)).unwrap();
        prop_assert!(again.texts.all().equals(left.all()));
        prop_assert_eq!((again.documents, again.paragraphs), ((0, 0), (0, 0)));
    }
}

#[test]
fn hashes_come_back() {
    let lines: Strings = (0..5000).map(|line| format!("line {line}")).collect();
    let mut seen = new();
    seen.table_mut().keep_added();
    seen.add_batch(lines.all(), Some(2)).unwrap();
    let stored = seen.table_mut().take_added();
    assert_eq!(stored.len(), 5000 * ENTRY_BYTES);
    assert!(seen.table_mut().take_added().is_empty());
    let mut again = new();
    again.table_mut().load(&stored).unwrap();
    assert!(again.add_batch(lines.all(), None).unwrap().into_iter().all(|known| known));
    let error = again.table_mut().load(&stored[1..]).unwrap_err();
    assert_eq!(error.kind(), Kind::Value);
    assert_eq!(error.to_string(), "stored hashes must be a multiple of 10 bytes long: got 49999");
}

#[test]
fn a_bound_is_kept() {
    let lines: Strings = (0..5000).map(|line| format!("line {line}")).collect();
    let most = new().table().bytes() + 20_000;
    let mut seen = Duplicates::new(Key::new(KEY), Some(most)).unwrap();
    let error = seen.add_batch(lines.all(), Some(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::Memory);
    assert!(error.to_string().contains(&format!("fill max_memory, {most} bytes")));
    assert!(seen.table().bytes() <= most);
    let kept = seen.table().len();
    let first: Strings = (0..kept).map(|line| format!("line {line}")).collect();
    assert!(seen.add_batch(first.all(), Some(1)).unwrap().into_iter().all(|known| known));
}
