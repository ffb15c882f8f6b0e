//! What can go wrong with a memory of false negatives alone.

use crate::error::Kind;

/// What can go wrong with a memory of false negatives alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A user id that its bits cannot hold.
    #[error("users must be at least 1 and below 2**24: got {got} at row {row}")]
    UserRange {
        /// The id.
        got: i64,
        /// Row of the batch.
        row: usize,
    },
    /// An item id that its bits cannot hold.
    #[error(
        "negatives must be at least 1 and below 2**32: got {got} at row {row}, position \
         {position}, slot {slot}"
    )]
    ItemRange {
        /// The id.
        got: i64,
        /// Row of the batch.
        row: usize,
        /// Window position.
        position: u32,
        /// Which negative of the position.
        slot: usize,
    },
    /// An array is too narrow for an item.
    #[error("negatives must be int64: item {item} is stored")]
    ItemWidth {
        /// The item.
        item: u32,
    },
    /// A packed position outside the batch.
    #[error("flat_indices must be at least 0 and below {end}: got {got} at index {index}")]
    FlatIndexRange {
        /// Rows times length.
        end: usize,
        /// The flat index.
        got: i64,
        /// Where it stands.
        index: usize,
    },
    /// Packed positions that do not ascend.
    #[error("flat_indices must ascend: got {got} after {before} at index {index}")]
    FlatIndexOrder {
        /// The flat index before.
        before: i64,
        /// The flat index.
        got: i64,
        /// Where it stands.
        index: usize,
    },
    /// A row with padding right of a target.
    #[error(
        "positives must be left padded: got 0 at row {row}, position {position}, right of a target"
    )]
    NotLeftPadded {
        /// Row of the batch.
        row: usize,
        /// Window position.
        position: usize,
    },
    /// A logit that is no number.
    #[error("logits must not be NaN: got NaN at row {row}, position {position}, column {column}")]
    NanLogit {
        /// Row of the batch.
        row: usize,
        /// Window position.
        position: u32,
        /// 0 is the positive.
        column: usize,
    },
    /// Reversed negatives that are not of the batch, or in another order.
    #[error(
        "reversed_ must hold negatives of this batch in the order of inject: got \
         {coordinates:?} at index {index}"
    )]
    NotReversed {
        /// Row, position, slot.
        coordinates: [i64; 3],
        /// Where they stand.
        index: usize,
    },
    /// Arrays that no memory of false negatives wrote.
    #[error("state: {rule}")]
    NotAState {
        /// What holds in every state.
        rule: &'static str,
    },
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::UserRange { .. }
            | Self::ItemRange { .. }
            | Self::FlatIndexRange { .. }
            | Self::NotReversed { .. } => Kind::Index,
            Self::ItemWidth { .. } => Kind::Type,
            Self::FlatIndexOrder { .. }
            | Self::NotLeftPadded { .. }
            | Self::NanLogit { .. }
            | Self::NotAState { .. } => Kind::Value,
        }
    }
}
