//! What a tokenizer makes of words, asked once per distinct word.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::error::{Error, Result};
use crate::text::{Strings, StringsRef, push_lowercase};

/// The caller's tokenizer: distinct lower-case words in, their round trips out.
pub type BackTokenize<'h> = dyn FnMut(&[String]) -> Result<Vec<String>> + 'h;

/// Lower-case words and what a tokenizer makes of them.
#[derive(Debug, Default)]
pub struct BackTokens {
    known: HashMap<String, String, foldhash::fast::RandomState>,
    asked: Vec<String>,
    lower: String,
}

impl BackTokens {
    /// Notes the words that are not known yet.
    pub fn note(&mut self, words: StringsRef<'_>) {
        for word in words.iter() {
            self.lower.clear();
            push_lowercase(word, &mut self.lower);
            if !self.known.contains_key(&self.lower) {
                self.known.insert(self.lower.clone(), String::new());
                self.asked.push(self.lower.clone());
            }
        }
    }

    /// Asks for all noted words at once.
    ///
    /// # Errors
    /// The caller's function fails or returns another number of words.
    pub fn ask(&mut self, back_tokenize: &mut BackTokenize<'_>) -> Result<()> {
        if self.asked.is_empty() {
            return Ok(());
        }
        let answers = back_tokenize(&self.asked)?;
        if answers.len() != self.asked.len() {
            return Err(Error::ComparisonLength { got: answers.len(), expected: self.asked.len() });
        }
        for (word, answer) in self.asked.drain(..).zip(answers) {
            if let Entry::Occupied(mut entry) = self.known.entry(word) {
                entry.insert(answer);
            }
        }
        Ok(())
    }

    /// Writes what the tokenizer makes of each word; all must have been asked for.
    pub fn translate(&self, words: StringsRef<'_>, lower: &mut String, translated: &mut Strings) {
        translated.clear();
        for word in words.iter() {
            lower.clear();
            push_lowercase(word, lower);
            translated.push(self.known.get(lower.as_str()).map_or(lower.as_str(), String::as_str));
        }
    }
}
