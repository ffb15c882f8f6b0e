//! A quick look at a row: most rows need no general JSON reader.
//!
//! Reading JSON takes half of the time from a file to its scores. Rows of predictions are plain:
//! an object of strings, lists of strings and one inner object. This reader takes such rows;
//! at anything else it gives up, and `serde_json` reads the row
//! from its start and names what is wrong with it. What it takes, it takes as `serde_json` does.

use crate::text::find_near;

/// A place in a line of JSON. Every method gives `None` where the quick look ends.
pub(super) struct Scanner<'a> {
    text: &'a str,
    place: usize,
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
        (text.bytes().fold(u8::MAX, u8::min) >= 0x20).then_some(Self { text, place: 0 })
    }

    /// The line ends here.
    pub fn end(&mut self) -> Option<()> {
        self.skip_space();
        (self.place == self.text.len()).then_some(())
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

    /// Calls `item` with each string of a list of strings.
    pub fn strings(&mut self, mut item: impl FnMut(Found)) -> Option<()> {
        self.items(b'[', b']', |scanner| {
            item(scanner.string()?);
            Some(())
        })
    }

    /// A string.
    #[inline]
    pub fn string(&mut self) -> Option<Found> {
        self.byte(b'"')?;
        let start = self.place;
        let end = self.plain_end(start);
        if self.text.as_bytes().get(end) != Some(&b'"') {
            return self.escaped_string(start, end);
        }
        self.place = end + 1;
        Some(Found::Plain(start, end))
    }

    /// A string that starts at `start` and has its first escape at `end`.
    #[cold]
    fn escaped_string(&mut self, start: usize, mut end: usize) -> Option<Found> {
        while *self.text.as_bytes().get(end)? == b'\\' {
            end = self.plain_end(end + 2);
        }
        let literal = self.text.get(start - 1..=end)?;
        self.place = end + 1;
        // Whatever ends it other than a quote, this refuses.
        serde_json::from_str(literal).ok().map(Found::Escaped)
    }

    /// A string, integer, boolean or null, whatever it says.
    pub fn skip_scalar(&mut self) -> Option<()> {
        self.skip_space();
        let rest = &self.text.as_bytes()[self.place..];
        match rest.first()? {
            b'"' => self.string().map(|_| ()),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'1'..=b'9' => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                self.place += digits;
                (!matches!(rest.get(digits), Some(b'.' | b'e' | b'E'))).then_some(())
            }
            _ => None,
        }
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        self.text[self.place..].starts_with(word).then(|| self.place += word.len())
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
        self.skip_space();
        (self.text.as_bytes().get(self.place) == Some(&byte)).then(|| self.place += 1)
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ') = self.text.as_bytes().get(self.place) {
            self.place += 1;
        }
    }

    /// The first quote or backslash at or after `start`; there are no control characters.
    #[inline]
    fn plain_end(&self, start: usize) -> usize {
        let bytes = self.text.as_bytes();
        find_near(bytes, start, b'"', b'\\').unwrap_or(bytes.len())
    }
}
