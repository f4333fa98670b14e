//! HDF5 datasets, one slice of the first axis at a time.

use std::path::Path;

use cytomask_image::SampleType;
use hdf5_pure::{DType, Dataset, File};

use super::{Planes, checked_size};
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result};

/// A chunk of more bytes is refused before it is unpacked.
const MAX_CHUNK_BYTES: u64 = 1 << 30;

/// A dataset of two or three axes.
pub(crate) struct Hdf5 {
    data: Dataset,
    dtype: SampleType,
    shape: Vec<usize>,
}

impl Hdf5 {
    /// Opens the dataset `key`.
    pub(crate) fn open(path: &Path, key: &str) -> Result<Self> {
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
        let chunk = data.chunk_shape().map_err(damaged)?.unwrap_or_default();
        let bytes = chunk.iter().try_fold(8_u64, |product, &axis| product.checked_mul(axis));
        if bytes.is_none_or(|bytes| bytes > MAX_CHUNK_BYTES) {
            let expected = format!("at most {MAX_CHUNK_BYTES} bytes");
            return Err(Error::expected(ErrorKind::Value, "HDF5 chunk", expected, format!("{chunk:?}")));
        }
        let shape = data.shape().map_err(damaged)?.into_iter().map(|axis| axis as usize).collect();
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
