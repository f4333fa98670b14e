//! An image file of any supported format, opened for reading piece by piece.
//!
//! A [`Source`] knows the file's axes, always as `(t, z, c, y, x)`, and reads a rectangle of one plane at a time. What stays in
//! memory: for TIFF, OME-Zarr and NPY in C order, nothing but the directory and at most 128 MiB of decoded blocks (strips, tiles
//! or chunks), so that neighbouring rectangles do not decode a block twice; for PNG, JPEG, BMP and NPY in Fortran order, the
//! whole decoded file. Blocks that are stored uncompressed are never loaded beyond the rows asked for.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::formats::{self, Planes};
use crate::{Error, ErrorKind, Image, Rect, Result, SampleType};

/// A rectangle of more pixels is not read at once (2²⁸, 16,384 × 16,384).
pub const MAX_RECT_PIXELS: u64 = 1 << 28;

/// Which plane of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PlaneIndex {
    /// Time point, from 0.
    pub time: u32,
    /// Slice, from 0.
    pub z: u32,
    /// Channel, from 0.
    pub channel: u32,
}

/// What a file holds, without its pixels.
#[derive(Clone, Debug)]
pub struct Description {
    /// The format in words, e.g. `OME-TIFF`, `ImageJ TIFF`, `OME-Zarr 0.5`.
    pub format: String,
    /// `[h, w]` of the full resolution.
    pub size: [u32; 2],
    /// Time points, at least 1.
    pub times: u32,
    /// Slices, at least 1.
    pub depth: u32,
    /// Channels, at least 1; alpha is not counted.
    pub channels: u32,
    /// The axes the file itself names, outermost first (e.g. `TCZYX`); pages without a meaning are `P` and count as slices.
    pub stored_axes: String,
    /// Sample type in the file.
    pub dtype: SampleType,
    /// One name a channel where the file has names, else empty.
    pub channel_names: Vec<String>,
    /// Whether the (three) channels are red, green and blue of one picture.
    pub colour: bool,
    /// µm per pixel, `[y, x]`, where the file says so.
    pub pixel_size_um: Option<[f64; 2]>,
    /// µm between slices, where the file says so.
    pub z_step_um: Option<f64>,
    /// How blocks are packed, e.g. `deflate`, `none`, `blosc (lz4)`.
    pub compression: String,
    /// `[h, w]` of the blocks that are stored (and decoded) as one.
    pub block: [u32; 2],
    /// `[h, w]` of every resolution, the full one first.
    pub levels: Vec<[u32; 2]>,
    /// What a reader should know: other images in the file that are not read, ambiguous axes.
    pub notes: Vec<String>,
}

/// How the slices of a stack become one plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// One slice, from 0.
    Plane(u32),
    /// Slice `depth / 2`.
    Middle,
    /// The largest sample of all slices.
    Max,
    /// Their mean, computed in `f64`.
    Mean,
    /// Their sum, computed in `f64`.
    Sum,
}

