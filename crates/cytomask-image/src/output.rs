//! Writing files so that a path holds either the whole result or what was there before.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tiff::encoder::colortype::Gray32;
use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, TiffEncoder};

use crate::{Error, ErrorKind, Labels, Result};

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

/// Creates a file beside `path` that nothing else uses. Its name begins with a dot and ends in `.partial`.
fn create_beside(path: &Path) -> Result<(File, Partial)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| Error::new(ErrorKind::Value, "expected the path of a file"))?;
    loop {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".{}-{count}.partial", std::process::id()));
        let path = path.with_file_name(partial);
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

/// Removes the temporary files in `folder` whose writers were killed, and returns how many. Those of living writers stay, on other
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
            if !(name.starts_with('.') && name.ends_with(".partial") && entry.file_type()?.is_file()) {
                continue;
            }
            let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else { continue };
            if file.try_lock().is_ok() {
                drop(file);
                fs::remove_file(entry.path())?;
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

/// Writes ids as a TIFF of one page, 32-bit unsigned grey, deflate.
///
/// # Errors
/// `Io` when the file cannot be written, `Shape` when the image has no pixels.
pub fn write_labels_tiff(path: impl AsRef<Path>, labels: &Labels) -> Result<()> {
    let [h, w] = labels.size();
    write_atomically(path, |writer| {
        not_empty(labels.size())?;
        let failed = |error| Error::new(ErrorKind::Io, "cannot write TIFF").with_source(error);
        TiffEncoder::new(writer)
            .map_err(failed)?
            .with_compression(Compression::Deflate(DeflateLevel::Balanced))
            .write_image::<Gray32>(w, h, labels.as_slice())
            .map_err(failed)
    })
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
