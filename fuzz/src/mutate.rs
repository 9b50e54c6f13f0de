//! Makes invalid inputs out of valid ones.

use rand::{Rng as _, rngs::StdRng};

use crate::MAX_BYTES;

/// Numbers at which code that counts goes wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// One to six changes.
pub(crate) fn mutate(mut input: Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    for _ in 0..random.random_range(1..=6) {
        change(&mut input, seeds, random);
    }
    input.truncate(MAX_BYTES);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) {
    let size = input.len();
    let at = random.random_range(0..=size);
    let end = random.random_range(at..=size.min(at + 64));
    match random.random_range(0..9) {
        0 if at < size => input[at] ^= 1 << random.random_range(0..8),
        1 if at < size => input[at] = random.random(),
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        5 => {
            let edge = EDGES[random.random_range(0..EDGES.len())].to_le_bytes();
            let bytes = &edge[..[1, 2, 4, 8][random.random_range(0..4)]];
            let end = size.min(at + bytes.len());
            input.splice(at..end, bytes.iter().copied());
        }
        6 => {
            // As protobuf writes numbers, so that fields stay fields.
            let mut edge = EDGES[random.random_range(0..EDGES.len())];
            let mut bytes = Vec::new();
            while edge >= 0x80 {
                bytes.push(edge as u8 | 0x80);
                edge >>= 7;
            }
            bytes.push(edge as u8);
            input.splice(at..size.min(at + 1), bytes);
        }
        7 => {
            let other = &seeds[random.random_range(0..seeds.len())];
            let from = random.random_range(0..=other.len());
            input.splice(at..end, other[from..].iter().copied());
        }
        _ => {
            let bytes: Vec<u8> = (0..random.random_range(1..16))
                .map(|_| random.random())
                .collect();
            input.splice(at..at, bytes);
        }
    }
}
