//! Strings side by side in one buffer: no allocation for each.

use std::hash::BuildHasher;

use crate::error::Result;
use crate::memory;

/// Many strings in one buffer: no allocation per string, cleared and reused per row.
#[derive(Debug, Clone, Default)]
pub struct Strings {
    text: String,
    /// String k is `text[ranges[k].0..ranges[k].1]`; there may be other text between them.
    ranges: Vec<(usize, usize)>,
}

impl Strings {
    /// Forgets all strings and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ranges.clear();
    }

    /// Forgets all strings but the first ones, and all text but the first bytes.
    fn truncate(&mut self, strings: usize, bytes: usize) {
        self.ranges.truncate(strings);
        self.text.truncate(bytes);
    }

    /// Appends one string.
    pub fn push(&mut self, string: &str) {
        let start = self.text.len();
        // Most labels are "O": one byte needs no call to copy memory.
        match *string.as_bytes() {
            [byte] => self.text.push(char::from(byte)),
            _ => self.text.push_str(string),
        }
        self.ranges.push((start, self.text.len()));
    }

    /// Appends one string of any length, or as one of any number.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops.
    #[inline]
    pub fn append(&mut self, string: &str) -> Result<()> {
        let start = self.text.len();
        memory::reserve_text(&mut self.text, string.len())?;
        self.text.push_str(string);
        memory::push(&mut self.ranges, (start, self.text.len()))
    }

    /// Makes room for strings and for their bytes.
    ///
    /// # Errors
    /// The memory is refused.
    pub fn reserve(&mut self, strings: usize, bytes: usize) -> Result<()> {
        memory::reserve(&mut self.ranges, strings)?;
        memory::reserve_text(&mut self.text, bytes)
    }

    /// Puts a text into the buffer, as no string yet, and says where it stands.
    pub fn keep(&mut self, text: &str) -> (usize, usize) {
        let start = self.text.len();
        self.text.push_str(text);
        (start, self.text.len())
    }

    /// The text, and the range of each string in it.
    #[cfg(all(feature = "python", not(Py_GIL_DISABLED)))]
    pub(crate) fn parts(&mut self) -> (&mut String, &mut Vec<(usize, usize)>) {
        (&mut self.text, &mut self.ranges)
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// All strings.
    pub fn all(&self) -> StringsRef<'_> {
        StringsRef { text: &self.text, ranges: &self.ranges }
    }

    /// The strings from `start` to `end` (exclusive).
    pub fn range(&self, start: usize, end: usize) -> StringsRef<'_> {
        StringsRef { text: &self.text, ranges: &self.ranges[start..end] }
    }
}

impl<S: AsRef<str>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Self::default();
        for string in strings {
            all.push(string.as_ref());
        }
        all
    }
}

/// A view of strings that stand in one text, in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct StringsRef<'a> {
    text: &'a str,
    ranges: &'a [(usize, usize)],
}

impl<'a> StringsRef<'a> {
    /// The strings at these ranges of a text; they must follow each other.
    pub fn new(text: &'a str, ranges: &'a [(usize, usize)]) -> Self {
        Self { text, ranges }
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// String number `index`.
    pub fn get(&self, index: usize) -> &'a str {
        let (start, end) = self.ranges[index];
        &self.text[start..end]
    }

    /// The bytes of string number `index`.
    #[inline]
    pub fn bytes(&self, index: usize) -> &'a [u8] {
        let (start, end) = self.ranges[index];
        &self.text.as_bytes()[start..end]
    }

    /// Whether string number `index` is this one letter.
    #[inline]
    pub fn is_letter(&self, index: usize, letter: u8) -> bool {
        let (start, end) = self.ranges[index];
        end - start == 1 && self.text.as_bytes()[start] == letter
    }

    /// The strings in order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        self.ranges.iter().map(move |&(start, end)| &self.text[start..end])
    }

    /// The part of the text from the first string to the last, with what is between them.
    pub fn region(&self) -> &'a str {
        match (self.ranges.first(), self.ranges.last()) {
            (Some(first), Some(last)) => &self.text[first.0..last.1],
            _ => "",
        }
    }

    /// The range of each string within [`Self::region`].
    pub fn ranges(self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let first = self.ranges.first().map_or(0, |range| range.0);
        self.ranges.iter().map(move |&(start, end)| start - first..end - first)
    }

    /// Owned copies of the strings.
    pub fn to_vec(self) -> Vec<String> {
        self.iter().map(str::to_owned).collect()
    }

    /// Whether both views hold the same strings.
    pub fn equals(&self, other: StringsRef<'_>) -> bool {
        self.len() == other.len() && (0..self.len()).all(|k| self.bytes(k) == other.bytes(k))
    }
}

