//! PNG, JPEG and BMP: one picture, decoded as a whole.

use std::io::{Cursor, ErrorKind as IoKind};

use zune_bmp::BmpDecoder;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors as JpegError;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::formats::bytes::Input;
use crate::formats::pixels::{swap_bytes, unpack_bits};
use crate::formats::{Opened, Planes, Purpose, check_not_empty};
use crate::source::{Description, MAX_RECT_PIXELS, PlaneIndex};
use crate::{Error, ErrorKind, Rect, Result, SampleType};

/// Files of these formats are read as a whole before they are decoded.
const LARGEST_FILE: u64 = 4 << 30;

/// A decoded picture in memory.
pub(super) struct Flat {
    pub(super) size: [u32; 2],
    /// Samples stored a pixel.
    pub(super) stored: u32,
    pub(super) dtype: SampleType,
    /// Canonical samples, `[H, W, stored]`.
    pub(super) bytes: Vec<u8>,
}

impl Planes for Flat {
    fn read(&mut self, _level: usize, at: PlaneIndex, rect: Rect) -> Result<Vec<u8>> {
        let width = self.dtype.bytes();
        let pixel = self.stored as usize * width;
        let (first, row) = (at.channel as usize * width, self.size[1] as usize * pixel);
        let mut out = Vec::with_capacity(rect.area() as usize * width);
        for y in rect.y0 as usize..rect.y1 as usize {
            let line = &self.bytes[y * row + rect.x0 as usize * pixel..y * row + rect.x1 as usize * pixel];
            for pixel in line.chunks_exact(pixel) {
                out.extend_from_slice(&pixel[first..first + width]);
            }
        }
        Ok(out)
    }
}

fn opened(format: &str, compression: &str, flat: Flat, channels: u32) -> Opened {
    let description = Description {
        format: format.into(),
        size: flat.size,
        times: 1,
        depth: 1,
        channels,
        stored_axes: if flat.stored > 1 { "YXC".into() } else { "YX".into() },
        dtype: flat.dtype,
        channel_names: Vec::new(),
        colour: channels == 3,
        pixel_size_um: None,
        z_step_um: None,
        compression: compression.into(),
        block: flat.size,
        levels: vec![flat.size],
        notes: Vec::new(),
    };
    (description, Box::new(flat))
}

fn check_size(size: [u32; 2]) -> Result<()> {
    check_not_empty(size)?;
    let [h, w] = size;
    if u64::from(h) * u64::from(w) > MAX_RECT_PIXELS {
        let message = format!("the image is too large: {h} × {w} pixels, the limit is {MAX_RECT_PIXELS} pixels");
        return Err(Error::new(ErrorKind::Value, message));
    }
    Ok(())
}

