//! Values of JSON, read into reusable buffers.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::rules::{RowResult, missing};
use super::scan::{Found, Scanner};
use crate::error::{Error, RowProblem};
use crate::memory;
use crate::text::{Strings, StringsRef};

/// What stood under a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Missing,
    Present,
    /// A value of another type, in words.
    Wrong(String),
}

#[derive(Debug, Default)]
pub(super) struct Text {
    /// The text, or where it stands in the line.
    value: String,
    in_line: Option<(usize, usize)>,
    pub state: State,
    /// Why the value could not be kept.
    pub failed: Option<Error>,
}

#[derive(Debug, Default)]
pub(super) struct List {
    /// The strings, or where they stand in the line.
    values: Strings,
    in_line: Option<Vec<(usize, usize)>>,
    pub state: State,
    /// Why the values could not be kept.
    pub failed: Option<Error>,
}

impl Text {
    pub fn scan(&mut self, scanner: &mut Scanner<'_>) -> Option<()> {
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

    /// The text, if there is one.
    pub fn get<'a>(&'a self, key: &str, line: &'a str) -> RowResult<&'a str> {
        match &self.state {
            State::Present => Ok(self.present(line)),
            State::Missing => Err(missing(key)),
            State::Wrong(got) => Err(RowProblem::of_type(key, "a string", got)),
        }
    }

    #[inline]
    fn present<'a>(&'a self, line: &'a str) -> &'a str {
        self.in_line.map_or(&self.value, |(start, end)| &line[start..end])
    }
}

impl List {
    pub fn scan(&mut self, scanner: &mut Scanner<'_>, line: &str) -> Option<()> {
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

    /// The strings, if there are some.
    pub fn get<'a>(&'a self, key: &str, line: &'a str) -> RowResult<StringsRef<'a>> {
        match &self.state {
            State::Present => Ok(self.present(line)),
            State::Missing => Err(missing(key)),
            State::Wrong(got) => Err(RowProblem::of_type(key, "a list of strings", got)),
        }
    }

    #[inline]
    fn present<'a>(&'a self, line: &'a str) -> StringsRef<'a> {
        self.in_line.as_ref().map_or(self.values.all(), |ranges| StringsRef::new(line, ranges))
    }
}

/// What a JSON value is read into; anything but a string or list is refused by its name.
pub(super) trait Sink<'de>: Sized {
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
pub(super) struct Seed<S>(pub S);

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
