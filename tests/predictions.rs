//! `lmcore::predictions`: what is a row, and rows through blocks, threads and files.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;

use lmcore::entities::{EntityCounts, Scheme};
use lmcore::error::{Error, RowProblem};
use lmcore::predictions::{
    AlignOptions, BackTokenize, Evaluation, Found, Hooks, RowBuffer, RowReader, RowRef, RowValues,
    ScoreOptions, ScoredFile, Table, align_file, align_row, score_examples, score_files,
};
use lmcore::text::Strings;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

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

/// An object with all its entries, of which a map keeps one for each key; or another value.
#[derive(Debug)]
enum Node {
    Object(Vec<(String, Node)>),
    Other,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}

/// The first key of a row that stands in its object twice.
fn find_doubled(line: &[u8]) -> Option<String> {
    const KEYS: [&str; 7] =
        ["dataset", "text", "prediction", "label_list", "words", "labels", "instance"];
    let Node::Object(entries) = serde_json::from_slice(line).ok()? else { return None };
    let mut seen = Vec::new();
    for (key, value) in entries {
        if KEYS.contains(&key.as_str()) && seen.contains(&key) {
            return Some(key);
        }
        if let ("instance", Node::Object(inner)) = (key.as_str(), value) {
            let mut seen = Vec::new();
            for (key, _) in inner {
                if ["words", "labels"].contains(&key.as_str()) && seen.contains(&key) {
                    return Some(format!("instance.{key}"));
                }
                seen.push(key);
            }
        }
        seen.push(key);
    }
    None
}

/// Pieces of JSON: one list joins to a plain line, or with white space to an unusual one.
#[derive(Debug, Clone)]
struct Tokens(Vec<String>);

impl Tokens {
    fn join(&self, space: &str) -> Vec<u8> {
        self.0.join(space).into_bytes()
    }

    fn mark(&mut self, mark: &str) {
        self.0.push(mark.to_owned());
    }

    fn list<T>(&mut self, frame: [&str; 2], items: &[T], write: impl Fn(&mut Self, &T)) {
        self.mark(frame[0]);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.mark(",");
            }
            write(self, item);
        }
        self.mark(frame[1]);
    }

    fn value(&mut self, value: &Json) {
        match value {
            Json::Literal(text) => self.mark(text),
            Json::List(items) => self.list(["[", "]"], items, Self::value),
            Json::Object(entries) => self.list(["{", "}"], entries, |tokens, (key, value)| {
                tokens.mark(key);
                tokens.mark(":");
                tokens.value(value);
            }),
        }
    }
}

/// JSON whose strings and keys are literals, so that escapes and doubled keys can be chosen.
#[derive(Debug, Clone)]
enum Json {
    Literal(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

fn literal() -> impl Strategy<Value = String> {
    let plain = prop_oneof!["[a-c]{0,3}", "\\PC{0,12}", Just("B-x".to_owned())]
        .prop_map(|text| serde_json::to_string(&text).unwrap());
    let escaped = select(vec![
        r#""\u0041\n""#,
        r#""\"""#,
        r#""\\""#,
        r#""a\\\"b""#,
        r#""\ud83d\ude00x""#,
        r#""x\/\b\f\r\t""#,
        r#""北\u5317""#,
        r#""\u00""#,
        r#""\ud800""#,
        r#""\x""#,
        "\"\u{7f}\"",
    ]);
    prop_oneof![9 => plain, 1 => escaped.prop_map(str::to_owned)]
}

/// A string that is what the row's texts are made of: never broken.
fn good_literal() -> impl Strategy<Value = String> {
    literal().prop_filter("a JSON string", |text| serde_json::from_str::<String>(text).is_ok())
}

fn other_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        select(vec![
            "0",
            "-1",
            "17",
            "1.5",
            "1e5",
            "-0.0",
            "1E+2",
            "10000000000000000000000",
            "true",
            "false",
            "null",
            "01",
            "1.",
            "-",
            "tru",
            "nulls",
            "+1",
            ".5",
            "NaN",
            "''",
            "",
        ])
        .prop_map(str::to_owned),
        literal(),
    ]
    .prop_map(Json::Literal);
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::List),
            prop::collection::vec((literal(), inner), 0..3).prop_map(Json::Object),
        ]
    })
}

