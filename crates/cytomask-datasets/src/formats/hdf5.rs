//! HDF5 datasets, one slice of the first axis at a time.

use std::path::Path;

use cytomask_image::SampleType;
use hdf5_pure::{Chunk, DType, Dataset, File};

use super::{Planes, checked_size};
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result};

/// A chunk of more bytes is refused before it is unpacked.
const MAX_CHUNK_BYTES: u64 = 1 << 30;

/// Deflate unpacks at most 1032-fold, so that a chunk or plane of many more bytes than this for each byte of the file cannot be
/// whole; refused before the library makes room for it.
const MAX_RATIO: u64 = 1100;

/// What small files may unpack to whatever their ratio.
const RATIO_FROM_BYTES: u64 = 1 << 20;

/// A dataset of two or three axes.
pub(crate) struct Hdf5 {
    data: Dataset,
    dtype: SampleType,
    shape: Vec<usize>,
}

impl Hdf5 {
    /// Opens the dataset `key`.
    pub(crate) fn open(path: &Path, key: &str) -> Result<Self> {
        let file_bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let file = File::open_streaming(path).map_err(damaged)?;
        let data = file.dataset(key).map_err(|source| {
            Error::new(ErrorKind::NotFound, format!("HDF5: expected a dataset {key}, found none")).with_source(source)
        })?;
        let dtype = match data.dtype().map_err(damaged)? {
            DType::U8 => SampleType::U8,
            DType::U16 => SampleType::U16,
            DType::U32 => SampleType::U32,
            DType::U64 => SampleType::U64,
            DType::I8 => SampleType::I8,
            DType::I16 => SampleType::I16,
            DType::I32 => SampleType::I32,
            DType::I64 => SampleType::I64,
            DType::F32 => SampleType::F32,
            DType::F64 => SampleType::F64,
            other => {
                let what = format!("HDF5 dataset {key}");
                return Err(Error::expected(ErrorKind::Unsupported, &what, "integers or floats", other));
            }
        };
        let most = file_bytes.saturating_mul(MAX_RATIO).max(RATIO_FROM_BYTES);
        let check = |what: &str, axes: &[u64], most: u64| {
            // A value takes a byte at least.
            let values = axes.iter().try_fold(1_u64, |product, &axis| product.checked_mul(axis));
            if values.is_none_or(|values| values > most) {
                let found = format!("{axes:?} in a file of {file_bytes} bytes");
                return Err(Error::expected(ErrorKind::Value, what, format!("at most {most} values"), found));
            }
            Ok(())
        };
        let chunk = data.chunk_shape().map_err(damaged)?.unwrap_or_default();
        check("HDF5 chunk", &chunk, most.min(MAX_CHUNK_BYTES))?;
        // The library makes room for a stored chunk before it looks whether the file holds it. (An index it cannot list is a
        // rare kind, read by another way.)
        let chunks = if data.is_chunked() { data.chunks().unwrap_or_default() } else { Vec::new() };
        let outside = |chunk: &&Chunk| chunk.address.checked_add(chunk.storage_size).is_none_or(|end| end > file_bytes);
        if let Some(chunk) = chunks.iter().find(outside) {
            let found = format!("a chunk of {} bytes at {}", chunk.storage_size, chunk.address);
            return Err(Error::expected(ErrorKind::Format, "HDF5", format!("chunks inside {file_bytes} bytes"), found));
        }
        let shape = data.shape().map_err(damaged)?;
        check("HDF5 plane", &shape[shape.len().saturating_sub(2)..], most)?;
        let shape = shape.into_iter().map(|axis| axis as usize).collect();
        Ok(Self { data, dtype, shape })
    }

    /// A dataset of two axes.
    pub(crate) fn image(&self) -> Result<Plane> {
        let [h, w] = *self.shape else {
            return Err(Error::expected(ErrorKind::Shape, "HDF5", "two axes", format!("{:?}", self.shape)));
        };
        let size = checked_size(h, w, 1)?;
        Plane::new(size, 1, self.dtype, self.data.read_f64_rows(0, h as u64).map_err(damaged)?)
    }
}

impl Planes for Hdf5 {
    fn len(&self) -> usize {
        self.shape.first().copied().unwrap_or_default()
    }

    fn plane(&mut self, index: usize) -> Result<Plane> {
        let [_, h, w] = *self.shape else {
            return Err(Error::expected(ErrorKind::Shape, "HDF5", "three axes", format!("{:?}", self.shape)));
        };
        let size = checked_size(h, w, 1)?;
        Plane::new(size, 1, self.dtype, self.data.read_f64_rows(index as u64, 1).map_err(damaged)?)
    }
}

fn damaged(source: hdf5_pure::Error) -> Error {
    Error::new(ErrorKind::Format, "HDF5: the file is damaged, cut short or not HDF5").with_source(source)
}
