//! Zarr version 2 arrays of the kind torch-em makes of NPZ files: C order, gzip, zlib or no compression, no filters.

use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::Value;
use std::io::Read;

use super::{Number, checked_size};
use crate::archive::Files;
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result};

/// Reads the array in the folder `path` as `[H, W, C]`, from axes `[H, W]` or `[C, H, W]`.
pub(crate) fn read(files: &Files, path: &str) -> Result<Plane> {
    let header = files.need(&[format!("{path}/.zarray")], true)?.remove(0).entry;
    let blame = |error: Error| header.blame(error);
    let text = files.text(header, 1 << 16)?;
    let meta: Value = serde_json::from_slice(&text)
        .map_err(|source| blame(Error::new(ErrorKind::Format, "Zarr: bad metadata").with_source(source)))?;
    let array = Array::parse(&meta).map_err(blame)?;
    let (channels, h, w) = match *array.shape {
        [h, w] => (1, h, w),
        [c, h, w] => (c, h, w),
        _ => {
            return Err(blame(Error::expected(
                ErrorKind::Shape,
                "Zarr",
                "two or three axes",
                format!("{:?}", array.shape),
            )));
        }
    };
    let size = checked_size(h, w, channels).map_err(blame)?;
    let mut out = vec![array.fill; h * w * channels];
    let counts: Vec<usize> = array.shape.iter().zip(&array.chunks).map(|(axis, chunk)| axis.div_ceil(*chunk)).collect();
    for number in 0..counts.iter().product::<usize>() {
        let mut rest = number;
        let mut at = vec![0; counts.len()];
        for axis in (0..counts.len()).rev() {
            at[axis] = rest % counts[axis];
            rest /= counts[axis];
        }
        let name: Vec<String> = at.iter().map(ToString::to_string).collect();
        let Some(found) = files.find(&[format!("{path}/{}", name.join(&array.separator))], true)?.pop() else {
            // A chunk that is not there holds the fill value.
            continue;
        };
        let bytes = files.with(found.entry, |path| array.unpack(path))?;
        array.copy(&array.number.decode(&bytes), &at, [channels, h, w], &mut out);
    }
    Plane::new(size, channels as u32, array.number.dtype, out).map_err(blame)
}

struct Array {
    shape: Vec<usize>,
    chunks: Vec<usize>,
    number: Number,
    fill: f64,
    separator: String,
}

impl Array {
    fn parse(meta: &Value) -> Result<Self> {
        let axes = |key: &str| -> Result<Vec<usize>> {
            let found =
                || Error::expected(ErrorKind::Format, "Zarr", format!("{key} of two or three axes"), &meta[key]);
            let list = meta[key].as_array().ok_or_else(found)?;
            let axes: Option<Vec<usize>> = list.iter().map(|axis| axis.as_u64().map(|axis| axis as usize)).collect();
            axes.filter(|axes| axes.iter().all(|&axis| axis > 0)).ok_or_else(found)
        };
        let (shape, chunks) = (axes("shape")?, axes("chunks")?);
        let samples = |axes: &[usize]| axes.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
        if meta["zarr_format"] != 2
            || shape.len() != chunks.len()
            || samples(&chunks).is_none_or(|count| count > 1 << 28)
        {
            let expected = "version 2 and chunks of at most 2²⁸ samples";
            let found = format!("version {}, chunks {chunks:?} of {shape:?}", meta["zarr_format"]);
            return Err(Error::expected(ErrorKind::Format, "Zarr", expected, found));
        }
        let compressor = &meta["compressor"];
        let known = compressor.is_null() || matches!(compressor["id"].as_str(), Some("gzip" | "zlib"));
        let filters = meta["filters"].as_array().is_some_and(|filters| !filters.is_empty());
        if !known || filters || meta["order"].as_str().unwrap_or("C") != "C" {
            let expected = "C order, gzip, zlib or no compression, no filters";
            let found = format!("order {}, compressor {compressor}, filters {}", meta["order"], meta["filters"]);
            return Err(Error::expected(ErrorKind::Unsupported, "Zarr", expected, found));
        }
        Ok(Self {
            number: Number::parse(meta["dtype"].as_str().unwrap_or_default())?,
            fill: meta["fill_value"].as_f64().unwrap_or(0.0),
            separator: meta["dimension_separator"].as_str().unwrap_or(".").to_owned(),
            shape,
            chunks,
        })
    }

    /// A chunk's bytes; compression shows in the first ones.
    fn unpack(&self, path: &std::path::Path) -> Result<Vec<u8>> {
        let failed =
            |source| Error::new(ErrorKind::Format, "Zarr: the chunk is damaged or cut short").with_source(source);
        let packed = std::fs::read(path).map_err(failed)?;
        let expected = self.chunks.iter().product::<usize>() * self.number.bytes;
        let mut bytes = Vec::with_capacity(expected);
        let limit = expected as u64 + 1;
        match packed.as_slice() {
            _ if packed.len() == expected => bytes = packed,
            [0x1F, 0x8B, ..] => drop(GzDecoder::new(&*packed).take(limit).read_to_end(&mut bytes).map_err(failed)?),
            _ => drop(ZlibDecoder::new(&*packed).take(limit).read_to_end(&mut bytes).map_err(failed)?),
        }
        if bytes.len() != expected {
            return Err(Error::expected(ErrorKind::Format, "Zarr chunk", format!("{expected} bytes"), bytes.len()));
        }
        Ok(bytes)
    }

    /// Puts a chunk at its place in `[H, W, C]`.
    fn copy(&self, values: &[f64], at: &[usize], [channels, h, w]: [usize; 3], out: &mut [f64]) {
        let pad = 3 - at.len();
        let axis = |axes: &[usize], fill: usize| -> [usize; 3] {
            std::array::from_fn(|i| i.checked_sub(pad).map_or(fill, |i| axes[i]))
        };
        let (chunk, at) = (axis(&self.chunks, 1), axis(at, 0));
        for (index, &value) in values.iter().enumerate() {
            let c = at[0] * chunk[0] + index / (chunk[1] * chunk[2]);
            let y = at[1] * chunk[1] + index / chunk[2] % chunk[1];
            let x = at[2] * chunk[2] + index % chunk[2];
            if c < channels && y < h && x < w {
                out[(y * w + x) * channels + c] = value;
            }
        }
    }
}
