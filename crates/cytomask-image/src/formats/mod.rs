//! The file formats, one file or folder each, behind the trait [`Planes`].

pub(crate) mod bytes;
mod cache;
mod codec;
mod flat;
mod npy;
mod pixels;
mod tiff;
mod vendor;
#[cfg(feature = "zarr")]
mod zarr;

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

pub(crate) use pixels::{to_ids, widen};

use crate::formats::bytes::Input;
use crate::source::{Description, PlaneIndex};
use crate::{Error, ErrorKind, Rect, Result};

/// What a format offers once its header is read.
pub(crate) trait Planes: Send {
    /// Little-endian samples of the description's type, `[h, w]` of `rect`. The caller has checked that `at`, `level` and `rect`
    /// lie within the description.
    fn read(&mut self, level: usize, at: PlaneIndex, rect: Rect) -> Result<Vec<u8>>;
}

/// A file as opened: its description and its pixels.
pub(crate) type Opened = (Description, Box<dyn Planes>);

/// Opens a file or an OME-Zarr folder; with `page` one page of a TIFF by itself.
pub(crate) fn open(path: &Path, page: Option<u32>) -> Result<Opened> {
    open_file(path, page, Purpose::Image)
}

/// As [`open`] for bytes in memory.
pub(crate) fn open_bytes(bytes: Vec<u8>, page: Option<u32>) -> Result<Opened> {
    let length = bytes.len() as u64;
    open_input(Input::new(Box::new(Cursor::new(bytes)), length), page, None, Purpose::Image)
}

/// The first page as stored: numbers are ids.
pub(crate) fn open_labels(path: &Path) -> Result<Opened> {
    open_file(path, Some(0), Purpose::Labels)
}

/// All pages as stored.
pub(crate) fn open_label_stack(path: &Path) -> Result<Opened> {
    open_file(path, None, Purpose::Labels)
}

fn open_file(path: &Path, page: Option<u32>, purpose: Purpose) -> Result<Opened> {
    if path.is_dir() {
        return open_folder(path);
    }
    let failed = |error| Error::new(ErrorKind::Io, "cannot read").with_source(error);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    open_input(Input::new(Box::new(file), length), page, Some(path), purpose)
}

/// What the samples are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Light: palettes are expanded, white is a large number.
    Image,
    /// Light, but a palette is decoration: its indices are the samples.
    Indices,
    /// Ids, as stored.
    Labels,
}

/// Whether a folder is one image (a Zarr group or array), not a folder of images.
pub fn is_image_folder(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    path.is_dir() && ["zarr.json", ".zgroup", ".zarray", ".zattrs"].iter().any(|name| path.join(name).is_file())
}

/// Extensions of the files that [`crate::Source::open`] reads, lower case. A named file is opened whatever it is called.
pub const IMAGE_EXTENSIONS: [&str; 9] = ["png", "tif", "tiff", "jpg", "jpeg", "bmp", "npy", "btf", "zarr"];

/// The images of an OME-Zarr plate, as paths below it in the order of its metadata (`B/03/0`); `None` when the folder is none.
///
/// # Errors
/// As [`crate::Source::open`]; `Format` when a path leads out of the plate.
#[cfg(feature = "zarr")]
pub fn plate_images(path: impl AsRef<Path>) -> Result<Option<Vec<std::path::PathBuf>>> {
    zarr::plate_images(path.as_ref())
}

/// The images of an OME-Zarr plate; without the feature `zarr` no folder is one.
///
/// # Errors
/// None.
#[cfg(not(feature = "zarr"))]
pub fn plate_images(_path: impl AsRef<Path>) -> Result<Option<Vec<std::path::PathBuf>>> {
    Ok(None)
}

#[cfg(feature = "zarr")]
fn open_folder(path: &Path) -> Result<Opened> {
    if !is_image_folder(path) {
        return Err(Error::new(
            ErrorKind::Io,
            "cannot read: expected a file or an OME-Zarr folder (with .zattrs or zarr.json), found another folder",
        ));
    }
    zarr::open(path)
}

#[cfg(not(feature = "zarr"))]
fn open_folder(_path: &Path) -> Result<Opened> {
    Err(Error::new(ErrorKind::Io, "cannot read: a folder, and this build has no OME-Zarr (feature `zarr`)"))
}

fn open_input(mut input: Input, page: Option<u32>, path: Option<&Path>, purpose: Purpose) -> Result<Opened> {
    let head = input.head(16)?;
    match head.as_slice() {
        [] => Err(Error::new(ErrorKind::Format, "the file is empty")),
        [0x89, b'P', b'N', b'G', ..] | [0xFF, 0xD8, 0xFF, ..] | [b'B', b'M', ..] if page.unwrap_or(0) > 0 => {
            Err(no_such_page(page.unwrap_or(0), 1))
        }
        [0x89, b'P', b'N', b'G', ..] => flat::open_png(&mut input, purpose),
        [0xFF, 0xD8, 0xFF, ..] if purpose == Purpose::Labels => {
            Err(Error::new(ErrorKind::Unsupported, "label image: expected PNG or TIFF, found JPEG, which alters ids"))
        }
        [0xFF, 0xD8, 0xFF, ..] => flat::open_jpeg(&mut input),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => npy::open(input),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => tiff::open(input, page, purpose),
        [b'B', b'M', ..] => flat::open_bmp(&mut input),
        other => Err(vendor::recognise(other, path)),
    }
}

pub(crate) fn no_such_page(page: u32, pages: u32) -> Error {
    let plural = if pages == 1 { "" } else { "s" };
    Error::new(
        ErrorKind::Value,
        format!("page {page} does not exist: the file has {pages} page{plural}, counted from 0"),
    )
}

/// Refuses sizes without pixels.
pub(crate) fn check_not_empty([h, w]: [u32; 2]) -> Result<()> {
    if h == 0 || w == 0 {
        return Err(Error::new(ErrorKind::Format, format!("the image has no pixels: {h} × {w}")));
    }
    Ok(())
}
