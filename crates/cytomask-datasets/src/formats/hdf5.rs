//! HDF5 datasets, one slice of the first axis at a time.

use std::path::Path;

use cytomask_image::SampleType;
use hdf5_reader::{Datatype, Hdf5File, OpenOptions, SliceInfo, SliceInfoElem};

use super::{Planes, checked_size};
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result};

/// A dataset of two or three axes.
pub(crate) struct Hdf5 {
    data: hdf5_reader::Dataset,
    dtype: SampleType,
    shape: Vec<usize>,
}

impl Hdf5 {
    /// Opens the dataset `key`.
    pub(crate) fn open(path: &Path, key: &str) -> Result<Self> {
        let options = OpenOptions::default()
            .with_max_chunk_bytes(1 << 30)
            .with_max_read_bytes(2 << 30)
            // One layer of chunks of a large volume, so that no chunk is unpacked twice.
            .with_chunk_cache_bytes(256 << 20);
        let file = Hdf5File::open_with_options(path, options).map_err(damaged)?;
        let at = |error: Error| Error::new(error.kind(), format!("dataset {key}: {error}"));
        let data = file.dataset(key).map_err(|source| {
            Error::new(ErrorKind::NotFound, format!("HDF5: expected a dataset {key}, found none")).with_source(source)
        })?;
        let dtype = sample_type(data.dtype()).map_err(at)?;
        let shape = data.shape().iter().map(|&axis| axis as usize).collect();
        Ok(Self { data, dtype, shape })
    }

    /// A dataset of two axes.
    pub(crate) fn image(&self) -> Result<Plane> {
        match *self.shape {
            [h, w] => self.read(&SliceInfo::all(2), h, w),
            _ => Err(Error::expected(ErrorKind::Shape, "HDF5", "two axes", format!("{:?}", self.shape))),
        }
    }

    fn read(&self, slice: &SliceInfo, h: usize, w: usize) -> Result<Plane> {
        let size = checked_size(h, w, 1)?;
        macro_rules! read {
            ($number:ty) => {
                self.data.read_slice::<$number>(slice).map_err(damaged)?.iter().map(|&value| value as f64).collect()
            };
        }
        let values = match self.dtype {
            SampleType::U8 => read!(u8),
            SampleType::U16 => read!(u16),
            SampleType::U32 => read!(u32),
            SampleType::U64 => read!(u64),
            SampleType::I8 => read!(i8),
            SampleType::I16 => read!(i16),
            SampleType::I32 => read!(i32),
            SampleType::I64 => read!(i64),
            SampleType::F32 => read!(f32),
            _ => read!(f64),
        };
        Plane::new(size, 1, self.dtype, values)
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
        let all = |end: usize| SliceInfoElem::Slice { start: 0, end: end as u64, step: 1 };
        let slice = SliceInfo { selections: vec![SliceInfoElem::Index(index as u64), all(h), all(w)] };
        self.read(&slice, h, w)
    }
}

fn sample_type(data: &Datatype) -> Result<SampleType> {
    Ok(match data {
        Datatype::FixedPoint { size: 1, signed: false, .. } => SampleType::U8,
        Datatype::FixedPoint { size: 2, signed: false, .. } => SampleType::U16,
        Datatype::FixedPoint { size: 4, signed: false, .. } => SampleType::U32,
        Datatype::FixedPoint { size: 8, signed: false, .. } => SampleType::U64,
        Datatype::FixedPoint { size: 1, signed: true, .. } => SampleType::I8,
        Datatype::FixedPoint { size: 2, signed: true, .. } => SampleType::I16,
        Datatype::FixedPoint { size: 4, signed: true, .. } => SampleType::I32,
        Datatype::FixedPoint { size: 8, signed: true, .. } => SampleType::I64,
        Datatype::FloatingPoint { size: 4, .. } => SampleType::F32,
        Datatype::FloatingPoint { size: 8, .. } => SampleType::F64,
        other => {
            return Err(Error::expected(ErrorKind::Unsupported, "HDF5", "integers or floats", format!("{other:?}")));
        }
    })
}

fn damaged(source: hdf5_reader::error::Error) -> Error {
    Error::new(ErrorKind::Format, "HDF5: the file is damaged, cut short or not HDF5").with_source(source)
}
