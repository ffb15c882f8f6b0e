//! One row of JSON, read straight into reusable buffers.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::scan::{Found, Scanner};
use crate::error::{Error, Result, RowProblem, quote};
use crate::memory;
use crate::text::{Strings, StringsRef};

/// A usable row.
#[derive(Debug, Clone, Copy)]
pub struct RowRef<'a> {
    /// Name of its data set, where the row has one.
    pub dataset: Option<&'a str>,
    /// The words of the sentence.
    pub words: StringsRef<'a>,
    /// One gold BIO label per word; empty where rows are aligned and not scored.
    pub labels: StringsRef<'a>,
    /// The entity types that may occur.
    pub label_list: StringsRef<'a>,
    /// The generated text.
    pub prediction: &'a str,
}

/// A row's part, or why the row cannot be used.
pub type RowResult<T> = std::result::Result<T, RowProblem>;

/// What stood under a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum State {
    #[default]
    Missing,
    Present,
    /// A value of another type, in words.
    Wrong(String),
}

#[derive(Debug, Default)]
struct Text {
    /// The text, or where it stands in the line.
    value: String,
    in_line: Option<(usize, usize)>,
    state: State,
    /// Why the value could not be kept.
    failed: Option<Error>,
}

#[derive(Debug, Default)]
struct List {
    /// The strings, or where they stand in the line.
    values: Strings,
    in_line: Option<Vec<(usize, usize)>>,
    state: State,
    /// Why the values could not be kept.
    failed: Option<Error>,
}

impl Text {
    fn scan(&mut self, scanner: &mut Scanner<'_>) -> Option<()> {
        match scanner.string()? {
            Found::Plain(start, end) => self.in_line = Some((start, end)),
            Found::Escaped(text) => {
                self.in_line = None;
                self.value = text;
            }
        }
        self.state = State::Present;
        Some(())
    }

    fn get<'a>(&'a self, line: &'a str) -> &'a str {
        self.in_line.map_or(&self.value, |(start, end)| &line[start..end])
    }
}

impl List {
    fn scan(&mut self, scanner: &mut Scanner<'_>, line: &str) -> Option<()> {
        self.state = State::Present;
        let mut ranges = self.in_line.take().unwrap_or_default();
        ranges.clear();
        if scanner.plain_strings(&mut ranges).is_some() {
            self.in_line = Some(ranges);
            return Some(());
        }
        let values = &mut self.values;
        values.clear();
        scanner.strings(|scanner| {
            let kept = match scanner.string()? {
                Found::Plain(start, end) => values.append(&line[start..end]),
                Found::Escaped(text) => values.append(&text),
            };
            scanner.or_fail(kept)
        })
    }

    fn get<'a>(&'a self, line: &'a str) -> StringsRef<'a> {
        self.in_line.as_ref().map_or(self.values.all(), |ranges| StringsRef::new(line, ranges))
    }
}

/// Words and labels, at the top of the row or in its `instance`.
#[derive(Debug, Default)]
struct Sentence {
    words: List,
    labels: List,
}

/// The memory that rows are read into, one after the other.
#[derive(Debug, Default)]
pub struct RowBuffer {
    /// The line, where strings without escapes stand.
    line: String,
    not_object: Option<&'static str>,
    /// The key whose value is being read, for errors in the middle of it.
    reading: Option<&'static str>,
    /// The first key that stood in its object before.
    doubled: Option<&'static str>,
    dataset: Text,
    text: Text,
    prediction: Text,
    label_list: List,
    flat: Sentence,
    instance: Sentence,
    instance_state: State,
}

impl RowBuffer {
    /// Reads a line as JSON.
    ///
    /// # Errors
    /// It is not UTF-8, not JSON, not an object, a text in it holds half a surrogate pair, or a
    /// key that is read stands there twice; the memory is refused, or the caller stops.
    pub fn read(&mut self, line: &[u8]) -> Result<()> {
        let line = std::str::from_utf8(line).map_err(|error| {
            RowProblem::value(None, format!("not UTF-8 at byte {}", error.valid_up_to() + 1))
        })?;
        self.clear();
        self.line.clear();
        memory::reserve_text(&mut self.line, line.len())?;
        self.line.push_str(line);
        if !self.scan(line)? {
            self.read_slowly(line)?;
        }
        match self.doubled {
            None => Ok(()),
            Some(key) => {
                Err(RowProblem::value(Some(key), "this key stands twice in its object").into())
            }
        }
    }

