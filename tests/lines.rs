//! `lmcore::lines`: blocks of whole lines.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;

use lmcore::lines::LineBlocks;
use proptest::prelude::*;

proptest! {
    // PROPTEST_CASES is read by the default; a failure prints its input, so no file is kept.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_hold_each_line_once(
        lines in prop::collection::vec("[ ab\r\t]{0,12}", 0..30),
        mark in any::<bool>(),
        last in any::<bool>(),
        block_bytes in 4..40usize,
    ) {
        let content = lines.join("\n") + if last { "\n" } else { "" };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let start = if mark { "\u{feff}" } else { "" };
        write!(file, "{start}{content}").unwrap();
        let mut blocks = LineBlocks::open(file.path(), block_bytes).unwrap();
        let (mut joined, mut rows, mut end) = (Vec::new(), Vec::new(), start.len() as u64);
        while let Some(block) = blocks.next_block().unwrap() {
            rows.extend(block.rows().map(|(number, line)| (number, line.to_vec())));
            let number = joined.split(|&byte| byte == b'\n').count() as u64;
            prop_assert_eq!(block.first_line, number);
            end += block.bytes.len() as u64;
            prop_assert_eq!(block.end, end);
            joined.extend_from_slice(&block.bytes);
        }
        prop_assert_eq!(joined, content.as_bytes());
        let expected: Vec<_> = (1..)
            .zip(content.split('\n').map(|line| line.trim_end_matches([' ', '\t', '\r'])))
            .filter(|(_, line)| !line.is_empty())
            .map(|(number, line)| (number, line.as_bytes().to_vec()))
            .collect();
        prop_assert_eq!(rows, expected);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.jsonl");
    let error = LineBlocks::open(&path, 8).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: ", path.display())), "{error}");
    // A folder opens, and cannot be read.
    let error = LineBlocks::open(folder.path(), 8).unwrap().next_block().unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: ", folder.path().display())), "{error}");
}
