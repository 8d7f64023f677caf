//! The bytes of one file, twice: as programs see them, and as the disk would have them.
//!
//! Between two syncs only the numbers of the changed pages are kept, so a sync costs what was
//! changed and not the file's length. Knows no names and no attributes.

use std::{collections::BTreeSet, ops::Range};

/// What a disk writes whole, in bytes: a page survives a cut or does not.
pub(crate) const PAGE_BYTES: usize = 4096;

/// The bytes of one file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    volatile: Vec<u8>,
    durable: Vec<u8>,
    /// Pages that may differ between the two.
    dirty: BTreeSet<usize>,
}

impl Content {
    /// The file's length, as programs see it.
    pub(crate) fn len(&self) -> usize {
        self.volatile.len()
    }

    /// At most `size` bytes from `offset`; fewer at the end of the file, none behind it.
    pub(crate) fn read(&self, offset: usize, size: usize) -> &[u8] {
        let start = offset.min(self.len());
        &self.volatile[start..start.saturating_add(size).min(self.len())]
    }

    /// Writes at `offset`; a hole before it reads as zeros.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let range = offset..offset + bytes.len();
        if self.len() < range.end {
            self.resize(range.end);
        }
        self.volatile[range.clone()].copy_from_slice(bytes);
        self.dirty.extend(pages(range));
    }

    /// Cuts the file off at `len`, or adds zeros up to it.
    pub(crate) fn resize(&mut self, len: usize) {
        self.dirty.extend(pages(self.len().min(len)..self.len().max(len)));
        self.volatile.resize(len, 0);
    }

    /// Makes the bytes and the length durable.
    pub(crate) fn sync(&mut self) {
        self.durable.resize(self.volatile.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            self.keep(page);
        }
    }

    /// The power fails: of what was not synced, only the pages that `survives` picks remain, and
    /// the new length if it picks that. Gives the number of forgotten pages.
    pub(crate) fn cut(&mut self, survives: &mut dyn FnMut() -> bool) -> usize {
        if self.dirty.is_empty() {
            return 0;
        }
        if self.volatile.len() != self.durable.len() && survives() {
            self.durable.resize(self.volatile.len(), 0);
        }
        let mut forgotten = 0;
        for page in std::mem::take(&mut self.dirty) {
            if survives() {
                self.keep(page);
            } else {
                forgotten += 1;
            }
        }
        self.volatile.clone_from(&self.durable);
        forgotten
    }

    /// Copies a page to the durable bytes, as far as they reach.
    fn keep(&mut self, page: usize) {
        let start = (page * PAGE_BYTES).min(self.durable.len());
        let end = (start + PAGE_BYTES).min(self.durable.len());
        let known = self.volatile.len().clamp(start, end);
        self.durable[start..known].copy_from_slice(&self.volatile[start..known]);
        self.durable[known..end].fill(0);
    }
}

/// The pages that a range of bytes touches.
fn pages(range: Range<usize>) -> Range<usize> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(0, bytes);
        content.sync();
        content
    }

    #[test]
    fn a_cut_gives_back_what_was_synced() {
        type Change = fn(&mut Content);
        let old = vec![7; 2 * PAGE_BYTES];
        let cases: [(Change, usize); 7] = [
            (|_| {}, 0),
            (|content| content.write(0, b"new"), 1),
            (|content| content.write(PAGE_BYTES - 1, b"ab"), 2),
            (|content| content.write(2 * PAGE_BYTES, b"more"), 1),
            (|content| content.resize(1), 2),
            (|content| content.resize(2 * PAGE_BYTES + 1), 1),
            (
                |content| {
                    content.resize(0);
                    content.resize(2 * PAGE_BYTES);
                },
                2,
            ),
        ];
        for (index, (change, forgotten)) in cases.into_iter().enumerate() {
            let mut content = synced(&old);
            change(&mut content);
            assert_eq!(content.cut(&mut || false), forgotten, "case {index}");
            assert_eq!(content.read(0, usize::MAX), old, "case {index}");

            change(&mut content);
            let new = content.read(0, usize::MAX).to_vec();
            content.sync();
            assert_eq!(content.cut(&mut || false), 0, "case {index}");
            assert_eq!(content.read(0, usize::MAX), new, "case {index}");

            let mut content = synced(&old);
            change(&mut content);
            assert_eq!(content.cut(&mut || true), 0, "case {index}");
            assert_eq!(content.read(0, usize::MAX), new, "case {index}");
        }
    }

    #[test]
    fn pages_and_the_length_survive_apart() {
        let survivors = |picks: &[bool]| {
            let mut content = synced(&[1; PAGE_BYTES]);
            content.write(0, &[2; 2 * PAGE_BYTES]);
            let mut picks = picks.iter();
            content.cut(&mut || *picks.next().expect("a pick for the length and for each page"));
            content.read(0, usize::MAX).to_vec()
        };
        let page = |byte: u8| [byte; PAGE_BYTES];
        assert_eq!(survivors(&[false, true, true]), page(2));
        assert_eq!(survivors(&[true, false, true]), [page(1), page(2)].concat());
        assert_eq!(survivors(&[true, true, false]), [page(2), page(0)].concat());
        assert_eq!(survivors(&[false, false, true]), page(1));
    }

    #[test]
    fn a_read_ends_with_the_file() {
        let content = synced(b"abc");
        for (offset, size, expected) in [(0, 2, "ab"), (1, 9, "bc"), (3, 1, ""), (9, 1, "")] {
            assert_eq!(content.read(offset, size), expected.as_bytes());
        }
    }
}