fn strings() -> impl Strategy<Value = Json> {
    prop::collection::vec(good_literal().prop_map(Json::Literal), 0..5).prop_map(Json::List)
}

fn key() -> impl Strategy<Value = String> {
    select(vec![
        r#""dataset""#,
        r#""text""#,
        r#""prediction""#,
        r#""label_list""#,
        r#""words""#,
        r#""labels""#,
        r#""instance""#,
        r#""w\u006frds""#,
        r#""other""#,
        r#""""#,
    ])
    .prop_map(str::to_owned)
}

/// An object that looks like a row: usable, doubled keys, wrong types, and unread keys.
fn entries(hostile: bool) -> BoxedStrategy<Vec<(String, Json)>> {
    let pair = |name: &'static str, value: BoxedStrategy<Json>| {
        value.prop_map(move |value| (format!("\"{name}\""), value)).boxed()
    };
    let text = || good_literal().prop_map(Json::Literal).boxed();
    let sentence = || {
        prop::collection::vec((good_literal(), good_literal()), 0..5).prop_map(|pairs| {
            let (words, labels): (Vec<_>, Vec<_>) =
                pairs.into_iter().map(|(w, l)| (Json::Literal(w), Json::Literal(l))).unzip();
            vec![
                ("\"words\"".to_owned(), Json::List(words)),
                ("\"labels\"".to_owned(), Json::List(labels)),
            ]
        })
    };
    let nested =
        sentence().prop_map(|entries| vec![("\"instance\"".to_owned(), Json::Object(entries))]);
    let both = prop_oneof![sentence(), nested];
    let optional = prop::option::of(prop_oneof![pair("dataset", text()), pair("text", text())]);
    let scalar = select(vec!["1", "17", "true", "false", "null", r#""a\n""#, r#""{[""#])
        .prop_map(|text| Json::Literal(text.to_owned()));
    let unread = prop::collection::vec((Just("\"other\"".to_owned()), scalar), 0..2);
    let usable =
        (both, pair("label_list", strings().boxed()), pair("prediction", text()), optional, unread)
            .prop_map(|(mut row, list, prediction, optional, unread)| {
                row.extend([list, prediction]);
                row.extend(optional);
                row.extend(unread);
                row
            })
            .prop_shuffle();
    if !hostile {
        return usable.boxed();
    }
    let change = prop_oneof![
        2 => other_value(),
        1 => strings(),
        1 => prop::collection::vec((key(), prop_oneof![strings(), other_value()]), 0..3).prop_map(Json::Object),
    ];
    (usable, prop::collection::vec((any::<Index>(), any::<bool>(), key(), change), 0..3))
        .prop_map(|(mut row, changes)| {
            for (at, replace, key, value) in changes {
                let at = at.index(row.len());
                if replace {
                    row[at].1 = value;
                } else {
                    row.insert(at, (key, value));
                }
            }
            row
        })
        .boxed()
}

fn tokens(hostile: bool) -> impl Strategy<Value = Tokens> {
    entries(hostile).prop_map(|entries| {
        let mut tokens = Tokens(Vec::new());
        tokens.value(&Json::Object(entries));
        tokens
    })
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

// Scoring and aligning, without an interpreter.

fn row(dataset: usize, right: bool) -> Value {
    let prediction = if right { "in(O) York(B-x)" } else { "In(B-x) york.(B-x)" };
    json!({
        "dataset": format!("d{dataset}"), "label_list": ["x", format!("only {dataset}")],
        "words": ["in", "York"], "labels": ["O", "B-x"], "prediction": prediction,
    })
}

/// A file of some megabytes: rows of three data sets, of which every seventh is wrong.
fn rows_file(count: usize, bad: &[usize]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut content = String::new();
    for k in 0..count {
        if bad.contains(&k) {
            content.push_str("{\n");
        } else {
            content.push_str(&row(k % 3, k % 7 != 0).to_string());
            content.push('\n');
        }
    }
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn options(threads: usize) -> ScoreOptions {
    ScoreOptions { scheme: Scheme::Strict, threads: Some(threads), worst: 5, skip_bad_rows: false }
}

fn score(path: &Path, options: &ScoreOptions) -> Result<Evaluation, Error> {
    let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
    score_files(&[ScoredFile::new(path)], options, &mut hooks)
}

/// Scores rows as a caller's objects, some at a time.
fn score_values(rows: Vec<Value>, options: &ScoreOptions) -> Result<Evaluation, Error> {
    let count = rows.len();
    let mut reader = Values { rows, read: RefCell::default() };
    let mut taken = 0;
    let mut next = |table: &mut Table, most: usize| {
        assert!(table.is_empty());
        let end = count.min(taken + most);
        table.extend(&mut reader, taken..end)?;
        taken = end;
        Ok(())
    };
    let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
    score_examples(&mut next, options, &mut hooks)
}

const ROWS: usize = 21_000;

#[test]
fn threads_change_nothing() {
    let file = rows_file(ROWS, &[]);
    let path = file.path();
    let one = score(path, &options(1)).unwrap();
    for threads in [2, 3, 8] {
        assert_eq!(score(path, &options(threads)).unwrap(), one);
    }
    let names: Vec<_> = one.datasets.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["d0", "d1", "d2"]);
    for (k, part) in one.datasets.iter().enumerate() {
        assert_eq!((part.rows, part.words), (7000, 14000));
        assert_eq!(part.entities, EntityCounts { gold: 7000, predicted: 7000, correct: 6000 });
        assert_eq!(part.conditions, [6000, 0, 1000]);
        assert_eq!(part.differences.substituted, 1000);
        let first_wrong: Vec<u64> =
            (0..).filter(|n| n % 7 == 0 && n % 3 == k as u64).take(5).collect();
        assert_eq!(part.worst.iter().map(|row| row.row - 1).collect::<Vec<_>>(), first_wrong);
        let label_list: Vec<_> = part.label_list.iter().cloned().collect();
        assert_eq!(label_list, [format!("only {k}"), "x".to_owned()]);
    }
}

#[test]
fn objects_count_as_files_do() {
    let file = rows_file(ROWS, &[]);
    let from_file = score(file.path(), &options(2)).unwrap();
    let rows: Vec<_> = (0..ROWS).map(|k| row(k % 3, k % 7 != 0)).collect();
    for threads in [1, 3] {
        let mut evaluation = score_values(rows.clone(), &options(threads)).unwrap();
        for (one, other) in from_file.datasets.iter().zip(&mut evaluation.datasets) {
            for sentence in &mut other.worst {
                sentence.row += 1;
                file.path().to_str().unwrap().clone_into(&mut sentence.path);
            }
            assert_eq!(one, other);
        }
    }
}

#[test]
fn what_a_caller_raises_comes_after_the_rows_before_it() {
    let good = || row(0, true);
    let raise = || json!("raise");
    for threads in [1, 3] {
        for before in [0, 1, 127, 128, 129, 300] {
            let mut rows = vec![good(); before];
            rows.extend([raise(), good()]);
            assert_eq!(score_values(rows.clone(), &options(threads)), Err(Error::Raised));
            if before == 0 {
                continue;
            }
            rows[before - 1] = json!([]);
            let index = before as u64 - 1;
            let error = score_values(rows, &options(threads)).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("examples[{index}]: expected")),
                "{error}"
            );
        }
    }
}

