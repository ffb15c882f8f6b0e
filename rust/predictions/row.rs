//! One row of JSON, read straight into reusable buffers.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::json::{List, Seed, Sink, State, Text};
use super::rules::{
    BOTH, Found, LABEL_LIST, LABELS, RowResult, SentenceKeys, TWICE, TYPES, WORDS, check_lengths,
};
use super::scan::Scanner;
use crate::error::{Error, Result, RowProblem};
use crate::memory;
use crate::text::StringsRef;

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
    /// The first key that stood in its object before, or under its other name.
    doubled: Option<(&'static str, &'static str)>,
    dataset: Text,
    text: Text,
    prediction: Text,
    label_list: List,
    /// The name under which the types stood: `types`, or the authors' `label_list`.
    types_key: &'static str,
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
            Some((key, problem)) => Err(RowProblem::value(Some(key), problem).into()),
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
                Key::Types | Key::LabelList => self.label_list.scan(scanner, line),
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
            Key::Types => return self.notice_types(TYPES),
            Key::LabelList => return self.notice_types(LABEL_LIST),
            Key::Words => (&self.flat.words.state, "words"),
            Key::Labels => (&self.flat.labels.state, "labels"),
            Key::Instance => (&self.instance_state, "instance"),
            Key::Other => return,
        };
        if *state != State::Missing {
            self.doubled.get_or_insert((name, TWICE));
        }
    }

    /// The same for the types, which have two names.
    #[inline]
    fn notice_types(&mut self, key: &'static str) {
        if self.label_list.state == State::Missing {
            self.types_key = key;
        } else {
            let doubled = if self.types_key == key { (key, TWICE) } else { (TYPES, BOTH) };
            self.doubled.get_or_insert(doubled);
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
            self.doubled.get_or_insert((name, TWICE));
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
        self.types_key = TYPES;
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
        let label_list = self.label_list.get(self.types_key, &self.line)?;
        self.check_instance()?;
        let (words, _) = self.list(WORDS, |sentence| &sentence.words)?;
        let (labels, key) = self.list(LABELS, |sentence| &sentence.labels)?;
        check_lengths(key, words.len(), labels.len())?;
        let prediction = self.prediction.get("prediction", &self.line)?;
        Ok(RowRef { dataset, words, labels, label_list, prediction })
    }

    /// The row as the aligner needs it, with its text where it has one; without words, they
    /// have to be cut from the text.
    ///
    /// # Errors
    /// A key is missing, stands both at the top and in `instance`, or has a value of the wrong
    /// type.
    pub fn aligned(&self) -> RowResult<(RowRef<'_>, Option<&str>, bool)> {
        let label_list = self.label_list.get(self.types_key, &self.line)?;
        self.check_instance()?;
        let text = match &self.text.state {
            State::Missing => None,
            _ => Some(self.text.get("text", &self.line)?),
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
            _ => self.list(WORDS, |sentence| &sentence.words)?.0,
        };
        let prediction = self.prediction.get("prediction", &self.line)?;
        let labels = StringsRef::default();
        let row = RowRef { dataset: None, words, labels, label_list, prediction };
        Ok((row, text, has_words))
    }

    fn dataset(&self) -> RowResult<Option<&str>> {
        match &self.dataset.state {
            State::Missing => Ok(None),
            _ => self.dataset.get("dataset", &self.line).map(Some),
        }
    }

    fn check_instance(&self) -> RowResult<()> {
        match &self.instance_state {
            State::Wrong(got) => Err(RowProblem::of_type("instance", "an object", got)),
            _ => Ok(()),
        }
    }

    /// The list of a sentence, and the name of its key.
    fn list(
        &self,
        keys: SentenceKeys,
        pick: fn(&Sentence) -> &List,
    ) -> RowResult<(StringsRef<'_>, &'static str)> {
        let present = |list: &'_ List| list.state != State::Missing;
        let (flat, instance) = (pick(&self.flat), pick(&self.instance));
        let found = Found {
            at_top: present(flat).then_some(flat),
            in_instance: present(instance).then_some(instance),
        };
        let (list, key) = found.choose(keys)?;
        Ok((list.get(key, &self.line)?, key))
    }
}

/// A key, told apart without a copy.
#[derive(Clone, Copy)]
enum Key {
    Dataset,
    Text,
    Prediction,
    Types,
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
            "types" => Self::Types,
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
                Key::Types | Key::LabelList => {
                    reading(if matches!(key, Key::Types) { TYPES } else { LABEL_LIST });
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
