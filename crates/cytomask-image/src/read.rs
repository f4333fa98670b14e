//! Reading PNG, JPEG and TIFF files as images or labels.
//!
//! The format is decided by a file's first bytes, never by its name. Sizes are checked from the header before anything is
//! allocated for pixels. Colour profiles, orientation tags and physical units are left to others, and so are hyperstack axes: a
//! page is an image.

use std::fs::File;
use std::io::{BufReader, ErrorKind as IoKind, Read, Seek, SeekFrom};
use std::path::Path;

use tiff::decoder::{Decoder as TiffDecoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType as TiffColor, TiffError};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors as JpegError;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::{Error, ErrorKind, Image, LabelStack, Labels, Result, SampleType};

/// How a file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Page of a multi-page TIFF, from 0. Other formats have one page.
    pub page: u32,
    /// Images of more pixels are refused before memory is allocated, and so are images of more than four times as many samples.
    pub max_pixels: u64,
}

impl Default for ReadOptions {
    /// The first page; at most 2²⁸ pixels (16,384 × 16,384).
    fn default() -> Self {
        Self { page: 0, max_pixels: 1 << 28 }
    }
}

impl Image {
    /// Reads a PNG, JPEG or TIFF file; which one it is, its content decides.
    ///
    /// PNG: grey or RGB of 1–16 bits, palettes expanded, alpha dropped. JPEG: grey or RGB. TIFF: grey, RGB (alpha dropped) or any
    /// number of channels, chunky or planar, in strips or tiles, integers of 1–64 bits and floats of 16–64, uncompressed,
    /// deflate, LZW or PackBits, classic or BigTIFF; one page.
    ///
    /// # Errors
    /// Every error names the file. `Io` when the file cannot be read; `Format` when it is empty, damaged or cut short, or has no
    /// pixels; `Unsupported` when it is no image of these formats or of a kind not listed above; `Value` when there is no such
    /// page or the image exceeds `max_pixels`.
    pub fn open(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let raw = read(path.as_ref(), options, Purpose::Image)?;
        let samples = raw.chunky(match &raw.samples {
            DecodingResult::U8(values) => widen(values, f32::from),
            DecodingResult::U16(values) => widen(values, f32::from),
            DecodingResult::U32(values) => widen(values, |value| value as f32),
            DecodingResult::U64(values) => widen(values, |value| value as f32),
            DecodingResult::I8(values) => widen(values, f32::from),
            DecodingResult::I16(values) => widen(values, f32::from),
            DecodingResult::I32(values) => widen(values, |value| value as f32),
            DecodingResult::I64(values) => widen(values, |value| value as f32),
            DecodingResult::F16(values) => widen(values, half::f16::to_f32),
            DecodingResult::F32(values) => values.clone(),
            DecodingResult::F64(values) => widen(values, |value| value as f32),
        });
        Self::from_samples(raw.size, raw.kept_channels, samples)
            .map(|image| image.with_dtype(raw.dtype))
            .map_err(|error| error.with_path(path))
    }
}

/// Reads a label image: one channel of whole numbers from 0 to 2³² − 1, in a PNG (grey, or palette indices) or a TIFF (integer or
/// float). The first page of at most [`ReadOptions::default`]'s size.
///
/// # Errors
/// As [`Image::open`]; also `Unsupported` when there is more than one channel or the file is a JPEG, which does not keep ids, and
/// `Value` when a sample is no such number.
pub fn read_labels(path: impl AsRef<Path>) -> Result<Labels> {
    let path = path.as_ref();
    let raw = read(path, &ReadOptions::default(), Purpose::Labels)?;
    raw.into_labels().map_err(|error| error.with_path(path))
}