#[test]
fn a_list_that_rows_share_is_read_once() {
    let lists = |reader: &Values| {
        let read = reader.read.borrow();
        read.iter().filter(|list| list[0] == "x").count()
    };
    let mut table = Table::default();
    let mut reader = Values { rows: vec![row(0, true); 9], read: RefCell::default() };
    table.extend(&mut reader, 0..9).unwrap();
    assert_eq!(lists(&reader), 1);
    // One that cannot be read leaves nothing for the next row.
    let mut bad = row(0, true);
    bad["label_list"] = json!(["x", 1]);
    reader.rows = vec![bad.clone(), row(0, true), bad, row(1, true)];
    table.clear();
    table.extend(&mut reader, 0..4).unwrap();
    for (index, only) in [(1, "only 0"), (3, "only 1")] {
        assert_eq!(table.row(index).unwrap().label_list.to_vec(), ["x", only]);
        let problem = table.row(index - 1).unwrap_err().to_string();
        assert_eq!(problem, "label_list: expected a list of strings, got a number at [1]");
    }
}

#[test]
fn first_bad_row_is_named() {
    for bad in [&[15_000, 15_001, 20_999][..], &[0, 20_999], &[20_999]] {
        let file = rows_file(ROWS, bad);
        let path = file.path();
        for threads in [1, 2, 8] {
            let error = score(path, &options(threads)).unwrap_err();
            let start = format!("{}:{}: not valid JSON: ", path.display(), bad[0] + 1);
            assert!(error.to_string().starts_with(&start), "{error}");
            let skipped =
                score(path, &ScoreOptions { skip_bad_rows: true, ..options(threads) }).unwrap();
            assert_eq!(skipped.bad_rows, bad.len() as u64);
            assert_eq!(skipped.listed_bad_rows[0], error);
        }
    }
}

