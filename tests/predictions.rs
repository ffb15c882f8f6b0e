//! `lmcore::predictions`: what is a row, and rows through blocks, threads and files.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "predictions/files.rs"]
mod files;
#[path = "predictions/json.rs"]
mod json;

use std::cell::RefCell;

use lmcore::error::{Error, RowProblem};
use lmcore::predictions::{Found, RowBuffer, RowReader, RowRef, RowValues, Table};
use lmcore::text::Strings;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

use json::{find_doubled, tokens};

fn config() -> ProptestConfig {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// A row as owned strings: data set, words, labels, label list, prediction.
type Row = (Option<String>, Vec<String>, Vec<String>, Vec<String>, String);
/// An aligned row's input: words, label list, prediction, text, whether there were words.
type RowToAlign = (Vec<String>, Vec<String>, String, Option<String>, bool);

/// Reads a line for which there is memory.
fn read(buffer: &mut RowBuffer, line: &[u8]) -> Result<(), RowProblem> {
    buffer.read(line).map_err(|error| match error {
        Error::Row { problem } => problem,
        error => panic!("{error}"),
    })
}

fn read_scored(buffer: &mut RowBuffer, line: &[u8]) -> Result<Row, RowProblem> {
    read(buffer, line)?;
    buffer.scored().map(|row| owned(&row))
}

fn owned(row: &RowRef<'_>) -> Row {
    (
        row.dataset.map(str::to_owned),
        row.words.to_vec(),
        row.labels.to_vec(),
        row.label_list.to_vec(),
        row.prediction.to_owned(),
    )
}

fn read_aligned(buffer: &mut RowBuffer, line: &[u8]) -> Result<RowToAlign, RowProblem> {
    read(buffer, line)?;
    let (row, text, has_words) = buffer.aligned()?;
    let (words, label_list) = (row.words.to_vec(), row.label_list.to_vec());
    Ok((words, label_list, row.prediction.to_owned(), text.map(str::to_owned), has_words))
}

/// What `scored` means, read from a whole JSON value; `None` stands for any problem.
fn scored_by_definition(value: &Value) -> Option<Row> {
    let row = value.as_object()?;
    let strings = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let text = |key: &str| row.get(key)?.as_str().map(str::to_owned);
    let dataset = match row.get("dataset") {
        None => None,
        Some(_) => Some(text("dataset")?),
    };
    let nothing = Map::new();
    let instance = match row.get("instance") {
        None => &nothing,
        Some(value) => value.as_object()?,
    };
    let find = |key: &str| match (instance.get(key), row.get(key)) {
        (Some(_), Some(_)) | (None, None) => None,
        (Some(value), None) | (None, Some(value)) => strings(value),
    };
    let (words, labels) = (find("words")?, find("labels")?);
    let label_list = match (row.get("types"), row.get("label_list")) {
        (Some(list), None) | (None, Some(list)) => strings(list)?,
        _ => return None,
    };
    (words.len() == labels.len()).then_some(())?;
    Some((dataset, words, labels, label_list, text("prediction")?))
}

/// Rows as a caller's objects.
struct Values {
    rows: Vec<Value>,
    /// Lists that were read.
    read: RefCell<Vec<Value>>,
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wrong_type(reason: String) -> Error {
    RowProblem { wrong_type: true, ..RowProblem::value(None, reason) }.into()
}

impl RowReader for Values {
    type Value = Value;

    fn find(&mut self, row: usize) -> Result<RowValues<Value>, Error> {
        let row = match &self.rows[row] {
            Value::Object(row) => row,
            Value::String(reason) if reason == "raise" => return Err(Error::Raised),
            other => {
                let got = type_name(other);
                return Err(wrong_type(format!("expected a JSON object, got {got}")));
            }
        };
        let instance = row.get("instance");
        let keys = instance.and_then(Value::as_object);
        let get = |key: &str| row.get(key).cloned();
        let find = |key: &str| Found {
            at_top: get(key),
            in_instance: keys.and_then(|keys| keys.get(key)).cloned(),
        };
        let instance_problem = instance
            .filter(|_| keys.is_none())
            .map(|other| RowProblem::of_type("instance", "an object", type_name(other)));
        Ok(RowValues {
            dataset: get("dataset"),
            types: get("types"),
            label_list: get("label_list"),
            instance_problem,
            words: find("words"),
            labels: find("labels"),
            prediction: get("prediction"),
        })
    }

    fn text<'v>(&self, value: &'v Value) -> Result<&'v str, Error> {
        let refuse = || wrong_type(format!("expected a string, got {}", type_name(value)));
        value.as_str().ok_or_else(refuse)
    }

    fn extend_strings(&self, value: &Value, strings: &mut Strings) -> Result<(), Error> {
        self.read.borrow_mut().push(value.clone());
        let refuse = |got| Err(wrong_type(format!("expected a list of strings, got {got}")));
        let Some(items) = value.as_array() else { return refuse(type_name(value).to_owned()) };
        for (index, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(item) => strings.append(item)?,
                None => return refuse(format!("{} at [{index}]", type_name(item))),
            }
        }
        Ok(())
    }

    fn is_same(&self, one: &Value, other: &Value) -> bool {
        one == other
    }
}

