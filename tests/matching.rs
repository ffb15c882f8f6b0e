//! `lmcore::matching`: the paper's tables, the laws of matching, and texts meant to break it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use lmcore::entities::Types;
use lmcore::lcs::{UNMATCHED, align_strings};
use lmcore::matching::{
    Condition, MatchInput, MatchedRow, Matcher, Parsed, match_labels, match_labels_batch,
};
use lmcore::text::{StringRows, Strings, is_space};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn parse(text: &str) -> Parsed {
    let mut matcher = Matcher::default();
    matcher.parse(text).unwrap();
    matcher.parsed(text).unwrap()
}

fn match_words(words: &[String], text: &str, types: &[String], split: bool) -> MatchedRow {
    let (words, types): (Strings, Strings) = (words.iter().collect(), types.iter().collect());
    let input = MatchInput {
        words: words.all(),
        generation: text,
        label_list: types.all(),
        comparison_words: None,
    };
    match_labels(&input, split).unwrap()
}

fn owned(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// The definition of extraction, one character at a time.
fn parse_by_characters(text: &str) -> Parsed {
    let text: Vec<char> = text.chars().collect();
    let stripped = |part: &[char]| -> String {
        let part: String = part.iter().collect();
        part.trim_matches(is_space).to_owned()
    };
    let (mut parsed, mut end, mut i) = (Parsed::default(), 0, 0);
    while i < text.len() {
        let close = match text[i..] {
            ['(', 'O', ')', ..] => Some(i + 2),
            ['(', 'B' | 'I', '-', ..] => (i + 3..text.len())
                .find(|&k| text[k] == ')' || text[k] == '\n')
                .filter(|&k| text[k] == ')'),
            _ => None,
        };
        let Some(close) = close else {
            i += 1;
            continue;
        };
        let (word, label) = (stripped(&text[end..i]), stripped(&text[i + 1..close]));
        if word.is_empty() {
            parsed.dropped_labels.push(label);
        } else {
            parsed.words.push(word);
            parsed.labels.push(label);
        }
        (end, i) = (close + 1, close + 1);
    }
    parsed.trailing_text = stripped(&text[end..]);
    parsed
}

#[test]
fn extraction_of_the_paper() {
    for (text, words, labels) in [
        ("EU(B-org) rejects(O) German(B-misc)", "EU|rejects|German", "B-org|O|B-misc"),
        ("EU (B-org)  rejects(O)(O)", "EU|rejects", "B-org|O"),
        ("x(B-a (b)) y(O)", "x|) y", "B-a (b|O"),
        ("(O) hi(O)", "hi", "O"),
        ("hi(B-) yo(I-per)", "hi|yo", "B-|I-per"),
        ("a(b)(O) c(O )d(O)", "a(b)|c(O )d", "O|O"),
    ] {
        let parsed = parse(text);
        assert_eq!(
            (parsed.words.join("|"), parsed.labels.join("|")),
            (words.into(), labels.into())
        );
    }
}

#[test]
fn conditions_of_the_paper() {
    const NONE: u32 = UNMATCHED;
    let cases: [(&str, &str, Condition, &[u32]); 9] = [
        ("a b c", "", Condition::Subsequence, &[NONE, NONE, NONE]),
        ("a a b", "a b", Condition::Subsequence, &[0, NONE, 1]),
        ("a b a b", "b a b a", Condition::Lcs, &[NONE, 0, 1, 2]),
        ("x y z", "z y x", Condition::Lcs, &[NONE, NONE, 0]),
        ("a b", "a b c", Condition::Lcs, &[0, 1]),
        ("a b c d", "b d x a", Condition::Lcs, &[NONE, 0, NONE, 1]),
        ("the cat the dog", "the dog the cat", Condition::Lcs, &[NONE, NONE, 0, 1]),
        ("a b b a", "b a a b", Condition::Lcs, &[NONE, NONE, 0, 1]),
        ("", "", Condition::Exact, &[]),
    ];
    let mut matcher = Matcher::default();
    for (a, b, condition, alignment) in cases {
        let (a, b): (Strings, Strings) = (owned(a).iter().collect(), owned(b).iter().collect());
        matcher.align_words(a.all(), b.all()).unwrap();
        assert_eq!((matcher.condition, matcher.alignment.as_slice()), (condition, alignment));
    }
}

#[test]
fn example_of_the_paper() {
    let row = match_words(
        &owned("EU rejects German call ."),
        "EU(B-org) rejects(O) German(B-misc) lamb(O) .(O)",
        &owned("org"),
        false,
    );
    assert_eq!(row.labels, ["B-org", "O", "O", "O", "O"]);
    assert_eq!((row.condition, row.invalid_labels), (Condition::Lcs, vec![2]));
    assert_eq!(row.differences.substituted, [(3, 3)]);
}

#[test]
fn split_words_continue_the_entity() {
    let words = owned("New York , EU-wide");
    let row = match_words(&words, "New York,(B-city) EU-wide(O)", &owned("city"), true);
    assert_eq!(row.labels, ["B-city", "I-city", "I-city", "O"]);
    assert_eq!(row.parsed.labels, row.labels);
    assert_eq!(row.condition, Condition::Exact);
}

#[test]
fn words_that_begin_alike_are_told_apart() {
    let ends = ["", "abcdefg", "abcdefg\0", "abcdefgh", "abcdefghi", "abcdefghj", "abcdefghij"];
    let mut matcher = Matcher::default();
    for one in ends {
        for two in ends {
            let (a, b) = (Strings::from_iter([one]), Strings::from_iter([two]));
            matcher.align_words(a.all(), b.all()).unwrap();
            let same = matcher.condition == Condition::Exact;
            assert_eq!(same, one == two, "{one:?} {two:?}");
            assert_eq!(matcher.alignment, [if one == two { 0 } else { UNMATCHED }]);
        }
    }
}

#[test]
fn label_lists_of_earlier_rows_do_not_show() {
    let (mut words, mut texts, mut types) =
        (StringRows::default(), Strings::default(), StringRows::default());
    let allowed = |row: usize| row * 7 % 25;
    for row in 0..100 {
        push_row(&mut words, &owned("a"));
        texts.push(&format!("a(B-{})", row % 25));
        push_row(&mut types, &[allowed(row).to_string()]);
    }
    let matched = match_labels_batch(&words, texts.all(), &types, None, Some(1)).unwrap();
    for (row, result) in matched.iter().enumerate() {
        let is_listed = row % 25 == allowed(row);
        assert_eq!(result.labels == ["O"], !is_listed, "{row}");
    }
}

#[test]
fn comparison_words_must_be_as_many() {
    let (one, none) = (Strings::from_iter(["a"]), Strings::default());
    let input = MatchInput {
        words: one.all(),
        generation: "",
        label_list: none.all(),
        comparison_words: Some(none.all()),
    };
    let error = match_labels(&input, false).unwrap_err().to_string();
    assert_eq!(error, "comparison_words must have the same length as words: got 0 and 1");
}

/// Texts of brackets, labels and words in any order.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("(B-".to_owned()),
        Just("(I-".to_owned()),
        Just("(O)".to_owned()),
        Just("(B-x)".to_owned()),
        Just("(I-y z)".to_owned()),
        "[()\n \u{a0}\u{1c}BIO-]{0,3}",
        "[abΣİß北\u{301}]{0,3}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[abcAΣ]",
        "[abcAΣ]",
        "[abΣİß北()O\u{301}]{0,3}",
        "abcdef[g\0]h?[ij]?", // words are told apart by their first eight bytes where possible
        any::<String>(),
    ]
}

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(word(), 0..14)
}