/// An open file; planes and rectangles of planes are read from it on demand. Several threads may share one.
pub struct Source {
    path: PathBuf,
    description: Description,
    planes: Mutex<Box<dyn Planes>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("path", &self.path)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Opens a file (PNG, JPEG, BMP, TIFF of any kind, NPY) or the folder of an OME-Zarr image. Its content decides the format.
    ///
    /// # Errors
    /// Every error names the file. `Io` when it cannot be read; `Format` when it is empty or damaged; `Unsupported` for other
    /// formats (vendor files with the way to convert them) and for what a known format may hold but this reader does not read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (description, planes) = formats::open(path, None).map_err(|error| error.with_path(path))?;
        Ok(Self { path: path.to_path_buf(), description, planes: Mutex::new(planes) })
    }

    /// Opens one page of a multi-page TIFF as a file of its own, whatever its metadata say of hyperstacks. Page 0 of other formats
    /// is the first plane they hold.
    ///
    /// # Errors
    /// As [`Source::open`]; `Value` when there is no such page.
    pub fn open_page(path: impl AsRef<Path>, page: u32) -> Result<Self> {
        let path = path.as_ref();
        let (description, planes) = formats::open(path, Some(page)).map_err(|error| error.with_path(path))?;
        Ok(Self { path: path.to_path_buf(), description, planes: Mutex::new(planes) })
    }

    /// As [`Source::open`] for a file that is in memory; `name` stands for the file in errors.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn from_bytes(name: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self> {
        let path = name.as_ref();
        let (description, planes) = formats::open_bytes(bytes, None).map_err(|error| error.with_path(path))?;
        Ok(Self { path: path.to_path_buf(), description, planes: Mutex::new(planes) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// One whole plane, `[H, W]`, samples widened to `f32`.
    ///
    /// # Errors
    /// As [`Source::read_rect`].
    pub fn read_plane(&self, at: PlaneIndex) -> Result<Vec<f32>> {
        self.read_rect(at, Rect::whole(self.description.size))
    }

    /// The part of one plane inside `rect` (in the frame of the full resolution), row-major, samples widened to `f32`.
    ///
    /// # Errors
    /// `Value` when there is no such plane, `rect` reaches outside or holds more than [`MAX_RECT_PIXELS`]; `Format` when the file
    /// is damaged there; `Io` when it can no longer be read.
    pub fn read_rect(&self, at: PlaneIndex, rect: Rect) -> Result<Vec<f32>> {
        self.read_level_rect(0, at, rect)
    }

    /// As [`Source::read_rect`] for resolution `level` (0 is the full one), `rect` in the frame of that level.
    ///
    /// # Errors
    /// As [`Source::read_rect`].
    pub fn read_level_rect(&self, level: usize, at: PlaneIndex, rect: Rect) -> Result<Vec<f32>> {
        let bytes = self.read_bytes(level, at, rect)?;
        Ok(formats::widen(self.description.dtype, &bytes))
    }

    /// Some channels of one time point, slices projected, of the part inside `rect`.
    ///
    /// # Errors
    /// As [`Source::read_rect`]; `Value` when no channel is named.
    pub fn read_image(&self, time: u32, projection: Projection, channels: &[u32], rect: Rect) -> Result<Image> {
        self.read_level_image(0, time, projection, channels, rect)
    }

    /// As [`Source::read_image`] for resolution `level`.
    ///
    /// # Errors
    /// As [`Source::read_image`].
    pub fn read_level_image(
        &self,
        level: usize,
        time: u32,
        projection: Projection,
        channels: &[u32],
        rect: Rect,
    ) -> Result<Image> {
        if channels.is_empty() {
            return Err(
                Error::new(ErrorKind::Value, "channels: expected at least one, found none").with_path(&self.path)
            );
        }
        let count = channels.len();
        if let [channel] = *channels {
            let samples = self.read_projected(level, time, projection, channel, rect)?;
            return Ok(Image::from_samples(rect.size(), 1, samples)?.with_dtype(self.description.dtype));
        }
        let mut samples = vec![0.0_f32; rect.area() as usize * count];
        for (position, &channel) in channels.iter().enumerate() {
            let plane = self.read_projected(level, time, projection, channel, rect)?;
            for (pixel, value) in samples.chunks_exact_mut(count).zip(plane) {
                pixel[position] = value;
            }
        }
        Ok(Image::from_samples(rect.size(), count as u32, samples)?.with_dtype(self.description.dtype))
    }

    fn read_projected(
        &self,
        level: usize,
        time: u32,
        projection: Projection,
        channel: u32,
        rect: Rect,
    ) -> Result<Vec<f32>> {
        let depth = self.description.depth;
        let plane = |z| self.read_level_rect(level, PlaneIndex { time, z, channel }, rect);
        match projection {
            Projection::Plane(z) => plane(z),
            Projection::Middle => plane(depth / 2),
            Projection::Max => {
                let mut most = plane(0)?;
                for z in 1..depth {
                    most.iter_mut().zip(plane(z)?).for_each(|(most, value)| *most = most.max(value));
                }
                Ok(most)
            }
            Projection::Mean | Projection::Sum => {
                let mut sums = vec![0.0_f64; rect.area() as usize];
                for z in 0..depth {
                    sums.iter_mut().zip(plane(z)?).for_each(|(sum, value)| *sum += f64::from(value));
                }
                let divisor = if projection == Projection::Mean { f64::from(depth) } else { 1.0 };
                Ok(sums.into_iter().map(|sum| (sum / divisor) as f32).collect())
            }
        }
    }

    /// Little-endian samples of [`Description::dtype`], `[h, w]`.
    pub(crate) fn read_bytes(&self, level: usize, at: PlaneIndex, rect: Rect) -> Result<Vec<u8>> {
        let read = || {
            let held = &self.description;
            for (name, index, count) in [
                ("time point", at.time, held.times),
                ("slice z", at.z, held.depth),
                ("channel", at.channel, held.channels),
            ] {
                if index >= count {
                    let message = format!("{name} {index} does not exist: the file has {count}, counted from 0");
                    return Err(Error::new(ErrorKind::Value, message));
                }
            }
            let Some(&size) = held.levels.get(level) else {
                let message = format!("resolution {level} does not exist: the file has {}", held.levels.len());
                return Err(Error::new(ErrorKind::Value, message));
            };
            if rect.y0 >= rect.y1 || rect.x0 >= rect.x1 || rect.y1 > size[0] || rect.x1 > size[1] {
                let expected = format!("a part of {} × {} pixels", size[0], size[1]);
                let found = format!("rows {}..{}, columns {}..{}", rect.y0, rect.y1, rect.x0, rect.x1);
                return Err(Error::new(ErrorKind::Value, format!("rectangle: expected {expected}, found {found}")));
            }
            if rect.area() > MAX_RECT_PIXELS {
                let [h, w] = rect.size();
                let message = format!(
                    "the image is too large: {h} × {w} pixels to read at once, the limit is {MAX_RECT_PIXELS} pixels"
                );
                return Err(Error::new(ErrorKind::Value, message));
            }
            let mut planes = self.planes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let bytes = planes.read(level, at, rect)?;
            let expected = rect.area() as usize * held.dtype.bytes();
            if bytes.len() != expected {
                return Err(Error::shape("plane", format!("{expected} bytes"), bytes.len()));
            }
            Ok(bytes)
        };
        read().map_err(|error| error.with_path(&self.path))
    }
}