    /// Reads a plain row; at anything unusual it gives up and says so.
    fn scan(&mut self, line: &str) -> Result<bool> {
        let Some(mut scanner) = Scanner::new(line) else { return Ok(false) };
        let read = scanner.object(|key, scanner| {
            let key = Key::from(key);
            self.notice(key);
            match key {
                Key::Dataset => self.dataset.scan(scanner),
                Key::Text => self.text.scan(scanner),
                Key::Prediction => self.prediction.scan(scanner),
                Key::LabelList => self.label_list.scan(scanner, line),
                Key::Words => self.flat.words.scan(scanner, line),
                Key::Labels => self.flat.labels.scan(scanner, line),
                Key::Instance => {
                    self.open_instance();
                    scanner.object(|key, scanner| {
                        let key = Key::from(key);
                        self.notice_in_instance(key);
                        match key {
                            Key::Words => self.instance.words.scan(scanner, line),
                            Key::Labels => self.instance.labels.scan(scanner, line),
                            _ => scanner.skip_scalar(),
                        }
                    })
                }
                Key::Other => scanner.skip_scalar(),
            }
        });
        let whole = read.is_some() && scanner.end().is_some();
        scanner.failed.map_or(Ok(whole), Err)
    }

    /// Notes a key that its object has had before.
    #[inline]
    fn notice(&mut self, key: Key) {
        let (state, name) = match key {
            Key::Dataset => (&self.dataset.state, "dataset"),
            Key::Text => (&self.text.state, "text"),
            Key::Prediction => (&self.prediction.state, "prediction"),
            Key::LabelList => (&self.label_list.state, "label_list"),
            Key::Words => (&self.flat.words.state, "words"),
            Key::Labels => (&self.flat.labels.state, "labels"),
            Key::Instance => (&self.instance_state, "instance"),
            Key::Other => return,
        };
        if *state != State::Missing {
            self.doubled.get_or_insert(name);
        }
    }

    /// The same within `instance`.
    #[inline]
    fn notice_in_instance(&mut self, key: Key) {
        let (state, name) = match key {
            Key::Words => (&self.instance.words.state, "instance.words"),
            Key::Labels => (&self.instance.labels.state, "instance.labels"),
            _ => return,
        };
        if *state != State::Missing {
            self.doubled.get_or_insert(name);
        }
    }

    fn open_instance(&mut self) {
        self.instance_state = State::Present;
        self.instance.words.state = State::Missing;
        self.instance.labels.state = State::Missing;
    }

    fn read_slowly(&mut self, line: &str) -> Result<()> {
        self.clear();
        // The longest text with escapes is put together in memory that doubles.
        memory::probe(line.len().saturating_mul(2))?;
        let mut deserializer = serde_json::Deserializer::from_str(line);
        let read = RowSeed(self).deserialize(&mut deserializer).and_then(|()| deserializer.end());
        if let Some(error) = self.take_failed() {
            return Err(error);
        }
        read.map_err(|error| self.explain(&error))?;
        match self.not_object {
            Some(got) => Err(RowProblem {
                wrong_type: true,
                ..RowProblem::value(None, format!("expected a JSON object, got {got}"))
            }
            .into()),
            None => Ok(()),
        }
    }

    /// Why a value could not be kept, where one could not.
    fn take_failed(&mut self) -> Option<Error> {
        let Self { dataset, text, prediction, label_list, flat, instance, .. } = self;
        let texts = [dataset, text, prediction].map(|text| &mut text.failed);
        let Sentence { words, labels } = flat;
        let lists = [label_list, words, labels, &mut instance.words, &mut instance.labels];
        texts.into_iter().chain(lists.map(|list| &mut list.failed)).find_map(Option::take)
    }

    fn clear(&mut self) {
        self.not_object = None;
        self.reading = None;
        self.doubled = None;
        for text in [&mut self.dataset, &mut self.text, &mut self.prediction] {
            text.state = State::Missing;
        }
        self.label_list.state = State::Missing;
        for sentence in [&mut self.flat, &mut self.instance] {
            sentence.words.state = State::Missing;
            sentence.labels.state = State::Missing;
        }
        self.instance_state = State::Missing;
    }

    fn explain(&self, error: &serde_json::Error) -> RowProblem {
        let reason = error.to_string();
        if reason.contains("surrogate") || reason.contains("end of hex escape") {
            return RowProblem::value(self.reading, "holds a lone surrogate");
        }
        let reason = reason.replace("at line 1 column", "at column");
        RowProblem::value(self.reading, format!("not valid JSON: {reason}"))
    }