#[test]
fn the_caller_stops_the_work() {
    let file = rows_file(ROWS, &[]);
    let path = file.path();
    for threads in [1, 3] {
        let mut hooks = Hooks { progress: &mut |_| Err(Error::Stopped), back_tokenize: None };
        assert_eq!(score_files(&[ScoredFile::new(path)], &options(threads), &mut hooks), Err(Error::Stopped));
    }
}

fn align(input: &Path, output: &Path, threads: usize) -> Result<u64, Error> {
    let options =
        AlignOptions { scheme: Scheme::Gner, threads: Some(threads), skip_bad_rows: false };
    let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
    align_file(input, output, &options, &mut hooks).map(|summary| summary.rows)
}

#[test]
fn aligned_file_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.jsonl");
    let (good, bad) = (rows_file(ROWS, &[]), rows_file(ROWS, &[20_000]));
    let (good, bad) = (good.path(), bad.path());
    for threads in [1, 3] {
        assert!(align(bad, &output, threads).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    let mut written = Vec::new();
    for threads in [1, 2, 8] {
        assert_eq!(align(good, &output, threads), Ok(ROWS as u64));
        written.push(fs::read_to_string(&output).unwrap());
    }
    assert!(written.iter().all(|text| *text == written[0]));
    let input = fs::read_to_string(good).unwrap();
    for (line, aligned) in input.lines().zip(written[0].lines()).step_by(100) {
        assert_eq!(align_row(line, Scheme::Gner).unwrap(), aligned);
    }
    assert_eq!(written[0].lines().count(), ROWS);
}

#[test]
fn distinct_words_are_asked_for_once() {
    let file = rows_file(ROWS, &[]);
    for threads in [1, 3] {
        let asked = RefCell::new(Vec::new());
        let mut answer = |words: &[String]| {
            asked.borrow_mut().extend_from_slice(words);
            Ok(words.iter().map(|word| word.replace("york", "york.")).collect())
        };
        let back_tokenize: &mut BackTokenize<'_> = &mut answer;
        let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: Some(back_tokenize) };
        let evaluation = score_files(&[ScoredFile::new(file.path())], &options(threads), &mut hooks).unwrap();
        assert_eq!(*asked.borrow(), ["in", "york"]);
        // Now the other rows match: the answer stands for the word.
        assert!(evaluation.datasets.iter().all(|part| part.conditions == [1000, 0, 6000]));
    }
}
