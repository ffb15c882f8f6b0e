//! A set of hashes, as small tables that grow one by one.

use crate::error::Result;
use crate::memory;

use super::Problem;
use super::hash::Hash;

/// Tables; 16 bits of a hash choose one.
const TABLES: usize = 1 << 16;

/// Bytes of a stored hash: the 16 bits that choose its table, and the 64 that it holds.
pub const ENTRY_BYTES: usize = 10;

/// A set of hashes of 80 bits.
#[derive(Debug, Clone)]
pub struct Table {
    tables: Vec<Slots>,
    entries: usize,
    bytes: usize,
    most: usize,
    /// What came in since it was asked for, where that is kept.
    added: Option<Vec<u8>>,
}

/// Open addressing: a hash stands at the place that its size says, or in a slot behind it.
#[derive(Debug, Clone, Default)]
struct Slots {
    /// 0 where there is none.
    slots: Vec<u64>,
    used: usize,
}

impl Table {
    /// An empty set that takes at most so many bytes.
    ///
    /// # Errors
    /// The memory is refused.
    pub fn new(most: Option<usize>) -> Result<Self> {
        let tables = memory::repeat(Slots::default(), TABLES)?;
        let bytes = TABLES * size_of::<Slots>();
        Ok(Self { tables, entries: 0, bytes, most: most.unwrap_or(usize::MAX), added: None })
    }

    /// How many hashes it holds.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps what comes in from now on, for `take_added`.
    pub fn keep_added(&mut self) {
        self.added.get_or_insert_default();
    }

    /// What came in since the last call, [`ENTRY_BYTES`] each.
    pub fn take_added(&mut self) -> Vec<u8> {
        self.added.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Puts stored hashes in.
    ///
    /// # Errors
    /// They are cut off, the tables are full, or the memory is refused.
    pub fn load(&mut self, stored: &[u8]) -> Result<()> {
        let (stored, rest) = stored.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            let length = stored.len() * ENTRY_BYTES + rest.len();
            return Err(Problem::Stored { length }.into());
        }
        for entry in stored {
            let [first, second, high @ ..] = *entry;
            let low = u64::from(u16::from_le_bytes([first, second]));
            self.put(low, u64::from_le_bytes(high))?;
        }
        Ok(())
    }

    /// Puts a hash in, and says whether it is new.
    ///
    /// # Errors
    /// The tables are full, or the memory is refused.
    #[inline]
    pub fn insert(&mut self, hash: Hash) -> Result<bool> {
        let low = hash.low % TABLES as u64;
        let is_new = self.put(low, hash.high)?;
        if is_new && let Some(added) = &mut self.added {
            memory::reserve(added, ENTRY_BYTES)?;
            added.extend(&low.to_le_bytes()[..2]);
            added.extend(hash.high.to_le_bytes());
        }
        Ok(is_new)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a number of a table")]
    fn put(&mut self, low: u64, high: u64) -> Result<bool> {
        let high = high.max(1);
        let table = &mut self.tables[low as usize];
        // A fifth of the slots stay empty.
        if (table.used + 1) * 5 > table.slots.len() * 4 {
            let before = table.slots.len();
            let length = before + before / 4 + 4;
            let more = (length - before) * size_of::<u64>();
            if self.bytes + more > self.most {
                // What is there already needs no room.
                if table.find(high).is_ok() {
                    return Ok(false);
                }
                return Err(Problem::Full { entries: self.entries, most: self.most }.into());
            }
            table.grow(length)?;
            self.bytes += more;
        }
        let Err(free) = table.find(high) else { return Ok(false) };
        table.slots[free] = high;
        table.used += 1;
        self.entries += 1;
        Ok(true)
    }
}

impl Slots {
    /// Where a hash stands, or the slot where it would.
    #[inline]
    fn find(&self, high: u64) -> std::result::Result<usize, usize> {
        let length = self.slots.len();
        if length == 0 {
            return Err(0);
        }
        #[expect(clippy::cast_possible_truncation, reason = "less than the length")]
        let mut place = ((u128::from(high) * length as u128) >> 64) as usize;
        loop {
            match self.slots[place] {
                0 => return Err(place),
                found if found == high => return Ok(place),
                _ => place = if place + 1 == length { 0 } else { place + 1 },
            }
        }
    }

    fn grow(&mut self, length: usize) -> Result<()> {
        let before = std::mem::replace(&mut self.slots, memory::repeat(0, length)?);
        for high in before.into_iter().filter(|&high| high != 0) {
            if let Err(free) = self.find(high) {
                self.slots[free] = high;
            }
        }
        Ok(())
    }
}