    /// The row as the scorer needs it.
    ///
    /// # Errors
    /// A key is missing, stands both at the top and in `instance`, or has a value of the wrong
    /// type, or words and labels differ in length.
    pub fn scored(&self) -> RowResult<RowRef<'_>> {
        let dataset = self.dataset()?;
        let label_list = present_list("label_list", &self.label_list, &self.line)?;
        self.check_instance()?;
        let words = self.list("words", "instance.words", |sentence| &sentence.words)?;
        let labels = self.list("labels", "instance.labels", |sentence| &sentence.labels)?;
        let labels_key = self.key("labels", "instance.labels", |sentence| &sentence.labels);
        check_lengths(labels_key, words.len(), labels.len())?;
        let prediction = present_text("prediction", &self.prediction, &self.line)?;
        Ok(RowRef { dataset, words, labels, label_list, prediction })
    }

    /// The row as the aligner needs it, with its text where it has one; without words, they
    /// have to be cut from the text.
    ///
    /// # Errors
    /// A key is missing, stands both at the top and in `instance`, or has a value of the wrong
    /// type.
    pub fn aligned(&self) -> RowResult<(RowRef<'_>, Option<&str>, bool)> {
        let label_list = present_list("label_list", &self.label_list, &self.line)?;
        self.check_instance()?;
        let text = match &self.text.state {
            State::Missing => None,
            _ => Some(present_text("text", &self.text, &self.line)?),
        };
        let has_words = [&self.instance.words, &self.flat.words]
            .iter()
            .any(|list| list.state != State::Missing);
        let words = match (text, has_words) {
            (Some(_), false) => StringsRef::default(),
            (None, false) => {
                return Err(RowProblem::value(
                    Some("words"),
                    "this key is missing, and so is text",
                ));
            }
            _ => self.list("words", "instance.words", |sentence| &sentence.words)?,
        };
        let prediction = present_text("prediction", &self.prediction, &self.line)?;
        let labels = StringsRef::default();
        let row = RowRef { dataset: None, words, labels, label_list, prediction };
        Ok((row, text, has_words))
    }

    fn dataset(&self) -> RowResult<Option<&str>> {
        match &self.dataset.state {
            State::Missing => Ok(None),
            _ => present_text("dataset", &self.dataset, &self.line).map(Some),
        }
    }

    fn check_instance(&self) -> RowResult<()> {
        match &self.instance_state {
            State::Wrong(got) => Err(RowProblem::of_type("instance", "an object", got)),
            _ => Ok(()),
        }
    }

    /// The list under a key of `instance`, or else under the same key at the top; not both.
    fn list(
        &self,
        key: &'static str,
        instance_key: &'static str,
        pick: fn(&Sentence) -> &List,
    ) -> RowResult<StringsRef<'_>> {
        let sentence = match (&pick(&self.instance).state, &pick(&self.flat).state) {
            (State::Missing, _) => &self.flat,
            (_, State::Missing) => &self.instance,
            _ => return Err(in_both_places(key)),
        };
        present_list(self.key(key, instance_key, pick), pick(sentence), &self.line)
    }

    fn key(
        &self,
        key: &'static str,
        instance_key: &'static str,
        pick: fn(&Sentence) -> &List,
    ) -> &'static str {
        if pick(&self.instance).state == State::Missing { key } else { instance_key }
    }
}

/// The problem of a key that stands at the top of a row and in its `instance`: which one counts
/// cannot be known.
pub fn in_both_places(key: &str) -> RowProblem {
    RowProblem::value(Some(key), "this key stands at the top of the row and in its instance")
}

pub(super) fn check_lengths(key: &str, words: usize, labels: usize) -> RowResult<()> {
    if words == labels {
        return Ok(());
    }
    let reason = format!("words and labels must have the same length: got {words} and {labels}");
    Err(RowProblem::value(Some(key), reason))
}

/// An error that came of a row's words: what is wrong with them is a problem of the row.
pub(super) fn of_words(error: Error) -> Error {
    if error.ends_call() {
        return error;
    }
    RowProblem::value(Some("words"), error.to_string()).into()
}

/// The problem of a gold label that the row's label list does not allow.
pub(super) fn label_outside_list(index: usize, label: &str) -> RowProblem {
    RowProblem::value(Some("labels"), format!("[{index}] {} is not in label_list", quote(label)))
}

fn present_text<'a>(key: &str, text: &'a Text, line: &'a str) -> RowResult<&'a str> {
    match &text.state {
        State::Present => Ok(text.get(line)),
        State::Missing => Err(RowProblem::value(Some(key), "this key is missing")),
        State::Wrong(got) => Err(RowProblem::of_type(key, "a string", got)),
    }
}

fn present_list<'a>(key: &str, list: &'a List, line: &'a str) -> RowResult<StringsRef<'a>> {
    match &list.state {
        State::Present => Ok(list.get(line)),
        State::Missing => Err(RowProblem::value(Some(key), "this key is missing")),
        State::Wrong(got) => Err(RowProblem::of_type(key, "a list of strings", got)),
    }
}

/// What a JSON value is read into; anything but a string or list is refused by its name.
trait Sink<'de>: Sized {
    /// Keeps a string; says whether there was memory for it.
    fn string(self, value: &str) -> bool {
        let _ = value;
        self.refuse("a string");
        true
    }

    fn list<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.refuse("a list");
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.refuse("an object");
        Ok(())
    }

    fn refuse(self, got: &'static str);
}

