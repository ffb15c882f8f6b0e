//! The computational core of lmcore. It knows no Python: `cargo test` needs no interpreter.
//!
//! | module | concept | source |
//! | --- | --- | --- |
//! | [`words`] | raw text cut into words that keep their offsets | |
//! | [`lcs`] | longest common subsequence with a canonical alignment | GNER, Hierarchical Matching |
//! | [`matching`] | Hierarchical Matching of generated text | GNER, Hierarchical Matching |
//! | [`entities`] | BIO labels, entities, scoring schemes | GNER, its evaluator and others |
//! | [`examples`] | labelled sentences as the rows that a model is trained with | GNER, its prompt |
//! | [`predictions`] | files and lists of predictions, from bytes to counts | |
//! | [`interactions`] | columns of files of interactions as numbers, and rows by user and time | |
//! | [`negatives`] | training batches with items that a user has not seen | `UFNRec` |
//! | [`false_negatives`] | hard negatives that recur, per user and position | `UFNRec` |
//! | [`denoising`] | samples of UL2's denoisers: encoder ids, decoder ids, labels | `OpenBA`, UL2 |
//! | [`cleaning`] | texts without what named rules remove | `OpenBA-V2`, section on data |
//! | [`duplicates`] | which texts and sentences stood before, by their hashes | `OpenBA-V2`, section on data |
//! | [`ngrams`] | n-grams of words: counts, BLEU, the candidate that others agree with most | Bridge-Gap Diffusion, its evaluator |
//! | [`philox`] | counter-based random numbers | Salmon et al., SC 2011 |
//! | [`ranking`] | ranks of targets among scored candidates, HR, NDCG, MRR | `UFNRec`, its evaluator |
//! | [`schedule`] | noise schedules of diffusion, neighbours by noise, timesteps of a batch | Bridge-Gap Diffusion |
//! | [`segments`] | runs of tokens: the distinct ones of a corpus, and masks in place of toxic ones | Detox-Chain, its section 2 |
//! | [`vocabulary`] | how often ids occur, their rank, and their new ids | `OpenBA-V2`, section on its vocabulary |
//!
//! [`text`], [`append`], [`labels`], [`lines`], [`rows`], [`check`], [`memory`], [`threads`] and
//! [`interrupt`] hold what they share, [`error`] is the one error type.

pub mod append;
pub mod check;
pub mod cleaning;
pub mod denoising;
pub mod duplicates;
pub mod entities;
pub mod error;
pub mod examples;
pub mod false_negatives;
pub mod interactions;
pub mod interrupt;
pub mod labels;
pub mod lcs;
pub mod lines;
pub mod matching;
pub mod memory;
pub mod negatives;
pub mod ngrams;
pub mod philox;
pub mod predictions;
pub mod ranking;
pub mod rows;
pub mod schedule;
pub mod segments;
pub mod text;
pub mod threads;
pub mod vocabulary;
pub mod words;

#[cfg(feature = "python")]
mod py;