/// A file that claims more pixels than its bytes can hold would take memory for nothing. A byte of deflate stands for at most 1032 bytes
/// (8256 one-bit pixels), one of JPEG for some 340 pixels.
fn check_plausible(format: &str, [h, w]: [u32; 2], length: u64) -> Result<()> {
    let pixels = u64::from(h) * u64::from(w);
    if pixels / 8300 > length {
        let message = format!("{format}: the file is cut short: {length} bytes cannot hold {h} × {w} pixels");
        return Err(Error::new(ErrorKind::Format, message));
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

pub(super) fn open_png(input: &mut Input, purpose: Purpose) -> Result<Opened> {
    let failed = |error| match error {
        png::DecodingError::IoError(error) => io_error("PNG", error),
        error => damaged("PNG", error),
    };
    let mut decoder = png::Decoder::new(Cursor::new(input.whole(LARGEST_FILE)?));
    decoder.set_transformations(match purpose {
        Purpose::Image | Purpose::Indices => png::Transformations::EXPAND,
        Purpose::Labels => png::Transformations::IDENTITY,
    });
    let header = decoder.read_header_info().map_err(failed)?;
    let size = [header.height, header.width];
    let stored_depth = header.bit_depth;
    check_size(size)?;
    check_plausible("PNG", size, input.length())?;
    let mut reader = decoder.read_info().map_err(failed)?;
    let length = reader.output_buffer_size().ok_or_else(|| Error::new(ErrorKind::Value, "the image is too large"))?;
    let mut bytes = vec![0; length];
    let frame = reader.next_frame(&mut bytes).map_err(failed)?;
    // Reads to the end chunk, so that a file cut short after its pixels is found out.
    reader.finish().map_err(failed)?;
    let stored = frame.color_type.samples() as u32;
    let channels = match frame.color_type {
        png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha | png::ColorType::Indexed => 1,
        png::ColorType::Rgb | png::ColorType::Rgba => 3,
    };
    match frame.bit_depth {
        png::BitDepth::Sixteen => swap_bytes(&mut bytes, 2),
        png::BitDepth::Eight => {}
        depth => bytes = unpack_bits(&bytes, depth as u32, size[1] as usize * stored as usize, frame.line_size),
    }
    let dtype = match stored_depth {
        png::BitDepth::Sixteen => SampleType::U16,
        png::BitDepth::One if frame.color_type == png::ColorType::Grayscale => SampleType::Bool,
        _ => SampleType::U8,
    };
    Ok(opened("PNG", "deflate", Flat { size, stored, dtype, bytes }, channels))
}

pub(super) fn open_jpeg(input: &mut Input) -> Result<Opened> {
    let failed = |error| match error {
        JpegError::Unsupported(_) => {
            Error::new(ErrorKind::Unsupported, "JPEG: this kind of coding is not supported").with_source(error)
        }
        JpegError::ExhaustedData => io_error("JPEG", IoKind::UnexpectedEof.into()),
        error => damaged("JPEG", error),
    };
    let encoded = input.whole(LARGEST_FILE)?;
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
    check_size(size)?;
    check_plausible("JPEG", size, input.length())?;
    // The decoder fills what is missing with grey, so a file cut short is found by its missing end marker. In coded data 0xFF is
    // always followed by a stuffed zero, so only the marker itself looks like it.
    let scan = encoded.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap_or(0);
    if !encoded[scan..].windows(2).any(|pair| pair == [0xFF, 0xD9]) {
        return Err(io_error("JPEG", IoKind::UnexpectedEof.into()));
    }
    decoder.set_options(lenient.jpeg_set_out_colorspace(color));
    let mut bytes = vec![0; height * width * channels as usize];
    decoder.decode_into(&mut bytes).map_err(failed)?;
    Ok(opened("JPEG", "JPEG", Flat { size, stored: channels, dtype: SampleType::U8, bytes }, channels))
}

pub(super) fn open_bmp(input: &mut Input) -> Result<Opened> {
    let encoded = input.whole(LARGEST_FILE)?;
    let options = DecoderOptions::default().set_max_width(1 << 16).set_max_height(1 << 16);
    let failed = |error: zune_bmp::BmpDecoderErrors| damaged("BMP", format!("{error:?}"));
    let mut decoder = BmpDecoder::new_with_options(ZCursor::new(encoded.as_slice()), options);
    decoder.decode_headers().map_err(failed)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| damaged("BMP", "no header"))?;
    let size = [height as u32, width as u32];
    check_size(size)?;
    let (stored, channels) = match decoder.colorspace() {
        Some(ColorSpace::Luma) => (1, 1),
        Some(ColorSpace::RGB | ColorSpace::BGR) => (3, 3),
        Some(ColorSpace::RGBA | ColorSpace::BGRA) => (4, 3),
        other => return Err(Error::new(ErrorKind::Unsupported, format!("BMP: expected grey or RGB, found {other:?}"))),
    };
    let bytes = decoder.decode().map_err(failed)?;
    if bytes.len() != height * width * stored as usize {
        return Err(damaged("BMP", format!("{} bytes of pixels", bytes.len())));
    }
    Ok(opened("BMP", "none", Flat { size, stored, dtype: SampleType::U8, bytes }, channels))
}