/// Reads all pages of a label TIFF as one stack, which may be of one plane; a PNG is one. The pixels of all pages together are at
/// most [`ReadOptions::default`]'s.
///
/// # Errors
/// As [`read_labels`], for every page; also `Shape` when the pages differ in size.
pub fn read_label_stack(path: impl AsRef<Path>) -> Result<LabelStack> {
    let path = path.as_ref();
    let mut options = ReadOptions::default();
    let first = read_labels(path)?;
    let size = first.size();
    let pixels = first.as_slice().len() as u64;
    let attempt = || {
        let mut file = File::open(path).map_err(|error| io_error("TIFF", error))?;
        let mut head = [0; 2];
        file.read_exact(&mut head).map_err(|error| io_error("TIFF", error))?;
        if !matches!(&head, b"II" | b"MM") {
            return Ok(LabelStack::from(first));
        }
        file.seek(SeekFrom::Start(0)).map_err(|error| io_error("TIFF", error))?;
        let mut decoder = TiffDecoder::new(BufReader::new(file)).map_err(tiff_error)?;
        let mut ids = first.into_vec();
        let mut planes = 1;
        while decoder.more_images() {
            decoder.next_image().map_err(tiff_error)?;
            let limit = options.max_pixels;
            // Checked before the page is decoded.
            options.max_pixels = pixels.min(limit.saturating_sub(pixels * u64::from(planes)));
            let (w, h) = decoder.dimensions().map_err(tiff_error)?;
            if [h, w] != size {
                let message = format!("{} × {} pixels, as on page 0, on page {planes}", size[0], size[1]);
                return Err(Error::shape("label stack", message, format!("{h} × {w}")));
            }
            let (next, raw) = read_tiff_page(decoder, &options)?;
            options.max_pixels = limit;
            ids.extend_from_slice(raw.into_labels()?.as_slice());
            planes += 1;
            decoder = next;
        }
        LabelStack::from_vec([planes, size[0], size[1]], ids)
    };
    attempt().map_err(|error: Error| error.with_path(path))
}

impl Raw {
    fn into_labels(self) -> Result<Labels> {
        let raw = self;
        if raw.stored_channels != 1 {
            let message = format!("label image: expected one channel, found {}", raw.stored_channels);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let ids = match &raw.samples {
            DecodingResult::U8(values) => to_ids(values, |value| Some(u32::from(value))),
            DecodingResult::U16(values) => to_ids(values, |value| Some(u32::from(value))),
            DecodingResult::U32(values) => to_ids(values, Some),
            DecodingResult::U64(values) => to_ids(values, |value| value.try_into().ok()),
            DecodingResult::I8(values) => to_ids(values, |value| value.try_into().ok()),
            DecodingResult::I16(values) => to_ids(values, |value| value.try_into().ok()),
            DecodingResult::I32(values) => to_ids(values, |value| value.try_into().ok()),
            DecodingResult::I64(values) => to_ids(values, |value| value.try_into().ok()),
            DecodingResult::F16(values) => to_ids(values, |value| whole(value.to_f64())),
            DecodingResult::F32(values) => to_ids(values, |value| whole(f64::from(value))),
            DecodingResult::F64(values) => to_ids(values, whole),
        }?;
        Labels::from_vec(raw.size, ids)
    }
}

/// `value` as an id, if it is one.
fn whole(value: f64) -> Option<u32> {
    (value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value)).then_some(value as u32)
}

fn to_ids<T: Copy + std::fmt::Display>(values: &[T], id: impl Fn(T) -> Option<u32>) -> Result<Vec<u32>> {
    let ids: Option<Vec<u32>> = values.iter().map(|&value| id(value)).collect();
    ids.ok_or_else(|| {
        let mut wrong = values.iter().filter(|&&value| id(value).is_none());
        let first = wrong.next().map(ToString::to_string).unwrap_or_default();
        let count = 1 + wrong.count();
        let message =
            format!("label image: expected whole numbers from 0 to {}, found {count} others, first {first}", u32::MAX);
        Error::new(ErrorKind::Value, message)
    })
}

fn widen<T: Copy>(values: &[T], convert: impl Fn(T) -> f32) -> Vec<f32> {
    values.iter().map(|&value| convert(value)).collect()
}

/// What the samples are for: an image's palette is expanded, a label image's is not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Image,
    Labels,
}

/// Samples as the decoder gave them.
struct Raw {
    size: [u32; 2],
    stored_channels: u32,
    /// Without alpha.
    kept_channels: u32,
    /// Whether each channel is stored by itself, one after the other.
    planar: bool,
    dtype: SampleType,
    samples: DecodingResult,
}

