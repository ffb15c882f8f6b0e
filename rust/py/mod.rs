//! The module `lmcore._core`: the list of its functions, nothing else.

mod arrays;
#[cfg_attr(Py_GIL_DISABLED, path = "owned.rs")]
mod borrowed;
mod cleaning;
mod denoising;
mod duplicates;
mod entities;
mod error;
mod examples;
mod false_negatives;
mod hooks;
mod interactions;
mod lcs;
mod matching;
mod negatives;
mod ngrams;
mod philox;
mod predictions;
mod ranking;
mod schedule;
mod segments;
mod threads;
mod vocabulary;
mod words;

use pyo3::prelude::pymodule;

// No test has passed on an interpreter without its lock yet.
#[pymodule(gil_used = true)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::cleaning::clean_texts;
    #[pymodule_export]
    use super::denoising::Denoising;
    #[pymodule_export]
    use super::duplicates::{Duplicates, hash_texts};
    #[pymodule_export]
    use super::entities::{
        classify_errors, compute_quality, count_entities, count_entities_batch, decode_spans,
        normalize_text,
    };
    #[pymodule_export]
    use super::examples::write_examples_batch;
    #[pymodule_export]
    use super::false_negatives::FalseNegativeMemory;
    #[pymodule_export]
    use super::interactions::{group_by_user, read_columns};
    #[pymodule_export]
    use super::lcs::{longest_common_subsequence_integers, longest_common_subsequence_strings};
    #[pymodule_export]
    use super::matching::{align_words, match_labels, match_labels_batch, parse_generation};
    #[pymodule_export]
    use super::negatives::SequenceSampler;
    #[pymodule_export]
    use super::ngrams::{choose_candidates, count_ngrams, self_bleu, sentence_bleu};
    #[pymodule_export]
    use super::philox::{philox4x32, random_below, random_bits, random_uniform};
    #[pymodule_export]
    use super::predictions::{align_file, align_row, score_examples, score_files};
    #[pymodule_export]
    use super::ranking::{list_excluded, rank_targets, ranking_metrics};
    #[pymodule_export]
    use super::schedule::{
        add_losses, draw_by_loss, draw_neighbours, draw_timesteps, find_neighbours, make_betas,
        shift_timesteps, weigh_timesteps,
    };
    #[pymodule_export]
    use super::segments::{list_segments, mask_segments};
    #[pymodule_export]
    use super::threads::most_threads;
    #[pymodule_export]
    use super::vocabulary::{count_ids, rank_ids, remap_ids};
    #[pymodule_export]
    use super::words::{locate_words, split_words};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    #[expect(clippy::unnecessary_wraps, reason = "the signature of PyO3")]
    fn prepare(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::threads::prepare();
        Ok(())
    }
}
