//! Scoring and aligning, without an interpreter.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::Path;

use lmcore::entities::{EntityCounts, Scheme};
use lmcore::error::Error;
use lmcore::predictions::{
    AlignOptions, BackTokenize, Evaluation, Hooks, ScoreOptions, ScoredFile, Table, align_file,
    align_row, score_examples, score_files,
};
use serde_json::{Value, json};

use super::{Values, row};

/// A file of some megabytes: rows of three data sets, of which every seventh is wrong.
fn rows_file(count: usize, bad: &[usize]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut content = String::new();
    for k in 0..count {
        if bad.contains(&k) {
            content.push_str("{\n");
        } else {
            content.push_str(&row(k % 3, k % 7 != 0).to_string());
            content.push('\n');
        }
    }
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn options(threads: usize) -> ScoreOptions {
    ScoreOptions { scheme: Scheme::Strict, threads: Some(threads), worst: 5, skip_bad_rows: false }
}

fn score(path: &Path, options: &ScoreOptions) -> Result<Evaluation, Error> {
    let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
    score_files(&[ScoredFile::new(path)], options, &mut hooks)
}

/// Scores rows as a caller's objects, some at a time.
fn score_values(rows: Vec<Value>, options: &ScoreOptions) -> Result<Evaluation, Error> {
    let count = rows.len();
    let mut reader = Values { rows, read: RefCell::default() };
    let mut taken = 0;
    let mut next = |table: &mut Table, most: usize| {
        assert!(table.is_empty());
        let end = count.min(taken + most);
        table.extend(&mut reader, taken..end)?;
        taken = end;
        Ok(())
    };
    let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
    score_examples(&mut next, options, &mut hooks)
}

const ROWS: usize = 21_000;

#[test]
fn threads_change_nothing() {
    let file = rows_file(ROWS, &[]);
    let path = file.path();
    let one = score(path, &options(1)).unwrap();
    for threads in [2, 3, 8] {
        assert_eq!(score(path, &options(threads)).unwrap(), one);
    }
    let names: Vec<_> = one.datasets.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["d0", "d1", "d2"]);
    for (k, part) in one.datasets.iter().enumerate() {
        assert_eq!((part.rows, part.words), (7000, 14000));
        assert_eq!(part.entities, EntityCounts { gold: 7000, predicted: 7000, correct: 6000 });
        assert_eq!(part.conditions, [6000, 0, 1000]);
        assert_eq!(part.differences.substituted, 1000);
        let first_wrong: Vec<u64> =
            (0..).filter(|n| n % 7 == 0 && n % 3 == k as u64).take(5).collect();
        assert_eq!(part.worst.iter().map(|row| row.row - 1).collect::<Vec<_>>(), first_wrong);
        let label_list: Vec<_> = part.label_list.iter().cloned().collect();
        assert_eq!(label_list, [format!("only {k}"), "x".to_owned()]);
    }
}

#[test]
fn objects_count_as_files_do() {
    let file = rows_file(ROWS, &[]);
    let from_file = score(file.path(), &options(2)).unwrap();
    let rows: Vec<_> = (0..ROWS).map(|k| row(k % 3, k % 7 != 0)).collect();
    for threads in [1, 3] {
        let mut evaluation = score_values(rows.clone(), &options(threads)).unwrap();
        for (one, other) in from_file.datasets.iter().zip(&mut evaluation.datasets) {
            for sentence in &mut other.worst {
                sentence.row += 1;
                file.path().to_str().unwrap().clone_into(&mut sentence.path);
            }
            assert_eq!(one, other);
        }
    }
}

#[test]
fn what_a_caller_raises_comes_after_the_rows_before_it() {
    let good = || row(0, true);
    let raise = || json!("raise");
    for threads in [1, 3] {
        for before in [0, 1, 127, 128, 129, 300] {
            let mut rows = vec![good(); before];
            rows.extend([raise(), good()]);
            assert_eq!(score_values(rows.clone(), &options(threads)), Err(Error::Raised));
            if before == 0 {
                continue;
            }
            rows[before - 1] = json!([]);
            let index = before as u64 - 1;
            let error = score_values(rows, &options(threads)).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("examples[{index}]: expected")),
                "{error}"
            );
        }
    }
}

