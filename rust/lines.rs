//! Files as blocks of whole lines, which threads work on.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::memory;

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
    /// Whether reading may wait for somebody, as that of a pipe.
    may_wait: bool,
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
        let may_wait = !file.metadata().is_ok_and(|metadata| metadata.is_file());
        Ok(Self {
            file,
            path: path.to_owned(),
            block_bytes,
            may_wait,
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
            let most = self.block_bytes as u64;
            // What waits for nobody is read into memory that nobody sets to zero before.
            let got = if self.may_wait {
                Interruptible(&mut self.file).take(most).read_to_end(&mut bytes)
            } else {
                (&mut self.file).take(most).read_to_end(&mut bytes)
            };
            let got = got.map_err(|error| file_error(&self.path, &error))?;
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
pub(crate) fn file_error(path: &Path, error: &io::Error) -> Error {
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
