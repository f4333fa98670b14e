//! NPY files that hold a pickled dictionary of numbers and arrays: what `numpy.save` makes of a `dict` (Cellpose's size models and
//! `*_seg.npy`). Nothing is executed; entries that are no numbers are left out.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use crate::pickle::{Id, Pickle, PickledArray, Value};
use crate::{Error, ErrorKind, Result};

/// Longest file, bytes: the masks, flows and pixels of an image of 20,000 × 20,000.
const MAX_BYTES: u64 = 16 << 30;

/// Start of an NPY file.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Numbers with their shape, row-major; one number has no axes.
#[derive(Clone, Debug, PartialEq)]
pub struct NumpyArray {
    /// Extents; empty for a number.
    pub shape: Vec<usize>,
    /// As they are stored, or as near as `f64` comes.
    pub values: Vec<f64>,
}

/// Reads the entries called `keys` of the dictionary that an NPY file holds; those it does not hold are left out.
///
/// # Errors
/// `Io`; `Format` for another file, a damaged one, or one that holds something else.
pub fn read_pickled_npy(path: impl AsRef<Path>, keys: &[&str]) -> Result<BTreeMap<String, NumpyArray>> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(|source| Error::io("cannot open", path, source))?;
    let length = file.metadata().map_err(|source| Error::io("cannot read", path, source))?.len();
    if length > MAX_BYTES {
        return Err(Error::format(format!("a file of {length} bytes; expected at most {MAX_BYTES}")).with_path(path));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|source| Error::io("cannot read", path, source))?;
    entries(&bytes, keys).map_err(|error| error.with_path(path))
}

fn entries(bytes: &[u8], keys: &[&str]) -> Result<BTreeMap<String, NumpyArray>> {
    let pickle = Pickle::read(after_header(bytes)?)?;
    let mut top = pickle.result();
    // `numpy.save` wraps what is no array in an array of one object.
    if let Value::Array(array) = pickle.value(top)
        && let Some(Value::List(items)) = array.data.map(|data| pickle.value(data))
        && let &[only] = items.as_slice()
    {
        top = only;
    }
    let Value::Dict(pairs) = pickle.value(top) else {
        return Err(Error::format("the NPY file holds no dictionary"));
    };
    let mut found = BTreeMap::new();
    for &(key, value) in pairs {
        if let Value::Str(key) = pickle.value(key)
            && keys.contains(key)
            && let Some(array) = numbers(&pickle, value)?
        {
            found.insert((*key).to_owned(), array);
        }
    }
    Ok(found)
}

/// What follows the header of an NPY file of objects.
fn after_header(bytes: &[u8]) -> Result<&[u8]> {
    let cut = || Error::format("the NPY file ends early");
    if !bytes.starts_with(MAGIC) {
        return Err(Error::format("not an NPY file"));
    }
    let (start, length) = match bytes.get(6).ok_or_else(cut)? {
        1 => (10, bytes.get(8..10).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))),
        _ => (12, bytes.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)),
    };
    let end = start + length.ok_or_else(cut)?;
    let header = String::from_utf8_lossy(bytes.get(start..end).ok_or_else(cut)?);
    if !header.contains("'|O'") {
        return Err(Error::new(ErrorKind::Format, "the NPY file holds an array, not a dictionary"));
    }
    Ok(&bytes[end..])
}

fn numbers(pickle: &Pickle<'_>, id: Id) -> Result<Option<NumpyArray>> {
    Ok(match pickle.value(id) {
        Value::Float(number) => Some(NumpyArray { shape: Vec::new(), values: vec![*number] }),
        Value::Int(number) => Some(NumpyArray { shape: Vec::new(), values: vec![*number as f64] }),
        Value::Array(array) => array_numbers(pickle, array)?,
        _ => None,
    })
}

