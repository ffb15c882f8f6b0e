//! Interactions: the columns of a text as numbers of their distinct values, and rows by user.
//!
//! A file of interactions repeats its ids, so that each block of lines numbers its own distinct
//! values and only these are looked up among all. What is unusual in any way is for a reader that
//! can say what it is: no row of such a text is returned. Rows are brought to their users by
//! counting, and sorted by time within a user, who is short.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::ops::Range;

use foldhash::fast::RandomState;
use memchr::{memchr, memchr_iter, memchr2_iter};

use crate::check::{id_in_range, in_range, item_in_range, same_length};
use crate::error::Result;
use crate::interrupt::{self, Steps};
use crate::memory;
use crate::threads::{count, run_blocks};

/// Bytes of a block of lines: few blocks, as each looks up its distinct values among all; and not
/// one for each thread, as these may be of different speed.
const BLOCK: Range<usize> = 1 << 16..1 << 24;
/// Blocks for each thread, if the text is neither short nor long.
const BLOCKS_PER_THREAD: usize = 4;
/// Digits that always fit 64 bits.
const MOST_DIGITS: usize = 18;
/// Groups of neighbouring users: few enough that each has its place in the cache, and enough that
/// the rows of one do.
const GROUPS: usize = 256;
/// Rows that are sorted without a look for whether to go on.
const SORTED_AT_ONCE: usize = 1 << 16;

/// How the lines of a text are cut, and which of their fields are read.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    /// Between two fields; not empty.
    pub separator: &'a str,
    /// Whether fields may stand in `"`.
    pub quoted: bool,
    /// Fields of each line.
    pub width: usize,
    /// Columns whose values are numbered.
    pub labels: &'a [usize],
    /// The column of whole numbers, if any.
    pub number: Option<usize>,
}

/// The columns of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns<'a> {
    /// Of each column of labels the number of each row's value, from 0.
    pub codes: Vec<Vec<i32>>,
    /// Of each column of labels its distinct values, in the order of first appearance.
    pub names: Vec<Vec<&'a str>>,
    /// Each row's whole number.
    pub numbers: Vec<i64>,
}

/// Items of each user in the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grouped {
    /// User u of 1..U has the items `offsets[u - 1]..offsets[u]`.
    pub offsets: Vec<i64>,
    /// The items.
    pub items: Vec<i64>,
    /// Their times, ascending for each user; empty where there are none.
    pub times: Vec<i64>,
    /// Rows with an earlier time than the user's row before.
    pub unsorted: usize,
    /// Rows with an item that the user has in another row before.
    pub repeated: usize,
}

/// Whole numbers below this are looked up by themselves, the others by their hashes.
const MOST_DENSE: usize = 1 << 21;
/// Digits of these.
const DENSE_DIGITS: usize = 7;

/// Values that wait for their numbers, to be looked up together.
const WAITING: usize = 64;

/// The distinct values met so far.
#[derive(Default)]
struct Names<'a> {
    /// By a whole number, one more than the number of the value that is written so.
    dense: Vec<i32>,
    /// Numbers of values of at most 15 bytes, which are compared without looking at the text.
    short: HashMap<u128, i32, RandomState>,
    long: HashMap<&'a str, i32, RandomState>,
    all: Vec<&'a str>,
    /// Texts whose numbers are not written yet.
    waiting: Vec<Waiting<'a>>,
}

/// A text, and where its number goes.
struct Waiting<'a> {
    name: &'a str,
    key: Option<u128>,
    place: usize,
}

impl<'a> Names<'a> {
    /// Appends the number of a value; that of a text may only stand there after [`Self::settle`].
    #[inline]
    fn push(&mut self, name: &'a str, numbers: &mut Vec<i32>) -> Result<()> {
        let value = parse_dense(name.as_bytes());
        match value.and_then(|value| self.dense.get(value)) {
            Some(&next) if next > 0 => memory::push(numbers, next - 1),
            _ => self.push_any(value, name, numbers),
        }
    }

