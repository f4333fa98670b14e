//! TIFF directories: headers, entries, and their values. Every length is checked against the file's before memory is taken.

use std::collections::BTreeSet;

use crate::formats::bytes::{Input, cut_short};
use crate::{Error, ErrorKind, Result};

/// Tag numbers used here.
pub(super) mod tag {
    pub(crate) const NEW_SUBFILE_TYPE: u16 = 254;
    pub(crate) const WIDTH: u16 = 256;
    pub(crate) const HEIGHT: u16 = 257;
    pub(crate) const BITS: u16 = 258;
    pub(crate) const COMPRESSION: u16 = 259;
    pub(crate) const PHOTOMETRIC: u16 = 262;
    pub(crate) const FILL_ORDER: u16 = 266;
    pub(crate) const DESCRIPTION: u16 = 270;
    pub(crate) const STRIP_OFFSETS: u16 = 273;
    pub(crate) const SAMPLES: u16 = 277;
    pub(crate) const ROWS_PER_STRIP: u16 = 278;
    pub(crate) const STRIP_COUNTS: u16 = 279;
    pub(crate) const X_RESOLUTION: u16 = 282;
    pub(crate) const Y_RESOLUTION: u16 = 283;
    pub(crate) const PLANAR: u16 = 284;
    pub(crate) const RESOLUTION_UNIT: u16 = 296;
    pub(crate) const PREDICTOR: u16 = 317;
    pub(crate) const COLOR_MAP: u16 = 320;
    pub(crate) const TILE_WIDTH: u16 = 322;
    pub(crate) const TILE_HEIGHT: u16 = 323;
    pub(crate) const TILE_OFFSETS: u16 = 324;
    pub(crate) const TILE_COUNTS: u16 = 325;
    pub(crate) const SUB_IFDS: u16 = 330;
    pub(crate) const EXTRA_SAMPLES: u16 = 338;
    pub(crate) const SAMPLE_FORMAT: u16 = 339;
    pub(crate) const JPEG_TABLES: u16 = 347;
    /// MetaMorph stacks keep all planes under one page.
    pub(crate) const UIC2: u16 = 33_629;
}

/// A tag's values may take this much at most.
const LARGEST_VALUE: u64 = 256 << 20;

/// One entry of a directory, its value not yet read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    kind: u16,
    count: u64,
    /// The value itself or its offset.
    field: [u8; 8],
}

/// A directory's entries by tag.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    entries: Vec<(u16, Entry)>,
}

impl Directory {
    pub(super) fn entry(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().find(|(found, _)| *found == tag).map(|(_, entry)| *entry)
    }
}

/// What is kept of every page of the main chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) offset: u64,
    pub(super) size: [u32; 2],
    pub(super) samples: u32,
    pub(super) bits: u32,
    pub(super) format: u32,
    /// A smaller version of another page.
    pub(super) reduced: bool,
    pub(super) tiled: bool,
}

/// An open TIFF and the pages of its main chain.
pub(super) struct Tiff {
    pub(super) input: Input,
    pub(super) big_endian: bool,
    big: bool,
    pub(super) pages: Vec<Page>,
}

fn damaged(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Format, format!("TIFF: the file is damaged: {message}"))
}

impl Tiff {
    /// Reads the header and walks the main chain, up to `last_page` if given.
    pub(super) fn open(mut input: Input, last_page: Option<u32>) -> Result<Self> {
        let head = input.read(0, 8)?;
        let big_endian = head[0] == b'M';
        let order = |bytes: &[u8]| if big_endian { be(bytes) } else { le(bytes) };
        let big = order(&head[2..4]) == 43;
        let mut next = if big {
            let rest = input.read(8, 8)?;
            if order(&head[4..6]) != 8 {
                return Err(damaged(format!("BigTIFF offsets of {} bytes", order(&head[4..6]))));
            }
            order(&rest)
        } else {
            order(&head[4..8])
        };
        let mut tiff = Self { input, big_endian, big, pages: Vec::new() };
        // Directories do not overlap, so together they are no longer than the file; a chain that runs in circles is.
        let (mut visited, mut bytes) = (BTreeSet::new(), 0);
        while next != 0 && last_page.is_none_or(|last| tiff.pages.len() <= last as usize) {
            if !visited.insert(next) {
                return Err(damaged("its pages form a circle"));
            }
            let (directory, following) = tiff.directory_and_next(next)?;
            bytes += 20 + directory.entries.len() as u64 * 12;
            if bytes > tiff.input.length() + 20 {
                return Err(damaged("its directories overlap"));
            }
            let page = tiff.page(next, &directory)?;
            tiff.pages.push(page);
            next = following;
        }
        if tiff.pages.is_empty() {
            return Err(damaged("it has no page"));
        }
        Ok(tiff)
    }

    fn page(&mut self, offset: u64, directory: &Directory) -> Result<Page> {
        let mut number = |tag, default: u64| -> Result<u32> {
            let value = self.number(directory, tag)?.unwrap_or(default);
            u32::try_from(value).map_err(|_| damaged(format!("tag {tag} is {value}")))
        };
        Ok(Page {
            offset,
            size: [number(tag::HEIGHT, 0)?, number(tag::WIDTH, 0)?],
            samples: number(tag::SAMPLES, 1)?,
            bits: number(tag::BITS, 1)?,
            format: number(tag::SAMPLE_FORMAT, 1)?,
            reduced: number(tag::NEW_SUBFILE_TYPE, 0)? & 1 == 1,
            tiled: directory.entry(tag::TILE_WIDTH).is_some(),
        })
    }

