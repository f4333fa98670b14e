//! Images and labels as TIFF files, and their hashes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cytomask_image::{ErrorKind as ImageKind, Labels, SampleType, write_atomically, write_labels_tiff};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tiff::encoder::colortype::{ColorType, Gray8, Gray16, Gray32Float, RGB8, RGB16, RGB32Float};
use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, TiffEncoder, TiffValue};

use crate::plane::Plane;
use crate::{Error, Result};

/// Writes `images/NAME.tif` and `labels/NAME.tif` and describes them for the manifest.
pub(super) fn pair(folder: &Path, name: &str, image: &Plane, labels: &Plane) -> Result<Value> {
    let ids = labels.ids()?;
    let mut objects: Vec<u32> = ids.iter().copied().filter(|&id| id != 0).collect();
    objects.sort_unstable();
    objects.dedup();
    let (image_path, labels_path) = (format!("images/{name}.tif"), format!("labels/{name}.tif"));
    write_image(&folder.join(&image_path), image)?;
    write_labels_tiff(folder.join(&labels_path), &Labels::from_vec(labels.size, ids)?)?;
    Ok(json!({
        "image": image_path,
        "labels": labels_path,
        "height": image.size[0],
        "width": image.size[1],
        "objects": objects.len(),
        "image_sha256": sha256(&folder.join(&image_path))?.0,
        "labels_sha256": sha256(&folder.join(&labels_path))?.0,
    }))
}

/// One channel or three, 8 or 16 bits where they were so, else 32-bit floats; deflate. Two channels get a third of zeros and of
/// more than three the first three are kept, as µSAM does with them.
fn write_image(path: &Path, image: &Plane) -> Result<()> {
    let channels = image.channels as usize;
    let values: Vec<f64> = match channels {
        1 | 3 => image.values.clone(),
        2 => image.values.chunks_exact(2).flat_map(|pixel| [pixel[0], pixel[1], 0.0]).collect(),
        _ => image.values.chunks_exact(channels).flat_map(|pixel| &pixel[..3]).copied().collect(),
    };
    match (image.dtype, channels) {
        (SampleType::U8 | SampleType::Bool, 1) => {
            write::<Gray8>(path, image.size, values.iter().map(|&value| value as u8))
        }
        (SampleType::U8 | SampleType::Bool, _) => {
            write::<RGB8>(path, image.size, values.iter().map(|&value| value as u8))
        }
        (SampleType::U16, 1) => write::<Gray16>(path, image.size, values.iter().map(|&value| value as u16)),
        (SampleType::U16, _) => write::<RGB16>(path, image.size, values.iter().map(|&value| value as u16)),
        (_, 1) => write::<Gray32Float>(path, image.size, values.iter().map(|&value| value as f32)),
        (_, _) => write::<RGB32Float>(path, image.size, values.iter().map(|&value| value as f32)),
    }
}

fn write<C: ColorType>(path: &Path, [h, w]: [u32; 2], values: impl Iterator<Item = C::Inner>) -> Result<()>
where
    [C::Inner]: TiffValue,
{
    let values: Vec<C::Inner> = values.collect();
    write_atomically(path, |writer| {
        let failed = |error| cytomask_image::Error::new(ImageKind::Io, "cannot write TIFF").with_source(error);
        TiffEncoder::new(writer)
            .map_err(failed)?
            .with_compression(Compression::Deflate(DeflateLevel::Balanced))
            .write_image::<C>(w, h, &values)
            .map_err(failed)
    })?;
    Ok(())
}

/// A file's SHA-256, hexadecimal, and its length.
pub(super) fn sha256(path: &Path) -> Result<(String, u64)> {
    let failed = |source| Error::io(path, "cannot read", source);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
    Ok((hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), bytes))
}
