//! One Zarr array, v2 or v3: where its chunks are and how their bytes become samples.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::metadata::read_json;
use super::{blosc, damaged, unsupported};
use crate::formats::bytes::Input;
use crate::formats::cache::BlockCache;
use crate::formats::codec;
use crate::formats::pixels::swap_bytes;
use crate::{Error, ErrorKind, Rect, Result, SampleType};

/// A decoded chunk may take this much at most.
const LARGEST_CHUNK: u64 = 1 << 31;

/// Index entry of an inner chunk that a shard does not hold.
const ABSENT: u64 = u64::MAX;

/// An array on disk.
#[derive(Debug)]
pub(super) struct Array {
    folder: PathBuf,
    pub(super) shape: Vec<u64>,
    pub(super) dtype: SampleType,
    /// The outer grid: files.
    chunk: Vec<u64>,
    /// What is decoded as one: the inner chunks of shards, else the chunks.
    pub(super) inner: Vec<u64>,
    shard: Option<Shard>,
    codecs: Codecs,
    key: KeyEncoding,
    /// Canonical bytes of one sample.
    fill: Vec<u8>,
    /// v3's names of axes, if it has them.
    pub(super) dimension_names: Vec<String>,
    pub(super) compression: String,
}

#[derive(Clone, Debug)]
struct Shard {
    index_codecs: Codecs,
    index_at_end: bool,
}

#[derive(Clone, Debug)]
enum Packing {
    Zlib,
    Gzip,
    Zstd,
    Lz4,
    Blosc,
    Crc32c,
}

/// From array to bytes.
#[derive(Clone, Debug, Default)]
struct Codecs {
    /// Stored axis `i` is the array's axis `order[i]`.
    order: Vec<usize>,
    big_endian: bool,
    /// In the order of writing.
    packings: Vec<Packing>,
}

#[derive(Clone, Debug)]
enum KeyEncoding {
    /// `c/0/1`, `c.0.1`.
    Default(char),
    /// `0.1`, `0/1`.
    V2(char),
}

