//! Strings side by side in one buffer, and characters read as Python reads them.

use std::hash::BuildHasher;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

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

    /// Forgets all strings but the first ones.
    pub fn truncate(&mut self, length: usize) {
        self.ranges.truncate(length);
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

    /// Puts a text into the buffer, as no string yet, and says where it stands.
    pub fn keep(&mut self, text: &str) -> (usize, usize) {
        let start = self.text.len();
        self.text.push_str(text);
        (start, self.text.len())
    }

    /// The text, and the range of each string in it.
    #[cfg(feature = "python")]
    pub(crate) fn parts(&mut self) -> (&mut String, &mut Vec<(usize, usize)>) {
        (&mut self.text, &mut self.ranges)
    }

    /// Appends a string that was kept.
    pub fn push_kept(&mut self, kept: (usize, usize)) {
        self.ranges.push(kept);
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

/// Appends the lower-case form of a word: Unicode full mapping, as Python's `str.lower`.
pub fn push_lowercase(word: &str, out: &mut String) {
    if word.is_ascii() {
        let start = out.len();
        out.push_str(word);
        out[start..].make_ascii_lowercase();
    } else {
        out.push_str(&word.to_lowercase());
    }
}

/// Whether Python's `str.isspace` holds: white space and the four ASCII separators.
pub fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

/// Whether Python's `str.isalnum` holds: letters and numbers.
pub fn is_alphanumeric(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_alphanumeric();
    }
    matches!(
        character.general_category_group(),
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number
    )
}

/// Whether the character is a combining mark.
pub fn is_mark(character: char) -> bool {
    !character.is_ascii() && character.general_category_group() == GeneralCategoryGroup::Mark
}

/// Rows of strings, side by side.
#[derive(Debug, Clone, Default)]
pub struct StringRows {
    strings: Strings,
    /// Number of strings up to the end of each row.
    ends: Vec<usize>,
}

impl StringRows {
    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.strings.clear();
        self.ends.clear();
    }

    /// Forgets the row that is being put together.
    pub fn drop_open(&mut self) {
        self.strings.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// The row that is being put together: what is pushed here belongs to it.
    pub fn open(&mut self) -> &mut Strings {
        &mut self.strings
    }

    /// Number of strings in the row that is being put together.
    pub fn open_len(&self) -> usize {
        self.strings.len() - self.ends.last().copied().unwrap_or(0)
    }

    /// Ends the row.
    pub fn end_row(&mut self) {
        self.ends.push(self.strings.len());
    }

    /// Ends the row, or drops it if it equals one of the last `count`; returns its place.
    pub fn end_row_unless_known(&mut self, count: usize) -> usize {
        let start = self.ends.last().copied().unwrap_or(0);
        let open = self.strings.range(start, self.strings.len());
        let recent = (0..self.len()).rev().take(count);
        if let Some(known) = recent.into_iter().find(|&k| self.row(k).equals(open)) {
            self.drop_open();
            return known;
        }
        self.end_row();
        self.len() - 1
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One row.
    pub fn row(&self, index: usize) -> StringsRef<'_> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.strings.range(start, self.ends[index])
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
    #[allow(clippy::cast_possible_truncation)] // 2^32 distinct strings do not fit a buffer
    pub fn intern(&mut self, string: &str) -> u32 {
        if self.is(self.last, string) {
            return self.last;
        }
        let Self { table, strings, hasher, .. } = self;
        let hash = hasher.hash_one(string);
        let entry = table.entry(
            hash,
            |&id| strings.all().bytes(id as usize) == string.as_bytes(),
            |&id| hasher.hash_one(strings.all().get(id as usize)),
        );
        self.last = match entry {
            hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
            hashbrown::hash_table::Entry::Vacant(place) => {
                let id = strings.len() as u32;
                place.insert(id);
                strings.push(string);
                id
            }
        };
        self.last
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

/// The first of two ASCII characters at or after `start`, where it is likely to be near.
///
/// Eight bytes fit one machine word, in which a comparison is a subtraction: a byte's high bit
/// shows where it is equal, and a borrow can only add marks above the first true one. A
/// general search follows where the next sixteen bytes hold neither, or do not exist.
#[inline]
pub fn find_near(bytes: &[u8], start: usize, first: u8, second: u8) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let marks = |eight: u64| {
        let equal = |byte: u8| {
            let difference = eight ^ (ONES * u64::from(byte));
            difference.wrapping_sub(ONES) & !difference
        };
        (equal(first) | equal(second)) & (ONES << 7)
    };
    let mut place = start;
    if let Some(sixteen) = bytes.get(place..).and_then(<[u8]>::first_chunk::<16>) {
        let sixteen = u128::from_le_bytes(*sixteen);
        #[allow(clippy::cast_possible_truncation)] // each half is taken
        let (low, high) = (marks(sixteen as u64), marks((sixteen >> 64) as u64));
        if low | high != 0 {
            // Which half it is cannot be foreseen: both are counted, and one is chosen.
            let in_low = low.trailing_zeros() as usize / 8;
            let in_high = high.trailing_zeros() as usize / 8 + 8;
            return Some(place + if low == 0 { in_high } else { in_low });
        }
        place += 16;
    }
    memchr::memchr2(first, second, bytes.get(place..)?).map(|offset| place + offset)
}
