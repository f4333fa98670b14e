//! Small archives in the published layouts, made of pixels that follow a formula, and what comes out of them.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by several test files, none of which uses all of it"
)]

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use cytomask_datasets::{Error, PrepareOptions, SplitName, find, prepare};
use cytomask_image::{Image, ReadOptions, read_labels};
use serde_json::Value;
use tiff::encoder::TiffEncoder;
use tiff::encoder::colortype::{Gray8, Gray16, Gray32, RGB8, RGBA8};
use zip::write::SimpleFileOptions;

/// Height and width of most images here.
pub const SIZE: [u32; 2] = [12, 14];

/// Pixels of image number `seed`.
pub fn raw(seed: usize, [h, w]: [u32; 2]) -> Vec<u32> {
    (0..h).flat_map(|y| (0..w).map(move |x| (7 * seed as u32 + 3 * y + x) % 250)).collect()
}

/// Ids of label image number `seed`: background in the first row, else blocks of 2 × 2 pixels.
pub fn ids(seed: usize, [h, w]: [u32; 2]) -> Vec<u32> {
    let id = |y: u32, x: u32| if y == 0 { 0 } else { 1 + seed as u32 % 2 + y / 2 * 8 + x / 2 };
    (0..h).flat_map(|y| (0..w).map(move |x| id(y, x))).collect()
}

pub fn png(colour: png::ColorType, [h, w]: [u32; 2], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, w, h);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
    out
}

pub fn bytes(values: &[u32]) -> Vec<u8> {
    values.iter().map(|&value| value as u8).collect()
}

/// A grey PNG.
pub fn grey_png(values: &[u32], size: [u32; 2]) -> Vec<u8> {
    png(png::ColorType::Grayscale, size, &bytes(values))
}

/// The three channels of a grey value here: itself, one more, two more.
pub fn rgb(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|&value| [value as u8, value as u8 + 1, value as u8 + 2]).collect()
}

pub fn rgb_png(values: &[u32], size: [u32; 2]) -> Vec<u8> {
    png(png::ColorType::Rgb, size, &rgb(values))
}

/// A TIFF with a page for each list of values, 16 bit; 32 bit where they do not fit.
pub fn tif(pages: &[Vec<u32>], [h, w]: [u32; 2]) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut out).unwrap();
    for page in pages {
        if page.iter().all(|&value| value < 1 << 16) {
            let page: Vec<u16> = page.iter().map(|&value| value as u16).collect();
            encoder.write_image::<Gray16>(w, h, &page).unwrap();
        } else {
            encoder.write_image::<Gray32>(w, h, page).unwrap();
        }
    }
    out.into_inner()
}

pub fn tif8(values: &[u32], [h, w]: [u32; 2]) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    TiffEncoder::new(&mut out).unwrap().write_image::<Gray8>(w, h, &bytes(values)).unwrap();
    out.into_inner()
}

pub fn rgb_tif(values: &[u32], [h, w]: [u32; 2]) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    TiffEncoder::new(&mut out).unwrap().write_image::<RGB8>(w, h, &rgb(values)).unwrap();
    out.into_inner()
}

pub fn rgba_tif(values: &[u32], [h, w]: [u32; 2]) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let pixels: Vec<u8> = rgb(values).chunks(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect();
    TiffEncoder::new(&mut out).unwrap().write_image::<RGBA8>(w, h, &pixels).unwrap();
    out.into_inner()
}

/// A 24-bit bitmap, rows upwards.
pub fn bmp(rgb: &[u8], [h, w]: [u32; 2]) -> Vec<u8> {
    let row = (w as usize * 3).next_multiple_of(4);
    let mut out = b"BM".to_vec();
    out.extend((54 + row as u32 * h).to_le_bytes());
    out.extend([0_u8; 4]);
    for number in [54_u32, 40, w, h, 1 | 24 << 16, 0, row as u32 * h, 0, 0, 0, 0] {
        out.extend(number.to_le_bytes());
    }
    for line in rgb.chunks(w as usize * 3).rev() {
        let mut bytes: Vec<u8> = line.chunks(3).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect();
        bytes.resize(row, 0);
        out.extend(bytes);
    }
    out
}

/// An NPY file of doubles.
pub fn npy(shape: &[usize], values: &[f64]) -> Vec<u8> {
    let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({}), }}\n", shape.join(", "));
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    out
}

