//! Strips and tiles: where they are, and how their bytes become samples.

use std::ops::Range;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::directory::{Tiff, tag};
use crate::formats::bytes::cut_short;
use crate::formats::cache::BlockCache;
use crate::formats::pixels::{swap_bytes, unpack_bits};
use crate::formats::{Purpose, codec};
use crate::{Error, ErrorKind, Rect, Result, SampleType};

/// A decoded block may take this much at most.
const LARGEST_BLOCK: u64 = 1 << 31;

/// A JPEG block may take this much at most: its decoder takes memory beforehand.
const LARGEST_JPEG: u64 = 1 << 28;

/// Samples a pixel may have at most.
const MOST_SAMPLES: u64 = 4096;

/// One image of a TIFF: its geometry and its blocks.
#[derive(Debug)]
pub(super) struct Frame {
    /// `[h, w]`.
    pub(super) size: [u32; 2],
    /// `[h, w]` of a block; the last strip is shorter, the last tiles are padded.
    pub(super) block: [u32; 2],
    pub(super) dtype: SampleType,
    /// Samples stored a pixel.
    samples: u32,
    /// Channels given out: without alpha, three for an expanded palette.
    pub(super) channels: u32,
    pub(super) colour: bool,
    bits: u32,
    planar: bool,
    tiled: bool,
    compression: u64,
    predictor: u64,
    /// Small numbers mean white, and the samples are light, not ids.
    inverted: bool,
    /// JPEG blocks hold YCbCr.
    ycbcr: bool,
    reverse_bits: bool,
    big_endian: bool,
    offsets: Vec<u64>,
    counts: Vec<u64>,
    jpeg_tables: Vec<u8>,
    /// Red, green, blue by index, where the palette is to be expanded.
    palette: Option<Vec<[u8; 3]>>,
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("TIFF: {what}"))
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Format, format!("TIFF: the file is damaged: {what}"))
}

