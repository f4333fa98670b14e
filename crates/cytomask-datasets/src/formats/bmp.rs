//! Windows bitmaps without compression: 8 bits with a palette, 24 and 32 bits. SegPC's images and masks.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use cytomask_image::SampleType;

use super::checked_size;
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result};

/// Reads a file as `[H, W, 3]`, or `[H, W]` where its palette is grey; a fourth byte is dropped.
pub(crate) fn read(path: &Path) -> Result<Plane> {
    let failed = |source| Error::new(ErrorKind::Io, "cannot read").with_source(source);
    let short = || Error::new(ErrorKind::Format, "BMP: the file is cut short");
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut head = [0_u8; 54];
    if length < 54 {
        return Err(short());
    }
    file.read_exact(&mut head).map_err(failed)?;
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if !head.starts_with(b"BM") || u32_at(14) < 40 {
        return Err(Error::expected(ErrorKind::Format, "BMP", "a Windows bitmap", format!("{:02x?}", &head[..2])));
    }
    let (w, h) = (u32_at(18) as i32, u32_at(22) as i32);
    let bits = u16::from_le_bytes([head[28], head[29]]);
    let compression = u32_at(30);
    if !matches!((bits, compression), (8 | 24, 0) | (32, 0 | 3)) {
        let found = format!("{bits} bits, compression {compression}");
        return Err(Error::expected(ErrorKind::Unsupported, "BMP", "8, 24 or 32 bits, uncompressed", found));
    }
    if w <= 0 || h == 0 || h == i32::MIN {
        return Err(Error::expected(ErrorKind::Format, "BMP", "a positive size", format!("{h} × {w}")));
    }
    // Rows go upwards unless the height is negative.
    let (upwards, h, w) = (h > 0, h.unsigned_abs() as usize, w as usize);
    let size = checked_size(h, w, 3)?;
    let pixel = usize::from(bits) / 8;
    let row = (w * pixel).next_multiple_of(4);
    let start = u64::from(u32_at(10));
    if start + (row * h) as u64 > length {
        return Err(short());
    }
    let palette = if bits == 8 {
        let colours = match u32_at(46) {
            0 => 256,
            count => (count as usize).min(256),
        };
        file.seek(SeekFrom::Start(14 + u64::from(u32_at(14)))).map_err(failed)?;
        let mut bytes = vec![0; colours * 4];
        file.read_exact(&mut bytes).map_err(|_| short())?;
        bytes.chunks_exact(4).map(|c| [c[2], c[1], c[0]]).collect()
    } else {
        Vec::new()
    };
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut bytes = vec![0; row * h];
    file.read_exact(&mut bytes).map_err(failed)?;
    let grey = bits == 8 && palette.iter().all(|[r, g, b]: &[u8; 3]| r == g && g == b);
    let channels = if grey { 1 } else { 3 };
    let mut values = Vec::with_capacity(h * w * channels);
    for y in 0..h {
        let from = if upwards { h - 1 - y } else { y } * row;
        for at in bytes[from..from + w * pixel].chunks_exact(pixel) {
            let rgb = match at {
                [index] => *palette.get(usize::from(*index)).ok_or_else(|| {
                    Error::expected(ErrorKind::Format, "BMP", format!("colours below {}", palette.len()), index)
                })?,
                [b, g, r, ..] => [*r, *g, *b],
                _ => [0; 3],
            };
            values.extend(rgb[..channels].iter().map(|&value| f64::from(value)));
        }
    }
    Plane::new(size, channels as u32, SampleType::U8, values)
}