/// Rows of strings, side by side; equal rows may share what they hold.
#[derive(Debug, Clone, Default)]
pub struct StringRows {
    strings: Strings,
    /// Where the strings of each row stand.
    rows: Vec<(usize, usize)>,
    /// Number of strings before the row that is being put together, and of their bytes.
    closed: usize,
    closed_bytes: usize,
}

impl StringRows {
    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.strings.clear();
        self.rows.clear();
        (self.closed, self.closed_bytes) = (0, 0);
    }

    /// Forgets the row that is being put together.
    pub fn drop_open(&mut self) {
        self.strings.truncate(self.closed, self.closed_bytes);
    }

    /// The row that is being put together: what is pushed here belongs to it.
    pub fn open(&mut self) -> &mut Strings {
        &mut self.strings
    }

    /// Number of strings in the row that is being put together.
    pub fn open_len(&self) -> usize {
        self.strings.len() - self.closed
    }

    /// Makes room for one more row, whose strings may be none.
    ///
    /// # Errors
    /// The memory is refused.
    pub fn reserve_row(&mut self) -> Result<()> {
        memory::reserve(&mut self.rows, 1)
    }

    /// Ends the row.
    pub fn end_row(&mut self) {
        self.rows.push((self.closed, self.strings.len()));
        (self.closed, self.closed_bytes) = (self.strings.len(), self.strings.text.len());
    }

    /// Ends the row, or drops it if it equals one of the last `count`; returns its index.
    pub fn end_row_unless_known(&mut self, count: usize) -> usize {
        if let Some(known) = self.find_open((0..self.len()).rev().take(count)) {
            self.drop_open();
            return known;
        }
        self.end_row();
        self.len() - 1
    }

    /// Which of some rows equals the one that is being put together.
    fn find_open(&self, mut rows: impl Iterator<Item = usize>) -> Option<usize> {
        let open = self.strings.range(self.closed, self.strings.len());
        rows.find(|&row| self.row(row).equals(open))
    }

    /// Adds a row that holds what an earlier one holds.
    pub fn repeat_row(&mut self, row: usize) {
        self.rows.push(self.rows[row]);
    }

    /// Ends the row; if it equals one of `rows`, both share what they hold. Says whether it does
    /// not.
    pub fn end_shared_row(&mut self, rows: &[usize]) -> bool {
        let Some(known) = self.find_open(rows.iter().copied()) else {
            self.end_row();
            return true;
        };
        self.drop_open();
        self.repeat_row(known);
        false
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One row.
    pub fn row(&self, index: usize) -> StringsRef<'_> {
        let (start, end) = self.rows[index];
        self.strings.range(start, end)
    }
}

/// Strings numbered in the order of their first appearance.
#[derive(Debug, Clone, Default)]
pub struct Interner {
    table: hashbrown::HashTable<u32>,
    strings: Strings,
    hasher: foldhash::fast::RandomState,
    /// The number given last: texts repeat themselves.
    last: u32,
}

impl Interner {
    /// Forgets all strings and keeps the memory.
    pub fn clear(&mut self) {
        self.table.clear();
        self.strings.clear();
    }

    /// The number of a string, new if it was not seen before.
    ///
    /// # Errors
    /// The memory is refused.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "2^32 distinct strings do not fit a buffer"
    )]
    pub fn intern(&mut self, string: &str) -> Result<u32> {
        if self.is(self.last, string) {
            return Ok(self.last);
        }
        let Self { table, strings, hasher, .. } = self;
        let hash = hasher.hash_one(string);
        if table.len() == table.capacity() {
            table
                .try_reserve(1, |&id| hasher.hash_one(strings.all().get(id as usize)))
                .map_err(|_| memory::refused(strings.len()))?;
        }
        let entry = table.entry(
            hash,
            |&id| strings.all().bytes(id as usize) == string.as_bytes(),
            |&id| hasher.hash_one(strings.all().get(id as usize)),
        );
        self.last = match entry {
            hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
            hashbrown::hash_table::Entry::Vacant(free) => {
                let id = strings.len() as u32;
                strings.append(string)?;
                free.insert(id);
                id
            }
        };
        Ok(self.last)
    }

    /// The number of a string, if it was seen before.
    pub fn find(&self, string: &str) -> Option<u32> {
        let strings = self.strings.all();
        let hash = self.hasher.hash_one(string);
        self.table.find(hash, |&id| strings.bytes(id as usize) == string.as_bytes()).copied()
    }

    /// Whether the string with this number is this one.
    pub fn is(&self, id: u32, string: &str) -> bool {
        (id as usize) < self.len() && self.strings.all().bytes(id as usize) == string.as_bytes()
    }

    /// The string with this number.
    pub fn get(&self, id: u32) -> &str {
        self.strings.all().get(id as usize)
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.strings.len()
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.strings.is_empty()
    }
}
