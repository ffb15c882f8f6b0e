//! SipHash-2-4 of 128 bits (Aumasson and Bernstein, INDOCRYPT 2012).

/// The key of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    first: u64,
    second: u64,
}

/// 128 bits of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash {
    /// The first half.
    pub low: u64,
    /// The second half.
    pub high: u64,
}

impl Hash {
    /// Both halves.
    pub fn to_bytes(self) -> [u8; 16] {
        let whole = u128::from(self.high) << 64 | u128::from(self.low);
        whole.to_le_bytes()
    }
}

/// Told apart from texts: a sentence that is a whole text stood in no other one yet.
const SENTENCES: u64 = 0x7365_6e74_656e_6365;

impl Key {
    /// The key of these bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "each half is taken")]
        Self { first: whole as u64, second: (whole >> 64) as u64 }
    }

    /// The key of the hashes of sentences.
    #[must_use]
    pub fn of_sentences(self) -> Self {
        Self { second: self.second ^ SENTENCES, ..self }
    }

    /// The hash of some bytes.
    pub fn hash(self, bytes: &[u8]) -> Hash {
        let mut state = State {
            v0: self.first ^ 0x736f_6d65_7073_6575,
            v1: self.second ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: self.first ^ 0x6c79_6765_6e65_7261,
            v3: self.second ^ 0x7465_6462_7974_6573,
        };
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state.take(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state.take(u64::from_le_bytes(last) | (bytes.len() as u64) << 56);
        state.v2 ^= 0xee;
        let low = state.finish();
        state.v1 ^= 0xdd;
        Hash { low, high: state.finish() }
    }
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline]
    fn take(&mut self, word: u64) {
        self.v3 ^= word;
        self.mix();
        self.mix();
        self.v0 ^= word;
    }

    fn finish(&mut self) -> u64 {
        for _ in 0..4 {
            self.mix();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    #[inline]
    fn mix(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}
