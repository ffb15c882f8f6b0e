//! The lists of hard negatives, user by user.

use std::hint::black_box;

use super::counts::{Counts, key_of};
use super::{FalseNegativeMemory, Position};

/// Working memory of [`FalseNegativeMemory::observe`].
#[derive(Debug, Default)]
pub struct Scratch {
    /// A byte for each negative of each position: 1 where it is hard.
    pub above: Vec<u8>,
    /// Hard items of all positions, and where those of each position end.
    pub items: Vec<u32>,
    pub ends: Vec<usize>,
    /// The lists of one user in the making.
    lists: Vec<List>,
    hard: Vec<u32>,
}

/// Hard items of one position: they end at `end` of the user's, and start where the last ended.
#[derive(Debug, Clone, Copy)]
pub struct List {
    pub position: u32,
    pub end: u32,
}

#[derive(Debug, Default)]
pub struct User {
    pub id: u32,
    /// In descending order of positions; no list is empty.
    pub lists: Vec<List>,
    pub hard: Vec<u32>,
    pub counts: Counts,
}

impl User {
    /// The position and items of each list.
    pub fn each_list(&self) -> impl DoubleEndedIterator<Item = (u32, &[u32])> {
        (0..self.lists.len()).map(|k| {
            let start = if k == 0 { 0 } else { self.lists[k - 1].end as usize };
            let List { position, end } = self.lists[k];
            (position, &self.hard[start..end as usize])
        })
    }

    /// Something that depends on every part of a user but the counts' words.
    pub fn touch(&self) -> u32 {
        let lists = self.lists.last().map_or(0, |list| list.end);
        self.hard.iter().step_by(16).fold(lists, |sum, item| sum ^ item)
    }

    /// The keys of the items in the lists, sorted.
    pub fn stored_keys_into(&self, keys: &mut Vec<u64>) {
        keys.clear();
        for (position, items) in self.each_list() {
            keys.extend(items.iter().map(|&item| key_of(position, item)));
        }
        keys.sort_unstable();
    }
}

impl FalseNegativeMemory {
    /// Replaces the lists of the positions by the items in the working memory.
    #[expect(clippy::cast_possible_truncation, reason = "a user has fewer than 2^32 hard items")]
    pub(super) fn store(&mut self, users: &[i64], positions: &[Position]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        black_box(self.touch(users, positions));
        let (mut start, mut next) = (0, 0);
        for row in positions.chunk_by(|a, b| a.row == b.row) {
            let ends = &scratch.ends[next..next + row.len()];
            next += row.len();
            let last = ends.last().copied().unwrap_or(start);
            let found = self.find(users, row[0].row);
            if found.is_none() && start == last {
                continue;
            }
            let user = found.unwrap_or_else(|| self.add(users, row[0].row));
            let user = &mut self.users[user];
            let (lists, hard) = (&mut scratch.lists, &mut scratch.hard);
            lists.clear();
            hard.clear();
            let mut old = user.each_list().peekable();
            for (&Position { column, .. }, &end) in row.iter().zip(ends) {
                while let Some((position, items)) = old.next_if(|list| list.0 >= column) {
                    if position > column {
                        hard.extend_from_slice(items);
                        lists.push(List { position, end: hard.len() as u32 });
                    }
                }
                if end > start {
                    hard.extend_from_slice(&scratch.items[start..end]);
                    lists.push(List { position: column, end: hard.len() as u32 });
                }
                start = end;
            }
            for (position, items) in old {
                hard.extend_from_slice(items);
                lists.push(List { position, end: hard.len() as u32 });
            }
            self.hard_count = self.hard_count + hard.len() - user.hard.len();
            user.lists.clear();
            user.lists.extend_from_slice(lists);
            user.hard.clear();
            user.hard.extend_from_slice(hard);
        }
        self.scratch = scratch;
    }

    /// Something that depends on the lists of all users of a batch.
    ///
    /// Reads that do not wait for each other overlap where memory is far.
    fn touch(&self, users: &[i64], positions: &[Position]) -> u32 {
        let rows = positions.chunk_by(|a, b| a.row == b.row);
        let found = rows.filter_map(|row| self.find(users, row[0].row));
        found.fold(0, |sum, user| sum ^ self.users[user].touch())
    }
}
