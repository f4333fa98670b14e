//! File formats that `cytomask-image` does not read: what each published layout needs, and no more.

pub(crate) mod coco;
pub(crate) mod geojson;
pub(crate) mod hdf5;
pub(crate) mod npy;
pub(crate) mod regions;
pub(crate) mod stack;
pub(crate) mod zarr;

use cytomask_image::SampleType;

use crate::plane::{MAX_PIXELS, Plane};
use crate::{Error, ErrorKind, Result};

/// A number type in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) dtype: SampleType,
    pub(crate) bytes: usize,
    pub(crate) big_endian: bool,
}

impl Number {
    /// NumPy's type string, such as `<u2`. Python objects are refused: reading them runs code.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let unsupported = || {
            let expected = "booleans, integers or floats";
            Error::expected(ErrorKind::Unsupported, "number type", expected, format!("{text:?}"))
        };
        let (order, code) = text.split_at_checked(1).ok_or_else(unsupported)?;
        let (dtype, bytes) = match code {
            "b1" => (SampleType::Bool, 1),
            "u1" => (SampleType::U8, 1),
            "u2" => (SampleType::U16, 2),
            "u4" => (SampleType::U32, 4),
            "u8" => (SampleType::U64, 8),
            "i1" => (SampleType::I8, 1),
            "i2" => (SampleType::I16, 2),
            "i4" => (SampleType::I32, 4),
            "i8" => (SampleType::I64, 8),
            "f4" => (SampleType::F32, 4),
            "f8" => (SampleType::F64, 8),
            _ => return Err(unsupported()),
        };
        match order {
            "<" | "|" | ">" => Ok(Self { dtype, bytes, big_endian: order == ">" }),
            _ => Err(unsupported()),
        }
    }

    /// The numbers in `bytes`; what is left over at the end is dropped.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f64> {
        bytes
            .chunks_exact(self.bytes)
            .map(|chunk| {
                let mut wide = [0_u8; 8];
                wide[..self.bytes].copy_from_slice(chunk);
                if self.big_endian {
                    wide[..self.bytes].reverse();
                }
                let word = u64::from_le_bytes(wide);
                match self.dtype {
                    SampleType::I8 => f64::from(word as u8 as i8),
                    SampleType::I16 => f64::from(word as u16 as i16),
                    SampleType::I32 => f64::from(word as u32 as i32),
                    SampleType::I64 => (word as i64) as f64,
                    SampleType::F32 => f64::from(f32::from_bits(word as u32)),
                    SampleType::F64 => f64::from_bits(word),
                    _ => word as f64,
                }
            })
            .collect()
    }
}

/// Something that gives 2-D images one after the other: a stack, or a volume by its first axis.
pub(crate) trait Planes {
    /// How many.
    fn len(&self) -> usize;
    /// The one at `index`.
    fn plane(&mut self, index: usize) -> Result<Plane>;
}

/// Height and width from the axes of a file, refused when too large.
pub(crate) fn checked_size(h: usize, w: usize, channels: usize) -> Result<[u32; 2]> {
    let pixels = (h as u64).saturating_mul(w as u64);
    if pixels > MAX_PIXELS || pixels.saturating_mul(channels as u64) > 4 * MAX_PIXELS {
        let expected = format!("at most {MAX_PIXELS} pixels");
        return Err(Error::expected(ErrorKind::Value, "image", expected, format!("{h} × {w} × {channels}")));
    }
    Ok([h as u32, w as u32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_type() {
        let case = |text: &str, bytes: &[u8]| Number::parse(text).unwrap().decode(bytes)[0];
        assert_eq!(case("<u2", &[1, 2]), 513.0);
        assert_eq!(case(">u2", &[1, 2]), 258.0);
        assert_eq!(case("|i1", &[0xFF]), -1.0);
        assert_eq!(case("<i2", &(-300_i16).to_le_bytes()), -300.0);
        assert_eq!(case(">i4", &(-70_000_i32).to_be_bytes()), -70_000.0);
        assert_eq!(case("<i8", &(-5_i64).to_le_bytes()), -5.0);
        assert_eq!(case("<f4", &1.5_f32.to_le_bytes()), 1.5);
        assert_eq!(case(">f8", &(-2.25_f64).to_be_bytes()), -2.25);
        assert_eq!(case("|b1", &[1]), 1.0);
        for bad in ["|O", "<c8", "", "=u2", "<U5", "é"] {
            assert_eq!(Number::parse(bad).unwrap_err().kind(), ErrorKind::Unsupported, "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_limit() {
        assert_eq!(checked_size(97, 131, 3).unwrap(), [97, 131]);
        assert_eq!(checked_size(usize::MAX, usize::MAX, 1).unwrap_err().kind(), ErrorKind::Value);
    }
}
