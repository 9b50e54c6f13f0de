//! Sealing what is too large to lie in memory twice: the record is made while the data comes.
//!
//! The form is that of [`DataKey::seal`]. Its tag comes before the data and is known after it, so the head
//! of the record is given at the end, and whoever writes the record leaves room for it.

use std::io::{self, Write};

use poly1305::{
    Poly1305,
    universal_hash::{KeyInit as _, UniversalHash as _},
};
use rand::RngCore as _;
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use zeroize::Zeroizing;

use crate::{
    DataKey,
    seal::{NONCE_BYTES, TAG_BYTES, write_end, write_head},
};

/// Bytes that are encrypted at once: whole blocks of the checksum.
const PIECE_BYTES: usize = 64 * 1024;

/// Seals what is written to it, and passes that on.
pub struct Sealing<W> {
    out: W,
    cipher: XSalsa20,
    mac: Poly1305,
    nonce: [u8; NONCE_BYTES],
    /// Not yet encrypted.
    waiting: Vec<u8>,
    /// Bytes that are still to come.
    missing: u64,
    len: u64,
}

impl DataKey {
    /// Seals `len` bytes, which are then written to what is returned. The record begins with the head
    /// that [`Sealing::finish`] returns; what comes behind that is written to `out`.
    pub fn sealing<W: Write>(&self, len: u64, out: W) -> Sealing<W> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let mut cipher = XSalsa20::new(self.0.bytes().into(), (&nonce).into());
        // As NaCl's secretbox: what the cipher gives first is the key of the checksum.
        let mut key = Zeroizing::new([0; 32]);
        cipher.apply_keystream(key.as_mut());
        let key: &[u8; 32] = &key;
        Sealing {
            out,
            cipher,
            mac: Poly1305::new(key.into()),
            nonce,
            waiting: Vec::with_capacity(PIECE_BYTES),
            missing: len,
            len,
        }
    }
}

impl Sealing<io::Sink> {
    /// Bytes of the head of a record of `len` bytes.
    pub fn head_bytes(len: u64) -> usize {
        let mut head = Vec::new();
        write_head(len, &[0; TAG_BYTES], &mut head);
        head.len()
    }

    /// Bytes of the whole record.
    pub fn record_bytes(len: u64) -> u64 {
        let mut end = Vec::new();
        write_end(&[0; NONCE_BYTES], &mut end);
        Self::head_bytes(len) as u64 + len + end.len() as u64
    }
}

impl<W: Write> Sealing<W> {
    /// Writes what is left, and returns the head of the record.
    ///
    /// # Errors
    /// Those of writing, and [`io::ErrorKind::UnexpectedEof`] if less was written than announced.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        if self.missing > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.cipher.apply_keystream(&mut self.waiting);
        self.out.write_all(&self.waiting)?;
        let tag = self.mac.compute_unpadded(&self.waiting);
        let mut end = Vec::new();
        write_end(&self.nonce, &mut end);
        self.out.write_all(&end)?;
        let mut head = Vec::new();
        write_head(self.len, tag.as_ref(), &mut head);
        Ok(head)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.waiting.len() == PIECE_BYTES {
            self.cipher.apply_keystream(&mut self.waiting);
            self.mac.update_padded(&self.waiting);
            self.out.write_all(&self.waiting)?;
            self.waiting.clear();
        }
        let taken = data.len().min(PIECE_BYTES - self.waiting.len());
        // More than was announced is refused: the length is in the head.
        self.missing = self
            .missing
            .checked_sub(taken as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.waiting.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // What is not a whole piece waits for the rest of it.
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_in_pieces_is_opened_as_one() {
        let key = DataKey::from_bytes(&[1; 32]).unwrap();
        for size in [0, 1, 16, 300, PIECE_BYTES, PIECE_BYTES + 1, 200_000] {
            let data: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let mut record = vec![0; Sealing::head_bytes(size as u64)];
            let mut sealing = key.sealing(size as u64, &mut record);
            for piece in data.chunks(1000) {
                sealing.write_all(piece).unwrap();
            }
            let head = sealing.finish().unwrap();
            record[..head.len()].copy_from_slice(&head);
            assert_eq!(record.len() as u64, Sealing::record_bytes(size as u64));
            assert_eq!(key.open(record.into()).unwrap(), data, "{size} bytes");
        }
    }

    #[test]
    fn another_length_than_announced_is_refused() {
        let key = DataKey::from_bytes(&[1; 32]).unwrap();
        let mut short = key.sealing(5, Vec::new());
        short.write_all(b"four").unwrap();
        let error = short.finish().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut long = key.sealing(3, Vec::new());
        let error = long.write_all(b"four").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
