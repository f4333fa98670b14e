//! 3-D TIFF files: a page a slice, or ImageJ's way of writing more than 4 GiB, one page and then plain samples.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cytomask_image::SampleType;
use tiff::decoder::Decoder;
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::{Number, Planes, checked_size};
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result};

/// A stack of slices of one channel.
pub(crate) struct Stack {
    path: PathBuf,
    slices: usize,
    /// Where the samples begin, if they follow each other without further pages.
    contiguous: Option<(u64, Number, [u32; 2])>,
}

impl Stack {
    /// Counts the slices.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |error: TiffError| Error::new(ErrorKind::Format, "TIFF: the file is damaged").with_source(error);
        let file = File::open(path).map_err(|source| Error::new(ErrorKind::Io, "cannot read").with_source(source))?;
        let length = file.metadata().map_or(0, |data| data.len());
        let mut decoder = Decoder::new(BufReader::new(file)).map_err(failed)?;
        let description = decoder.get_tag_ascii_string(Tag::ImageDescription).unwrap_or_default();
        let declared: Option<usize> = description
            .starts_with("ImageJ=")
            .then(|| description.lines().find_map(|line| line.strip_prefix("images=")?.trim().parse().ok()))
            .flatten();
        if let Some(slices) = declared.filter(|&count| count > 1 && !decoder.more_images()) {
            let (w, h) = decoder.dimensions().map_err(failed)?;
            let size = checked_size(h as usize, w as usize, 1)?;
            let (dtype, bytes) = match decoder.colortype().map_err(failed)? {
                ColorType::Gray(8) => (SampleType::U8, 1),
                ColorType::Gray(16) => (SampleType::U16, 2),
                other => {
                    return Err(Error::expected(
                        ErrorKind::Unsupported,
                        "ImageJ stack",
                        "8- or 16-bit grey",
                        format!("{other:?}"),
                    ));
                }
            };
            let start =
                decoder.get_tag_u64_vec(Tag::StripOffsets).map_err(failed)?.first().copied().unwrap_or_default();
            let plain = decoder.find_tag_unsigned::<u32>(Tag::Compression).map_err(failed)?.unwrap_or(1) == 1;
            let samples = (slices as u64).checked_mul(u64::from(h) * u64::from(w) * bytes as u64);
            if !plain || samples.and_then(|samples| samples.checked_add(start)).is_none_or(|end| end > length) {
                let message = format!("ImageJ stack: expected {slices} slices of {h} × {w}, found {length} bytes");
                return Err(Error::new(ErrorKind::Format, message));
            }
            let mut magic = [0_u8; 2];
            let mut again =
                File::open(path).map_err(|source| Error::new(ErrorKind::Io, "cannot read").with_source(source))?;
            again
                .read_exact(&mut magic)
                .map_err(|source| Error::new(ErrorKind::Io, "cannot read").with_source(source))?;
            let number = Number { dtype, bytes, big_endian: magic == *b"MM" };
            return Ok(Self { path: path.to_owned(), slices, contiguous: Some((start, number, size)) });
        }
        let mut slices = 1;
        while decoder.more_images() {
            decoder.next_image().map_err(failed)?;
            slices += 1;
        }
        Ok(Self { path: path.to_owned(), slices, contiguous: None })
    }
}

impl Planes for Stack {
    fn len(&self) -> usize {
        self.slices
    }

    fn plane(&mut self, index: usize) -> Result<Plane> {
        let Some((start, number, size)) = self.contiguous else {
            let plane = Plane::read_image(&self.path, index as u32)?;
            if plane.channels != 1 {
                return Err(Error::expected(ErrorKind::Shape, "slice", "one channel", plane.channels));
            }
            return Ok(plane);
        };
        let failed = |source| Error::new(ErrorKind::Io, "cannot read").with_source(source);
        let mut bytes = vec![0; size[0] as usize * size[1] as usize * number.bytes];
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(start + index as u64 * bytes.len() as u64)).map_err(failed)?;
        file.read_exact(&mut bytes).map_err(failed)?;
        Plane::new(size, 1, number.dtype, number.decode(&bytes))
    }
}
