//! A quick look at a row: most rows need no general JSON reader.
//!
//! With `serde_json` alone, reading took two fifths of the work from a file to its scores. Rows
//! of predictions are plain:
//! an object of strings, lists of strings and one inner object. This reader takes such rows;
//! at anything else it gives up, and `serde_json` reads the row
//! from its start and names what is wrong with it. What it takes, it takes as `serde_json` does.

use crate::error::{Error, Result};
use crate::memory;
use crate::text::find_near;

/// A position in a line of JSON. Every method gives `None` where the quick look ends.
pub(super) struct Scanner<'a> {
    text: &'a str,
    position: usize,
    /// Why the quick look cannot be followed by a slow one: no memory, or the caller stopped.
    pub failed: Option<Error>,
}

/// A string of the line: where it stands, or with escapes resolved.
pub(super) enum Found {
    Plain(usize, usize),
    Escaped(String),
}

impl<'a> Scanner<'a> {
    /// A line without control characters: those are no part of plain rows.
    pub fn new(text: &'a str) -> Option<Self> {
        // The least byte, which needs no branches.
        (text.bytes().fold(u8::MAX, u8::min) >= 0x20).then_some(Self {
            text,
            position: 0,
            failed: None,
        })
    }

    /// Goes on after a success; an error ends the reading of the row.
    #[inline]
    pub fn or_fail(&mut self, result: Result<()>) -> Option<()> {
        match result {
            Ok(()) => Some(()),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    /// The line ends here.
    pub fn end(&mut self) -> Option<()> {
        self.skip_space();
        (self.position == self.text.len()).then_some(())
    }

    /// Calls `entry` with each key of an object; `entry` must take the value.
    pub fn object(&mut self, mut entry: impl FnMut(&str, &mut Self) -> Option<()>) -> Option<()> {
        self.items(b'{', b'}', |scanner| {
            let key = scanner.string()?;
            scanner.byte(b':')?;
            match key {
                Found::Plain(start, end) => entry(&scanner.text[start..end], scanner),
                Found::Escaped(key) => entry(&key, scanner),
            }
        })
    }

    /// Appends where each string of a list of plain strings stands.
    ///
    /// The position stays if the list holds anything else.
    pub fn plain_strings(&mut self, ranges: &mut Vec<(usize, usize)>) -> Option<()> {
        let bytes = self.text.as_bytes();
        let after_space = |mut position: usize| {
            while bytes.get(position) == Some(&b' ') {
                position += 1;
            }
            position
        };
        let mut position = after_space(self.position);
        if *bytes.get(position)? != b'[' {
            return None;
        }
        position = after_space(position + 1);
        if *bytes.get(position)? == b']' {
            self.position = position + 1;
            return Some(());
        }
        loop {
            if *bytes.get(position)? != b'"' {
                return None;
            }
            let start = position + 1;
            let end = find_near(bytes, start, b'"', b'\\')?;
            if bytes[end] != b'"' {
                return None;
            }
            let kept = memory::push(ranges, (start, end));
            self.or_fail(kept)?;
            position = after_space(end + 1);
            match *bytes.get(position)? {
                b',' => position = after_space(position + 1),
                b']' => {
                    self.position = position + 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Calls `item` at each string of a list of strings; `item` must take the string.
    pub fn strings(&mut self, item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.failed.is_some() {
            return None;
        }
        self.items(b'[', b']', item)
    }

    /// A string: plain, or else with escapes.
    pub fn string(&mut self) -> Option<Found> {
        match self.plain_string() {
            Some((start, end)) => Some(Found::Plain(start, end)),
            None if self.failed.is_some() => None,
            None => self.escaped_string().map(Found::Escaped),
        }
    }

    /// Where a string without escapes stands; the position stays if there is none.
    #[inline]
    pub fn plain_string(&mut self) -> Option<(usize, usize)> {
        self.skip_space();
        let bytes = self.text.as_bytes();
        if bytes.get(self.position) != Some(&b'"') {
            return None;
        }
        let start = self.position + 1;
        let end = find_near(bytes, start, b'"', b'\\')?;
        if bytes[end] != b'"' {
            return None;
        }
        self.position = end + 1;
        Some((start, end))
    }

    /// A string with escapes, resolved.
    #[cold]
    pub fn escaped_string(&mut self) -> Option<String> {
        self.byte(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.position;
        let mut end = find_near(bytes, start, b'"', b'\\')?;
        while bytes[end] == b'\\' {
            end = find_near(bytes, end + 2, b'"', b'\\')?;
        }
        self.position = end + 1;
        // The text is put together in memory that doubles, and copied.
        let enough = memory::probe((end - start).saturating_mul(3));
        self.or_fail(enough)?;
        serde_json::from_str(&self.text[start - 1..=end]).ok()
    }

    /// A string, integer, boolean or null, whatever it says.
    pub fn skip_scalar(&mut self) -> Option<()> {
        self.skip_space();
        let rest = &self.text.as_bytes()[self.position..];
        match rest.first()? {
            b'"' => self.string().map(|_| ()),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'1'..=b'9' => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                self.position += digits;
                (!matches!(rest.get(digits), Some(b'.' | b'e' | b'E'))).then_some(())
            }
            _ => None,
        }
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        self.text[self.position..].starts_with(word).then(|| self.position += word.len())
    }

    /// `open item, item close`, with white space anywhere between.
    fn items(
        &mut self,
        open: u8,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.byte(open)?;
        if self.byte(close).is_some() {
            return Some(());
        }
        loop {
            item(self)?;
            if self.byte(b',').is_none() {
                return self.byte(close);
            }
        }
    }

    /// This byte, after white space.
    #[inline]
    fn byte(&mut self, byte: u8) -> Option<()> {
        if self.text.as_bytes().get(self.position) == Some(&byte) {
            self.position += 1;
            return Some(());
        }
        self.skip_space();
        (self.text.as_bytes().get(self.position) == Some(&byte)).then(|| self.position += 1)
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ') = self.text.as_bytes().get(self.position) {
            self.position += 1;
        }
    }
}
