//! ImageJ's and Fiji's ROI archives (ROI Manager, "Open…"): one `.roi` file for each object in a zip.
//!
//! The layout is that of `ij.io.RoiDecoder` (version 228, big-endian), which is public domain. An object of one part without
//! holes is a traced polygon along its pixel edges. ImageJ reads the classic 16-bit coordinates as signed, so beyond 32,767 the
//! polygon carries its 32-bit floating point ones, exact up to 2²⁴. Objects with holes, of several parts or with more
//! than 65,535 corners are composite ("shape") selections, whose coordinates are 32-bit anyway. Archives with more than 65,535
//! entries are ZIP64.

use std::io::Write;

use cytomask_image::{Error, ErrorKind, Rect, Result, WriteSeek};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::outline::{Polygon, Ring};
use crate::{Objects, io_failed};

/// ImageJ stores 16-bit coordinates as signed ones.
const MAX_SHORT: u32 = i16::MAX as u32;
/// Whole numbers up to here are exact in 32-bit floating point.
const MAX_EXACT: u32 = 1 << 24;

/// Writes the archive; entries are named by the objects' ids, with leading zeros so that they sort.
///
/// # Errors
/// `Unsupported` for images longer than 2²⁴ pixels a side; `Io`.
pub fn write(writer: &mut dyn WriteSeek, objects: &Objects<'_>) -> Result<()> {
    let [h, w] = objects.size();
    if h.max(w) > MAX_EXACT {
        let message = format!("ImageJ ROIs: expected at most {MAX_EXACT} pixels a side, found {h} × {w}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let zip_failed = |error: zip::result::ZipError| Error::new(ErrorKind::Io, "cannot write zip").with_source(error);
    let digits = objects.ids().last().map_or(1, |id| id.to_string().len()).max(4);
    let mut archive = ZipWriter::new(writer);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (index, &id) in objects.ids().iter().enumerate() {
        let name = format!("{id:0digits$}");
        archive.start_file(format!("{name}.roi"), options).map_err(zip_failed)?;
        archive.write_all(&encode(&objects.outline(index), objects.rect(index), &name)).map_err(io_failed)?;
    }
    archive.finish().map_err(zip_failed)?;
    Ok(())
}

const HEADER: usize = 64;
const VERSION: u16 = 228;
const RECTANGLE: u8 = 1;
const TRACED: u8 = 8;
const SUB_PIXEL: u16 = 128;

/// One ROI file.
fn encode(polygons: &[Polygon], rect: Rect, name: &str) -> Vec<u8> {
    let mut bytes = vec![0_u8; HEADER];
    bytes[..4].copy_from_slice(b"Iout");
    put_u16(&mut bytes, 4, VERSION);
    for (at, value) in [(8, rect.y0), (10, rect.x0), (12, rect.y1), (14, rect.x1)] {
        // A bound that does not fit is not read: such ROIs have 32-bit coordinates.
        put_u16(&mut bytes, at, value.min(MAX_SHORT) as u16);
    }
    match polygons {
        [Polygon { shell, holes }] if holes.is_empty() && shell.len() <= usize::from(u16::MAX) => {
            bytes[6] = TRACED;
            put_u16(&mut bytes, 16, shell.len() as u16);
            for (axis, origin) in [(1, rect.x0), (0, rect.y0)] {
                for corner in shell {
                    bytes.extend(((corner[axis] - origin).min(MAX_SHORT) as u16).to_be_bytes());
                }
            }
            if rect.y1.max(rect.x1) > MAX_SHORT {
                put_u16(&mut bytes, 50, SUB_PIXEL);
                for axis in [1, 0] {
                    bytes.extend(shell.iter().flat_map(|corner| (corner[axis] as f32).to_be_bytes()));
                }
            }
        }
        polygons => {
            bytes[6] = RECTANGLE;
            for polygon in polygons {
                std::iter::once(&polygon.shell).chain(&polygon.holes).for_each(|ring| put_path(&mut bytes, ring));
            }
            let floats = ((bytes.len() - HEADER) / 4) as u32;
            bytes[36..40].copy_from_slice(&floats.to_be_bytes());
        }
    }
    // The second header holds the name's place; the rest of it (position, stroke, properties) stays 0.
    let second = bytes.len();
    bytes[60..64].copy_from_slice(&(second as u32).to_be_bytes());
    bytes.resize(second + 64, 0);
    let units: Vec<u16> = name.encode_utf16().collect();
    let start = bytes.len() as u32;
    bytes[second + 16..second + 20].copy_from_slice(&start.to_be_bytes());
    bytes[second + 20..second + 24].copy_from_slice(&(units.len() as u32).to_be_bytes());
    bytes.extend(units.into_iter().flat_map(u16::to_be_bytes));
    bytes
}

/// A ring as path segments: 0 moves, 1 draws a line, 4 closes.
fn put_path(bytes: &mut Vec<u8>, ring: &Ring) {
    for (index, [y, x]) in ring.iter().enumerate() {
        let segment = if index == 0 { 0.0 } else { 1.0 };
        for value in [segment, *x as f32, *y as f32] {
            bytes.extend(value.to_be_bytes());
        }
    }
    bytes.extend(4.0_f32.to_be_bytes());
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use cytomask_image::{Labels, Mask};
    use proptest::prelude::*;

    use super::*;
    use crate::outline::{fill, outline};

    /// The pixels a ROI file selects, read by the layout's description.
    fn decode(bytes: &[u8]) -> Vec<(u32, u32, u32)> {
        let short = |at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let long = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let float = |at: usize| f32::from_be_bytes(long(at)) as u32;
        assert_eq!(&bytes[..4], b"Iout");
        let n = short(16) as usize;
        let rings: Vec<Ring> = if bytes[6] == TRACED {
            let corner = |i: usize| {
                if short(50) & 128 != 0 {
                    let base = 64 + 4 * n;
                    [float(base + 4 * n + 4 * i), float(base + 4 * i)]
                } else {
                    [short(8) + short(64 + 2 * n + 2 * i), short(10) + short(64 + 2 * i)]
                }
            };
            vec![(0..n).map(corner).collect()]
        } else {
            assert_eq!(bytes[6], RECTANGLE);
            let floats = u32::from_be_bytes(long(36)) as usize;
            let (mut rings, mut at) = (Vec::new(), 0);
            while at < floats {
                match float(64 + 4 * at) {
                    0 => rings.push(vec![[float(72 + 4 * at), float(68 + 4 * at)]]),
                    1 => rings.last_mut().unwrap().push([float(72 + 4 * at), float(68 + 4 * at)]),
                    _ => at -= 2,
                }
                at += 3;
            }
            rings
        };
        fill(&rings.into_iter().map(|shell| Polygon { shell, holes: vec![] }).collect::<Vec<_>>())
    }

    fn round_trip(runs: &[(u32, u32, u32)]) -> (Vec<(u32, u32, u32)>, u8) {
        let bytes = encode(&outline(runs), Mask::from_runs(runs.to_vec()).rect(), "0001");
        (decode(&bytes), bytes[6])
    }

    #[test]
    fn far_and_ragged_objects_keep_their_pixels() {
        for (runs, kind) in [
            (vec![(3, 4, 9), (4, 5, 7)], TRACED),
            (vec![(3, 32_766, 32_767)], TRACED),
            (vec![(3, 40_000, 40_010), (4, 40_003, 40_004)], TRACED),
            (vec![(70_000, 65_530, 65_540), (70_001, 65_536, 65_537)], TRACED),
            (vec![(0, 0, 40_000)], TRACED),
            (vec![(0, 0, 1), (2, 0, 1)], RECTANGLE),
            // A comb of 20,000 teeth has 80,000 corners.
            (
                std::iter::once((0, 0, 40_001)).chain((0..20_000).map(|tooth| (1, tooth * 2, tooth * 2 + 1))).collect(),
                RECTANGLE,
            ),
        ] {
            assert_eq!(round_trip(&runs), (runs, kind));
        }
    }

    proptest! {
        #[test]
        fn any_mask_comes_back(pixels in proptest::collection::vec(proptest::bool::weighted(0.6), 13 * 17)) {
            let mask = Mask::from_bools([13, 17], &pixels);
            prop_assume!(!mask.is_empty());
            prop_assert_eq!(round_trip(mask.runs()).0, mask.runs());
        }
    }

    #[test]
    fn more_than_65535_objects_are_all_in_the_archive() {
        // Every other pixel of every other row.
        let ids = (0..600 * 600_u32)
            .map(|at| if at / 600 % 2 == 0 && at % 2 == 0 { at / 1200 * 300 + at % 600 / 2 + 1 } else { 0 })
            .collect();
        let labels = Labels::from_vec([600, 600], ids).unwrap();
        let objects = Objects::new(&labels);
        assert_eq!(objects.len(), 90_000);
        let mut file = Cursor::new(Vec::new());
        write(&mut file, &objects).unwrap();
        let mut archive = zip::ZipArchive::new(file).unwrap();
        assert_eq!(archive.len(), 90_000);
        let mut bytes = Vec::new();
        archive.by_name("70001.roi").unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(decode(&bytes), objects.runs(70_000));
        let name: Vec<u8> = bytes[bytes.len() - 10..].iter().copied().filter(|&byte| byte != 0).collect();
        assert_eq!(name, b"70001");
    }
}