fn types() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(owned("x y y-z é")), 0..4)
}

/// A text that labels some of the words, with other words between them.
fn damaged() -> impl Strategy<Value = (Vec<String>, String)> {
    words().prop_flat_map(|words| {
        let edits = prop::collection::vec((0_u8..8, "[abcΣ]", 0_usize..5), words.len());
        (Just(words), edits).prop_map(|(words, edits)| {
            let labels = ["O", "B-x", "I-x", "B-unknown", "I-é"];
            let mut text = String::new();
            for (word, (kind, other, label)) in words.iter().zip(edits) {
                let written: &[&str] = match kind {
                    0 => &[],
                    1 => &[word, &other],
                    2 => &[&other],
                    3 => &[word, word],
                    _ => &[word],
                };
                for word in written {
                    text.extend([word, "(", labels[label], ") "]);
                }
            }
            (words, text)
        })
    })
}

fn push_row(rows: &mut StringRows, row: &[String]) {
    for string in row {
        rows.open().push(string);
    }
    rows.end_row();
}

/// Laws that hold for any words and any text.
fn check(words: &[String], types: &[String], row: &MatchedRow) {
    let (n, m) = (words.len(), row.parsed.words.len());
    assert_eq!((row.labels.len(), row.alignment.len()), (n, n));
    let listed: BTreeSet<String> = types
        .iter()
        .flat_map(|name| [format!("B-{name}"), format!("I-{name}")])
        .chain(["O".to_owned()])
        .collect();
    assert!(row.labels.iter().all(|label| listed.contains(label)));

    let matched: Vec<(usize, usize)> = (0..n)
        .filter(|&i| row.alignment[i] != UNMATCHED)
        .map(|i| (i, row.alignment[i] as usize))
        .collect();
    assert!(matched.windows(2).all(|two| two[0].1 < two[1].1));
    for &(i, j) in &matched {
        assert_eq!(words[i].to_lowercase(), row.parsed.words[j].to_lowercase());
        let label = &row.parsed.labels[j];
        let expected = if listed.contains(label) { label } else { "O" };
        assert_eq!(row.labels[i], expected);
    }

    let differences = &row.differences;
    let mut used: Vec<usize> = matched.iter().map(|pair| pair.0).collect();
    used.extend(&differences.omitted);
    used.extend(differences.substituted.iter().map(|pair| pair.0));
    used.sort_unstable();
    assert!(used.into_iter().eq(0..n));
    let mut used: Vec<usize> = matched.iter().map(|pair| pair.1).collect();
    used.extend(&differences.added);
    used.extend(differences.substituted.iter().map(|pair| pair.1));
    used.sort_unstable();
    assert!(used.into_iter().eq(0..m));

    let lower = |all: &[String]| -> Strings { all.iter().map(|w| w.to_lowercase()).collect() };
    let longest = align_strings(lower(words).all(), lower(&row.parsed.words).all()).unwrap();
    assert_eq!(matched.len(), longest.iter().filter(|&&j| j != UNMATCHED).count());
    match row.condition {
        Condition::Exact => assert!(matched.len() == n && n == m),
        Condition::Subsequence => assert!(matched.len() == m && m < n),
        Condition::Lcs => {
            assert!(matched.len() < m);
            assert_eq!(row.alignment, longest);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_text_is_read_as_defined(text in prop_oneof![hostile(), any::<String>()]) {
        prop_assert_eq!(parse(&text), parse_by_characters(&text));
    }

    #[test]
    fn hostile_texts_obey_the_laws(words in words(), text in hostile(), types in types()) {
        check(&words, &types, &match_words(&words, &text, &types, false));
        check(&words, &types, &match_words(&words, &text, &types, true));
    }

    #[test]
    fn damaged_texts_obey_the_laws((words, text) in damaged(), types in types()) {
        check(&words, &types, &match_words(&words, &text, &types, false));
        check(&words, &types, &match_words(&words, &text, &types, true));
    }

    #[test]
    fn counts_are_the_lengths_of_the_lists((words, text) in damaged()) {
        let words: Strings = words.iter().collect();
        let mut matcher = Matcher::default();
        matcher.match_words(words.all(), &text, &Types::default(), None).unwrap();
        let (counts, lists) = (matcher.count_differences(), matcher.list_differences().unwrap());
        let lengths = [lists.omitted.len(), lists.added.len(), lists.substituted.len()];
        prop_assert_eq!([counts.omitted, counts.added, counts.substituted], lengths.map(|k| k as u64));
    }
}

proptest! {
    // Each case starts several pools of threads.
    #![proptest_config(ProptestConfig { cases: config().cases / 16 + 1, ..config() })]

    #[test]
    fn any_number_of_threads_gives_the_rows(
        rows in prop::collection::vec((damaged(), types()), 0..24),
        copies in 1_usize..30,
    ) {
        let expected: Vec<MatchedRow> = rows
            .iter()
            .map(|((words, text), types)| match_words(words, text, types, false))
            .collect();
        let (mut words, mut texts, mut types) =
            (StringRows::default(), Strings::default(), StringRows::default());
        for ((row, text), list) in rows.iter().cycle().take(rows.len() * copies) {
            push_row(&mut words, row);
            texts.push(text);
            push_row(&mut types, list);
        }
        for threads in [Some(1), Some(2), Some(3), Some(8), None] {
            let matched = match_labels_batch(&words, texts.all(), &types, None, threads).unwrap();
            prop_assert!(matched.iter().eq(expected.iter().cycle().take(rows.len() * copies)));
        }
    }
}