/// Bytes that mean something in JSON, and others.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![select(br#"{}[]",:\ /u0189-.eEtfnab"#.to_vec()), any::<u8>()]
}

fn is_refused_text(problem: &RowProblem) -> bool {
    problem.reason == "holds a lone surrogate" || problem.reason.contains("number out of range")
}

proptest! {
    #![proptest_config(config())]

    /// The quick reader refuses a tab between tokens; the general one must read the same.
    #[test]
    fn quick_and_general_reader_agree(tokens in tokens(true)) {
        let mut buffer = RowBuffer::default();
        let (plain, spaced, tabbed) = (tokens.join(""), tokens.join("  "), tokens.join("\t"));
        let scored = read_scored(&mut RowBuffer::default(), &tabbed);
        let aligned = read_aligned(&mut RowBuffer::default(), &tabbed);
        for line in [plain, spaced, tabbed] {
            let (row, to_align) = (read_scored(&mut buffer, &line), read_aligned(&mut buffer, &line));
            match (&scored, row) {
                (Err(one), Err(other)) if one.reason.starts_with("not valid JSON") => {
                    // The column is another one.
                    prop_assert!(other.reason.starts_with("not valid JSON"), "{other}");
                    prop_assert_eq!(&one.key, &other.key);
                }
                (expected, got) => prop_assert_eq!(expected, &got),
            }
            if aligned.is_ok() || to_align.is_ok() {
                prop_assert_eq!(&aligned, &to_align);
            }
        }
    }

    #[test]
    fn plain_rows_are_read(tokens in tokens(false)) {
        for space in ["", " ", "\t"] {
            let line = tokens.join(space);
            let value: Value = serde_json::from_slice(&line).unwrap();
            let expected = scored_by_definition(&value).unwrap();
            prop_assert_eq!(read_scored(&mut RowBuffer::default(), &line), Ok(expected));
            let (_, _, prediction, text, has_words) =
                read_aligned(&mut RowBuffer::default(), &line).unwrap();
            prop_assert_eq!(Some(prediction.as_str()), value["prediction"].as_str());
            prop_assert_eq!(text.as_deref(), value["text"].as_str());
            prop_assert!(has_words);
        }
    }

    /// One buffer, whatever it read before, reads what the definition reads.
    #[test]
    fn rows_mean_what_their_json_says(all in prop::collection::vec((tokens(true), any::<bool>()), 1..4)) {
        let mut buffer = RowBuffer::default();
        for (tokens, plain) in all {
            let line = tokens.join(if plain { "" } else { "\t" });
            let got = read_scored(&mut buffer, &line);
            match serde_json::from_slice::<Value>(&line) {
                Ok(value) => match (find_doubled(&line), got) {
                    (Some(key), Err(problem)) if value.is_object() => {
                        let text = format!("{key}: this key stands twice in its object");
                        prop_assert_eq!(problem.to_string(), text);
                    }
                    (doubled, got) => {
                        prop_assert_eq!(doubled, None);
                        prop_assert_eq!(got.ok(), scored_by_definition(&value));
                    }
                },
                Err(_) => {
                    // A value that nobody reads may hold what only a whole value refuses.
                    if let Ok((_, words, labels, ..)) = got {
                        prop_assert_eq!(words.len(), labels.len());
                        prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok());
                    }
                }
            }
        }
    }

    /// A damaged line is a row exactly if it is a JSON object.
    #[test]
    fn damaged_lines(
        tokens in tokens(false),
        tab in any::<bool>(),
        damage in prop::collection::vec((any::<Index>(), 0..4u8, byte()), 0..5),
    ) {
        let mut line = tokens.join(if tab { "\t" } else { "" });
        for (at, kind, byte) in damage {
            let at = at.index(line.len() + 1);
            match kind {
                0 => line.insert(at, byte),
                1 if at < line.len() => line[at] = byte,
                2 if at < line.len() => { line.remove(at); }
                3 if byte < 32 => line.truncate(at),
                _ => {}
            }
        }
        let mut buffer = RowBuffer::default();
        let read = read(&mut buffer, &line);
        if read.is_ok() {
            let _ = (buffer.scored(), buffer.aligned());
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            let byte = std::str::from_utf8(&line).unwrap_err().valid_up_to() + 1;
            prop_assert_eq!(read.unwrap_err().reason, format!("not UTF-8 at byte {byte}"));
            return Ok(());
        };
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(_)) => prop_assert_eq!(read, Ok(())),
            Ok(_) => {
                let problem = read.unwrap_err();
                prop_assert!(problem.wrong_type);
                prop_assert!(problem.reason.starts_with("expected a JSON object, got "));
            }
            Err(_) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
                prop_assert!(read.as_ref().map_or_else(is_refused_text, |()| true), "{:?}", read);
            }
            Err(_) => prop_assert!(read.is_err()),
        }
    }

    #[test]
    fn any_bytes(line in prop::collection::vec(byte(), 0..60)) {
        let mut buffer = RowBuffer::default();
        let accepted = read(&mut buffer, &line).is_ok();
        if accepted {
            let _ = (buffer.scored(), buffer.aligned());
        }
        let is_object = serde_json::from_slice::<Map<String, Value>>(&line).is_ok();
        prop_assert!(accepted || !is_object);
    }

    /// The rules of a row are one: a list of objects is read as the lines that spell them are.
    #[test]
    fn tables_read_what_lines_say(all in prop::collection::vec(tokens(true), 1..5)) {
        let lines: Vec<_> = all
            .iter()
            .map(|tokens| tokens.join(""))
            .filter(|line| find_doubled(line).is_none())
            .collect();
        let values: Vec<Value> =
            lines.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        prop_assume!(values.len() == lines.len());
        let mut table = Table::default();
        for _ in 0..2 {
            table.clear();
            let mut reader = Values { rows: values.clone(), read: RefCell::default() };
            table.extend(&mut reader, 0..values.len()).unwrap();
            prop_assert_eq!(table.len(), values.len());
            for (index, line) in lines.iter().enumerate() {
                let expected = read_scored(&mut RowBuffer::default(), line);
                prop_assert_eq!(table.row(index).map(|row| owned(&row)), expected);
            }
        }
    }
}

fn row(dataset: usize, right: bool) -> Value {
    let prediction = if right { "in(O) York(B-x)" } else { "In(B-x) york.(B-x)" };
    json!({
        "dataset": format!("d{dataset}"), "label_list": ["x", format!("only {dataset}")],
        "words": ["in", "York"], "labels": ["O", "B-x"], "prediction": prediction,
    })
}

#[test]
fn nothing_stands_around_an_object() {
    let line = row(0, true).to_string();
    let mut buffer = RowBuffer::default();
    for space in ["", " ", "  ", "\t", " \r"] {
        for frame in [format!("{line}{space}"), format!("{space}{line}")] {
            assert_eq!(read(&mut buffer, frame.as_bytes()), Ok(()));
        }
        for other in ["x", "}", ",", "{}", "[]", "\"", "\"\"", "1", "é", "\u{feff}", "\0", &line] {
            for frame in [format!("{line}{space}{other}"), format!("{other}{space}{line}")] {
                let problem = read(&mut buffer, frame.as_bytes()).unwrap_err();
                assert!(problem.reason.starts_with("not valid JSON: "), "{frame}: {problem}");
            }
        }
    }
}