/// A member of an archive.
pub type Member = (String, Vec<u8>);

pub fn zip_bytes(members: &[Member]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub fn zip(folder: &Path, name: &str, members: &[Member]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, zip_bytes(members)).unwrap();
    path
}

/// A file of fixtures/datasets.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/../../fixtures/datasets/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What was written.
pub struct Set {
    pub manifest: Value,
    pub items: Vec<Written>,
}

pub struct Written {
    pub number: usize,
    pub size: [u32; 2],
    pub channels: u32,
    pub samples: Vec<f32>,
    pub labels: Vec<u32>,
}

pub fn try_prepare(key: &str, inputs: &[PathBuf], out: &Path, split: SplitName) -> Result<Set, Error> {
    let options = PrepareOptions { split, check_hashes: false, ..PrepareOptions::default() };
    let prepared = prepare(find(key).unwrap(), inputs, out, &options, &mut |_, _| ())?;
    assert_eq!(prepared.folder, out.join(key).join(split.name()));
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(prepared.folder.join("manifest.json")).unwrap()).unwrap();
    let items: Vec<Written> = manifest["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let path = |name: &str| prepared.folder.join(entry[name].as_str().unwrap());
            let number = entry["number"].as_u64().unwrap() as usize;
            assert!(path("image").ends_with(format!("images/{key}_{number:04}.tif")));
            let image = Image::open(path("image"), &ReadOptions::default()).unwrap();
            let labels = read_labels(path("labels")).unwrap();
            assert_eq!(image.size, labels.size());
            Written {
                number,
                size: image.size,
                channels: image.channels,
                samples: image.samples,
                labels: labels.into_vec(),
            }
        })
        .collect();
    assert_eq!(items.len(), prepared.images);
    assert_eq!(std::fs::read_dir(prepared.folder.join("labels")).unwrap().count(), items.len());
    // Nothing else is left behind.
    let mut names: Vec<_> =
        std::fs::read_dir(&prepared.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["images", "labels", "manifest.json"]);
    assert!(
        !std::fs::read_dir(out.join(key)).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with('.'))
    );
    Ok(Set { manifest, items })
}

/// Prepares a set from members of one zip archive.
pub fn from_zip(key: &str, split: SplitName, members: &[Member]) -> Set {
    let folder = tempfile::tempdir().unwrap();
    let archive = zip(folder.path(), "archive.zip", members);
    try_prepare(key, &[archive], &folder.path().join("out"), split).unwrap_or_else(|error| panic!("{key}: {error}"))
}

impl Set {
    pub fn numbers(&self) -> Vec<usize> {
        self.items.iter().map(|item| item.number).collect()
    }

    pub fn skipped(&self) -> Vec<u64> {
        self.manifest["skipped"].as_array().unwrap().iter().map(|entry| entry["number"].as_u64().unwrap()).collect()
    }

    /// Asserts that the items have these numbers and are the grey images of these seeds, labels as in the archive.
    #[track_caller]
    pub fn is(&self, expected: &[(usize, usize)]) {
        assert_eq!(self.numbers(), expected.iter().map(|pair| pair.0).collect::<Vec<_>>());
        for (item, &(_, seed)) in self.items.iter().zip(expected) {
            assert_eq!(item.channels, 1);
            assert_eq!(item.samples, raw(seed, item.size).into_iter().map(|value| value as f32).collect::<Vec<_>>());
            assert_eq!(item.labels, ids(seed, item.size), "labels of seed {seed}");
        }
    }

    /// The same for images of three channels.
    #[track_caller]
    pub fn is_rgb(&self, expected: &[(usize, usize)]) {
        assert_eq!(self.numbers(), expected.iter().map(|pair| pair.0).collect::<Vec<_>>());
        for (item, &(_, seed)) in self.items.iter().zip(expected) {
            assert_eq!(item.channels, 3);
            let pixels = rgb(&raw(seed, item.size));
            assert_eq!(item.samples, pixels.into_iter().map(f32::from).collect::<Vec<_>>());
            assert_eq!(item.labels, ids(seed, item.size), "labels of seed {seed}");
        }
    }
}

/// `n..m` as (number from 0, seed).
pub fn from_seed(seeds: std::ops::Range<usize>) -> Vec<(usize, usize)> {
    seeds.enumerate().collect()
}