    #[inline(never)]
    fn push_any(
        &mut self,
        value: Option<usize>,
        name: &'a str,
        numbers: &mut Vec<i32>,
    ) -> Result<()> {
        if let Some(value) = value {
            // What waits came first.
            self.settle(numbers)?;
            let number = self.add_dense(value, name)?;
            return memory::push(numbers, number);
        }
        let waiting = Waiting { name, key: short_key(name), place: numbers.len() };
        memory::push(&mut self.waiting, waiting)?;
        memory::push(numbers, 0)?;
        if self.waiting.len() < WAITING { Ok(()) } else { self.settle(numbers) }
    }

    /// Writes the numbers of what waits.
    fn settle(&mut self, numbers: &mut [i32]) -> Result<()> {
        // The places of a large table are not in the cache. A loop that does nothing else waits for
        // many of them at once.
        let mut known = [None; WAITING];
        for (known, text) in known.iter_mut().zip(&self.waiting) {
            *known = match text.key {
                Some(key) => self.short.get(&key).copied(),
                None => self.long.get(text.name).copied(),
            };
        }
        for (known, text) in known.into_iter().zip(self.waiting.drain(..)) {
            numbers[text.place] = match (known, text.key) {
                (Some(number), _) => number,
                // A new one may wait twice.
                (None, Some(key)) => look_up(&mut self.short, key, &mut self.all, text.name)?,
                (None, None) => look_up(&mut self.long, text.name, &mut self.all, text.name)?,
            };
        }
        Ok(())
    }

    #[cold]
    fn add_dense(&mut self, value: usize, name: &'a str) -> Result<i32> {
        if value >= self.dense.len() {
            let length = (value + 1).next_power_of_two();
            let more = length - self.dense.len();
            memory::reserve(&mut self.dense, more)?;
            self.dense.resize(length, 0);
        }
        let number = add(&mut self.all, name)?;
        self.dense[value] = new_number(self.all.len())?;
        Ok(number)
    }
}

/// The number of a text, which is appended where it is new.
fn look_up<'a, K: Eq + Hash>(
    numbers: &mut HashMap<K, i32, RandomState>,
    key: K,
    all: &mut Vec<&'a str>,
    name: &'a str,
) -> Result<i32> {
    numbers.try_reserve(1).map_err(|_| memory::refused(all.len()))?;
    match numbers.entry(key) {
        Entry::Occupied(entry) => Ok(*entry.get()),
        Entry::Vacant(entry) => Ok(*entry.insert(add(all, name)?)),
    }
}

/// Appends a new value, and returns its number.
fn add<'a>(all: &mut Vec<&'a str>, name: &'a str) -> Result<i32> {
    let number = new_number(all.len())?;
    memory::push(all, name)?;
    Ok(number)
}

/// The bytes of a short text and how many they are, as it may end in zeros.
#[inline]
fn short_key(name: &str) -> Option<u128> {
    let mut key = [0; size_of::<u128>()];
    let (length, bytes) = key.split_last_mut()?;
    bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    *length = name.len().to_le_bytes()[0];
    Some(u128::from_le_bytes(key))
}

/// A small whole number that is written as one would be printed.
#[inline]
fn parse_dense(name: &[u8]) -> Option<usize> {
    if name.is_empty() || name.len() > DENSE_DIGITS || (name[0] == b'0' && name.len() > 1) {
        return None;
    }
    let mut value = 0;
    for byte in name {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = 10 * value + usize::from(digit);
    }
    (value < MOST_DENSE).then_some(value)
}

fn new_number(number: usize) -> Result<i32> {
    i32::try_from(number).map_err(|_| memory::refused(number))
}

