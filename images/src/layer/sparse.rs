//! Maps of sparse files: which pieces of a file the stream carries.
//!
//! Four forms: an old GNU header with extension blocks behind it, PAX 0.0 and 0.1 with the map among
//! the records, PAX 1.0 with the map at the start of the body. Source: GNU tar manual, "Storing Sparse Files".
use super::error::ArchiveProblem;
use super::header::{TAR_BLOCK, decimal, unsigned};

/// Bytes that the stream carries, and where in the file they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub offset: u64,
    pub length: u64,
}

/// A checked map: pieces in order, apart, not empty, inside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseMap {
    pub size: u64,
    pub pieces: Vec<Piece>,
}

impl SparseMap {
    /// Checks a map against the file's size and the bytes that the body holds; `None` if it does not fit.
    pub fn check(size: u64, mut pieces: Vec<Piece>, body_bytes: u64) -> Option<SparseMap> {
        let (mut end, mut stored) = (0_u64, 0_u64);
        for piece in &pieces {
            if piece.offset < end {
                return None;
            }
            end = piece.offset.checked_add(piece.length)?;
            stored += piece.length; // Below `end`, so it cannot overflow.
        }
        if end > size || stored != body_bytes {
            return None;
        }
        pieces.retain(|piece| piece.length > 0);
        Some(SparseMap { size, pieces })
    }
}

/// The pieces of one old GNU header or extension block; an empty slot ends the list.
pub fn gnu_pieces(slots: &[tar::GnuSparseHeader], pieces: &mut Vec<Piece>) -> Result<(), ArchiveProblem> {
    for slot in slots {
        if slot.offset.first() == Some(&0) || slot.numbytes.first() == Some(&0) {
            break;
        }
        let offset = unsigned(&slot.offset, "sparse offset")?;
        let length = unsigned(&slot.numbytes, "sparse length")?;
        pieces.push(Piece { offset, length });
    }
    Ok(())
}

/// Collects the map of PAX 1.0: decimal numbers, a line each, first how many pieces, in whole blocks.
#[derive(Debug, Default)]
pub struct MapReader {
    line: Vec<u8>,
    pieces_left: Option<u64>,
    offset: Option<u64>,
    pieces: Vec<Piece>,
}

/// A line of the map is a 64-bit number at most.
const LINE_BYTES: usize = 20;

impl MapReader {
    /// Takes the next block of the body. `Some` when the map is complete; the block's rest is padding.
    pub fn take(&mut self, block: &[u8; TAR_BLOCK]) -> Result<Option<Vec<Piece>>, ArchiveProblem> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > LINE_BYTES {
                    return Err(ArchiveProblem::Pax);
                }
                continue;
            }
            let number = decimal(&self.line)?;
            self.line.clear();
            if self.take_number(number) {
                return Ok(Some(std::mem::take(&mut self.pieces)));
            }
        }
        Ok(None)
    }

    /// True when that was the map's last number.
    fn take_number(&mut self, number: u64) -> bool {
        match (self.pieces_left, self.offset.take()) {
            (None, _) => self.pieces_left = Some(number),
            (Some(_), None) => self.offset = Some(number),
            (Some(left), Some(offset)) => {
                self.pieces.push(Piece { offset, length: number });
                self.pieces_left = Some(left - 1);
            }
        }
        self.pieces_left == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_must_be_in_order_and_fit_size_and_body() {
        type Case = (u64, &'static [(u64, u64)], u64, bool); // Size, pieces, body, whether it fits.
        let cases: &[Case] = &[
            (10, &[], 0, true),
            (10, &[(0, 10)], 10, true),
            (10, &[(2, 3), (5, 1), (10, 0)], 4, true),
            (10, &[(2, 3), (4, 1)], 4, false),
            (10, &[(5, 1), (2, 1)], 2, false),
            (10, &[(8, 3)], 3, false),
            (10, &[(11, 0)], 0, false),
            (10, &[(2, 3)], 4, false),
            (10, &[(2, 3)], 2, false),
            (u64::MAX, &[(1, u64::MAX)], u64::MAX, false),
            (u64::MAX, &[(u64::MAX - 1, 1), (u64::MAX - 1, 1)], 2, false),
        ];
        for (size, pieces, body, fits) in cases {
            let list = pieces.iter().map(|(offset, length)| Piece { offset: *offset, length: *length });
            assert_eq!(SparseMap::check(*size, list.collect(), *body).is_some(), *fits, "{size} {pieces:?}");
        }
    }

    #[test]
    fn the_map_of_pax_1_0_may_cross_blocks() {
        let mut text = b"60\n".to_vec();
        for piece in 0..60 {
            text.extend_from_slice(format!("{}\n{}\n", piece * 8192, 4096).as_bytes());
        }
        text.resize(text.len().next_multiple_of(TAR_BLOCK), 0);
        let mut reader = MapReader::default();
        let blocks: Vec<_> =
            text.chunks(TAR_BLOCK).map(|block| <&[u8; 512]>::try_from(block).unwrap()).collect();
        let (last, first) = blocks.split_last().unwrap();
        assert!(first.iter().all(|block| reader.take(block).unwrap().is_none()));
        assert_eq!(reader.take(last).unwrap().unwrap().len(), 60);
    }

    #[test]
    fn a_map_that_is_no_list_of_numbers_is_refused() {
        for text in [&b"x\n"[..], b"-1\n", b"\n", b"1\n0x\n", b"111111111111111111111\n"] {
            let mut block = [0; TAR_BLOCK];
            block[..text.len()].copy_from_slice(text);
            assert_eq!(
                MapReader::default().take(&block),
                Err(ArchiveProblem::Pax),
                "{}",
                text.escape_ascii()
            );
        }
    }
}
