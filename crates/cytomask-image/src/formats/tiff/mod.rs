//! TIFF and BigTIFF: directories ([`directory`]), what their pages mean ([`layout`], with [`ome`] and [`imagej`]), and blocks of
//! pixels ([`block`]).
//!
//! After TIFF 6.0, Adobe's technical note 1 (SubIFDs), technical note 3 (floating-point predictor) and the BigTIFF description of
//! AWare Systems. Colour profiles, orientation and half-tone tags are left to others.

mod block;
mod directory;
mod imagej;
mod layout;
mod ome;

#[cfg(feature = "zarr")]
pub(super) use self::ome::micrometres;

use self::block::Frame;
use self::directory::{Tiff, tag};
use crate::formats::bytes::Input;
use crate::formats::cache::BlockCache;
use crate::formats::{Opened, Planes, Purpose, check_not_empty, no_such_page};
use crate::source::{Description, PlaneIndex};
use crate::{Error, ErrorKind, Rect, Result};

/// Where a plane's samples are: a page, one of its channels, and for planes that lie one behind the other under a single page
/// the distance of their first byte from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    page: usize,
    sample: u32,
    skip: u64,
}

struct TiffPlanes {
    tiff: Tiff,
    map: layout::PlaneMap,
    /// Position of the smaller resolutions.
    levels: Vec<layout::Level>,
    /// Pages of the full resolution, in order.
    stack: Vec<usize>,
    purpose: Purpose,
    /// The directory used last, by offset.
    frame: Option<(u64, Frame)>,
    cache: BlockCache,
}

/// Opens a TIFF; with `page`, that page alone.
pub(super) fn open(input: Input, page: Option<u32>, purpose: Purpose) -> Result<Opened> {
    let mut tiff = Tiff::open(input, page)?;
    let layout = match page {
        Some(page) => {
            let pages = tiff.pages.len() as u32;
            if page >= pages {
                return Err(no_such_page(page, pages));
            }
            layout::single_page(&mut tiff, page as usize, purpose)?
        }
        None => layout::read(&mut tiff, purpose)?,
    };
    let layout::Layout { mut description, map, levels, base } = layout;
    // ImageJ keeps a colour table beside numbers that are meant as such.
    let purpose = if description.format == "ImageJ TIFF" { Purpose::Indices } else { purpose };
    let offset = tiff.pages[base].offset;
    let frame = Frame::read(&mut tiff, offset, purpose)?;
    check_not_empty(frame.size)?;
    description.block = frame.block;
    description.compression = frame.compression_name().into();
    description.dtype = frame.dtype;
    let stack = layout::stack_of(&map);
    let planes =
        TiffPlanes { tiff, map, levels, stack, purpose, frame: Some((offset, frame)), cache: BlockCache::default() };
    Ok((description, Box::new(planes)))
}

impl TiffPlanes {
    /// Offset of the directory that holds resolution `level` of the plane at `place`.
    fn directory_of(&mut self, place: Place, level: usize) -> Result<u64> {
        let offset = self.tiff.pages[place.page].offset;
        let Some(index) = level.checked_sub(1) else { return Ok(offset) };
        let missing = || Error::new(ErrorKind::Format, format!("TIFF: page {} has no resolution {level}", place.page));
        match self.levels.get(index) {
            Some(layout::Level::Pages(pages)) => {
                let position = self.stack.binary_search(&place.page).map_err(|_| missing())?;
                pages.get(position).map(|&page| self.tiff.pages[page].offset).ok_or_else(missing)
            }
            Some(layout::Level::SubIfd(entry)) => {
                let directory = self.tiff.directory(offset)?;
                let offsets = self.tiff.unsigned(&directory, tag::SUB_IFDS)?.unwrap_or_default();
                offsets.get(*entry).copied().ok_or_else(missing)
            }
            None => Err(missing()),
        }
    }
}

impl Planes for TiffPlanes {
    fn read(&mut self, level: usize, at: PlaneIndex, rect: Rect) -> Result<Vec<u8>> {
        let place = self.map.find(at)?;
        let offset = self.directory_of(place, level)?;
        if self.frame.as_ref().is_none_or(|(held, _)| *held != offset) {
            self.frame = Some((offset, Frame::read(&mut self.tiff, offset, self.purpose)?));
        }
        let Some((_, frame)) = &self.frame else { unreachable!("the frame has just been read") };
        frame.pixels(&mut self.tiff, &mut self.cache, offset, place.sample, place.skip, rect)
    }
}

/// An empty description to fill in.
fn blank(format: &str, size: [u32; 2]) -> Description {
    Description {
        format: format.into(),
        size,
        times: 1,
        depth: 1,
        channels: 1,
        stored_axes: "YX".into(),
        dtype: crate::SampleType::U8,
        channel_names: Vec::new(),
        colour: false,
        pixel_size_um: None,
        z_step_um: None,
        compression: String::new(),
        block: size,
        levels: vec![size],
        notes: Vec::new(),
    }
}