impl Raw {
    /// `[H, W, kept_channels]` from the stored order.
    fn chunky(&self, samples: Vec<f32>) -> Vec<f32> {
        let (stored, kept) = (self.stored_channels as usize, self.kept_channels as usize);
        if stored == 1 || (!self.planar && stored == kept) {
            return samples;
        }
        if !self.planar {
            return samples.chunks_exact(stored).flat_map(|pixel| &pixel[..kept]).copied().collect();
        }
        let plane = self.size[0] as usize * self.size[1] as usize;
        let mut out = vec![0.0; plane * kept];
        for (channel, values) in samples.chunks_exact(plane).take(kept).enumerate() {
            for (pixel, &value) in out.chunks_exact_mut(kept).zip(values) {
                pixel[channel] = value;
            }
        }
        out
    }
}

fn read(path: &Path, options: &ReadOptions, purpose: Purpose) -> Result<Raw> {
    let attempt = || {
        let io = |error| Error::new(ErrorKind::Io, "cannot read").with_source(error);
        let mut file = File::open(path).map_err(io)?;
        let mut head = Vec::with_capacity(8);
        file.by_ref().take(8).read_to_end(&mut head).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let file = BufReader::new(file);
        match head.as_slice() {
            [] => Err(Error::new(ErrorKind::Format, "the file is empty")),
            [0x89, b'P', b'N', b'G', ..] => single_page(options).and_then(|()| read_png(file, options, purpose)),
            [0xFF, 0xD8, 0xFF, ..] if purpose == Purpose::Labels => Err(Error::new(
                ErrorKind::Unsupported,
                "label image: expected PNG or TIFF, found JPEG, which alters ids",
            )),
            [0xFF, 0xD8, 0xFF, ..] => single_page(options).and_then(|()| read_jpeg(file, options)),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => read_tiff(file, options),
            other => Err(Error::new(
                ErrorKind::Unsupported,
                format!("not an image: expected PNG, JPEG or TIFF, found a file that begins with {other:02x?}"),
            )),
        }
    };
    attempt().map_err(|error: Error| error.with_path(path))
}

fn single_page(options: &ReadOptions) -> Result<()> {
    if options.page == 0 { Ok(()) } else { Err(no_such_page(options.page, 1)) }
}

fn no_such_page(page: u32, pages: u32) -> Error {
    let plural = if pages == 1 { "" } else { "s" };
    Error::new(
        ErrorKind::Value,
        format!("page {page} does not exist: the file has {pages} page{plural}, counted from 0"),
    )
}

fn check_size([h, w]: [u32; 2], channels: u32, options: &ReadOptions) -> Result<()> {
    if h == 0 || w == 0 {
        return Err(Error::new(ErrorKind::Format, format!("the image has no pixels: {h} × {w}")));
    }
    let pixels = u128::from(h) * u128::from(w);
    let limit = u128::from(options.max_pixels);
    if pixels > limit || pixels * u128::from(channels) > limit * 4 {
        let message =
            format!("the image is too large: {h} × {w} pixels of {channels} channels, the limit is {limit} pixels");
        return Err(Error::new(ErrorKind::Value, message));
    }
    Ok(())
}

/// Tells a damaged file from a disk that cannot be read.
fn io_error(format: &str, error: std::io::Error) -> Error {
    match error.kind() {
        IoKind::UnexpectedEof => Error::new(ErrorKind::Format, format!("{format}: the file is cut short")),
        IoKind::InvalidData | IoKind::InvalidInput | IoKind::Other => damaged(format, error),
        _ => Error::new(ErrorKind::Io, "cannot read").with_source(error),
    }
}

fn damaged(format: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Format, format!("{format}: the file is damaged")).with_source(source)
}

