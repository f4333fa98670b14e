//! As much of Zarr as a pyramid of label images needs: groups and gzip-compressed arrays of unsigned integers, in versions 2
//! and 3 (<https://zarr-specs.readthedocs.io>).

use std::fs;
use std::io::Write;
use std::path::Path;

use cytomask_image::{Error, ErrorKind, Labels, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::io_failed;

/// Version of the storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    V2,
    V3,
}

/// Sides of chunks, pixels. Those of background only are left out: readers fill them with 0.
const CHUNK: u32 = 1024;
/// Labels deflate well at any level.
const GZIP_LEVEL: u32 = 5;

/// A resampled label image: pixel `(y, x)` of it is pixel `(rows[y], columns[x])` of the labels.
pub(crate) struct Level<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) rows: Vec<u32>,
    pub(crate) columns: Vec<u32>,
    /// Store 16 instead of 32 bits.
    pub(crate) narrow: bool,
}

/// Writes a group's metadata into `folder`, which exists.
pub(crate) fn write_group(folder: &Path, format: Format, attributes: &Value) -> Result<()> {
    match format {
        Format::V2 => {
            write_json(&folder.join(".zgroup"), &json!({ "zarr_format": 2 }))?;
            write_json(&folder.join(".zattrs"), attributes)
        }
        Format::V3 => write_json(
            &folder.join("zarr.json"),
            &json!({ "zarr_format": 3, "node_type": "group", "attributes": attributes }),
        ),
    }
}

/// Writes the array `level` into the new folder `folder`; `axes` ends in y and x, the axes before them have length 1.
pub(crate) fn write_array(folder: &Path, format: Format, axes: &[String], level: &Level<'_>) -> Result<()> {
    make_folder(folder)?;
    let size = [level.rows.len() as u32, level.columns.len() as u32];
    let chunk = size.map(|extent| extent.clamp(1, CHUNK));
    let whole = |last: [u32; 2]| {
        let mut shape = vec![1; axes.len() - 2];
        shape.extend(last);
        shape
    };
    let metadata = match format {
        Format::V2 => json!({
            "zarr_format": 2,
            "shape": whole(size),
            "chunks": whole(chunk),
            "dtype": if level.narrow { "<u2" } else { "<u4" },
            "compressor": { "id": "gzip", "level": GZIP_LEVEL },
            "fill_value": 0,
            "order": "C",
            "filters": null,
            "dimension_separator": "/",
        }),
        Format::V3 => json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": whole(size),
            "data_type": if level.narrow { "uint16" } else { "uint32" },
            "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": whole(chunk) } },
            "chunk_key_encoding": { "name": "default", "configuration": { "separator": "/" } },
            "fill_value": 0,
            "codecs": [
                { "name": "bytes", "configuration": { "endian": "little" } },
                { "name": "gzip", "configuration": { "level": GZIP_LEVEL } },
            ],
            "dimension_names": axes,
            "attributes": {},
        }),
    };
    let mut prefix = folder.to_path_buf();
    if format == Format::V3 {
        prefix.push("c");
    }
    prefix.extend(std::iter::repeat_n("0", axes.len() - 2));
    let grid = [size[0].div_ceil(chunk[0]), size[1].div_ceil(chunk[1])];
    (0..grid[0]).into_par_iter().try_for_each(|row| {
        let folder = prefix.join(row.to_string());
        let mut made = false;
        for column in 0..grid[1] {
            let bytes = chunk_bytes(level, [row * chunk[0], column * chunk[1]], chunk);
            if bytes.iter().all(|&byte| byte == 0) {
                continue;
            }
            if !made {
                make_folder(&folder)?;
                made = true;
            }
            let path = folder.join(column.to_string());
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
            let stored = encoder.write_all(&bytes).and_then(|()| encoder.finish()).map_err(io_failed)?;
            fs::write(&path, stored).map_err(|error| io_failed(error).with_path(&path))?;
        }
        Ok::<(), Error>(())
    })?;
    let name = if format == Format::V2 { ".zarray" } else { "zarr.json" };
    write_json(&folder.join(name), &metadata)
}

/// Row-major little-endian pixels of the chunk at `origin`; beyond the array, zeros.
fn chunk_bytes(level: &Level<'_>, origin: [u32; 2], chunk: [u32; 2]) -> Vec<u8> {
    let [y0, x0] = origin.map(|value| value as usize);
    let [h, w] = chunk.map(|value| value as usize);
    let width = level.labels.size()[1] as usize;
    let bytes_each = if level.narrow { 2 } else { 4 };
    let mut bytes = vec![0; h * w * bytes_each];
    let columns = &level.columns[x0..(x0 + w).min(level.columns.len())];
    for (&row, line) in level.rows[y0..].iter().zip(bytes.chunks_exact_mut(w * bytes_each)) {
        let source = &level.labels.as_slice()[row as usize * width..][..width];
        for (&column, pixel) in columns.iter().zip(line.chunks_exact_mut(bytes_each)) {
            pixel.copy_from_slice(&source[column as usize].to_le_bytes()[..bytes_each]);
        }
    }
    bytes
}

/// Reads a JSON file.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let text =
        fs::read(path).map_err(|error| Error::new(ErrorKind::Io, "cannot read").with_source(error).with_path(path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::new(ErrorKind::Format, "not valid JSON").with_source(error).with_path(path))
}

/// Writes a JSON file whole or not at all.
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    cytomask_image::write_atomically(path, |writer| writeln!(writer, "{value:#}").map_err(io_failed))
}

pub(crate) fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .map_err(|error| Error::new(ErrorKind::Io, "cannot make the folder").with_source(error).with_path(path))
}

/// Whether `path` holds a Zarr group or array.
pub(crate) fn is_zarr(path: &Path) -> bool {
    ["zarr.json", ".zgroup", ".zarray"].iter().any(|name| path.join(name).is_file())
}