#[test]
fn a_list_that_rows_share_is_read_once() {
    let lists = |reader: &Values| {
        let read = reader.read.borrow();
        read.iter().filter(|list| list[0] == "x").count()
    };
    let mut table = Table::default();
    let mut reader = Values { rows: vec![row(0, true); 9], read: RefCell::default() };
    table.extend(&mut reader, 0..9).unwrap();
    assert_eq!(lists(&reader), 1);
    // One that cannot be read leaves nothing for the next row.
    let mut bad = row(0, true);
    bad["label_list"] = json!(["x", 1]);
    reader.rows = vec![bad.clone(), row(0, true), bad, row(1, true)];
    table.clear();
    table.extend(&mut reader, 0..4).unwrap();
    for (index, only) in [(1, "only 0"), (3, "only 1")] {
        assert_eq!(table.row(index).unwrap().label_list.to_vec(), ["x", only]);
        let problem = table.row(index - 1).unwrap_err().to_string();
        assert_eq!(problem, "label_list: expected a list of strings, got a number at [1]");
    }
}

#[test]
fn first_bad_row_is_named() {
    for bad in [&[15_000, 15_001, 20_999][..], &[0, 20_999], &[20_999]] {
        let file = rows_file(ROWS, bad);
        let path = file.path();
        for threads in [1, 2, 8] {
            let error = score(path, &options(threads)).unwrap_err();
            let start = format!("{}:{}: not valid JSON: ", path.display(), bad[0] + 1);
            assert!(error.to_string().starts_with(&start), "{error}");
            let skipped =
                score(path, &ScoreOptions { skip_bad_rows: true, ..options(threads) }).unwrap();
            assert_eq!(skipped.bad_rows, bad.len() as u64);
            assert_eq!(skipped.listed_bad_rows[0], error);
        }
    }
}

#[test]
fn the_caller_stops_the_work() {
    let file = rows_file(ROWS, &[]);
    let path = file.path();
    for threads in [1, 3] {
        let mut hooks = Hooks { progress: &mut |_| Err(Error::Stopped), back_tokenize: None };
        assert_eq!(
            score_files(&[ScoredFile::new(path)], &options(threads), &mut hooks),
            Err(Error::Stopped)
        );
    }
}

fn align(input: &Path, output: &Path, threads: usize) -> Result<u64, Error> {
    let options =
        AlignOptions { scheme: Scheme::Gner, threads: Some(threads), skip_bad_rows: false };
    let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: None };
    align_file(input, output, &options, &mut hooks).map(|summary| summary.rows)
}

#[test]
fn aligned_file_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.jsonl");
    let (good, bad) = (rows_file(ROWS, &[]), rows_file(ROWS, &[20_000]));
    let (good, bad) = (good.path(), bad.path());
    for threads in [1, 3] {
        assert!(align(bad, &output, threads).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    let mut written = Vec::new();
    for threads in [1, 2, 8] {
        assert_eq!(align(good, &output, threads), Ok(ROWS as u64));
        written.push(fs::read_to_string(&output).unwrap());
    }
    assert!(written.iter().all(|text| *text == written[0]));
    let input = fs::read_to_string(good).unwrap();
    for (line, aligned) in input.lines().zip(written[0].lines()).step_by(100) {
        assert_eq!(align_row(line, Scheme::Gner).unwrap(), aligned);
    }
    assert_eq!(written[0].lines().count(), ROWS);
}

#[test]
fn distinct_words_are_asked_for_once() {
    let file = rows_file(ROWS, &[]);
    for threads in [1, 3] {
        let asked = RefCell::new(Vec::new());
        let mut answer = |words: &[String]| {
            asked.borrow_mut().extend_from_slice(words);
            Ok(words.iter().map(|word| word.replace("york", "york.")).collect())
        };
        let back_tokenize: &mut BackTokenize<'_> = &mut answer;
        let mut hooks = Hooks { progress: &mut |_| Ok(()), back_tokenize: Some(back_tokenize) };
        let evaluation =
            score_files(&[ScoredFile::new(file.path())], &options(threads), &mut hooks).unwrap();
        assert_eq!(*asked.borrow(), ["in", "york"]);
        // Now the other rows match: the answer stands for the word.
        assert!(evaluation.datasets.iter().all(|part| part.conditions == [1000, 0, 6000]));
    }
}