/// The columns of a text, or nothing if a line of it is unusual.
///
/// A usual text is lines of `width` fields, the last with or without a line feed. Fields that are
/// read as labels are not empty, the whole number is of at most 18 digits, perhaps behind a minus.
/// There is no carriage return, and a `"` only where fields may be quoted: around a whole field
/// that has no other one in it, and no line feed. `threads` does not change the result.
///
/// # Errors
/// A layout that is none, or memory that is refused.
pub fn read_columns<'a>(
    text: &'a [u8],
    layout: Layout<'_>,
    threads: Option<usize>,
) -> Result<Option<Columns<'a>>> {
    let Layout { separator, width, labels, number, .. } = layout;
    in_range("separator", separator.len() as i128, 1..)?;
    in_range("width", width as i128, 1..)?;
    for (index, &column) in labels.iter().enumerate() {
        item_in_range("labels", index, column as i128, 0..width as i128)?;
    }
    if let Some(column) = number {
        in_range("number", column as i128, 0..width as i128)?;
    }
    let rows = most_rows(text, width);
    let mut all = Columns { codes: Vec::new(), names: Vec::new(), numbers: Vec::new() };
    for _ in labels {
        memory::push(&mut all.codes, memory::with_capacity(rows)?)?;
    }
    if number.is_some() {
        all.numbers = memory::with_capacity(rows)?;
    }
    let mut names: Vec<Names<'a>> = labels.iter().map(|_| Names::default()).collect();
    let block = (text.len() / (BLOCKS_PER_THREAD * count(threads))).clamp(BLOCK.start, BLOCK.end);
    let (mut rest, is_usual) = (text, Cell::new(true));
    let mut steps = Steps::default();
    run_blocks(
        threads,
        &mut || Ok(is_usual.get().then(|| cut_lines(&mut rest, block)).flatten()),
        &|(): &mut (), lines: &'a [u8]| read_lines(lines, layout),
        &mut |part: Result<Option<Columns<'a>>>| match part? {
            Some(part) if is_usual.get() => all_of(&mut all, &mut names, part, &mut steps),
            _ => {
                is_usual.set(false);
                Ok(())
            }
        },
        &mut interrupt::check,
    )?;
    all.names = names.into_iter().map(|names| names.all).collect();
    Ok(is_usual.get().then_some(all))
}

/// At least as many rows as a text has.
fn most_rows(text: &[u8], width: usize) -> usize {
    // A row has its line feed, and between and in its fields at least as many bytes.
    (memchr_iter(b'\n', text).count() + 1).min(text.len() / width + 1)
}

/// Appends the rows of a block, its numbers of values replaced by those among all.
fn all_of<'a>(
    all: &mut Columns<'a>,
    names: &mut [Names<'a>],
    part: Columns<'a>,
    steps: &mut Steps,
) -> Result<()> {
    for ((codes, names), (own_codes, own_names)) in
        all.codes.iter_mut().zip(names).zip(part.codes.into_iter().zip(part.names))
    {
        let mut numbers = memory::with_capacity(own_names.len())?;
        for name in own_names {
            steps.take(1)?;
            names.push(name, &mut numbers)?;
        }
        names.settle(&mut numbers)?;
        memory::reserve(codes, own_codes.len())?;
        codes.extend(own_codes.into_iter().map(|code| numbers[code.cast_unsigned() as usize]));
    }
    memory::reserve(&mut all.numbers, part.numbers.len())?;
    all.numbers.extend(part.numbers);
    Ok(())
}

/// Whole lines of about so many bytes from the start of a text.
fn cut_lines<'a>(rest: &mut &'a [u8], block: usize) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let end = rest.get(block..).and_then(|after| memchr(b'\n', after));
    let (lines, after) = rest.split_at(end.map_or(rest.len(), |end| block + end + 1));
    *rest = after;
    Some(lines)
}

/// What stands behind a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Field,
    Line,
}

/// The columns of a block of lines, as far as they are read.
struct Reader<'a, 'l> {
    text: &'a str,
    layout: Layout<'l>,
    names: Vec<Names<'a>>,
    codes: Vec<Vec<i32>>,
    numbers: Vec<i64>,
    /// Of the next field.
    column: usize,
}