fn read_png(file: BufReader<File>, options: &ReadOptions, purpose: Purpose) -> Result<Raw> {
    let failed = |error| match error {
        png::DecodingError::IoError(error) => io_error("PNG", error),
        error => damaged("PNG", error),
    };
    let mut decoder = png::Decoder::new(file);
    decoder.set_transformations(match purpose {
        Purpose::Image => png::Transformations::EXPAND,
        Purpose::Labels => png::Transformations::IDENTITY,
    });
    let header = decoder.read_header_info().map_err(failed)?;
    let size = [header.height, header.width];
    let stored_depth = header.bit_depth;
    check_size(size, 4, options)?;
    let mut reader = decoder.read_info().map_err(failed)?;
    let length = reader.output_buffer_size().ok_or_else(|| Error::new(ErrorKind::Value, "the image is too large"))?;
    let mut bytes = vec![0; length];
    let frame = reader.next_frame(&mut bytes).map_err(failed)?;
    // Reads to the end chunk, so that a file cut short after its pixels is found out.
    reader.finish().map_err(failed)?;
    let channels = frame.color_type.samples() as u32;
    let kept_channels = match frame.color_type {
        png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha | png::ColorType::Indexed => 1,
        png::ColorType::Rgb | png::ColorType::Rgba => 3,
    };
    let samples = match frame.bit_depth {
        png::BitDepth::Sixteen => {
            DecodingResult::U16(bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
        }
        depth => {
            DecodingResult::U8(unpack_bits(bytes, depth as u8, size[1] as usize * channels as usize, frame.line_size))
        }
    };
    let dtype = match stored_depth {
        png::BitDepth::Sixteen => SampleType::U16,
        png::BitDepth::One if frame.color_type == png::ColorType::Grayscale => SampleType::Bool,
        _ => SampleType::U8,
    };
    Ok(Raw { size, stored_channels: channels, kept_channels, planar: false, dtype, samples })
}

/// One byte per sample from rows of `row_stride` bytes with `bits` per sample, most significant first.
fn unpack_bits(bytes: Vec<u8>, bits: u8, row_samples: usize, row_stride: usize) -> Vec<u8> {
    if bits >= 8 {
        return bytes;
    }
    let (bits, mask) = (usize::from(bits), (1_u8 << bits) - 1);
    let sample = |row: &[u8], index: usize| row[index * bits / 8] >> (8 - bits - index * bits % 8) & mask;
    bytes.chunks_exact(row_stride).flat_map(|row| (0..row_samples).map(move |index| sample(row, index))).collect()
}

fn read_jpeg(mut file: BufReader<File>, options: &ReadOptions) -> Result<Raw> {
    let failed = |error| match error {
        JpegError::Unsupported(_) => {
            Error::new(ErrorKind::Unsupported, "JPEG: this kind of coding is not supported").with_source(error)
        }
        JpegError::ExhaustedData => io_error("JPEG", IoKind::UnexpectedEof.into()),
        error => damaged("JPEG", error),
    };
    let mut encoded = Vec::new();
    file.read_to_end(&mut encoded).map_err(|error| io_error("JPEG", error))?;
    // Not strict: microscopes write markers that a strict reader stumbles over.
    let lenient = DecoderOptions::default().set_strict_mode(false).set_max_width(1 << 16).set_max_height(1 << 16);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(encoded.as_slice()), lenient);
    decoder.decode_headers().map_err(failed)?;
    let missing = || damaged("JPEG", "no frame header");
    let (width, height) = decoder.dimensions().ok_or_else(missing)?;
    let (channels, color) = match decoder.input_colorspace().ok_or_else(missing)? {
        ColorSpace::Luma => (1, ColorSpace::Luma),
        ColorSpace::RGB | ColorSpace::YCbCr => (3, ColorSpace::RGB),
        other => {
            let message = format!("JPEG: expected grey, RGB or YCbCr, found {other:?}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    };
    // The format has 16 bits for each.
    let size = [height as u32, width as u32];
    check_size(size, channels, options)?;
    // The decoder fills what is missing with grey, so a file cut short is found by its missing end marker. In coded data 0xFF is
    // always followed by a stuffed zero, so only the marker itself looks like it.
    let scan = encoded.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap_or(0);
    if !encoded[scan..].windows(2).any(|pair| pair == [0xFF, 0xD9]) {
        return Err(io_error("JPEG", IoKind::UnexpectedEof.into()));
    }
    decoder.set_options(lenient.jpeg_set_out_colorspace(color));
    let mut bytes = vec![0; height * width * channels as usize];
    decoder.decode_into(&mut bytes).map_err(failed)?;
    Ok(Raw {
        size,
        stored_channels: channels,
        kept_channels: channels,
        planar: false,
        dtype: SampleType::U8,
        samples: DecodingResult::U8(bytes),
    })
}

fn tiff_error(error: TiffError) -> Error {
    match error {
        TiffError::IoError(error) => io_error("TIFF", error),
        TiffError::UnsupportedError(error) => Error::new(ErrorKind::Unsupported, "TIFF").with_source(error),
        TiffError::LimitsExceeded | TiffError::IntSizeError => {
            Error::new(ErrorKind::Value, "TIFF: the image is too large").with_source(error)
        }
        error => damaged("TIFF", error),
    }
}

fn read_tiff(file: BufReader<File>, options: &ReadOptions) -> Result<Raw> {
    let mut decoder = TiffDecoder::new(file).map_err(tiff_error)?;
    for pages in 1..=options.page {
        if !decoder.more_images() {
            return Err(no_such_page(options.page, pages));
        }
        decoder.next_image().map_err(tiff_error)?;
    }
    read_tiff_page(decoder, options).map(|(_, raw)| raw)
}

/// Reads the page a decoder stands at and gives the decoder back.
fn read_tiff_page(
    mut decoder: TiffDecoder<BufReader<File>>,
    options: &ReadOptions,
) -> Result<(TiffDecoder<BufReader<File>>, Raw)> {
    let failed = tiff_error;
    let (w, h) = decoder.dimensions().map_err(failed)?;
    let color = decoder.colortype().map_err(failed)?;
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(failed)?.unwrap_or_default();
    let alpha = matches!(extra.as_slice(), [1 | 2]);
    let (bits, channels, kept_channels) = match color {
        TiffColor::Gray(bits) => (bits, 1, 1),
        TiffColor::RGB(bits) => (bits, 3, 3),
        TiffColor::RGBA(bits) => (bits, 4, 3),
        TiffColor::Multiband { bit_depth, num_samples: 2 } if alpha => (bit_depth, 2, 1),
        TiffColor::Multiband { bit_depth, num_samples } => (bit_depth, u32::from(num_samples), u32::from(num_samples)),
        other => {
            let message = format!("TIFF: expected grey, RGB or plain channels, found {other:?}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    };
    check_size([h, w], channels, options)?;
    let mut limits = Limits::unlimited();
    limits.ifd_value_size = 64 << 20;
    // The widest sample has eight bytes; check_size has bounded the rest.
    limits.decoding_buffer_size =
        (h as usize).saturating_mul(w as usize).saturating_mul(channels as usize).saturating_mul(8);
    limits.intermediate_buffer_size = limits.decoding_buffer_size.max(64 << 20);
    let mut decoder = decoder.with_limits(limits);
    let mut samples = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut samples).map_err(failed)?;
    let planar = layout.planes > 1;
    if planar && layout.planes != channels as usize {
        let message = format!("TIFF: expected {channels} planes of one channel, found {} planes", layout.planes);
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    if let (DecodingResult::U8(bytes), true) = (&mut samples, bits < 8) {
        let row_samples = w as usize * if planar { 1 } else { channels as usize };
        let row_stride = layout.row_stride.map_or(1, usize::from);
        *bytes = unpack_bits(std::mem::take(bytes), bits, row_samples, row_stride);
    }
    let (found, dtype) = match &samples {
        DecodingResult::U8(values) => (values.len(), if bits == 1 { SampleType::Bool } else { SampleType::U8 }),
        DecodingResult::U16(values) => (values.len(), SampleType::U16),
        DecodingResult::U32(values) => (values.len(), SampleType::U32),
        DecodingResult::U64(values) => (values.len(), SampleType::U64),
        DecodingResult::I8(values) => (values.len(), SampleType::I8),
        DecodingResult::I16(values) => (values.len(), SampleType::I16),
        DecodingResult::I32(values) => (values.len(), SampleType::I32),
        DecodingResult::I64(values) => (values.len(), SampleType::I64),
        DecodingResult::F16(values) => (values.len(), SampleType::F16),
        DecodingResult::F32(values) => (values.len(), SampleType::F32),
        DecodingResult::F64(values) => (values.len(), SampleType::F64),
    };
    let expected = h as usize * w as usize * channels as usize;
    if found != expected {
        return Err(Error::shape("TIFF", format!("{expected} samples"), found));
    }
    let raw = Raw { size: [h, w], stored_channels: channels, kept_channels, planar, dtype, samples };
    Ok((decoder, raw))
}
