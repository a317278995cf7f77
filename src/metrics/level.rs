//! Cells of one size, in a row: the open one and, packed, those that are over; bounded in number and in bytes.

use std::collections::VecDeque;

use super::cell::{Cell, PackedCell};

/// The cells of one size.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Their length in seconds.
    pub span: i64,
    /// How many that are over are kept.
    pub keep: usize,
    /// In how many bytes at most: the oldest go when there is no room.
    pub bytes_max: usize,
}

/// The cells of one size.
#[derive(Debug)]
pub struct Level {
    /// Their size.
    pub size: Size,
    /// When the open one began.
    pub start: i64,
    /// What happens now.
    pub open: Cell,
    /// What is over, oldest first, by its start; stretches without events are left out.
    pub closed: VecDeque<(i64, PackedCell)>,
}

impl Level {
    /// Nothing has happened yet; `now` in seconds since 1970.
    pub fn new(size: Size, now: i64) -> Self {
        Self {
            size,
            start: now.div_euclid(size.span) * size.span,
            open: Cell::default(),
            closed: VecDeque::new(),
        }
    }

    /// Forgets what is too old, and the oldest when there is no room.
    pub fn prune(&mut self) {
        let Size { span, keep, bytes_max } = self.size;
        let oldest = self.start - span * i64::try_from(keep).unwrap_or(i64::MAX);
        let mut bytes: usize = self.closed.iter().map(|(_, cell)| cell.bytes()).sum();
        while let Some((start, cell)) = self.closed.front()
            && (*start < oldest || bytes > bytes_max)
        {
            bytes -= cell.bytes();
            self.closed.pop_front();
        }
    }
}
