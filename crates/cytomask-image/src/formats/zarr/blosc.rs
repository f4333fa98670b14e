//! Blosc 1 containers, decoded: blocks of LZ4, zlib, zstd or blosclz, whose bytes or bits may be shuffled.
//!
//! After c-blosc's README_CHUNK_FORMAT and the published description of blosclz (a relative of FastLZ).

use crate::formats::codec;
use crate::{Error, ErrorKind, Result};

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Format, format!("damaged blosc data: {what}"))
}

/// Decodes a container that must hold `expected` bytes.
pub(super) fn decode(bytes: &[u8], expected: usize) -> Result<Vec<u8>> {
    let &[_, _, flags, type_size, ref sizes @ .., _, _, _, _] =
        bytes.first_chunk::<16>().ok_or_else(|| damaged("no header"))?;
    let word = |from: &[u8]| from.iter().take(4).rev().fold(0_usize, |word, &byte| word << 8 | usize::from(byte));
    let (total, block) = (word(&sizes[..4]), word(&sizes[4..]));
    let type_size = usize::from(type_size).max(1);
    if total != expected {
        return Err(damaged(format!("{total} bytes, expected {expected}")));
    }
    if total == 0 {
        return Ok(Vec::new());
    }
    if flags & 2 != 0 {
        return bytes.get(16..16 + total).map(<[u8]>::to_vec).ok_or_else(|| damaged("cut short"));
    }
    if block == 0 || block > total {
        return Err(damaged(format!("blocks of {block} bytes")));
    }
    let blocks = total.div_ceil(block);
    let mut out = Vec::new();
    for index in 0..blocks {
        let entry = bytes.get(16 + 4 * index..20 + 4 * index).ok_or_else(|| damaged("cut short"))?;
        let mut rest = bytes.get(word(entry)..).ok_or_else(|| damaged("a block after the end"))?;
        let length = block.min(total - index * block);
        // Full blocks of small types are cut into one stream for each byte of a sample.
        let split = flags & 0x10 == 0 && type_size <= 16 && length == block && block / type_size >= 128;
        let streams = if split { type_size } else { 1 };
        let part = length / streams;
        let start = out.len();
        for _ in 0..streams {
            let packed = rest.get(..4).map(word).ok_or_else(|| damaged("cut short"))?;
            let data = rest.get(4..4 + packed).ok_or_else(|| damaged("cut short"))?;
            rest = &rest[4 + packed..];
            if packed == part {
                out.extend_from_slice(data);
                continue;
            }
            out.extend(match flags >> 5 {
                0 => blosclz(data, part)?,
                1 => codec::lz4(data, part)?,
                3 => codec::zlib(data, part)?,
                4 => codec::zstd(data, part)?,
                2 => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        "blosc with snappy is not read; write it with zstd",
                    ));
                }
                other => return Err(damaged(format!("compressor {other}"))),
            });
        }
        if out.len() != start + length {
            return Err(damaged(format!("a block of {} bytes, expected {length}", out.len() - start)));
        }
        if flags & 1 != 0 && type_size > 1 {
            let plain = unshuffle(&out[start..], type_size);
            out[start..].copy_from_slice(&plain);
        } else if flags & 4 != 0 {
            let plain = unshuffle_bits(&out[start..], type_size);
            out[start..].copy_from_slice(&plain);
        }
    }
    Ok(out)
}

/// First bytes of all samples, then second ones, …; what is left over stays.
fn unshuffle(bytes: &[u8], type_size: usize) -> Vec<u8> {
    let count = bytes.len() / type_size;
    let mut out = bytes.to_vec();
    for index in 0..count {
        for byte in 0..type_size {
            out[index * type_size + byte] = bytes[byte * count + index];
        }
    }
    out
}

/// Lowest bits of the first bytes of all samples, eight to a byte, then the next bits, …; samples beyond a multiple of eight stay.
fn unshuffle_bits(bytes: &[u8], type_size: usize) -> Vec<u8> {
    let count = bytes.len() / type_size / 8 * 8;
    let mut out = bytes.to_vec();
    out[..count * type_size].fill(0);
    for bit in 0..type_size * 8 {
        let row = &bytes[bit * count / 8..(bit + 1) * count / 8];
        for index in 0..count {
            let value = row[index / 8] >> (index % 8) & 1;
            out[index * type_size + bit / 8] |= value << (bit % 8);
        }
    }
    out
}

/// blosclz: literals and back references, as FastLZ's second level.
fn blosclz(bytes: &[u8], expected: usize) -> Result<Vec<u8>> {
    const FAR: usize = 8191;
    let cut = || damaged("a blosclz block is cut short");
    let mut out: Vec<u8> = Vec::new();
    let mut input = bytes.iter().copied();
    // The first control byte is always a literal's.
    let mut control = usize::from(input.next().ok_or_else(cut)?) & 31;
    loop {
        if control >= 32 {
            let mut length = (control >> 5) - 1;
            let mut distance = (control & 31) << 8;
            if length == 6 {
                loop {
                    let more = input.next().ok_or_else(cut)?;
                    length += usize::from(more);
                    if more != 255 {
                        break;
                    }
                    if length > expected {
                        return Err(damaged("a match longer than its block"));
                    }
                }
            }
            let low = input.next().ok_or_else(cut)?;
            if low == 255 && distance == 31 << 8 {
                let high = usize::from(input.next().ok_or_else(cut)?);
                distance = (high << 8 | usize::from(input.next().ok_or_else(cut)?)) + FAR;
            } else {
                distance += usize::from(low);
            }
            let start = out.len().checked_sub(distance + 1).ok_or_else(|| damaged("a match before the start"))?;
            if out.len() + length + 3 > expected {
                return Err(damaged("a match longer than its block"));
            }
            for index in start..start + length + 3 {
                out.push(out[index]);
            }
        } else {
            if out.len() + control + 1 > expected {
                return Err(damaged("more literals than the block holds"));
            }
            for _ in 0..=control {
                out.push(input.next().ok_or_else(cut)?);
            }
        }
        match input.next() {
            Some(next) => control = usize::from(next),
            None => break,
        }
    }
    if out.len() == expected { Ok(out) } else { Err(cut()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_are_undone() {
        assert_eq!(unshuffle(&[1, 2, 3, 10, 20, 30, 99], 2), [1, 10, 2, 20, 3, 30, 99]);
        // Eight one-byte samples: row 0 holds their lowest bits.
        let rows = [0b0000_0001, 0b0000_0010, 0, 0, 0, 0, 0, 0b1000_0000];
        assert_eq!(unshuffle_bits(&rows, 1), [1, 2, 0, 0, 0, 0, 0, 128]);
    }

    #[test]
    fn a_blosclz_stream_by_hand() {
        // Three literals, then a match of 4 at distance 3.
        assert_eq!(blosclz(&[2, b'a', b'b', b'c', 2 << 5, 2], 7).unwrap(), b"abcabca");
        assert!(blosclz(&[2, b'a', b'b', b'c', 2 << 5, 3], 7).is_err());
        assert!(decode(&[2, 1, 1, 2], 4).is_err());
    }
}