/// Hands any JSON value to a sink.
struct Seed<S>(S);

impl<'de, S: Sink<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Sink<'de>> Visitor<'de> for Seed<S> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> std::result::Result<(), E> {
        if self.0.string(value) { Ok(()) } else { Err(E::custom("not kept")) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> std::result::Result<(), A::Error> {
        self.0.list(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> std::result::Result<(), A::Error> {
        self.0.object(entries)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        self.0.refuse("a boolean");
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        self.0.refuse("a number");
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        self.0.refuse("a number");
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        self.0.refuse("a number");
        Ok(())
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        self.0.refuse("null");
        Ok(())
    }
}

impl Sink<'_> for &mut Text {
    fn string(self, value: &str) -> bool {
        self.value.clear();
        self.failed = memory::reserve_text(&mut self.value, value.len()).err();
        if self.failed.is_some() {
            return false;
        }
        self.value.push_str(value);
        self.in_line = None;
        self.state = State::Present;
        true
    }

    fn refuse(self, got: &'static str) {
        self.state = State::Wrong(got.to_owned());
    }
}

impl<'de> Sink<'de> for &mut List {
    fn list<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        self.values.clear();
        self.in_line = None;
        self.state = State::Present;
        while items.next_element_seed(Seed(Item(self)))?.is_some() {}
        Ok(())
    }

    fn refuse(self, got: &'static str) {
        self.state = State::Wrong(got.to_owned());
    }
}

/// The next item of a list of strings.
struct Item<'l>(&'l mut List);

impl Sink<'_> for Item<'_> {
    fn string(self, value: &str) -> bool {
        self.0.failed = self.0.values.append(value).err();
        self.0.failed.is_none()
    }

    fn refuse(self, got: &'static str) {
        if self.0.state == State::Present {
            self.0.state = State::Wrong(format!("{got} at [{}]", self.0.values.len()));
        }
    }
}

/// A key, told apart without a copy.
#[derive(Clone, Copy)]
enum Key {
    Dataset,
    Text,
    Prediction,
    LabelList,
    Words,
    Labels,
    Instance,
    Other,
}

impl From<&str> for Key {
    fn from(key: &str) -> Self {
        match key {
            "dataset" => Self::Dataset,
            "text" => Self::Text,
            "prediction" => Self::Prediction,
            "label_list" => Self::LabelList,
            "words" => Self::Words,
            "labels" => Self::Labels,
            "instance" => Self::Instance,
            _ => Self::Other,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Key;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<Key, E> {
        Ok(Key::from(key))
    }
}

struct RowSeed<'r>(&'r mut RowBuffer);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        Seed(self).deserialize(deserializer)
    }
}

impl<'de> Sink<'de> for RowSeed<'_> {
    fn object<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        let row = self.0;
        while let Some(key) = entries.next_key_seed(Key::Other)? {
            row.notice(key);
            let mut reading = |name| row.reading = Some(name);
            match key {
                Key::Dataset => {
                    reading("dataset");
                    entries.next_value_seed(Seed(&mut row.dataset))?;
                }
                Key::Text => {
                    reading("text");
                    entries.next_value_seed(Seed(&mut row.text))?;
                }
                Key::Prediction => {
                    reading("prediction");
                    entries.next_value_seed(Seed(&mut row.prediction))?;
                }
                Key::LabelList => {
                    reading("label_list");
                    entries.next_value_seed(Seed(&mut row.label_list))?;
                }
                Key::Words => {
                    reading("words");
                    entries.next_value_seed(Seed(&mut row.flat.words))?;
                }
                Key::Labels => {
                    reading("labels");
                    entries.next_value_seed(Seed(&mut row.flat.labels))?;
                }
                Key::Instance => {
                    reading("instance");
                    entries.next_value_seed(Seed(Instance(row)))?;
                }
                Key::Other => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
            row.reading = None;
        }
        Ok(())
    }

    fn refuse(self, got: &'static str) {
        self.0.not_object = Some(got);
    }
}

struct Instance<'r>(&'r mut RowBuffer);

impl<'de> Sink<'de> for Instance<'_> {
    fn object<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        let row = self.0;
        row.open_instance();
        while let Some(key) = entries.next_key_seed(Key::Other)? {
            row.notice_in_instance(key);
            match key {
                Key::Words => {
                    row.reading = Some("instance.words");
                    entries.next_value_seed(Seed(&mut row.instance.words))?;
                }
                Key::Labels => {
                    row.reading = Some("instance.labels");
                    entries.next_value_seed(Seed(&mut row.instance.labels))?;
                }
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
            row.reading = Some("instance");
        }
        Ok(())
    }

    fn refuse(self, got: &'static str) {
        self.0.instance_state = State::Wrong(got.to_owned());
    }
}
