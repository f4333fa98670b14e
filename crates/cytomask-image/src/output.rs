//! Writing files so that a path holds either the whole result or what was there before.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tiff::TiffResult;
use tiff::encoder::colortype::{ColorType, Gray16, Gray32};
use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, Rational, TiffEncoder, TiffKind, TiffValue};
use tiff::tags::{ResolutionUnit, Tag};

use crate::{Error, ErrorKind, LabelStack, Labels, Result};

/// What a file is written through.
pub trait WriteSeek: Write + Seek {}

impl<T: Write + Seek> WriteSeek for T {}

/// Removes the file when dropped, unless it has been moved to its place.
struct Partial {
    path: PathBuf,
    finished: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // The error that brought us here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A name beside `path` that this process has not used. It begins with a dot and ends in `.partial`.
fn partial_path(path: &Path) -> Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| Error::new(ErrorKind::Value, "expected the path of a file"))?;
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(format!(".{}-{count}.partial", std::process::id()));
    Ok(path.with_file_name(partial))
}

/// Creates a file beside `path` that nothing else uses, under a [`partial_path`].
fn create_beside(path: &Path) -> Result<(File, Partial)> {
    loop {
        let path = partial_path(path)?;
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                // Held until the file is closed, so that `remove_abandoned` can tell a killed writer from a living one. Where a file
                // system has no locks, none is found later either.
                let _ = file.try_lock();
                return Ok((file, Partial { path, finished: false }));
            }
            // Left by a process that had this id before.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(Error::new(ErrorKind::Io, "cannot create a file in its folder").with_source(error));
            }
        }
    }
}

/// Removes the temporary files and folders in `folder` whose writers were killed, and returns how many. Those of living writers stay, on other
/// machines too where the file system's locks reach there.
///
/// # Errors
/// `Io` when the folder cannot be listed or a file cannot be removed.
pub fn remove_abandoned(folder: impl AsRef<Path>) -> Result<usize> {
    let folder = folder.as_ref();
    let attempt = || -> std::io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !(name.starts_with('.') && name.ends_with(".partial")) {
                continue;
            }
            let is_folder = entry.file_type()?.is_dir();
            let locked = if is_folder { entry.path().join(FOLDER_LOCK) } else { entry.path() };
            let Ok(file) = OpenOptions::new().write(true).open(locked) else { continue };
            if file.try_lock().is_ok() {
                drop(file);
                if is_folder {
                    fs::remove_dir_all(entry.path())?
                } else {
                    fs::remove_file(entry.path())?
                }
                removed += 1;
            }
        }
        Ok(removed)
    };
    attempt().map_err(|error| {
        Error::new(ErrorKind::Io, "cannot remove what a stopped run left").with_source(error).with_path(folder)
    })
}

/// Writes a file under a temporary name in the folder of `path` and moves it to `path` once all of it is on disk. On any failure
/// the temporary file is removed and what was at `path` stays.
///
/// # Errors
/// What `write` returns, or `Io`; each names `path`.
pub fn write_atomically(path: impl AsRef<Path>, write: impl FnOnce(&mut dyn WriteSeek) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    let attempt = || {
        let (file, mut partial) = create_beside(path)?;
        let io = |error| Error::new(ErrorKind::Io, "cannot write").with_source(error);
        let mut writer = BufWriter::new(file);
        write(&mut writer)?;
        writer.flush().map_err(io)?;
        // A full disk may show only here.
        writer.get_ref().sync_all().map_err(io)?;
        drop(writer);
        fs::rename(&partial.path, path).map_err(|error| {
            Error::new(ErrorKind::Io, "cannot move the finished file to its place").with_source(error)
        })?;
        partial.finished = true;
        Ok(())
    };
    attempt().map_err(|error: Error| error.with_path(path))
}

/// [`write_atomically`] for text.
///
/// # Errors
/// `Io`, naming `path`.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    write_atomically(path, |writer| {
        writer.write_all(text.as_bytes()).map_err(|error| Error::new(ErrorKind::Io, "cannot write").with_source(error))
    })
}

/// In the temporary folders of [`write_folder_atomically`], held by their writer.
const FOLDER_LOCK: &str = ".lock";

/// Removes a folder when dropped, if it is still there.
struct PartialFolder(PathBuf);