impl Frame {
    /// Reads the directory at `offset`.
    pub(super) fn read(tiff: &mut Tiff, offset: u64, purpose: Purpose) -> Result<Self> {
        let directory = tiff.directory(offset)?;
        let mut number = |tag, default| Ok::<u64, Error>(tiff.number(&directory, tag)?.unwrap_or(default));
        let size = [number(tag::HEIGHT, 0)?, number(tag::WIDTH, 0)?];
        let size = size.map(|extent| u32::try_from(extent).unwrap_or(0));
        crate::formats::check_not_empty(size)?;
        let samples = number(tag::SAMPLES, 1)?;
        let compression = number(tag::COMPRESSION, 1)?;
        let predictor = number(tag::PREDICTOR, 1)?;
        let photometric = number(tag::PHOTOMETRIC, 1)?;
        let planar = number(tag::PLANAR, 1)? == 2 && samples > 1;
        let reverse_bits = number(tag::FILL_ORDER, 1)? == 2;
        let rows_per_strip = number(tag::ROWS_PER_STRIP, u64::from(u32::MAX))?;
        let tile = [number(tag::TILE_HEIGHT, 0)?, number(tag::TILE_WIDTH, 0)?];
        if samples == 0 || samples > MOST_SAMPLES {
            return Err(damaged(format!("{samples} samples a pixel")));
        }
        let samples = samples as u32;
        let all_equal = |tiff: &mut Tiff, tag: u16, default: u64, name: &str| -> Result<u64> {
            let values = tiff.unsigned(&directory, tag)?.unwrap_or_default();
            let first = values.first().copied().unwrap_or(default);
            if values.iter().any(|&value| value != first) {
                return Err(unsupported(format!("channels of different {name}: {values:?}")));
            }
            Ok(first)
        };
        let bits = all_equal(tiff, tag::BITS, 1, "bits")?;
        let format = all_equal(tiff, tag::SAMPLE_FORMAT, 1, "sample formats")?;
        let dtype = sample_type(bits, format)?;
        let extra = tiff.unsigned(&directory, tag::EXTRA_SAMPLES)?.unwrap_or_default();
        let tiled = directory.entry(tag::TILE_OFFSETS).is_some() || tile != [0, 0];
        let (offsets_tag, counts_tag) =
            if tiled { (tag::TILE_OFFSETS, tag::TILE_COUNTS) } else { (tag::STRIP_OFFSETS, tag::STRIP_COUNTS) };
        let offsets = tiff.unsigned(&directory, offsets_tag)?.unwrap_or_default();
        let mut counts = tiff.unsigned(&directory, counts_tag)?.unwrap_or_default();
        let block = if tiled {
            tile.map(|extent| u32::try_from(extent).unwrap_or(0))
        } else {
            [rows_per_strip.clamp(1, u64::from(size[0])) as u32, size[1]]
        };
        if block.contains(&0) {
            return Err(damaged(format!("tiles of {} × {} pixels", block[0], block[1])));
        }
        let alpha = matches!(extra.last(), Some(1 | 2));
        let (channels, colour) = match (photometric, samples) {
            (2 | 6, 3 | 4) => (3, true),
            (2 | 6, _) | (0 | 1 | 3, 1) => (samples, false),
            (0 | 1, 2) if alpha => (1, false),
            (0 | 1, _) | (32_803, _) => (samples, false),
            (3, 2) if alpha => (1, false),
            (5, _) => return Err(unsupported("expected grey, RGB or plain channels, found CMYK; save it as RGB")),
            (other, _) => {
                return Err(unsupported(format!(
                    "expected grey, RGB or plain channels, found colours of kind {other}"
                )));
            }
        };
        if photometric == 6 && compression != 7 {
            return Err(unsupported("YCbCr colours are read with JPEG compression only; save it as RGB"));
        }
        let palette = if photometric == 3 && purpose == Purpose::Image && bits <= 8 {
            tiff.unsigned(&directory, tag::COLOR_MAP)?.and_then(|map| expand_map(&map, bits as u32))
        } else {
            None
        };
        let (channels, colour) = if palette.is_some() { (3, true) } else { (channels, colour) };
        let jpeg_tables = tiff.raw(&directory, tag::JPEG_TABLES)?.unwrap_or_default();
        let mut frame = Self {
            size,
            block,
            dtype: if palette.is_some() { SampleType::U8 } else { dtype },
            samples,
            channels,
            colour,
            bits: bits as u32,
            planar,
            tiled,
            compression,
            predictor,
            inverted: photometric == 0 && purpose == Purpose::Image,
            ycbcr: photometric == 6,
            reverse_bits,
            big_endian: tiff.big_endian,
            offsets,
            counts: Vec::new(),
            jpeg_tables,
            palette,
        };
        frame.check()?;
        if counts.is_empty() && compression == 1 {
            counts = (0..frame.offsets.len()).map(|index| frame.stored_bytes(index) as u64).collect();
        }
        if counts.len() < frame.blocks() {
            return Err(damaged(format!("{} lengths for {} blocks", counts.len(), frame.blocks())));
        }
        frame.counts = counts;
        Ok(frame)
    }