impl Reader<'_, '_> {
    /// Takes the next field, and says whether it is usual.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call for each field takes longer than the field")]
    fn take(&mut self, field: Range<usize>, after: After) -> Result<bool> {
        let column = self.column;
        let is_last = column + 1 == self.layout.width;
        if (after == After::Line) != is_last {
            return Ok(false);
        }
        self.column = if is_last { 0 } else { column + 1 };
        for (index, _) in self.layout.labels.iter().enumerate().filter(|(_, of)| **of == column) {
            // Separators, quotes and line feeds cut no character.
            let Some(name) = self.text.get(field.clone()).filter(|name| !name.is_empty()) else {
                return Ok(false);
            };
            self.names[index].push(name, &mut self.codes[index])?;
        }
        if self.layout.number == Some(column) {
            let Some(number) = parse_number(&self.text.as_bytes()[field]) else {
                return Ok(false);
            };
            memory::push(&mut self.numbers, number)?;
        }
        Ok(true)
    }
}

/// The columns of a block of lines.
fn read_lines<'a>(lines: &'a [u8], layout: Layout<'_>) -> Result<Option<Columns<'a>>> {
    let Ok(text) = std::str::from_utf8(lines) else { return Ok(None) };
    if memchr(b'\r', lines).is_some() {
        return Ok(None);
    }
    let rows = most_rows(lines, layout.width);
    let mut reader = Reader {
        text,
        layout,
        names: layout.labels.iter().map(|_| Names::default()).collect(),
        codes: layout.labels.iter().map(|_| memory::with_capacity(rows)).collect::<Result<_>>()?,
        numbers: memory::with_capacity(if layout.number.is_some() { rows } else { 0 })?,
        column: 0,
    };
    let has_quotes = layout.quoted && memchr(b'"', lines).is_some();
    let (mut steps, mut at) = (Steps::default(), 0);
    if let (&[separator], false) = (layout.separator.as_bytes(), has_quotes) {
        for end in memchr2_iter(separator, b'\n', lines) {
            steps.take(1)?;
            let after = if lines[end] == b'\n' { After::Line } else { After::Field };
            if !reader.take(at..end, after)? {
                return Ok(None);
            }
            at = end + 1;
        }
    }
    // A field of any form; else what is left: the last of a text without a line feed at its end.
    while at < lines.len() || reader.column > 0 {
        let Some((field, after, next)) = take_field(lines, at, layout.separator, has_quotes) else {
            return Ok(None);
        };
        steps.take(next - at)?;
        if !reader.take(field, after)? {
            return Ok(None);
        }
        at = next;
    }
    for (names, codes) in reader.names.iter_mut().zip(&mut reader.codes) {
        names.settle(codes)?;
    }
    let names = reader.names.into_iter().map(|names| names.all).collect();
    Ok(Some(Columns { codes: reader.codes, names, numbers: reader.numbers }))
}

/// Where a field lies, what is behind it, and where the next one starts; nothing if it is unusual.
#[inline]
fn take_field(
    lines: &[u8],
    start: usize,
    separator: &str,
    has_quotes: bool,
) -> Option<(Range<usize>, After, usize)> {
    let separator = separator.as_bytes();
    let (field, end) = if has_quotes && lines.get(start) == Some(&b'"') {
        let inner = &lines[start + 1..];
        let length = memchr(b'"', inner)?;
        if memchr(b'\n', &inner[..length]).is_some() {
            return None;
        }
        (start + 1..start + 1 + length, start + length + 2)
    } else {
        let mut end = start;
        while let Some(&byte) = lines.get(end) {
            if byte == b'\n' || (byte == separator[0] && lines[end..].starts_with(separator)) {
                break;
            }
            if has_quotes && byte == b'"' {
                return None;
            }
            end += 1;
        }
        (start..end, end)
    };
    match lines.get(end) {
        None => Some((field, After::Line, end)),
        Some(b'\n') => Some((field, After::Line, end + 1)),
        Some(_) => {
            let next = end + separator.len();
            lines[end..].starts_with(separator).then_some((field, After::Field, next))
        }
    }
}