fn array_numbers(pickle: &Pickle<'_>, array: &PickledArray) -> Result<Option<NumpyArray>> {
    let (Some(number_type), Some(data)) = (array.number_type, array.data) else { return Ok(None) };
    let (&Value::NumberType(code, big), Value::Bytes(bytes)) = (pickle.value(number_type), pickle.value(data)) else {
        return Ok(None);
    };
    let Some(width) = code.get(1..).and_then(|width| width.parse::<usize>().ok()).filter(|&width| width > 0) else {
        return Ok(None);
    };
    let count = array.shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent));
    if count.and_then(|count| count.checked_mul(width)) != Some(bytes.len()) {
        let message = format!("an array of shape {:?} with {} bytes of type {code}", array.shape, bytes.len());
        return Err(Error::format(message));
    }
    let number = |bytes: &[u8]| -> Option<f64> {
        let mut wide = [0_u8; 8];
        wide[..width].copy_from_slice(bytes);
        if big {
            wide[..width].reverse();
        }
        let unsigned = u64::from_le_bytes(wide);
        let shift = 64 - 8 * width as u32;
        Some(match code.as_bytes()[0] {
            b'b' | b'u' => unsigned as f64,
            b'i' => (((unsigned << shift).cast_signed()) >> shift) as f64,
            b'f' if width == 8 => f64::from_bits(unsigned),
            b'f' if width == 4 => f64::from(f32::from_bits(unsigned as u32)),
            b'f' if width == 2 => f64::from(half::f16::from_bits(unsigned as u16).to_f32()),
            _ => return None,
        })
    };
    if width > 8 {
        return Ok(None);
    }
    let Some(mut values) = bytes.chunks_exact(width).map(number).collect::<Option<Vec<f64>>>() else { return Ok(None) };
    if array.fortran && array.shape.len() > 1 {
        values = row_major(&values, &array.shape);
    }
    Ok(Some(NumpyArray { shape: array.shape.clone(), values }))
}

/// From an order in which the first index runs fastest.
fn row_major(values: &[f64], shape: &[usize]) -> Vec<f64> {
    let mut index = vec![0; shape.len()];
    (0..values.len())
        .map(|_| {
            let at = index.iter().zip(shape).rev().fold(0, |at, (&index, &extent)| at * extent + index);
            for (index, &extent) in index.iter_mut().zip(shape).rev() {
                *index += 1;
                if *index < extent {
                    break;
                }
                *index = 0;
            }
            values[at]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
    }

    #[test]
    fn a_size_model_is_read() {
        let path = fixture("size_cyto3_small.npy");
        let found = read_pickled_npy(&path, &["A", "smean", "diam_mean", "ymean", "absent"]).unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(found["A"].shape, [16]);
        assert_eq!(
            (found["diam_mean"].values.as_slice(), found["ymean"].values.as_slice()),
            (&[30.0][..], &[-0.05][..])
        );
        // numpy.random.RandomState(1).normal(0, 0.3, 16)[0]
        assert!((found["A"].values[0] - 0.487_303_609_2).abs() < 1e-9, "{}", found["A"].values[0]);
    }

    #[test]
    fn other_orders_are_turned() {
        let path = fixture("cells_seg.npy");
        let found = read_pickled_npy(&path, &["masks", "filename", "diameter", "big"]).unwrap();
        assert_eq!(found["masks"].shape, [3, 4]);
        assert_eq!(found["masks"].values, [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 0.0, 2.0, 2.0]);
        assert_eq!(found["diameter"], NumpyArray { shape: vec![], values: vec![12.5] });
        assert_eq!(found["big"].values, [-2.0, 300.0]);
        assert!(!found.contains_key("filename"), "text is no number");
    }

    #[test]
    fn what_is_none_is_refused() {
        let refuse = |bytes: &[u8], text: &str| {
            let error = entries(bytes, &["A"]).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        };
        refuse(b"PK", "not an NPY");
        refuse(b"\x93NUMPY\x01\x00\xff\x00{", "ends early");
        let header = b"{'descr': '<f4'}";
        refuse(&[b"\x93NUMPY\x01\x00\x10\x00".as_slice(), header].concat(), "holds an array");
        let whole = std::fs::read(fixture("cells_seg.npy")).unwrap();
        for length in 0..whole.len() {
            assert!(entries(&whole[..length], &["masks"]).is_err(), "cut at {length}");
        }
    }
}