    fn check(&self) -> Result<()> {
        let row_bits = u64::from(self.block[1]) * u64::from(self.bits) * u64::from(self.block_samples());
        let bytes = row_bits.div_ceil(8).saturating_mul(u64::from(self.block[0]));
        // What is not packed is read row by row; a file of a petabyte is none.
        let limit = match self.compression {
            1 => 1 << 50,
            7 => LARGEST_JPEG,
            _ => LARGEST_BLOCK,
        };
        if bytes > limit && self.compression == 1 {
            return Err(damaged(format!("{} × {} pixels in one block", self.block[0], self.block[1])));
        }
        if bytes > limit {
            return Err(unsupported(format!(
                "blocks of {} × {} pixels; save it in tiles",
                self.block[0], self.block[1]
            )));
        }
        if self.offsets.len() < self.blocks() {
            return Err(damaged(format!("{} blocks where {} are needed", self.offsets.len(), self.blocks())));
        }
        match self.predictor {
            1 => {}
            2 if matches!(self.bits, 8 | 16 | 32 | 64) => {}
            3 if matches!(self.dtype, SampleType::F16 | SampleType::F32 | SampleType::F64) => {}
            other => return Err(unsupported(format!("predictor {other} with samples of {} bits", self.bits))),
        }
        if self.compression == 7 && self.bits != 8 {
            return Err(unsupported(format!("JPEG with samples of {} bits", self.bits)));
        }
        match self.compression {
            1 | 5 | 7 | 8 | 32_773 | 32_946 | 34_926 | 50_000 => Ok(()),
            _ => Err(unsupported(format!(
                "compression {} is not read; save it with deflate, LZW or zstd (Fiji, `bfconvert -compression zlib`)",
                self.compression_name()
            ))),
        }
    }