/// A whole number in digits, perhaps behind a minus, that surely fits.
#[inline]
fn parse_number(field: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match field {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    let mut number = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = 10 * number + i64::from(digit);
    }
    Some(if is_negative { -number } else { number })
}

/// The items of each user, in the order of the times; equal times, or none, keep the given order.
///
/// Users are 1..=`user_count`, items 1..=`item_count`.
///
/// # Errors
/// Arrays of different lengths, a user or item out of its range, or memory that is refused.
pub fn group_by_user(
    users: &[i32],
    items: &[i32],
    times: Option<&[i64]>,
    (user_count, item_count): (usize, usize),
) -> Result<Grouped> {
    let rows = users.len();
    let mut steps = Steps::default();
    let mut offsets: Vec<i64> = memory::repeat(0, user_count.saturating_add(1))?;
    for (index, &user) in users.iter().enumerate() {
        steps.take(1)?;
        offsets[id_in_range("users", index, None, user.into(), 1..=user_count)?] += 1;
    }
    for (index, &item) in items.iter().enumerate() {
        steps.take(1)?;
        id_in_range("items", index, None, item.into(), 1..=item_count)?;
    }
    same_length(("users", users.len()), ("items", items.len()))?;
    if let Some(times) = times {
        same_length(("users", users.len()), ("times", times.len()))?;
    }
    let mut total = 0;
    for offset in &mut offsets {
        steps.take(1)?;
        total += *offset;
        *offset = total;
    }
    let mut found = Grouped {
        offsets,
        items: memory::repeat(0, rows)?,
        times: memory::repeat(0, times.map_or(0, <[i64]>::len))?,
        unsorted: 0,
        repeated: 0,
    };
    // Rows of many users at once would each miss the cache: they are first brought to groups of
    // neighbouring users.
    let users_in_group = user_count / GROUPS + 1;
    let groups = user_count / users_in_group + 1;
    let mut places: Vec<usize> = memory::with_capacity(groups)?;
    places.extend((0..groups).map(|group| start_of(&found.offsets, group * users_in_group)));
    let mut grouped = memory::repeat(UserRow::default(), rows)?;
    for (row, (&user, &item)) in users.iter().zip(items).enumerate() {
        steps.take(1)?;
        let place = &mut places[user.cast_unsigned() as usize / users_in_group];
        grouped[*place] = UserRow { user, item, time: times.map_or(0, |times| times[row]) };
        *place += 1;
    }
    let mut arranger = Arranger {
        offsets: &found.offsets,
        last: memory::repeat(0, item_count.saturating_add(1))?,
        ends: memory::repeat(0, users_in_group)?,
        sorter: Sorter::default(),
        has_times: times.is_some(),
    };
    let (mut start, mut rest) = (0, (&mut found.items[..], &mut found.times[..]));
    for (group, &end) in places.iter().enumerate() {
        let rows = &grouped[start..end];
        let (items, items_after) = rest.0.split_at_mut(rows.len());
        let (times, times_after) =
            rest.1.split_at_mut(if arranger.has_times { rows.len() } else { 0 });
        let (unsorted, repeated) = arranger.arrange(group * users_in_group, rows, items, times)?;
        found.unsorted += unsorted;
        found.repeated += repeated;
        (start, rest) = (end, (items_after, times_after));
    }
    Ok(found)
}

/// Where a user's rows start, of 0..=U.
fn start_of(offsets: &[i64], user: usize) -> usize {
    // No vector is longer than `i64::MAX`, and none shorter than 0.
    user.checked_sub(1).map_or(0, |before| usize::try_from(offsets[before]).unwrap_or_default())
}

/// A row before it is with its user.
#[derive(Debug, Clone, Copy, Default)]
struct UserRow {
    user: i32,
    item: i32,
    time: i64,
}

