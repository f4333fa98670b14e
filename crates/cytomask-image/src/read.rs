//! Reading a file as one image or one label image.
//!
//! Sizes are checked from the header before anything is allocated for pixels. Colour profiles and orientation tags are left to
//! others; axes, channels and physical units are what [`crate::Source`] is for.

use std::path::Path;

use crate::formats::{self, Planes};
use crate::source::{Description, PlaneIndex};
use crate::{Error, ErrorKind, Image, LabelStack, Labels, Rect, Result, Source};

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
    /// Reads one page of a file, whichever format it is (see [`Source::open`]); all its channels, alpha dropped, palettes
    /// expanded. Of stacks it is the first plane; [`Source`] reads the others.
    ///
    /// # Errors
    /// Every error names the file. `Io` when the file cannot be read; `Format` when it is empty, damaged or cut short, or has no
    /// pixels; `Unsupported` when it is no image of a known format; `Value` when there is no such page or the image exceeds
    /// `max_pixels`.
    pub fn open(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let path = path.as_ref();
        let source = Source::open_page(path, options.page)?;
        let held = source.description();
        check_size(held.size, held.channels, options).map_err(|error| error.with_path(path))?;
        let channels: Vec<u32> = (0..held.channels).collect();
        source.read_image(0, crate::Projection::Plane(0), &channels, Rect::whole(held.size))
    }
}

/// Reads a label image: one channel of whole numbers from 0 to 2³² − 1, in a PNG (grey, or palette indices), a TIFF, an NPY or an
/// OME-Zarr (integer or float). The first page of at most [`ReadOptions::default`]'s size.
///
/// # Errors
/// As [`Image::open`]; also `Unsupported` when there is more than one channel or the file is a JPEG, which does not keep ids, and
/// `Value` when a sample is no such number.
pub fn read_labels(path: impl AsRef<Path>) -> Result<Labels> {
    let path = path.as_ref();
    let read = || {
        let (held, mut planes): (Description, Box<dyn Planes>) = formats::open_labels(path)?;
        check_one_channel(&held)?;
        check_size(held.size, 1, &ReadOptions::default())?;
        let bytes = planes.read(0, PlaneIndex::default(), Rect::whole(held.size))?;
        Labels::from_vec(held.size, formats::to_ids(held.dtype, &bytes)?)
    };
    read().map_err(|error: Error| error.with_path(path))
}

/// Reads all pages of a label TIFF as one stack, which may be of one plane; of an OME-TIFF, ImageJ TIFF, NPY or OME-Zarr all slices and
/// time points in their order. The pixels of all planes together are at most [`ReadOptions::default`]'s.
///
/// # Errors
/// As [`read_labels`], for every plane; also `Shape` when pages differ in size.
pub fn read_label_stack(path: impl AsRef<Path>) -> Result<LabelStack> {
    let path = path.as_ref();
    let read = || {
        let (held, mut planes) = formats::open_label_stack(path)?;
        check_one_channel(&held)?;
        let count = u64::from(held.times) * u64::from(held.depth);
        let limit = ReadOptions::default().max_pixels;
        check_size(held.size, 1, &ReadOptions { max_pixels: limit / count.max(1), ..ReadOptions::default() })?;
        let mut ids = Vec::new();
        for time in 0..held.times {
            for z in 0..held.depth {
                let at = PlaneIndex { time, z, channel: 0 };
                let bytes = planes.read(0, at, Rect::whole(held.size))?;
                ids.extend(formats::to_ids(held.dtype, &bytes)?);
            }
        }
        LabelStack::from_vec([count as u32, held.size[0], held.size[1]], ids)
    };
    read().map_err(|error: Error| error.with_path(path))
}

fn check_one_channel(held: &Description) -> Result<()> {
    if held.channels == 1 && !held.stored_axes.ends_with("YXC") {
        return Ok(());
    }
    // One channel beside an alpha channel is stored as two.
    let found = held.channels.max(2);
    Err(Error::new(ErrorKind::Unsupported, format!("label image: expected one channel, found {found}")))
}

fn check_size([h, w]: [u32; 2], channels: u32, options: &ReadOptions) -> Result<()> {
    let pixels = u128::from(h) * u128::from(w);
    let limit = u128::from(options.max_pixels);
    if pixels > limit || pixels * u128::from(channels) > limit * 4 {
        let message =
            format!("the image is too large: {h} × {w} pixels of {channels} channels, the limit is {limit} pixels");
        return Err(Error::new(ErrorKind::Value, message));
    }
    Ok(())
}
