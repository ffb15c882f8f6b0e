//! `lmcore::error`: what kind each error is, and what it says.

use std::path::PathBuf;

use lmcore::error::{Error, Kind, RowProblem};
use lmcore::{entities, false_negatives, matching, negatives, predictions, words};

fn of_row(wrong_type: bool) -> RowProblem {
    RowProblem { wrong_type, ..RowProblem::value(Some("words"), "expected a list") }
}

#[test]
fn errors_have_kinds_and_texts() {
    let cases: [(Error, Kind, &str); 20] = [
        (
            Error::OutOfRange { name: "n", range: "at least 1".to_owned(), got: "0".to_owned() },
            Kind::Value,
            "n must be at least 1: got 0",
        ),
        (
            Error::UnknownName { name: "ties", known: &["a", "b"], given: "c".to_owned() },
            Kind::Value,
            "ties must be one of a, b: got 'c'",
        ),
        (
            Error::IdOutOfRange {
                name: "items",
                index: "2".to_owned(),
                range: "at least 1".to_owned(),
                got: "0".to_owned(),
            },
            Kind::Index,
            "items[2] must be at least 1: got 0",
        ),
        (Error::Row { problem: of_row(true) }, Kind::Type, "words: expected a list"),
        (Error::Row { problem: of_row(false) }, Kind::Value, "words: expected a list"),
        (
            Error::Line { path: "a.jsonl".to_owned(), line: 3, problem: of_row(true) },
            Kind::Type,
            "a.jsonl:3: words: expected a list",
        ),
        (
            Error::Example { index: 3, problem: of_row(true) },
            Kind::Type,
            "examples[3]: words: expected a list",
        ),
        (Error::EmptyFile { path: "a".to_owned() }, Kind::Value, "a: the file holds no rows"),
        (
            Error::File { path: PathBuf::from("a"), reason: "no such file".to_owned(), code: None },
            Kind::Os,
            "a: no such file",
        ),
        (
            Error::Threads { threads: 3, reason: "too many".to_owned() },
            Kind::Os,
            "cannot start 3 threads: too many",
        ),
        (Error::Memory { values: 8 }, Kind::Memory, "not enough memory for 8 values"),
        (Error::Stopped, Kind::Caller, "stopped by the caller"),
        (Error::Raised, Kind::Caller, "a function of the caller's failed"),
        (
            Error::Memory { values: 8 }.in_sentence(2),
            Kind::Memory,
            "not enough memory for 8 values",
        ),
        (
            matching::Problem::ComparisonLength { got: 1, expected: 2 }.into(),
            Kind::Value,
            "comparison_words must have the same length as words: got 1 and 2",
        ),
        (
            Error::from(matching::Problem::ComparisonLength { got: 1, expected: 2 }).in_sentence(4),
            Kind::Value,
            "sentence [4]: comparison_words must have the same length as words: got 1 and 2",
        ),
        (
            entities::Problem::WordsNeeded.into(),
            Kind::Value,
            "words are needed: this scheme compares the texts of entities",
        ),
        (
            words::Problem::NotInText { index: 1, word: "a".to_owned(), after: 2 }.into(),
            Kind::Value,
            "words[1] 'a' is not in text after character 2",
        ),
        (
            predictions::Problem::TokenizerAnswer { got: 1, asked: 2 }.into(),
            Kind::Value,
            "back_tokenize must return one string for each word that it is given: got 1 for 2",
        ),
        (
            negatives::Problem::NoItemLeft { user: 3 }.into(),
            Kind::Value,
            "user 3: no item is left to draw, as all are in the history",
        ),
    ];
    for (error, kind, text) in cases {
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
    }
}

#[test]
fn false_negatives_have_all_kinds() {
    use false_negatives::Problem;
    for (problem, kind) in [
        (Problem::UserRange { got: 0, row: 0 }, Kind::Index),
        (Problem::ItemRange { got: 0, row: 0, position: 0, slot: 0 }, Kind::Index),
        (Problem::FlatIndexRange { end: 1, got: 1, index: 0 }, Kind::Index),
        (Problem::NotReversed { coordinates: [0; 3], index: 0 }, Kind::Index),
        (Problem::ItemWidth { item: 1 << 31 }, Kind::Type),
        (Problem::FlatIndexOrder { before: 1, got: 1, index: 0 }, Kind::Value),
        (Problem::NotLeftPadded { row: 0, position: 0 }, Kind::Value),
        (Problem::NanLogit { row: 0, position: 0, column: 0 }, Kind::Value),
        (Problem::NotAState { rule: "a rule" }, Kind::Value),
    ] {
        assert_eq!(Error::from(problem.clone()).kind(), kind, "{problem}");
        assert_eq!(Error::from(problem.clone()).to_string(), problem.to_string());
    }
}
