//! Decompression into a buffer whose size is known beforehand. Nothing is allocated on the word of the compressed bytes.

use std::io::Read;

use crate::{Error, ErrorKind, Result};

fn damaged(codec: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Format, format!("damaged {codec} data")).with_source(source)
}

fn too_short(codec: &str, expected: usize, found: usize) -> Error {
    Error::new(
        ErrorKind::Format,
        format!("damaged {codec} data: expected {expected} bytes after decoding, found {found}"),
    )
}

/// Reads until `expected` bytes have come; more are left unread.
fn fill(codec: &str, reader: impl Read, expected: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(expected as u64).read_to_end(&mut out).map_err(|error| damaged(codec, error))?;
    if out.len() != expected { Err(too_short(codec, expected, out.len())) } else { Ok(out) }
}

/// zlib-wrapped deflate.
pub(crate) fn zlib(bytes: &[u8], expected: usize) -> Result<Vec<u8>> {
    fill("deflate", flate2::read::ZlibDecoder::new(bytes), expected)
}

/// gzip, one or more members.
#[cfg(feature = "zarr")]
pub(crate) fn gzip(bytes: &[u8], expected: usize) -> Result<Vec<u8>> {
    fill("gzip", flate2::read::MultiGzDecoder::new(bytes), expected)
}

/// Zstandard, the first frame.
pub(crate) fn zstd(bytes: &[u8], expected: usize) -> Result<Vec<u8>> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|error| damaged("zstd", error.to_string()))?;
    fill("zstd", decoder, expected)
}

/// TIFF's LZW, most significant bit first.
pub(crate) fn lzw(bytes: &[u8], expected: usize) -> Result<Vec<u8>> {
    // A code of at least 9 bits stands for at most 4096 bytes.
    if expected / 4096 > bytes.len() {
        return Err(too_short("LZW", expected, bytes.len()));
    }
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
    let mut out = vec![0; expected];
    let (mut read, mut written) = (0, 0);
    while written < expected {
        let result = decoder.decode_bytes(&bytes[read..], &mut out[written..]);
        read += result.consumed_in;
        written += result.consumed_out;
        let status = result.status.map_err(|error| damaged("LZW", error.to_string()))?;
        if matches!(status, weezl::LzwStatus::Done | weezl::LzwStatus::NoProgress)
            || (result.consumed_in == 0 && result.consumed_out == 0)
        {
            break;
        }
    }
    if written < expected { Err(too_short("LZW", expected, written)) } else { Ok(out) }
}

/// Apple's PackBits.
pub(crate) fn packbits(bytes: &[u8], expected: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while out.len() < expected {
        let [head, tail @ ..] = rest else { return Err(too_short("PackBits", expected, out.len())) };
        rest = match *head as i8 {
            count @ 0.. => {
                let count = count as usize + 1;
                let Some((literal, tail)) = tail.split_at_checked(count) else {
                    return Err(too_short("PackBits", expected, out.len()));
                };
                out.extend_from_slice(literal);
                tail
            }
            -128 => tail,
            count => {
                let [value, tail @ ..] = tail else { return Err(too_short("PackBits", expected, out.len())) };
                out.resize(out.len() + (1 - isize::from(count)) as usize, *value);
                tail
            }
        };
    }
    out.truncate(expected);
    Ok(out)
}

/// A raw LZ4 block.
#[cfg(feature = "zarr")]
pub(crate) fn lz4(bytes: &[u8], expected: usize) -> Result<Vec<u8>> {
    // A byte of a match length stands for at most 255 bytes.
    if expected / 256 > bytes.len() {
        return Err(too_short("LZ4", expected, bytes.len()));
    }
    let mut out = vec![0; expected];
    let found = lz4_flex::block::decompress_into(bytes, &mut out).map_err(|error| damaged("LZ4", error))?;
    if found == expected { Ok(out) } else { Err(too_short("LZ4", expected, found)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packbits_runs_and_literals() {
        // The example of the TIFF 6.0 specification, section 9.
        let packed = [0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0xFD, 0xAA, 0x03, 0x80, 0x00, 0x2A, 0x22, 0xF7, 0xAA];
        let expected = [
            0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0xAA, 0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0x22, 0xAA, 0xAA, 0xAA, 0xAA,
            0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA,
        ];
        assert_eq!(packbits(&packed, 24).unwrap(), expected);
        assert!(packbits(&packed, 25).is_err());
        assert!(packbits(&[5, 1], 3).is_err());
    }

    #[test]
    fn damaged_data_are_refused() {
        let noise: Vec<u8> = (0..200_u8).map(|value| value.wrapping_mul(37) ^ 0x5A).collect();
        for decode in [zlib, zstd, lzw, packbits] {
            assert_eq!(decode(&noise, 1 << 20).unwrap_err().kind(), ErrorKind::Format);
            assert_eq!(decode(&[], 10).unwrap_err().kind(), ErrorKind::Format);
        }
    }
}
