//! The positions of a batch that a step visits, in the authors' order.

use super::{POSITION_BITS, Problem, USER_BITS};
use crate::check::{has_length, in_range, same_length};
use crate::error::Result;
use crate::memory;

/// A valid position of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Row of the batch.
    pub row: usize,
    /// Column of the window, below 2^8.
    pub column: u32,
    /// Which block of N negatives is its own.
    pub block: usize,
}

/// Valid positions of a batch, in the authors' order: rows up, positions down.
///
/// Every row is below the number of rows, every block below the number of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    list: Vec<Position>,
    rows: usize,
    blocks: usize,
}

impl Positions {
    /// Checks that these are positions of as many rows as there are users.
    pub(super) fn check_users(&self, users: &[i64]) -> Result<()> {
        same_length(("positives", self.rows), ("users", users.len()))?;
        check_users(users)
    }

    /// Checks that a slice holds so many values for each block.
    pub(super) fn check_values(&self, name: &'static str, got: usize, block: usize) -> Result<()> {
        has_length(name, got, memory::size(&[self.blocks, block])?)
    }
}

impl std::ops::Deref for Positions {
    type Target = [Position];

    fn deref(&self) -> &[Position] {
        &self.list
    }
}

/// The valid positions of padded rows.
///
/// # Errors
/// A zero stands right of a target, or the rows are not of that length.
pub fn padded_positions(positives: &[i64], max_length: usize) -> Result<Positions> {
    check_max_length(max_length)?;
    let rows = positives.len() / max_length;
    has_length("positives", positives.len(), rows * max_length)?;
    let mut list = memory::with_capacity(positives.len())?;
    for (row, targets) in positives.chunks_exact(max_length).enumerate() {
        let start = targets.iter().rposition(|&target| target == 0).map_or(0, |zero| zero + 1);
        if let Some(first) = targets[..start].iter().position(|&target| target != 0) {
            let zero = targets[first..].iter().position(|&target| target == 0).unwrap_or(0);
            return Err(Problem::NotLeftPadded { row, position: first + zero }.into());
        }
        let block = row * max_length;
        list.extend((start..max_length).rev().map(|p| position(row, p, block + p)));
    }
    Ok(Positions { list, rows, blocks: positives.len() })
}

/// The packed positions; `flat_indices` holds row * `max_length` + position.
///
/// # Errors
/// A flat index is out of its range, or they do not ascend.
pub fn packed_positions(flat_indices: &[i64], rows: usize, max_length: usize) -> Result<Positions> {
    check_max_length(max_length)?;
    let end = memory::size(&[rows, max_length])?;
    let mut list: Vec<Position> = memory::with_capacity(flat_indices.len())?;
    // Positions of the open row stand in ascending order until the row ends.
    let (mut before, mut open, mut open_row) = (-1, 0, 0);
    for (index, &got) in flat_indices.iter().enumerate() {
        let Some(flat) = usize::try_from(got).ok().filter(|&flat| flat < end) else {
            return Err(Problem::FlatIndexRange { end, got, index }.into());
        };
        if got <= before {
            return Err(Problem::FlatIndexOrder { before, got, index }.into());
        }
        before = got;
        let row = flat / max_length;
        if row != open_row {
            list[open..].reverse();
            (open, open_row) = (list.len(), row);
        }
        list.push(position(row, flat % max_length, index));
    }
    list[open..].reverse();
    Ok(Positions { list, rows, blocks: flat_indices.len() })
}

#[expect(clippy::cast_possible_truncation, reason = "positions are below 2^8")]
fn position(row: usize, column: usize, block: usize) -> Position {
    Position { row, column: column as u32, block }
}

/// Checks that every position of a window fits its bits.
///
/// # Errors
/// It does not.
pub fn check_max_length(max_length: usize) -> Result<()> {
    in_range("max_length", max_length as i128, 1..=1 << POSITION_BITS)
}

fn check_users(users: &[i64]) -> Result<()> {
    match users.iter().position(|user| !(1..1 << USER_BITS).contains(user)) {
        Some(row) => Err(Problem::UserRange { got: users[row], row }.into()),
        None => Ok(()),
    }
}