/// Brings the rows of neighbouring users to their users.
struct Arranger<'o> {
    offsets: &'o [i64],
    /// The last user who had each item.
    last: Vec<i32>,
    /// Where the next row of each user goes.
    ends: Vec<usize>,
    sorter: Sorter,
    has_times: bool,
}

impl Arranger<'_> {
    /// Writes the rows of the users from `first` on, and counts the unsorted and the repeated.
    fn arrange(
        &mut self,
        first: usize,
        rows: &[UserRow],
        items: &mut [i64],
        times: &mut [i64],
    ) -> Result<(usize, usize)> {
        let mut steps = Steps::default();
        let base = start_of(self.offsets, first);
        let users = first..self.offsets.len().min(first + self.ends.len());
        for (end, user) in self.ends.iter_mut().zip(users.clone()) {
            *end = start_of(self.offsets, user) - base;
        }
        for row in rows {
            steps.take(1)?;
            let place = &mut self.ends[row.user.cast_unsigned() as usize - first];
            items[*place] = row.item.into();
            if self.has_times {
                times[*place] = row.time;
            }
            *place += 1;
        }
        let (mut start, mut unsorted, mut repeated) = (0, 0, 0);
        for (user, &end) in users.zip(&self.ends) {
            let items = &mut items[start..end];
            steps.take(1 + items.len())?;
            if self.has_times {
                unsorted += self.sorter.sort(&mut times[start..end], items)?;
            }
            let user = new_number(user)?;
            for item in items {
                // Each was an i32 above 0.
                let Ok(place) = usize::try_from(*item) else { continue };
                let last = &mut self.last[place];
                repeated += usize::from(*last == user);
                *last = user;
            }
            start = end;
        }
        Ok((unsorted, repeated))
    }
}

/// A time and an item.
type Row = (i64, i64);

/// Sorts the rows of a user, and keeps its memory for the next.
#[derive(Default)]
struct Sorter {
    rows: Vec<Row>,
    merged: Vec<Row>,
}

impl Sorter {
    /// Sorts items by their times, and returns how many times were before the one before them.
    fn sort(&mut self, times: &mut [i64], items: &mut [i64]) -> Result<usize> {
        let unsorted = times.windows(2).filter(|pair| pair[1] < pair[0]).count();
        if unsorted == 0 {
            return Ok(0);
        }
        self.rows.clear();
        memory::reserve(&mut self.rows, items.len())?;
        self.rows.extend(times.iter().copied().zip(items.iter().copied()));
        for rows in self.rows.chunks_mut(SORTED_AT_ONCE) {
            interrupt::check()?;
            rows.sort_by_key(|row| row.0);
        }
        let mut sorted = SORTED_AT_ONCE;
        while sorted < self.rows.len() {
            self.merged.clear();
            memory::reserve(&mut self.merged, self.rows.len())?;
            for rows in self.rows.chunks(2 * sorted) {
                merge(rows.split_at(sorted.min(rows.len())), &mut self.merged)?;
            }
            std::mem::swap(&mut self.rows, &mut self.merged);
            sorted *= 2;
        }
        for ((time, item), row) in times.iter_mut().zip(items).zip(&self.rows) {
            (*time, *item) = *row;
        }
        Ok(unsorted)
    }
}

/// Appends two sorted runs as one; of equal times those of the first run come first.
fn merge(runs: (&[Row], &[Row]), merged: &mut Vec<Row>) -> Result<()> {
    let (mut first, mut second) = runs;
    let mut steps = Steps::default();
    while let ([one, first_rest @ ..], [other, second_rest @ ..]) = (first, second) {
        steps.take(1)?;
        if other.0 < one.0 {
            merged.push(*other);
            second = second_rest;
        } else {
            merged.push(*one);
            first = first_rest;
        }
    }
    merged.extend_from_slice(first);
    merged.extend_from_slice(second);
    Ok(())
}
