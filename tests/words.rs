//! `lmcore::words`: cutting text, and finding words again.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use lmcore::text::{Strings, is_alphanumeric, is_mark, is_space};
use lmcore::words::{Range, locate_words, split_words, to_characters};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn cut(text: &str) -> Vec<&str> {
    split_words(text).unwrap().iter().map(|range| &text[range.start..range.end]).collect()
}

#[test]
fn rule() {
    let cases: [(&str, &[&str]); 14] = [
        (" \t\n\u{3000}\u{1c}", &[]),
        ("EU rejects German call.", &["EU", "rejects", "German", "call", "."]),
        ("a-b-c -d e- f--g", &["a-b-c", "-", "d", "e", "-", "f", "-", "-", "g"]),
        ("$1,000.50", &["$", "1", ",", "000", ".", "50"]),
        ("don't snake_case", &["don", "'", "t", "snake_case"]),
        ("北京2008年", &["北", "京", "2008", "年"]),
        ("北-京 a-京", &["北", "-", "京", "a", "-", "京"]),
        ("e\u{301}te\u{301}", &["e\u{301}te\u{301}"]),
        ("か\u{3099}い", &["か\u{3099}", "い"]),
        ("👍🏽👍", &["👍🏽", "👍"]),
        ("👩\u{200d}👩\u{200d}👧x", &["👩\u{200d}👩\u{200d}👧", "x"]),
        ("🇪🇺🇩🇪🇫", &["🇪🇺", "🇩🇪", "🇫"]),
        ("❤\u{fe0f}!", &["❤\u{fe0f}", "!"]),
        ("x\u{200d} y", &["x", "\u{200d}", "y"]),
    ];
    for (text, words) in cases {
        assert_eq!(cut(text), words);
    }
}

#[test]
fn missing_word_is_named_with_the_characters_before_it() {
    let words: Strings = ["é北", "b"].iter().collect();
    let error = locate_words("é北c", words.all()).unwrap_err().to_string();
    assert_eq!(error, "words[1] 'b' is not in text after character 2");
}

/// Texts in which what the rule looks at is frequent.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ab_\\- é\u{301}北か\u{3099}\u{200d}👍🏽🇪🇺\n.]{0,24}",
        prop::collection::vec(any::<char>(), 0..24).prop_map(String::from_iter),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn words_and_white_space_make_up_the_text(text in texts()) {
        let mut end = 0;
        for range in split_words(&text).unwrap() {
            prop_assert!(text[end..range.start].chars().all(is_space));
            prop_assert!(end <= range.start && range.start < range.end);
            prop_assert!(!text[range.start..range.end].contains(is_space));
            end = range.end;
        }
        prop_assert!(text[end..].chars().all(is_space));
    }

    #[test]
    fn each_word_is_one_word(text in texts()) {
        for word in cut(&text) {
            prop_assert_eq!(cut(word), [word]);
        }
    }

    #[test]
    fn white_space_separates(one in texts(), two in texts()) {
        let both = format!("{one}\n{two}");
        prop_assert_eq!(cut(&both), [cut(&one), cut(&two)].concat());
    }

    #[test]
    fn marks_stay_with_what_they_modify(text in texts()) {
        for word in cut(&text) {
            let first = word.chars().next().unwrap();
            let start = word.as_ptr() as usize - text.as_ptr() as usize;
            let before = text[..start].chars().next_back();
            prop_assert!(!is_mark(first) || before.is_none_or(is_space));
        }
    }

    #[test]
    fn words_without_letters_are_one_character(text in "[!-~ ]{0,24}") {
        for word in cut(&text) {
            let run = |c: char| c == '_' || is_alphanumeric(c);
            let joined = word.split('-').all(|part| !part.is_empty() && part.chars().all(run));
            prop_assert!(word.len() == 1 || joined);
        }
    }

    #[test]
    fn words_are_found_where_they_were_cut(text in texts()) {
        let words: Strings = cut(&text).iter().collect();
        prop_assert_eq!(locate_words(&text, words.all()).unwrap(), split_words(&text).unwrap());
    }

    #[test]
    fn words_are_found_as_by_search(
        text in "[abé北]{0,16}",
        words in prop::collection::vec("[abé北]{0,2}", 0..5),
    ) {
        let mut expected = Some((0, Vec::new()));
        for word in &words {
            expected = expected.and_then(|(end, mut ranges)| {
                let start = end + text[end..].find(word.as_str())?;
                ranges.push(Range { start, end: start + word.len() });
                Some((start + word.len(), ranges))
            });
        }
        let words: Strings = words.iter().collect();
        let found = locate_words(&text, words.all());
        prop_assert_eq!(found.ok(), expected.map(|(_, ranges)| ranges));
    }

    #[test]
    fn ranges_in_characters_are_those_of_the_words(text in texts()) {
        let ranges = split_words(&text).unwrap();
        let characters: Vec<char> = text.chars().collect();
        let in_characters = to_characters(&text, &ranges).unwrap();
        prop_assert_eq!(in_characters.len(), ranges.len());
        for (at, range) in in_characters.iter().zip(&ranges) {
            let word: String = characters[at.start..at.end].iter().collect();
            prop_assert_eq!(&word, &text[range.start..range.end]);
        }
    }
}