impl Array {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let v3 = folder.join("zarr.json");
        if v3.is_file() {
            return Self::parse_v3(folder, &read_json(&v3)?);
        }
        let v2 = folder.join(".zarray");
        if !v2.is_file() {
            return Err(damaged("expected an array (zarr.json or .zarray), found none").with_path(folder));
        }
        Self::parse_v2(folder, &read_json(&v2)?)
    }

    pub(super) fn parse_v2(folder: &Path, value: &Value) -> Result<Self> {
        let shape = extents(value.get("shape"), "shape")?;
        let chunk = extents(value.get("chunks"), "chunks")?;
        let code = value.get("dtype").and_then(Value::as_str).ok_or_else(|| unsupported("a structured array"))?;
        let dtype = SampleType::from_code(code.trim_start_matches(['<', '>', '|']))
            .ok_or_else(|| unsupported(format!("samples of type {code:?}")))?;
        if value
            .get("filters")
            .is_some_and(|filters| !filters.is_null() && filters.as_array().is_none_or(|list| !list.is_empty()))
        {
            return Err(unsupported(format!("filters {}", value["filters"])));
        }
        let mut codecs =
            Codecs { order: (0..shape.len()).collect(), big_endian: code.starts_with('>'), packings: vec![] };
        if value.get("order").and_then(Value::as_str) == Some("F") {
            codecs.order.reverse();
        }
        let mut compression = "none".to_owned();
        if let Some(compressor) = value.get("compressor").filter(|compressor| !compressor.is_null()) {
            let id = compressor.get("id").and_then(Value::as_str).unwrap_or_default();
            codecs.packings.push(packing(id)?);
            compression = packing_name(id, compressor);
        }
        let separator = separator(value.get("dimension_separator"), '.')?;
        Self {
            folder: folder.to_path_buf(),
            fill: fill_value(value.get("fill_value"), dtype)?,
            inner: chunk.clone(),
            chunk,
            shape,
            dtype,
            shard: None,
            codecs,
            key: KeyEncoding::V2(separator),
            dimension_names: Vec::new(),
            compression,
        }
        .checked()
    }

    pub(super) fn parse_v3(folder: &Path, value: &Value) -> Result<Self> {
        let name_of =
            |value: &Value| value.as_str().or_else(|| value.get("name")?.as_str()).unwrap_or_default().to_owned();
        let shape = extents(value.get("shape"), "shape")?;
        let type_name = value.get("data_type").map(&name_of).unwrap_or_default();
        let dtype =
            SampleType::from_name(&type_name).ok_or_else(|| unsupported(format!("samples of type {type_name:?}")))?;
        let grid = value.get("chunk_grid").cloned().unwrap_or_default();
        if name_of(&grid) != "regular" {
            return Err(unsupported(format!("a chunk grid of kind {:?}", name_of(&grid))));
        }
        let chunk = extents(grid.get("configuration").and_then(|c| c.get("chunk_shape")), "chunk_shape")?;
        let encoding = value.get("chunk_key_encoding").cloned().unwrap_or_default();
        let given = encoding.get("configuration").and_then(|configuration| configuration.get("separator"));
        let key = match name_of(&encoding).as_str() {
            "v2" => KeyEncoding::V2(separator(given, '.')?),
            "default" | "" => KeyEncoding::Default(separator(given, '/')?),
            other => return Err(unsupported(format!("chunk keys of kind {other:?}"))),
        };
        if value.get("storage_transformers").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
            return Err(unsupported("storage transformers"));
        }
        let list = value.get("codecs").and_then(Value::as_array).cloned().unwrap_or_default();
        let sharding = list.iter().find(|codec| name_of(codec) == "sharding_indexed");
        let (codecs, inner, shard, compression) = match sharding {
            None => {
                let (codecs, compression) = Codecs::parse(&list, shape.len())?;
                (codecs, chunk.clone(), None, compression)
            }
            Some(_) if list.len() > 1 => return Err(unsupported("other codecs around shards")),
            Some(sharding) => {
                let configuration = sharding.get("configuration").cloned().unwrap_or_default();
                let inner = extents(configuration.get("chunk_shape"), "chunk_shape")?;
                let list = |key: &str| configuration.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
                let (codecs, compression) = Codecs::parse(&list("codecs"), shape.len())?;
                let (index_codecs, _) = Codecs::parse(&list("index_codecs"), shape.len() + 1)?;
                if index_codecs.packings.iter().any(|packing| !matches!(packing, Packing::Crc32c)) {
                    return Err(unsupported("a packed shard index"));
                }
                let index_at_end = configuration.get("index_location").and_then(Value::as_str) != Some("start");
                (codecs, inner, Some(Shard { index_codecs, index_at_end }), format!("{compression}, sharded"))
            }
        };
        let dimension_names = value.get("dimension_names").and_then(Value::as_array).cloned().unwrap_or_default();
        let dimension_names: Option<Vec<String>> =
            dimension_names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
        Self {
            folder: folder.to_path_buf(),
            fill: fill_value(value.get("fill_value"), dtype)?,
            shape,
            dtype,
            chunk,
            inner,
            shard,
            codecs,
            key,
            dimension_names: dimension_names.unwrap_or_default(),
            compression,
        }
        .checked()
    }

    fn checked(self) -> Result<Self> {
        let rank = self.shape.len();
        if self.chunk.len() != rank || self.inner.len() != rank {
            return Err(damaged(format!("chunks of {} axes in an array of {rank}", self.chunk.len())));
        }
        if self.chunk.contains(&0) || self.inner.contains(&0) {
            return Err(damaged("chunks without samples"));
        }
        if self.chunk.iter().zip(&self.inner).any(|(chunk, inner)| !chunk.is_multiple_of(*inner)) {
            return Err(damaged(format!("shards of {:?} that chunks of {:?} do not divide", self.chunk, self.inner)));
        }
        let bytes = product(&self.inner).saturating_mul(self.dtype.bytes() as u64);
        if bytes > LARGEST_CHUNK {
            return Err(unsupported(format!("chunks of {bytes} bytes; the limit is {LARGEST_CHUNK}")));
        }
        if self.inner_in_shard() > LARGEST_CHUNK / 16 {
            return Err(unsupported(format!("shards of {} chunks", self.inner_in_shard())));
        }
        Ok(self)
    }

    fn inner_in_shard(&self) -> u64 {
        self.chunk.iter().zip(&self.inner).map(|(chunk, inner)| chunk / inner).fold(1, u64::saturating_mul)
    }

    /// Canonical samples of a plane inside `rect`; `fixed` holds the other axes' indices, `plane` the places of y and x.
    pub(super) fn read(
        &self,
        cache: &mut BlockCache,
        level: u64,
        fixed: &[u64],
        plane: [usize; 2],
        rect: Rect,
    ) -> Result<Vec<u8>> {
        let width = self.dtype.bytes();
        let [h, w] = rect.size().map(|extent| extent as usize);
        let start = [u64::from(rect.y0), u64::from(rect.x0)];
        let end = [u64::from(rect.y1), u64::from(rect.x1)];
        let step = plane.map(|axis| self.inner[axis]);
        // Samples of a decoded chunk from one index to the next, for every axis.
        let mut strides = vec![0_usize; self.shape.len()];
        let mut stride = 1;
        for &axis in self.codecs.order.iter().rev() {
            strides[axis] = stride;
            stride *= self.inner[axis] as usize;
        }
        let inside: usize = (0..self.shape.len())
            .filter(|axis| !plane.contains(axis))
            .map(|axis| (fixed[axis] % self.inner[axis]) as usize * strides[axis])
            .sum();
        let mut out = Vec::new();
        let mut position: Vec<u64> = fixed.iter().zip(&self.inner).map(|(index, inner)| index / inner).collect();
        for chunk_y in start[0] / step[0]..end[0].div_ceil(step[0]) {
            for chunk_x in start[1] / step[1]..end[1].div_ceil(step[1]) {
                (position[plane[0]], position[plane[1]]) = (chunk_y, chunk_x);
                let number = self.number(&position);
                let chunk = cache.get((level, number), || self.chunk_at(&position))?;
                if out.is_empty() {
                    out = self.fill.iter().copied().cycle().take(h * w * width).collect();
                }
                if chunk.is_empty() {
                    continue;
                }
                let top = start[0].max(chunk_y * step[0]);
                let left = start[1].max(chunk_x * step[1]);
                let bottom = end[0].min((chunk_y + 1) * step[0]);
                let right = end[1].min((chunk_x + 1) * step[1]);
                for y in top..bottom {
                    let row = inside + (y - chunk_y * step[0]) as usize * strides[plane[0]];
                    let mut to = ((y - start[0]) as usize * w + (left - start[1]) as usize) * width;
                    for x in left..right {
                        let from = (row + (x - chunk_x * step[1]) as usize * strides[plane[1]]) * width;
                        out[to..to + width].copy_from_slice(&chunk[from..from + width]);
                        to += width;
                    }
                }
            }
        }
        Ok(out)
    }

    /// A number for a chunk of the inner grid.
    fn number(&self, position: &[u64]) -> u64 {
        let grid = self.shape.iter().zip(&self.inner).map(|(shape, inner)| shape.div_ceil(*inner));
        position.iter().zip(grid).fold(0, |number, (index, count)| number.wrapping_mul(count).wrapping_add(*index))
    }

    /// Canonical samples of an inner chunk; none where nothing was written.
    fn chunk_at(&self, position: &[u64]) -> Result<Vec<u8>> {
        let samples = product(&self.inner) as usize;
        let expected = samples * self.dtype.bytes();
        let per_file: Vec<u64> = self.chunk.iter().zip(&self.inner).map(|(chunk, inner)| chunk / inner).collect();
        let file: Vec<u64> = position.iter().zip(&per_file).map(|(index, count)| index / count).collect();
        let path = self.folder.join(self.key.path(&file));
        let handle = match File::open(&path) {
            Ok(handle) => handle,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::new(ErrorKind::Io, "cannot read").with_source(error).with_path(&path)),
        };
        let failed = |error: Error| error.with_path(&path);
        let length = handle
            .metadata()
            .map_err(|error| Error::new(ErrorKind::Io, "cannot read").with_source(error).with_path(&path))?
            .len();
        let mut input = Input::new(Box::new(handle), length);
        let packed = match &self.shard {
            None => input.whole(LARGEST_CHUNK * 2).map_err(failed)?,
            Some(shard) => {
                let within =
                    position.iter().zip(&per_file).fold(0, |number, (index, count)| number * count + index % count);
                match shard.find(&mut input, within, self.inner_in_shard()).map_err(failed)? {
                    Some((offset, length)) => input.read(offset, length).map_err(failed)?,
                    None => return Ok(Vec::new()),
                }
            }
        };
        let mut bytes = self.codecs.unpack(packed, expected).map_err(failed)?;
        if self.codecs.big_endian {
            swap_bytes(&mut bytes, self.dtype.bytes());
        }
        Ok(bytes)
    }
}