    /// The packing in words.
    pub(super) fn compression_name(&self) -> &'static str {
        match self.compression {
            1 => "none",
            2..=4 => "CCITT fax",
            5 => "LZW",
            6 => "old-style JPEG",
            7 => "JPEG",
            8 | 32_946 => "deflate",
            32_773 => "PackBits",
            33_003 | 33_005 | 34_712 => "JPEG 2000",
            34_925 => "LZMA",
            34_926 | 50_000 => "zstd",
            34_887 => "LERC",
            34_933 => "PNG",
            50_001 => "WebP",
            50_002 | 52_546 => "JPEG XL",
            22_610 | 34_934 => "JPEG XR",
            _ => "of an unknown kind",
        }
    }

    /// Samples of a pixel that one block holds.
    fn block_samples(&self) -> u32 {
        if self.planar { 1 } else { self.samples }
    }

    /// Blocks along y and x.
    fn grid(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.size[axis].div_ceil(self.block[axis]) as usize)
    }

    fn blocks(&self) -> usize {
        let [rows, columns] = self.grid();
        rows.saturating_mul(columns).saturating_mul(if self.planar { self.samples as usize } else { 1 })
    }

    /// Rows that block `index` stores.
    fn rows(&self, index: usize) -> usize {
        let [rows, columns] = self.grid();
        let row = index / columns % rows;
        if self.tiled {
            self.block[0] as usize
        } else {
            (self.size[0] as usize - row * self.block[0] as usize).min(self.block[0] as usize)
        }
    }

    fn row_bytes(&self) -> usize {
        (self.block[1] as usize * self.bits as usize * self.block_samples() as usize).div_ceil(8)
    }

    /// Bytes of block `index` when it is not compressed.
    fn stored_bytes(&self, index: usize) -> usize {
        self.rows(index) * self.row_bytes()
    }

    /// Whether samples can be taken out of the file without decoding a block.
    pub(super) fn is_plain(&self) -> bool {
        self.compression == 1 && self.predictor == 1 && self.bits.is_multiple_of(8) && self.palette.is_none()
    }

    /// Whether all rows of a single-channel page lie in one piece, and where it begins: ImageJ puts further planes behind it.
    pub(super) fn contiguous(&self) -> Option<u64> {
        let follow = (1..self.offsets.len())
            .all(|index| self.offsets[index - 1].checked_add(self.counts[index - 1]) == Some(self.offsets[index]));
        (self.is_plain() && !self.tiled && !self.planar && follow).then(|| self.offsets.first().copied()).flatten()
    }

    /// Bytes of a whole uncompressed page.
    pub(super) fn page_bytes(&self) -> u64 {
        (self.row_bytes() as u64).saturating_mul(u64::from(self.size[0]))
    }

    /// Canonical samples of one channel inside `rect`. `key` tells this frame's blocks from others' in `cache`; `skip` bytes are
    /// added to the position of uncompressed blocks.
    pub(super) fn pixels(
        &self,
        tiff: &mut Tiff,
        cache: &mut BlockCache,
        key: u64,
        sample: u32,
        skip: u64,
        rect: Rect,
    ) -> Result<Vec<u8>> {
        if rect.y1 > self.size[0] || rect.x1 > self.size[1] {
            return Err(damaged(format!("a page of {} × {} pixels among larger ones", self.size[0], self.size[1])));
        }
        if sample >= self.channels {
            return Err(damaged(format!("a page of {} channels where channel {sample} is needed", self.channels)));
        }
        let width = self.dtype.bytes();
        let [h, w] = rect.size().map(|extent| extent as usize);
        let [block_h, block_w] = self.block.map(|extent| extent as usize);
        let [rows, columns] = self.grid();
        let plane = if self.planar { sample as usize * rows * columns } else { 0 };
        // The place of the channel inside a pixel of a decoded block.
        let (stride, position) = match (&self.palette, self.planar) {
            (Some(_), _) => (3, sample as usize),
            (None, true) => (1, 0),
            (None, false) => (self.samples as usize, sample as usize),
        };
        let mut out = vec![0_u8; h * w * width];
        for block_y in rect.y0 as usize / block_h..(rect.y1 as usize).div_ceil(block_h) {
            for block_x in rect.x0 as usize / block_w..(rect.x1 as usize).div_ceil(block_w) {
                let index = plane + block_y * columns + block_x;
                let top = (block_y * block_h).max(rect.y0 as usize);
                let bottom = ((block_y + 1) * block_h).min(rect.y1 as usize);
                let left = (block_x * block_w).max(rect.x0 as usize);
                let right = ((block_x + 1) * block_w).min(rect.x1 as usize);
                if self.is_sparse(index) {
                    // Never written: zeros, as they are already.
                    continue;
                }
                let (in_y, in_x) = (top - block_y * block_h, left - block_x * block_w);
                let (count, length) = (bottom - top, right - left);
                let decoded;
                let plain;
                // Rows of the block from `in_y` on, their first column, and bytes from one to the next.
                let (source, first, pitch): (&[u8], usize, usize) = if self.is_plain() {
                    plain = self.plain_rows(tiff, index, skip, in_y..in_y + count, in_x..in_x + length)?;
                    (&plain, 0, plain.len() / count)
                } else {
                    decoded = cache.get((key, index as u64), || self.decode(tiff, index))?;
                    let pitch = block_w * stride * width;
                    (&decoded[in_y * pitch..], in_x * stride * width, pitch)
                };
                for row in 0..count {
                    let from = &source[row * pitch + first..];
                    let start = ((top - rect.y0 as usize + row) * w + left - rect.x0 as usize) * width;
                    let to = &mut out[start..start + length * width];
                    if stride == 1 {
                        to.copy_from_slice(&from[..length * width]);
                    } else {
                        let pixels = from.chunks_exact(stride * width);
                        for (to, pixel) in to.chunks_exact_mut(width).zip(pixels) {
                            to.copy_from_slice(&pixel[position * width..(position + 1) * width]);
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    /// Part of an uncompressed block, straight from the file: rows and columns are counted in the block.
    fn plain_rows(
        &self,
        tiff: &mut Tiff,
        index: usize,
        skip: u64,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<Vec<u8>> {
        let pixel = self.dtype.bytes() * self.block_samples() as usize;
        let mut bytes = Vec::new();
        // What lies behind the page's own bytes was checked against the file's length when the planes were found.
        if skip == 0 && (rows.end * self.row_bytes()) as u64 > self.counts[index] {
            return Err(cut_short());
        }
        let start = self.offsets[index].checked_add(skip).ok_or_else(cut_short)?;
        let at = |row: usize| {
            start.checked_add((row * self.row_bytes() + columns.start * pixel) as u64).ok_or_else(cut_short)
        };
        if columns.len() == self.block[1] as usize {
            tiff.input.read_into(at(rows.start)?, (rows.len() * columns.len() * pixel) as u64, &mut bytes)?;
        } else {
            for row in rows {
                tiff.input.read_into(at(row)?, (columns.len() * pixel) as u64, &mut bytes)?;
            }
        }
        if self.big_endian {
            swap_bytes(&mut bytes, self.dtype.bytes());
        }
        self.invert(&mut bytes);
        Ok(bytes)
    }

    /// A block that was never written reads as zeros.
    fn is_sparse(&self, index: usize) -> bool {
        self.offsets[index] == 0 || self.counts[index] == 0
    }

    /// Canonical samples of block `index`, `[rows, block width, samples]`.
    fn decode(&self, tiff: &mut Tiff, index: usize) -> Result<Vec<u8>> {
        let rows = self.rows(index);
        let expected = self.stored_bytes(index);
        let samples = self.block_samples() as usize;
        let packed = tiff.input.read(self.offsets[index], self.counts[index])?;
        let mut bytes = match self.compression {
            1 if packed.len() < expected => return Err(cut_short()),
            1 => packed[..expected].to_vec(),
            5 => codec::lzw(&packed, expected)?,
            7 => self.jpeg(packed, rows)?,
            8 | 32_946 => codec::zlib(&packed, expected)?,
            32_773 => codec::packbits(&packed, expected)?,
            _ => codec::zstd(&packed, expected)?,
        };
        let row_bytes = self.row_bytes();
        match self.predictor {
            2 => {
                let width = self.bits as usize / 8;
                if self.big_endian {
                    swap_bytes(&mut bytes, width);
                }
                bytes.chunks_exact_mut(row_bytes).for_each(|row| add_up(row, width, samples));
            }
            3 => {
                let width = self.bits as usize / 8;
                let mut plain = vec![0; row_bytes];
                for row in bytes.chunks_exact_mut(row_bytes) {
                    add_up(row, 1, samples);
                    // The bytes of all samples of the row, most significant first, one kind after the other.
                    let count = row_bytes / width;
                    for (index, sample) in plain.chunks_exact_mut(width).enumerate() {
                        for (byte, value) in sample.iter_mut().rev().enumerate() {
                            *value = row[byte * count + index];
                        }
                    }
                    row.copy_from_slice(&plain);
                }
            }
            _ if self.big_endian && self.bits.is_multiple_of(8) => swap_bytes(&mut bytes, self.bits as usize / 8),
            _ => {}
        }
        if !self.bits.is_multiple_of(8) {
            if self.reverse_bits {
                bytes.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
            }
            bytes = unpack_bits(&bytes, self.bits, self.block[1] as usize * samples, row_bytes);
        }
        self.invert(&mut bytes);
        if let Some(palette) = &self.palette {
            let indices = bytes.chunks_exact(samples).map(|pixel| pixel[0]);
            bytes = indices.flat_map(|index| palette.get(usize::from(index)).copied().unwrap_or_default()).collect();
        }
        Ok(bytes)
    }

    /// Where the smallest number means white: light becomes the large number, as everywhere else.
    fn invert(&self, bytes: &mut [u8]) {
        if !self.inverted {
            return;
        }
        match self.dtype {
            SampleType::Bool | SampleType::U8 if self.bits < 8 => {
                let most = (1_u8 << self.bits) - 1;
                bytes.iter_mut().for_each(|byte| *byte = most - *byte);
            }
            SampleType::U16 if self.bits < 16 => {
                let most = (1_u16 << self.bits) - 1;
                for sample in bytes.as_chunks_mut::<2>().0 {
                    *sample = (most - u16::from_le_bytes(*sample).min(most)).to_le_bytes();
                }
            }
            SampleType::U8 | SampleType::U16 | SampleType::U32 | SampleType::U64 => {
                bytes.iter_mut().for_each(|byte| *byte = !*byte);
            }
            // Signed and floating-point samples have no white.
            _ => {}
        }
    }

    /// A JPEG block, colours as they are to be given out.
    fn jpeg(&self, packed: Vec<u8>, rows: usize) -> Result<Vec<u8>> {
        let failed = |error: zune_jpeg::errors::DecodeErrors| {
            Error::new(ErrorKind::Format, "TIFF: damaged JPEG data").with_source(error.to_string())
        };
        // Shared tables come first: their end marker and the block's start marker go.
        let stream = match (self.jpeg_tables.as_slice(), packed.as_slice()) {
            ([0xFF, 0xD8, tables @ .., 0xFF, 0xD9], [0xFF, 0xD8, block @ ..]) => {
                [&[0xFF, 0xD8], tables, block].concat()
            }
            _ => packed,
        };
        let samples = self.block_samples() as usize;
        let width = self.block[1] as usize;
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(width.max(1) + 64)
            .set_max_height(rows.max(1) + 64);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(stream.as_slice()), options);
        decoder.decode_headers().map_err(failed)?;
        let (jpeg_w, jpeg_h) = decoder.dimensions().unwrap_or((0, 0));
        let stored = decoder.input_colorspace().unwrap_or(ColorSpace::Unknown);
        if jpeg_w < width || jpeg_h < rows || stored.num_components() != samples {
            return Err(damaged(format!(
                "a JPEG block of {jpeg_h} × {jpeg_w} pixels and {} samples, expected {rows} × {width} and {samples}",
                stored.num_components()
            )));
        }
        let out = if self.ycbcr { ColorSpace::RGB } else { stored };
        decoder.set_options(options.jpeg_set_out_colorspace(out));
        let pixels = decoder.decode().map_err(failed)?;
        let row = jpeg_w * samples;
        if pixels.len() < row * jpeg_h {
            return Err(damaged("a JPEG block is cut short"));
        }
        Ok(pixels.chunks_exact(row).take(rows).flat_map(|line| &line[..width * samples]).copied().collect())
    }
}

/// Undoes horizontal differencing of little-endian samples of `width` bytes, `samples` to a pixel.
fn add_up(row: &mut [u8], width: usize, samples: usize) {
    macro_rules! add {
        ($kind:ty) => {{
            let (values, _) = row.as_chunks_mut::<{ size_of::<$kind>() }>();
            for index in samples..values.len() {
                let before = <$kind>::from_le_bytes(values[index - samples]);
                values[index] = <$kind>::from_le_bytes(values[index]).wrapping_add(before).to_le_bytes();
            }
        }};
    }
    match width {
        2 => add!(u16),
        4 => add!(u32),
        8 => add!(u64),
        _ => add!(u8),
    }
}

fn sample_type(bits: u64, format: u64) -> Result<SampleType> {
    Ok(match (bits, format) {
        (1, 1 | 4) => SampleType::Bool,
        (2..=8, 1 | 4) => SampleType::U8,
        (9..=16, 1 | 4) => SampleType::U16,
        (32, 1 | 4) => SampleType::U32,
        (64, 1 | 4) => SampleType::U64,
        (8, 2) => SampleType::I8,
        (16, 2) => SampleType::I16,
        (32, 2) => SampleType::I32,
        (64, 2) => SampleType::I64,
        (16, 3) => SampleType::F16,
        (32, 3) => SampleType::F32,
        (64, 3) => SampleType::F64,
        (bits, 5 | 6) => return Err(unsupported(format!("complex samples of {bits} bits"))),
        (bits, format) => return Err(unsupported(format!("samples of {bits} bits (sample format {format})"))),
    })
}

/// A palette of 16-bit red, green and blue lists as 8-bit colours; some programs write 8-bit values into it.
fn expand_map(map: &[u64], bits: u32) -> Option<Vec<[u8; 3]>> {
    let count = 1_usize << bits;
    if map.len() < 3 * count {
        return None;
    }
    let shift = if map.iter().all(|&value| value < 256) { 0 } else { 8 };
    Some((0..count).map(|index| [0, 1, 2].map(|colour| (map[colour * count + index] >> shift) as u8)).collect())
}