    fn order(&self, bytes: &[u8]) -> u64 {
        if self.big_endian { be(bytes) } else { le(bytes) }
    }

    /// The entries at `offset`.
    pub(super) fn directory(&mut self, offset: u64) -> Result<Directory> {
        self.directory_and_next(offset).map(|(directory, _)| directory)
    }

    fn directory_and_next(&mut self, offset: u64) -> Result<(Directory, u64)> {
        let (count_bytes, entry_bytes, field_bytes) = if self.big { (8, 20, 8) } else { (2, 12, 4) };
        let head = self.input.read(offset, count_bytes)?;
        let count = self.order(&head);
        if count > u64::from(u16::MAX) {
            return Err(damaged(format!("a directory of {count} entries")));
        }
        let start = offset.checked_add(count_bytes).ok_or_else(cut_short)?;
        let bytes = self.input.read(start, count * entry_bytes + field_bytes)?;
        let (entries, next) = bytes.split_at((count * entry_bytes) as usize);
        let entries = entries
            .chunks_exact(entry_bytes as usize)
            .map(|raw| {
                let width = field_bytes as usize;
                let mut field = [0; 8];
                field[..width].copy_from_slice(&raw[4 + width..]);
                let entry = Entry { kind: self.order(&raw[2..4]) as u16, count: self.order(&raw[4..4 + width]), field };
                (self.order(&raw[..2]) as u16, entry)
            })
            .collect();
        let next = self.order(next);
        Ok((Directory { entries }, next))
    }

    /// The bytes of a value, in the file's byte order.
    fn bytes(&mut self, entry: Entry) -> Result<Vec<u8>> {
        let width = kind_bytes(entry.kind).ok_or_else(|| damaged(format!("a value of type {}", entry.kind)))?;
        let length = entry.count.checked_mul(width).filter(|&length| length <= LARGEST_VALUE);
        let length = length.ok_or_else(|| damaged(format!("a value of {} × {width} bytes", entry.count)))?;
        let inline = if self.big { 8 } else { 4 };
        if length <= inline {
            return Ok(entry.field[..length as usize].to_vec());
        }
        let offset = self.order(&entry.field[..inline as usize]);
        self.input.read(offset, length)
    }

    /// All values of an integer tag.
    pub(super) fn unsigned(&mut self, directory: &Directory, tag: u16) -> Result<Option<Vec<u64>>> {
        let Some(entry) = directory.entry(tag) else { return Ok(None) };
        if !matches!(entry.kind, 1 | 3 | 4 | 13 | 16 | 18) {
            return Err(damaged(format!("tag {tag} has type {}", entry.kind)));
        }
        let bytes = self.bytes(entry)?;
        let width = kind_bytes(entry.kind).unwrap_or(1) as usize;
        Ok(Some(bytes.chunks_exact(width).map(|raw| self.order(raw)).collect()))
    }

    /// The first value of an integer tag.
    pub(super) fn number(&mut self, directory: &Directory, tag: u16) -> Result<Option<u64>> {
        let Some(entry) = directory.entry(tag) else { return Ok(None) };
        let mut first = Entry { count: entry.count.min(1), ..entry };
        // A long list's first value stands behind its offset.
        let width = kind_bytes(entry.kind).unwrap_or(1);
        let inline = if self.big { 8 } else { 4 };
        if entry.count.saturating_mul(width) > inline {
            let offset = self.order(&entry.field[..inline as usize]);
            let bytes = self.input.read(offset, width)?;
            first.field = [0; 8];
            first.field[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
            if width > inline {
                return Ok(Some(self.order(&bytes)));
            }
        }
        let only = Directory { entries: vec![(tag, first)] };
        Ok(self.unsigned(&only, tag)?.and_then(|values| values.first().copied()))
    }

    /// A text tag, up to its first zero.
    pub(super) fn text(&mut self, directory: &Directory, tag: u16) -> Result<Option<String>> {
        let Some(entry) = directory.entry(tag) else { return Ok(None) };
        if !matches!(entry.kind, 1 | 2 | 7) {
            return Ok(None);
        }
        let bytes = self.bytes(entry)?;
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(Some(match std::str::from_utf8(text) {
            Ok(text) => text.to_owned(),
            // ImageJ writes Latin-1.
            Err(_) => text.iter().map(|&byte| char::from(byte)).collect(),
        }))
    }

    /// The raw bytes of a tag.
    pub(super) fn raw(&mut self, directory: &Directory, tag: u16) -> Result<Option<Vec<u8>>> {
        directory.entry(tag).map(|entry| self.bytes(entry)).transpose()
    }

    /// A fraction, if the tag holds one that is finite and positive.
    pub(super) fn rational(&mut self, directory: &Directory, tag: u16) -> Result<Option<f64>> {
        let Some(entry) = directory.entry(tag).filter(|entry| entry.kind == 5 && entry.count == 1) else {
            return Ok(None);
        };
        let bytes = self.bytes(entry)?;
        let value = self.order(&bytes[..4]) as f64 / self.order(&bytes[4..8]) as f64;
        Ok(Some(value).filter(|value| value.is_finite() && *value > 0.0))
    }
}

/// Bytes of one value of a TIFF type.
fn kind_bytes(kind: u16) -> Option<u64> {
    Some(match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => return None,
    })
}

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}