impl Drop for PartialFolder {
    fn drop(&mut self) {
        // The error that brought us here is the one to report.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// As [`write_atomically`] for a folder that `fill` is to fill. A folder already at `path` is replaced where `may_replace` says so
/// of it; any other thing there is an error. Between removing the old and moving the new folder a killed process leaves neither.
///
/// # Errors
/// What `fill` returns, `Value` when something may not be replaced, or `Io`; each names `path`.
pub fn write_folder_atomically(
    path: impl AsRef<Path>,
    may_replace: impl FnOnce(&Path) -> bool,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let attempt = || {
        let exists = path.symlink_metadata().is_ok();
        if exists && !may_replace(path) {
            return Err(Error::new(ErrorKind::Value, "something else is already there; it stays as it is"));
        }
        let made = |error| Error::new(ErrorKind::Io, "cannot create a folder in its folder").with_source(error);
        let partial = PartialFolder(partial_path(path)?);
        // A process that had this id before may have left one.
        let _ = fs::remove_dir_all(&partial.0);
        fs::create_dir(&partial.0).map_err(made)?;
        let lock = File::create(partial.0.join(FOLDER_LOCK)).map_err(made)?;
        let _ = lock.try_lock();
        fill(&partial.0)?;
        drop(lock);
        let moved =
            |error| Error::new(ErrorKind::Io, "cannot move the finished folder to its place").with_source(error);
        fs::remove_file(partial.0.join(FOLDER_LOCK)).map_err(moved)?;
        if exists {
            // Moving is quick, removing may take long.
            let old = PartialFolder(partial_path(path)?);
            fs::rename(path, &old.0).map_err(moved)?;
            if let Err(error) = fs::rename(&partial.0, path) {
                let _ = fs::rename(&old.0, path);
                return Err(moved(error));
            }
        } else {
            fs::rename(&partial.0, path).map_err(moved)?;
        }
        Ok(())
    };
    attempt().map_err(|error: Error| error.with_path(path))
}

/// What a label TIFF says beside its pixels.
#[derive(Clone, Copy, Debug, Default)]
pub struct TiffNotes<'a> {
    /// The ImageDescription, ASCII; OME-XML makes the file an OME-TIFF.
    pub description: Option<&'a str>,
    /// `[y, x]`, written as the resolution in pixels per centimetre, which ImageJ and others read.
    pub pixel_size_um: Option<[f64; 2]>,
}

/// Writes ids as a TIFF of one page, unsigned grey, deflate: 16 bits while every id fits, else 32. Images of 4 GB and more
/// become BigTIFF.
///
/// # Errors
/// `Io` when the file cannot be written, `Shape` when the image has no pixels, `Value` when the description is not ASCII.
pub fn write_labels_tiff(path: impl AsRef<Path>, labels: &Labels) -> Result<()> {
    write_labels_tiff_with(path, labels, TiffNotes::default())
}

/// As [`write_labels_tiff`], with `notes`.
///
/// # Errors
/// As [`write_labels_tiff`].
pub fn write_labels_tiff_with(path: impl AsRef<Path>, labels: &Labels, notes: TiffNotes<'_>) -> Result<()> {
    if notes.description.is_some_and(|text| !text.is_ascii() || text.contains('\0')) {
        return Err(Error::new(ErrorKind::Value, "TIFF description: expected ASCII text").with_path(path));
    }
    write_atomically(path, |writer| {
        not_empty(labels.size())?;
        match narrow_ids(labels) {
            Some(ids) => write_tiff_pages::<Gray16>(writer, labels.size(), &ids, notes),
            None => write_tiff_pages::<Gray32>(writer, labels.size(), labels.as_slice(), notes),
        }
        .map_err(|error| Error::new(ErrorKind::Io, "cannot write TIFF").with_source(error))
    })
}

/// Writes a stack of ids as a TIFF of one page a plane, which ImageJ and Cellpose read as slices; number types as in
/// [`write_labels_tiff`].
///
/// # Errors
/// As [`write_labels_tiff`].
pub fn write_label_stack_tiff(path: impl AsRef<Path>, labels: &LabelStack) -> Result<()> {
    let [depth, height, width] = labels.size();
    let description = format!("ImageJ=1.11a\nimages={depth}\nslices={depth}\nhyperstack=false\n");
    let notes = TiffNotes { description: Some(&description), pixel_size_um: None };
    write_atomically(path, |writer| {
        not_empty([height, width])?;
        let ids = labels.as_slice();
        let narrow: Option<Vec<u16>> = ids.iter().map(|&id| u16::try_from(id).ok()).collect();
        match narrow {
            Some(ids) => write_tiff_pages::<Gray16>(writer, [height, width], &ids, notes),
            None => write_tiff_pages::<Gray32>(writer, [height, width], ids, notes),
        }
        .map_err(|error| Error::new(ErrorKind::Io, "cannot write TIFF").with_source(error))
    })
}

/// The ids in 16 bits, if they all fit.
pub fn narrow_ids(labels: &Labels) -> Option<Vec<u16>> {
    labels.as_slice().iter().map(|&id| u16::try_from(id).ok()).collect()
}

/// Raw pixels from which on a TIFF's 32-bit offsets might not do; deflate may lengthen data a little.
const BIG_TIFF: u64 = (1 << 32) - (1 << 26);

fn write_tiff_pages<C: ColorType>(
    writer: &mut dyn WriteSeek,
    size: [u32; 2],
    ids: &[C::Inner],
    notes: TiffNotes<'_>,
) -> TiffResult<()>
where
    [C::Inner]: TiffValue,
{
    if size_of_val(ids) as u64 >= BIG_TIFF {
        write_tiff_directory::<C, _>(TiffEncoder::new_big(writer)?, size, ids, notes)
    } else {
        write_tiff_directory::<C, _>(TiffEncoder::new(writer)?, size, ids, notes)
    }
}

fn write_tiff_directory<C: ColorType, K: TiffKind>(
    encoder: TiffEncoder<&mut dyn WriteSeek, K>,
    [h, w]: [u32; 2],
    ids: &[C::Inner],
    notes: TiffNotes<'_>,
) -> TiffResult<()>
where
    [C::Inner]: TiffValue,
{
    let mut encoder = encoder.with_compression(Compression::Deflate(DeflateLevel::Balanced));
    for (index, plane) in ids.chunks_exact(h as usize * w as usize).enumerate() {
        let mut page = encoder.new_image::<C>(w, h)?;
        if let Some([y, x]) = notes.pixel_size_um {
            page.resolution_unit(ResolutionUnit::Centimeter);
            page.x_resolution(per_centimetre(x));
            page.y_resolution(per_centimetre(y));
        }
        if let Some(text) = notes.description.filter(|_| index == 0) {
            page.encoder().write_tag(Tag::ImageDescription, text)?;
        }
        page.write_data(plane)?;
    }
    Ok(())
}

/// 10,000 µm by the size of a pixel, with as many digits as 32 bits hold.
fn per_centimetre(pixel_size_um: f64) -> Rational {
    let value = 1e4 / pixel_size_um;
    let scale = 10_f64.powi((9.0 - value.max(1e-9).log10().ceil()).clamp(0.0, 9.0) as i32);
    Rational { n: (value * scale).round() as u32, d: scale as u32 }
}

/// Writes ids as a 16-bit grey PNG.
///
/// # Errors
/// `Value` when an id exceeds 65,535; otherwise as [`write_labels_tiff`].
pub fn write_labels_png16(path: impl AsRef<Path>, labels: &Labels) -> Result<()> {
    write_atomically(path, |writer| {
        let max = labels.max_id();
        if max > u32::from(u16::MAX) {
            let mut over: Vec<u32> = labels.as_slice().iter().copied().filter(|&id| id > u32::from(u16::MAX)).collect();
            over.sort_unstable();
            over.dedup();
            let message = format!(
                "16-bit PNG: expected ids up to 65535, found {} larger ones, up to {max}; write a TIFF instead",
                over.len()
            );
            return Err(Error::new(ErrorKind::Value, message));
        }
        let bytes: Vec<u8> = labels.as_slice().iter().flat_map(|&id| (id as u16).to_be_bytes()).collect();
        write_png(writer, labels.size(), png::ColorType::Grayscale, png::BitDepth::Sixteen, &bytes)
    })
}

/// Writes 8-bit RGB pixels, `[H, W, 3]`, as a PNG.
///
/// # Errors
/// `Shape` when the number of bytes is not `h * w * 3` or 0; `Io`.
pub fn write_rgb_png(path: impl AsRef<Path>, size: [u32; 2], pixels: &[u8]) -> Result<()> {
    write_atomically(path, |writer| write_png(writer, size, png::ColorType::Rgb, png::BitDepth::Eight, pixels))
}

/// Writes 8-bit RGBA pixels, `[H, W, 4]`, alpha not premultiplied, as a PNG.
///
/// # Errors
/// `Shape` when the number of bytes is not `h * w * 4` or 0; `Io`.
pub fn write_rgba_png(path: impl AsRef<Path>, size: [u32; 2], pixels: &[u8]) -> Result<()> {
    write_atomically(path, |writer| write_png(writer, size, png::ColorType::Rgba, png::BitDepth::Eight, pixels))
}

fn not_empty(size: [u32; 2]) -> Result<()> {
    let [h, w] = size;
    if h == 0 || w == 0 {
        Err(Error::shape("image to write", "at least 1 × 1 pixel", format!("{h} × {w}")))
    } else {
        Ok(())
    }
}

fn write_png(
    writer: &mut dyn WriteSeek,
    size: [u32; 2],
    color: png::ColorType,
    depth: png::BitDepth,
    bytes: &[u8],
) -> Result<()> {
    not_empty(size)?;
    let [h, w] = size;
    let expected = color.samples() as u64 * (depth as u64 / 8) * u64::from(h) * u64::from(w);
    if bytes.len() as u64 != expected {
        return Err(Error::shape("image to write", format!("{expected} bytes for {h} × {w} pixels"), bytes.len()));
    }
    let failed = |error| Error::new(ErrorKind::Io, "cannot write PNG").with_source(error);
    let mut encoder = png::Encoder::new(writer, w, h);
    encoder.set_color(color);
    encoder.set_depth(depth);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(bytes).map_err(failed)?;
    // Writes the end chunk and, unlike dropping, says when that fails.
    writer.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_writes_is_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [".a.tif.77-0.partial", "a.partial", ".hidden", "b.tif"] {
            fs::write(at(name), b"").unwrap();
        }
        write_atomically(at("c.txt"), |writer| {
            writer.write_all(b"c").unwrap();
            assert_eq!(remove_abandoned(folder.path()).unwrap(), 1, "not the one being written");
            Ok(())
        })
        .unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".hidden", "a.partial", "b.tif", "c.txt"]);
        assert!(remove_abandoned(at("absent")).is_err());
    }
}
