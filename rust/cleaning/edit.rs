//! A text that loses parts.

use std::ops::Range;

use crate::error::Result;
use crate::memory;

/// A text, and what is left of it; nothing is copied before the first part goes.
pub struct Edit<'t> {
    text: &'t str,
    left: &'t mut String,
    /// Bytes of the text that are done.
    done: usize,
    removed: usize,
}

impl<'t> Edit<'t> {
    /// Nothing is removed yet; what is left goes into this memory.
    pub fn new(text: &'t str, left: &'t mut String) -> Self {
        left.clear();
        Self { text, left, done: 0, removed: 0 }
    }

    /// The text as it was.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// Bytes of the text up to the end of the part that was removed last.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Removes a part behind the last one; something shorter may stand in its place.
    pub fn remove(&mut self, part: Range<usize>, instead: &str) -> Result<()> {
        if self.removed == 0 {
            memory::reserve_text(self.left, self.text.len())?;
        }
        self.left.push_str(&self.text[self.done..part.start]);
        self.left.push_str(instead);
        self.removed += self.text[part.clone()].chars().count() - instead.len();
        self.done = part.end;
        Ok(())
    }

    /// How many characters went; if none did, nothing was copied.
    pub fn finish(self) -> usize {
        if self.removed > 0 {
            self.left.push_str(&self.text[self.done..]);
        }
        self.removed
    }
}
