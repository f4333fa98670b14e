//! Bytes as samples: one canonical form between the formats and the images, little-endian samples of a [`SampleType`], one byte for
//! a bit.

use crate::{Error, ErrorKind, Result, SampleType};

impl SampleType {
    /// Bytes of a sample in memory.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Its name as numpy has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// The type numpy calls so.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [
            Self::Bool,
            Self::U8,
            Self::U16,
            Self::U32,
            Self::U64,
            Self::I8,
            Self::I16,
            Self::I32,
            Self::I64,
            Self::F16,
            Self::F32,
            Self::F64,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }

    /// numpy's short form without its byte order: `u2`, `f4`, `b1`.
    pub(crate) fn from_code(code: &str) -> Option<Self> {
        Some(match code {
            "b1" => Self::Bool,
            "u1" => Self::U8,
            "u2" => Self::U16,
            "u4" => Self::U32,
            "u8" => Self::U64,
            "i1" => Self::I8,
            "i2" => Self::I16,
            "i4" => Self::I32,
            "i8" => Self::I64,
            "f2" => Self::F16,
            "f4" => Self::F32,
            "f8" => Self::F64,
            _ => return None,
        })
    }
}

/// Calls `$convert` with every sample of the canonical bytes, in its own type, and collects.
macro_rules! samples {
    ($dtype:expr, $bytes:expr, $value:ident => $convert:expr) => {{
        macro_rules! each {
            ($kind:ty) => {
                $bytes
                    .as_chunks::<{ size_of::<$kind>() }>()
                    .0
                    .iter()
                    .map(|&chunk| {
                        let $value = <$kind>::from_le_bytes(chunk);
                        $convert
                    })
                    .collect()
            };
        }
        match $dtype {
            SampleType::Bool | SampleType::U8 => each!(u8),
            SampleType::U16 => each!(u16),
            SampleType::U32 => each!(u32),
            SampleType::U64 => each!(u64),
            SampleType::I8 => each!(i8),
            SampleType::I16 => each!(i16),
            SampleType::I32 => each!(i32),
            SampleType::I64 => each!(i64),
            SampleType::F16 => each!(half::f16),
            SampleType::F32 => each!(f32),
            SampleType::F64 => each!(f64),
        }
    }};
}

/// Widens to `f32`; integers above 2²⁴ and doubles are rounded.
pub(crate) fn widen(dtype: SampleType, bytes: &[u8]) -> Vec<f32> {
    samples!(dtype, bytes, value => Widened::from(value).0)
}

/// Canonical samples as ids.
///
/// # Errors
/// `Value` when one is no whole number from 0 to 2³² − 1, with their count and the first.
pub(crate) fn to_ids(dtype: SampleType, bytes: &[u8]) -> Result<Vec<u32>> {
    let ids: Option<Vec<u32>> = samples!(dtype, bytes, value => Id::from(value).0);
    ids.ok_or_else(|| {
        let wrong: Vec<Option<String>> =
            samples!(dtype, bytes, value => Id::from(value).0.is_none().then(|| value.to_string()));
        let mut wrong = wrong.into_iter().flatten();
        let first = wrong.next().unwrap_or_default();
        let count = 1 + wrong.count();
        let message =
            format!("label image: expected whole numbers from 0 to {}, found {count} others, first {first}", u32::MAX);
        Error::new(ErrorKind::Value, message)
    })
}

struct Widened(f32);
struct Id(Option<u32>);

macro_rules! integers {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Widened {
            fn from(value: $kind) -> Self {
                Self(value as f32)
            }
        }
        impl From<$kind> for Id {
            fn from(value: $kind) -> Self {
                Self(u32::try_from(value).ok())
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! floats {
    ($($kind:ty: $widen:expr, $double:expr);*) => {$(
        impl From<$kind> for Widened {
            fn from(value: $kind) -> Self {
                Self($widen(value))
            }
        }
        impl From<$kind> for Id {
            fn from(value: $kind) -> Self {
                let value: f64 = $double(value);
                Self((value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value)).then_some(value as u32))
            }
        }
    )*};
}
floats!(half::f16: half::f16::to_f32, half::f16::to_f64; f32: |value| value, f64::from; f64: |value| value as f32, |value| value);

/// Turns samples of `width` bytes from big-endian to little-endian.
pub(crate) fn swap_bytes(bytes: &mut [u8], width: usize) {
    if width > 1 {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
}

/// One byte or (above 8 bits) one little-endian `u16` a sample, from rows of `row_bytes` bytes with `bits` a sample, most
/// significant first.
pub(crate) fn unpack_bits(bytes: &[u8], bits: u32, row_samples: usize, row_bytes: usize) -> Vec<u8> {
    let wide = bits > 8;
    let rows = bytes.len() / row_bytes.max(1);
    let mut out = Vec::with_capacity(rows * row_samples * if wide { 2 } else { 1 });
    for row in bytes.chunks_exact(row_bytes.max(1)) {
        let (mut held, mut count, mut next) = (0_u32, 0_u32, row.iter());
        for _ in 0..row_samples {
            while count < bits {
                held = held << 8 | u32::from(*next.next().unwrap_or(&0));
                count += 8;
            }
            count -= bits;
            let value = held >> count & ((1 << bits) - 1);
            out.push(value as u8);
            if wide {
                out.push((value >> 8) as u8);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_unpacked_most_significant_first() {
        assert_eq!(unpack_bits(&[0b1010_0000, 0b0110_0000], 1, 3, 1), [1, 0, 1, 0, 1, 1]);
        assert_eq!(unpack_bits(&[0xAB, 0xC0], 4, 3, 2), [0xA, 0xB, 0xC]);
        // 0xABC and 0xDEF, little-endian.
        assert_eq!(unpack_bits(&[0xAB, 0xCD, 0xEF], 12, 2, 3), [0xBC, 0x0A, 0xEF, 0x0D]);
    }

    #[test]
    fn types_have_their_names() {
        assert_eq!(SampleType::from_name("float16"), Some(SampleType::F16));
        assert_eq!(SampleType::from_name("complex64"), None);
        assert_eq!(SampleType::from_code("u4").map(SampleType::bytes), Some(4));
        assert_eq!(widen(SampleType::I16, &[0xFE, 0xFF, 3, 0]), [-2.0, 3.0]);
        assert_eq!(to_ids(SampleType::U64, &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap(), [1]);
        assert!(to_ids(SampleType::I8, &[255, 254]).unwrap_err().to_string().ends_with("found 2 others, first -1"));
    }
}