impl Shard {
    /// Offset and length of inner chunk `number`.
    fn find(&self, input: &mut Input, number: u64, count: u64) -> Result<Option<(u64, u64)>> {
        let checksums = 4 * self.index_codecs.packings.len() as u64;
        let length = count * 16 + checksums;
        let start = if self.index_at_end {
            input.length().checked_sub(length).ok_or_else(|| damaged("a shard shorter than its index"))?
        } else {
            0
        };
        // The checksum covers the whole index; reading all of it for every chunk would be quadratic, so large ones go unchecked.
        if checksums > 0 && length <= 1 << 20 {
            self.index_codecs.unpack(input.read(start, length)?, (count * 16) as usize)?;
        }
        let entry = input.read(start + number * 16, 16)?;
        let word = |at: usize| -> u64 {
            let bytes: [u8; 8] = std::array::from_fn(|index| entry[at + index]);
            if self.index_codecs.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
        };
        let (offset, length) = (word(0), word(8));
        Ok((offset != ABSENT || length != ABSENT).then_some((offset, length)))
    }
}

impl Codecs {
    /// Reads v3's list; also names the packing.
    fn parse(list: &[Value], rank: usize) -> Result<(Self, String)> {
        let mut codecs = Self { order: (0..rank).collect(), ..Self::default() };
        let mut names = Vec::new();
        for codec in list {
            let name = codec.as_str().or_else(|| codec.get("name")?.as_str()).unwrap_or_default();
            let configuration = codec.get("configuration").cloned().unwrap_or_default();
            match name {
                "bytes" | "endian" => {
                    codecs.big_endian = configuration.get("endian").and_then(Value::as_str) == Some("big");
                }
                "transpose" => {
                    let order = configuration.get("order").and_then(Value::as_array).cloned().unwrap_or_default();
                    let order: Vec<usize> =
                        order.iter().filter_map(|axis| axis.as_u64().map(|axis| axis as usize)).collect();
                    let mut sorted = order.clone();
                    sorted.sort_unstable();
                    if sorted != (0..rank).collect::<Vec<_>>() {
                        return Err(unsupported(format!("transpose to {order:?}")));
                    }
                    // Two in a row: the second rearranges what the first gave.
                    codecs.order = order.iter().map(|&axis| codecs.order[axis]).collect();
                }
                "crc32c" => codecs.packings.push(Packing::Crc32c),
                name => {
                    codecs.packings.push(packing(name)?);
                    names.push(packing_name(name, &configuration));
                }
            }
        }
        let compression = if names.is_empty() { "none".into() } else { names.join(" + ") };
        Ok((codecs, compression))
    }

