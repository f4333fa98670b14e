//! One door to this crate's parsers for `fuzz/targets/datasets.rs`; compiled with `--cfg fuzzing`, and for the test that
//! runs its corpus.

use std::path::Path;

use crate::Limits;
use crate::archive::Files;
use crate::formats::{Planes, coco, geojson, hdf5::Hdf5, npy::Npy, regions, zarr};
use crate::raster;

/// The largest mask drawn, so that a small file's large image does not decide the speed.
const CANVAS: [u32; 2] = [97, 131];

/// Reads `bytes` as each format in turn; results and errors are dropped. `folder` is for files and is the caller's.
pub fn read_any(bytes: &[u8], folder: &Path) {
    let path = folder.join("input");
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    match bytes {
        [0x93, b'N', ..] => {
            if let Ok(mut array) = Npy::open(&path) {
                let _ = array.whole();
                let _ = array.plane(0);
            }
        }
        [b'P', b'K', ..] | [0x1F, 0x8B, ..] => archive(&path, folder),
        [0x89, b'H', b'D', b'F', ..] => {
            if let Ok(mut file) = Hdf5::open(&path, "raw") {
                let _ = file.image();
                let _ = file.plane(0);
            }
        }
        [b'{' | b'[', ..] => json(bytes, &path, folder),
        _ => drop(regions::read(bytes)),
    }
}

fn archive(path: &Path, folder: &Path) {
    let archive = folder.join("input.zip");
    if std::fs::rename(path, &archive).is_err() {
        return;
    }
    let limits =
        Limits { entries: 1000, member_bytes: 1 << 24, total_bytes: 1 << 26, ratio: 400, ratio_from_bytes: 1 << 20 };
    if let Ok(files) = Files::open(&[archive], folder, limits)
        && let Ok(found) = files.find(&["*"], true)
    {
        for found in found.iter().take(4) {
            let _ = files.text(found.entry, 1 << 20);
        }
    }
}

fn json(bytes: &[u8], path: &Path, folder: &Path) {
    if let Ok(images) = coco::read(path) {
        for object in images.iter().flat_map(|image| &image.objects) {
            let mut mask = vec![false; CANVAS[0] as usize * CANVAS[1] as usize];
            match &object.segmentation {
                coco::Segmentation::Polygons(polygons) => {
                    polygons.iter().for_each(|polygon| raster::coco(polygon, CANVAS, &mut mask));
                }
                coco::Segmentation::Runs { counts, .. } => {
                    if let Ok(counts) = counts.numbers() {
                        raster::runs(&counts, CANVAS, &mut mask);
                    }
                }
            }
        }
    }
    if let Ok(features) = geojson::read(bytes) {
        for feature in features {
            raster::gdal(&feature.rings, CANVAS, |_, _| {});
            feature.rings.iter().for_each(|ring| raster::scikit_image(ring, CANVAS, |_, _| {}));
        }
    }
    // A Zarr array is a folder: its metadata up to `~~~`, then the chunk.
    let at = bytes.windows(3).position(|window| window == b"~~~").unwrap_or(bytes.len());
    let array = folder.join("array");
    if std::fs::create_dir_all(&array).is_ok()
        && std::fs::write(array.join(".zarray"), &bytes[..at]).is_ok()
        && std::fs::write(array.join("0.0"), bytes.get(at + 3..).unwrap_or_default()).is_ok()
        && let Ok(files) = Files::open(&[folder.to_path_buf()], folder, Limits::default())
    {
        let _ = zarr::read(&files, "array");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_corpus_and_its_cuts_are_harmless() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/datasets");
        let folder = tempfile::tempdir().unwrap();
        let mut tried = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for length in [bytes.len(), bytes.len() / 2, bytes.len() / 3, bytes.len().saturating_sub(1)] {
                read_any(&bytes[..length], folder.path());
                tried += 1;
            }
        }
        assert!(tried >= 36, "only {tried} inputs: is fuzz/corpus there?");
        // And what a longer run of libFuzzer found worth keeping.
        let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/found/datasets.tar.gz");
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(found).unwrap()));
        for entry in archive.entries().unwrap() {
            let mut bytes = Vec::new();
            entry.unwrap().read_to_end(&mut bytes).unwrap();
            read_any(&bytes, folder.path());
        }
    }
}
