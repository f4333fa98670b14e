//! NumPy's `.npy`, one item of the first axis at a time.
//!
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. Python objects are refused: a pickle is a program.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::{Number, Planes, checked_size};
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result};

/// An array whose data stay on disk.
pub(crate) struct Npy {
    file: File,
    start: u64,
    pub(crate) shape: Vec<usize>,
    number: Number,
}

impl Npy {
    /// Reads the header and compares the file's length with it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::new(ErrorKind::Io, "cannot read").with_source(source);
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut head = [0_u8; 12];
        let short = || Error::new(ErrorKind::Format, "NPY: the file is cut short");
        if length < 12 {
            return Err(short());
        }
        file.read_exact(&mut head).map_err(failed)?;
        let (header_start, header_length) = match head {
            [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, low, high, ..] => {
                (10_u64, u32::from(low) | u32::from(high) << 8)
            }
            [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d] => (12, u32::from_le_bytes([a, b, c, d])),
            _ => {
                return Err(Error::expected(
                    ErrorKind::Format,
                    "NPY",
                    "NumPy's magic number",
                    format!("{:02x?}", &head[..8]),
                ));
            }
        };
        let start = header_start + u64::from(header_length);
        if header_length > 1 << 16 || start > length {
            return Err(short());
        }
        file.seek(SeekFrom::Start(header_start)).map_err(failed)?;
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let header = String::from_utf8_lossy(&header);
        let bad = |what: &str| Error::new(ErrorKind::Format, format!("NPY header: {what} in {}", header.trim()));
        let after = |key: &str| -> Result<&str> {
            let (_, rest) = header.split_once(&format!("'{key}':")).ok_or_else(|| bad(&format!("no {key}")))?;
            Ok(rest.trim_start())
        };
        let descr = after("descr")?;
        let Some(descr) = descr.strip_prefix('\'').and_then(|rest| rest.split('\'').next()) else {
            return Err(Error::expected(ErrorKind::Unsupported, "NPY", "one number type", header.trim()));
        };
        let number = Number::parse(descr)?;
        let shape = after("shape")?;
        let inside = shape.strip_prefix('(').and_then(|rest| rest.split(')').next()).ok_or_else(|| bad("no shape"))?;
        let shape: Vec<usize> = inside
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().map_err(|_| bad("a bad shape")))
            .collect::<Result<_>>()?;
        if after("fortran_order")?.starts_with("True") && shape.len() > 1 {
            let message = "NPY: expected C order, found Fortran order";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let items = shape.iter().try_fold(1_u64, |product, &axis| product.checked_mul(axis as u64));
        let expected =
            items.and_then(|items| items.checked_mul(number.bytes as u64)).and_then(|data| data.checked_add(start));
        if expected != Some(length) {
            let expected =
                expected.map_or("a size that fits a file".to_owned(), |bytes| format!("{bytes} bytes for {shape:?}"));
            return Err(Error::expected(ErrorKind::Format, "NPY", expected, format!("{length} bytes")));
        }
        Ok(Self { file, start, shape, number })
    }

    /// `[H, W, C]` of an array `[H, W, C]` or `[H, W]`.
    pub(crate) fn whole(&mut self) -> Result<Plane> {
        let (h, w, channels) = match *self.shape {
            [h, w] => (h, w, 1),
            [h, w, c] => (h, w, c),
            _ => {
                return Err(Error::expected(ErrorKind::Shape, "NPY", "two or three axes", format!("{:?}", self.shape)));
            }
        };
        self.read(0, h, w, channels)
    }

    fn read(&mut self, index: usize, h: usize, w: usize, channels: usize) -> Result<Plane> {
        let size = checked_size(h, w, channels)?;
        let bytes = h * w * channels * self.number.bytes;
        let failed = |source| Error::new(ErrorKind::Io, "cannot read").with_source(source);
        self.file.seek(SeekFrom::Start(self.start + index as u64 * bytes as u64)).map_err(failed)?;
        let mut buffer = vec![0; bytes];
        self.file.read_exact(&mut buffer).map_err(failed)?;
        Plane::new(size, channels as u32, self.number.dtype, self.number.decode(&buffer))
    }
}

impl Planes for Npy {
    fn len(&self) -> usize {
        self.shape.first().copied().unwrap_or_default()
    }

    /// Of an array `[N, H, W, C]` or `[N, H, W]`.
    fn plane(&mut self, index: usize) -> Result<Plane> {
        let (h, w, channels) = match *self.shape {
            [_, h, w] => (h, w, 1),
            [_, h, w, c] => (h, w, c),
            _ => {
                return Err(Error::expected(
                    ErrorKind::Shape,
                    "NPY",
                    "three or four axes",
                    format!("{:?}", self.shape),
                ));
            }
        };
        if index >= self.len() {
            return Err(Error::expected(ErrorKind::Shape, "NPY", format!("fewer than {} items", self.len()), index));
        }
        self.read(index, h, w, channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Result<Npy> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        std::fs::write(&path, bytes).unwrap();
        Npy::open(&path)
    }

    #[test]
    fn items_come_one_by_one() {
        let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (2, 2, 3), }\n";
        let data: Vec<u8> = (0..12_u16).flat_map(u16::to_le_bytes).collect();
        let mut array = file(header, &data).unwrap();
        assert_eq!((array.len(), array.plane(1).unwrap().values), (2, vec![6.0, 7.0, 8.0, 9.0, 10.0, 11.0]));
        assert_eq!(array.whole().unwrap().channels, 3);
        assert!(array.plane(2).is_err());
    }

    #[test]
    fn bad_headers_are_refused_before_anything_is_allocated() {
        let case = |text: &str, data: &[u8]| file(text, data).map(drop).unwrap_err();
        let shape = |shape: &str| format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
        assert_eq!(case(&shape("(4, 4)"), &[0; 15]).kind(), ErrorKind::Format);
        assert_eq!(case(&shape("(99999999999, 99999999999, 9)"), &[0; 15]).kind(), ErrorKind::Format);
        assert_eq!(case(&shape("(4, x)"), &[0; 16]).kind(), ErrorKind::Format);
        assert_eq!(
            case("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", &[0]).kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(
            case("{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (1,), }", &[0]).kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(
            case("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 2), }", &[0; 2]).kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(case("nothing", &[]).kind(), ErrorKind::Format);
    }
}