    fn unpack(&self, mut bytes: Vec<u8>, expected: usize) -> Result<Vec<u8>> {
        for (index, packing) in self.packings.iter().enumerate().rev() {
            let inside = &self.packings[..index];
            if !matches!(packing, Packing::Crc32c) && inside.iter().any(|packing| !matches!(packing, Packing::Crc32c)) {
                return Err(unsupported("two compressions in a row"));
            }
            // What a checksum inside a compression covers is longer by it.
            let expected = expected + 4 * inside.len();
            bytes = match packing {
                Packing::Zlib => codec::zlib(&bytes, expected)?,
                Packing::Gzip => codec::gzip(&bytes, expected)?,
                Packing::Zstd => codec::zstd(&bytes, expected)?,
                Packing::Lz4 => {
                    let block = bytes.get(4..).ok_or_else(|| damaged("an LZ4 chunk without its length"))?;
                    codec::lz4(block, expected)?
                }
                Packing::Blosc => blosc::decode(&bytes, expected)?,
                Packing::Crc32c => {
                    let kept = bytes.len().checked_sub(4).ok_or_else(|| damaged("a chunk without its checksum"))?;
                    let stored = bytes[kept..].iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
                    if crc32c(&bytes[..kept]) != stored {
                        return Err(damaged("a checksum (crc32c) differs from what is stored"));
                    }
                    bytes.truncate(kept);
                    bytes
                }
            };
        }
        if bytes.len() < expected {
            return Err(damaged(format!("a chunk of {} bytes, expected {expected}", bytes.len())));
        }
        bytes.truncate(expected);
        Ok(bytes)
    }
}

impl KeyEncoding {
    fn path(&self, position: &[u64]) -> PathBuf {
        let (mut key, separator) = match self {
            Self::Default(separator) => ("c".to_owned(), *separator),
            Self::V2(separator) => (String::new(), *separator),
        };
        for index in position {
            if !key.is_empty() {
                key.push(separator);
            }
            key.push_str(&index.to_string());
        }
        if key.is_empty() {
            key.push('0');
        }
        PathBuf::from(key)
    }
}

