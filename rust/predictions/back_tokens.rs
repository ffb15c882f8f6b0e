//! What a tokenizer makes of words, asked once per distinct word.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

use super::Problem;
use crate::error::Result;
use crate::interrupt;
use crate::memory;
use crate::text::{Strings, StringsRef, push_lowercase};

/// The caller's tokenizer: distinct lower-case words in, their round trips out.
pub type BackTokenize<'h> = dyn FnMut(&[String]) -> Result<Vec<String>> + 'h;

/// Lower-case words and what a tokenizer makes of them.
#[derive(Debug, Default)]
pub struct BackTokens {
    known: HashMap<String, String, foldhash::fast::RandomState>,
}

impl BackTokens {
    /// Writes what the tokenizer makes of each word; all must have been asked for.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops.
    pub fn translate(
        &self,
        words: StringsRef<'_>,
        lower: &mut String,
        translated: &mut Strings,
    ) -> Result<()> {
        translated.clear();
        for word in words.iter() {
            lower.clear();
            push_lowercase(word, lower)?;
            let known = self.known.get(lower.as_str());
            translated.append(known.map_or(lower.as_str(), String::as_str))?;
        }
        Ok(())
    }
}

/// The words that the calling thread is about to ask for.
#[derive(Debug, Default)]
pub struct Questions {
    asked: Vec<String>,
    noted: HashSet<String, foldhash::fast::RandomState>,
    lower: String,
}

impl Questions {
    /// Notes the words that are not known yet.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops.
    pub fn note(&mut self, tokens: &BackTokens, words: StringsRef<'_>) -> Result<()> {
        for word in words.iter() {
            self.lower.clear();
            push_lowercase(word, &mut self.lower)?;
            if !tokens.known.contains_key(&self.lower) && !self.noted.contains(&self.lower) {
                memory::probe(2 * self.lower.len())?;
                let noted = self.noted.len();
                self.noted.try_reserve(1).map_err(|_| memory::refused(noted))?;
                self.noted.insert(self.lower.clone());
                memory::push(&mut self.asked, self.lower.clone())?;
            }
        }
        Ok(())
    }

    /// Asks for all noted words at once.
    ///
    /// # Errors
    /// The caller's function fails or returns another number of words, the memory is refused, or
    /// the caller stops.
    pub fn ask(
        &mut self,
        tokens: &RwLock<BackTokens>,
        back_tokenize: &mut BackTokenize<'_>,
    ) -> Result<()> {
        if self.asked.is_empty() {
            return Ok(());
        }
        let answers = back_tokenize(&self.asked)?;
        if answers.len() != self.asked.len() {
            let (got, asked) = (answers.len(), self.asked.len());
            return Err(Problem::TokenizerAnswer { got, asked }.into());
        }
        self.noted.clear();
        let known = &mut lock_alone(tokens)?.known;
        known.try_reserve(answers.len()).map_err(|_| memory::refused(answers.len()))?;
        known.extend(self.asked.drain(..).zip(answers));
        Ok(())
    }
}

/// The table for the calling thread, to write in it.
///
/// Waiting for a thread that works on a long row would not hear the caller: so it is tried.
fn lock_alone(tokens: &RwLock<BackTokens>) -> Result<RwLockWriteGuard<'_, BackTokens>> {
    loop {
        match tokens.try_write() {
            Ok(alone) => return Ok(alone),
            Err(TryLockError::Poisoned(error)) => return Ok(error.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
        interrupt::check()?;
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The table to read in it.
pub fn lock(tokens: &RwLock<BackTokens>) -> RwLockReadGuard<'_, BackTokens> {
    tokens.read().unwrap_or_else(PoisonError::into_inner)
}
