//! `lmcore::cleaning`: laws of cleaning on hostile texts.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use lmcore::cleaning::{Cleaner, Outcome, RULES, Rules, clean_batch, split_sentences};
use lmcore::text::Strings;
use proptest::prelude::*;

const ALL: Rules = Rules {
    html: true,
    links: true,
    emails: true,
    phone_numbers: true,
    most_repeats: 3,
    minimum_words: 3,
};

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn texts() -> impl Strategy<Value = String> {
    let pieces = vec![
        "<",
        ">",
        "</b>",
        "<p>",
        "<b",
        "<!--",
        "-->",
        "<script>",
        "</script",
        "http",
        "://",
        "www.",
        "a.org",
        "@",
        "x",
        ".",
        " ",
        "\n",
        "+",
        "86",
        "138",
        "0013",
        "8000",
        "-",
        "(",
        ")",
        "010",
        "!",
        "。",
        "”",
        "哈",
        "哈哈哈",
        "It rains",
        "Mr",
        "\u{301}",
        "👍",
        "\0",
        "\u{3000}",
    ];
    let piece = prop_oneof![
        4 => prop::sample::select(pieces).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|parts| parts.concat())
}

fn rules() -> impl Strategy<Value = Rules> {
    (any::<[bool; 4]>(), 0_usize..5, 0_usize..5).prop_map(|(on, most_repeats, minimum_words)| {
        let [html, links, emails, phone_numbers] = on;
        Rules { html, links, emails, phone_numbers, most_repeats, minimum_words }
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn cleaning_twice_is_cleaning_once(text in texts(), rules in rules()) {
        let mut cleaner = Cleaner::default();
        if cleaner.clean(&text, &rules).unwrap() == Outcome::Kept {
            let once = cleaner.text().to_owned();
            prop_assert_eq!(cleaner.clean(&once, &rules).unwrap(), Outcome::Kept);
            prop_assert_eq!(cleaner.text(), &once);
            prop_assert_eq!(cleaner.counts().characters, [0; RULES.len()]);
        }
    }

    #[test]
    fn what_is_left_stood_there_in_this_order(text in texts(), rules in rules()) {
        let mut cleaner = Cleaner::default();
        cleaner.clean(&text, &rules).unwrap();
        let mut rest = text.chars();
        // A space may stand for a tag.
        prop_assert!(cleaner.text().chars().all(|c| c == ' ' || rest.any(|other| other == c)));
    }

    #[test]
    fn threads_do_not_change_the_result(texts in prop::collection::vec(texts(), 0..5)) {
        let many: Strings = texts.iter().cycle().take(texts.len() * 200).collect();
        let one = clean_batch(many.all(), &ALL, Some(1)).unwrap();
        let three = clean_batch(many.all(), &ALL, Some(3)).unwrap();
        prop_assert!(one.texts.all().equals(three.texts.all()));
        prop_assert_eq!(one.outcomes, three.outcomes);
        prop_assert_eq!(one.counts, three.counts);
    }

    #[test]
    fn sentences_make_up_the_text(text in texts()) {
        let mut end = 0;
        for sentence in split_sentences(&text).unwrap() {
            prop_assert_eq!(sentence.start, end);
            prop_assert!(sentence.end > end);
            end = sentence.end;
        }
        prop_assert_eq!(end, text.len());
    }
}
