//! Sizes of images from their headers, for plans made before anything is read.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use crate::{Error, ErrorKind, Result, Source};

/// More of a JPEG is not looked at for its size: what may lie before it are thumbnails and colour profiles.
const JPEG_HEAD_BYTES: u64 = 1 << 20;

/// `[h, w]` of an image file or OME-Zarr folder (of a TIFF's `page`, from 0), without decoding pixels where the format allows it. A size
/// is what the header says; whether the pixels are there shows when they are read.
///
/// # Errors
/// Names the file. As [`Source::open_page`]; `Format` when a header has no size.
pub fn header_size(path: impl AsRef<Path>, page: u32) -> Result<[u32; 2]> {
    let path = path.as_ref();
    match size(path) {
        Ok(Some(size)) => Ok(size),
        Ok(None) => Source::open_page(path, page).map(|source| source.description().size),
        Err(error) => Err(error.with_path(path)),
    }
}

/// The size of a PNG or JPEG, which [`Source`] decodes when it opens them.
fn size(path: &Path) -> Result<Option<[u32; 2]>> {
    let io = |error| Error::new(ErrorKind::Io, "cannot read").with_source(error);
    let damaged = |cause: String| Error::new(ErrorKind::Format, "no size in the header").with_source(cause);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Ok(None);
    }
    let mut file = File::open(path).map_err(io)?;
    let mut head = Vec::with_capacity(24);
    file.by_ref().take(24).read_to_end(&mut head).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    match head.as_slice() {
        // The signature, length and name of the first chunk, then width and height.
        [0x89, b'P', b'N', b'G', _, _, _, _, _, _, _, _, b'I', b'H', b'D', b'R', a, b, c, d, e, f, g, h] => {
            Ok(Some([u32::from_be_bytes([*e, *f, *g, *h]), u32::from_be_bytes([*a, *b, *c, *d])]))
        }
        [0xFF, 0xD8, 0xFF, ..] => {
            let mut encoded = Vec::new();
            BufReader::new(file).take(JPEG_HEAD_BYTES).read_to_end(&mut encoded).map_err(io)?;
            let mut decoder = JpegDecoder::new(ZCursor::new(encoded.as_slice()));
            decoder.decode_headers().map_err(|error| damaged(error.to_string()))?;
            let (width, height) = decoder.dimensions().ok_or_else(|| damaged("no frame".into()))?;
            Ok(Some([height as u32, width as u32]))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Labels, write_labels_png16, write_labels_tiff};

    #[test]
    fn headers_say_what_the_pixels_are() {
        let folder = tempfile::tempdir().unwrap();
        let labels = Labels::zeros([97, 131]);
        let (png, tiff) = (folder.path().join("a"), folder.path().join("b"));
        write_labels_png16(&png, &labels).unwrap();
        write_labels_tiff(&tiff, &labels).unwrap();
        assert_eq!(header_size(&png, 0).unwrap(), [97, 131]);
        assert_eq!(header_size(&tiff, 0).unwrap(), [97, 131]);
        assert!(header_size(&tiff, 1).is_err());
        std::fs::write(&png, b"no image").unwrap();
        assert!(header_size(&png, 0).unwrap_err().to_string().contains("not an image"));
        assert!(header_size(folder.path(), 0).is_err());
    }
}
