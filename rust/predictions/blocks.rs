//! Input cut into blocks: whole lines of a file, or rows that came as lists.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::row::{RowRef, check_lengths};
use crate::error::{Error, Result, RowProblem};
use crate::interrupt;
use crate::memory;
use crate::text::{Interner, StringRows, Strings};

/// Whole lines of a file.
#[derive(Debug)]
pub struct Lines {
    /// The bytes, with their line feeds.
    pub bytes: Vec<u8>,
    /// Number of the first line, from 1.
    pub first_line: u64,
    /// Bytes of the file up to the end of this block.
    pub end: u64,
}

impl Lines {
    /// The lines that are not blank, with their numbers.
    pub fn rows(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let ends = memchr::memchr_iter(b'\n', &self.bytes).chain([self.bytes.len()]);
        let lines = ends.scan(0, |start, end| {
            Some(without_space_at_end(&self.bytes[std::mem::replace(start, end + 1).min(end)..end]))
        });
        (self.first_line..).zip(lines).filter(|(_, line)| !line.is_empty())
    }
}

/// A line without its carriage return and other white space of JSON at its end.
fn without_space_at_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
    &line[..end.map_or(0, |last| last + 1)]
}

/// Reads a file in blocks of whole lines.
#[derive(Debug)]
pub struct LineBlocks {
    file: File,
    path: PathBuf,
    block_bytes: usize,
    rest: Vec<u8>,
    next_line: u64,
    read: u64,
}

impl LineBlocks {
    /// Opens a file; a byte order mark at its start is skipped.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, block_bytes: usize) -> Result<Self> {
        let file = File::open(path).map_err(|error| file_error(path, &error))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            block_bytes,
            rest: Vec::new(),
            next_line: 1,
            read: 0,
        })
    }

    /// The next block, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, the memory is refused, or the caller stops.
    pub fn next_block(&mut self) -> Result<Option<Lines>> {
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            let start = bytes.len();
            interrupt::check()?;
            memory::reserve(&mut bytes, self.block_bytes)?;
            let got = Interruptible(&mut self.file)
                .take(self.block_bytes as u64)
                .read_to_end(&mut bytes)
                .map_err(|error| file_error(&self.path, &error))?;
            if self.read == 0 && bytes.starts_with(b"\xef\xbb\xbf") {
                bytes.drain(..3);
            }
            self.read += got as u64;
            if got == 0 {
                break;
            }
            let start = start.min(bytes.len());
            if let Some(last) = memchr::memrchr(b'\n', &bytes[start..]) {
                self.rest = bytes.split_off(start + last + 1);
                break;
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let first_line = self.next_line;
        self.next_line += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        Ok(Some(Lines { bytes, first_line, end: self.read - self.rest.len() as u64 }))
    }
}

/// A file whose reading a signal breaks off: the caller is asked, where `read_to_end` tries again.
struct Interruptible<'f>(&'f mut File);

impl Read for Interruptible<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).or_else(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                interrupt::check_now().map_err(io::Error::other)?;
            }
            Err(error)
        })
    }
}

/// The error of a file that the system refused.
pub(super) fn file_error(path: &Path, error: &io::Error) -> Error {
    if let Some(stopped) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        return stopped.clone();
    }
    // An error with more to tell than the system's number has it in its text alone.
    let text = error.to_string();
    let (reason, rest) = text.split_once(" (os error ").unwrap_or((&text, ""));
    let number = rest.split_once(')').and_then(|(number, _)| number.parse().ok());
    let code = error.raw_os_error().or(number);
    Error::File { path: path.to_owned(), reason: reason.to_owned(), code }
}

/// Rows that came as lists, side by side.
#[derive(Debug, Default)]
pub struct Table {
    /// The words of each row.
    pub words: StringRows,
    /// The gold labels of each row.
    pub labels: StringRows,
    /// Label lists, shared by rows.
    pub label_lists: StringRows,
    predictions: Strings,
    datasets: Interner,
    rows: Vec<std::result::Result<TableRow, RowProblem>>,
}

#[derive(Debug)]
struct TableRow {
    label_list: usize,
    dataset: Option<u32>,
}

impl Table {
    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.words.clear();
        self.labels.clear();
        self.label_lists.clear();
        self.predictions.clear();
        self.datasets.clear();
        self.rows.clear();
    }

    /// Checks that the open row has as many words as labels; `key` names the labels.
    ///
    /// # Errors
    /// It has not.
    pub fn check_open_row(&self, key: &str) -> std::result::Result<(), RowProblem> {
        check_lengths(key, self.words.open_len(), self.labels.open_len())
    }

    /// Ends the row: what was pushed to words and labels, with a label list by its place.
    ///
    /// # Errors
    /// The memory is refused.
    pub fn end_row(
        &mut self,
        prediction: &str,
        dataset: Option<&str>,
        label_list: usize,
    ) -> Result<()> {
        let dataset = dataset.map(|name| self.datasets.intern(name)).transpose()?;
        self.predictions.append(prediction)?;
        self.close_row(Ok(TableRow { label_list, dataset }));
        Ok(())
    }

    /// Ends a row that cannot be used.
    pub fn end_bad_row(&mut self, problem: RowProblem) {
        self.predictions.push("");
        self.close_row(Err(problem));
    }

    fn close_row(&mut self, row: std::result::Result<TableRow, RowProblem>) {
        self.words.end_row();
        self.labels.end_row();
        self.rows.push(row);
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
    ///
    /// # Errors
    /// The row could not be used.
    pub fn row(&self, index: usize) -> std::result::Result<RowRef<'_>, RowProblem> {
        let row = self.rows[index].as_ref().map_err(Clone::clone)?;
        Ok(RowRef {
            dataset: row.dataset.map(|id| self.datasets.get(id)),
            words: self.words.row(index),
            labels: self.labels.row(index),
            label_list: self.label_lists.row(row.label_list),
            prediction: self.predictions.all().get(index),
        })
    }
}