fn product(extents: &[u64]) -> u64 {
    extents.iter().copied().fold(1, u64::saturating_mul)
}

fn extents(value: Option<&Value>, name: &str) -> Result<Vec<u64>> {
    let list = value.and_then(Value::as_array).ok_or_else(|| damaged(format!("an array without {name}")))?;
    let extents: Option<Vec<u64>> =
        list.iter().map(|extent| extent.as_u64().filter(|&extent| extent <= 1 << 40)).collect();
    extents.filter(|extents| extents.len() <= 32).ok_or_else(|| damaged(format!("{name} is {value:?}")))
}

fn separator(value: Option<&Value>, default: char) -> Result<char> {
    match value.map(|value| value.as_str().unwrap_or_default()) {
        None => Ok(default),
        Some(".") => Ok('.'),
        Some("/") => Ok('/'),
        Some(other) => Err(damaged(format!("a separator {other:?}"))),
    }
}

fn packing(name: &str) -> Result<Packing> {
    Ok(match name {
        "zlib" | "numcodecs.zlib" => Packing::Zlib,
        "gzip" | "numcodecs.gzip" => Packing::Gzip,
        "zstd" | "numcodecs.zstd" => Packing::Zstd,
        "lz4" | "numcodecs.lz4" => Packing::Lz4,
        "blosc" | "numcodecs.blosc" => Packing::Blosc,
        other => {
            return Err(unsupported(format!(
                "codec {other:?} is not read; write the image with zstd, gzip, LZ4 or blosc"
            )));
        }
    })
}

fn packing_name(name: &str, configuration: &Value) -> String {
    match configuration.get("cname").and_then(Value::as_str) {
        Some(inner) => format!("{name} ({inner})"),
        None => name.to_owned(),
    }
}

fn fill_value(value: Option<&Value>, dtype: SampleType) -> Result<Vec<u8>> {
    let wrong = || damaged(format!("a fill value of {}", value.cloned().unwrap_or_default()));
    let number = match value {
        None | Some(Value::Null) => 0.0,
        Some(Value::Bool(set)) => f64::from(u8::from(*set)),
        Some(Value::Number(number)) => number.as_f64().unwrap_or(0.0),
        Some(Value::String(text)) => match text.as_str() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return Err(wrong()),
        },
        Some(_) => return Err(wrong()),
    };
    Ok(match dtype {
        SampleType::Bool | SampleType::U8 => (number as u8).to_le_bytes().to_vec(),
        SampleType::U16 => (number as u16).to_le_bytes().to_vec(),
        SampleType::U32 => (number as u32).to_le_bytes().to_vec(),
        SampleType::U64 => (number as u64).to_le_bytes().to_vec(),
        SampleType::I8 => (number as i8).to_le_bytes().to_vec(),
        SampleType::I16 => (number as i16).to_le_bytes().to_vec(),
        SampleType::I32 => (number as i32).to_le_bytes().to_vec(),
        SampleType::I64 => (number as i64).to_le_bytes().to_vec(),
        SampleType::F16 => half::f16::from_f64(number).to_le_bytes().to_vec(),
        SampleType::F32 => (number as f32).to_le_bytes().to_vec(),
        SampleType::F64 => number.to_le_bytes().to_vec(),
    })
}

/// CRC-32 of Castagnoli's polynomial, bit by bit: indices and chunks are short beside what decoding them costs.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82F6_3B78 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum: u32, &byte| sum >> 8 ^ TABLE[((sum ^ u32::from(byte)) & 0xFF) as usize])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    }

    #[test]
    fn what_is_not_read_is_named() {
        let array = |compressor: Value| {
            let value = json!({ "shape": [4, 4], "chunks": [2, 2], "dtype": "<u2", "compressor": compressor });
            Array::parse_v2(Path::new("."), &value)
        };
        assert_eq!(array(json!({ "id": "blosc", "cname": "lz4" })).unwrap().compression, "blosc (lz4)");
        let error = array(json!({ "id": "lzma" })).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("\"lzma\""), "{error}");
        let huge = json!({ "shape": [1u64 << 40, 4], "chunks": [1u64 << 40, 2], "dtype": "|u1" });
        assert_eq!(Array::parse_v2(Path::new("."), &huge).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
