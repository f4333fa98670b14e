//! Files of every kind, written by tifffile, zarr, numpy and Pillow (parity/files.py), read here: axes, names, sizes, every pixel.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use cytomask_image::{Description, ErrorKind, PlaneIndex, Projection, Rect, Source};
use serde_json::Value;
use tempfile::TempDir;

/// Unpacks the fixture; the folder and what its files hold.
fn files() -> (TempDir, Value) {
    let packed = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/files.safetensors.gz")).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let folder = TempDir::new().unwrap();
    for (name, tensor) in tensors.tensors() {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, tensor.data()).unwrap();
    }
    let expected = serde_json::from_slice(&fs::read(folder.path().join("expected.json")).unwrap()).unwrap();
    (folder, expected)
}

/// What an entry of expected.json says.
struct Expected<'a>(&'a Value);

impl Expected<'_> {
    fn number(&self, key: &str) -> u32 {
        self.0[key].as_u64().unwrap() as u32
    }

    fn size(&self) -> [u32; 2] {
        [0, 1].map(|axis| self.0["size"][axis].as_u64().unwrap() as u32)
    }

    /// The formula of parity/files.py.
    fn pixel(&self, at: PlaneIndex, y: u32, x: u32) -> f32 {
        if let Some(constant) = self.0["constant"].as_f64() {
            return constant as f32;
        }
        let modulus = self.number("modulus");
        let value = |c: u32| (7 * at.time + 11 * at.z + 31 * c + 3 * y + 5 * x + y * x / 16) % modulus;
        if self.0["palette"] == true {
            let index = value(0);
            return [index, 255 - index, index / 2][at.channel as usize] as f32;
        }
        value(at.channel) as f32
    }
}

fn check_description(name: &str, held: &Description, expected: &Expected) {
    assert_eq!(held.size, expected.size(), "{name}");
    let found = [held.times, held.depth, held.channels];
    assert_eq!(found, ["times", "depth", "channels"].map(|key| expected.number(key)), "{name}: t, z, c");
    assert_eq!(held.dtype.name(), expected.0["dtype"], "{name}");
    assert_eq!(held.colour, expected.0["colour"] == true, "{name}: colour");
    if let Some(names) = expected.0["names"].as_array() {
        assert_eq!(held.channel_names, names.iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>(), "{name}");
    }
    if let Some(sizes) = expected.0["pixel_size_um"].as_array() {
        let found = held.pixel_size_um.unwrap_or_else(|| panic!("{name}: no pixel size"));
        for (found, expected) in found.iter().zip(sizes) {
            // Resolution tags are fractions of 32 bits.
            assert!((found - expected.as_f64().unwrap()).abs() < 1e-6, "{name}: {found}");
        }
    }
    if let Some(step) = expected.0["z_step_um"].as_f64() {
        assert!((held.z_step_um.unwrap() - step).abs() < 1e-9, "{name}");
    }
    let levels: Vec<[u32; 2]> = match expected.0["levels"].as_array() {
        Some(levels) => levels.iter().map(|level| [0, 1].map(|axis| level[axis].as_u64().unwrap() as u32)).collect(),
        None => vec![expected.size()],
    };
    assert_eq!(held.levels, levels, "{name}");
}

/// Reads all planes; the first thing that is wrong.
fn check_pixels(source: &Source, expected: &Expected) -> Result<(), String> {
    let held = source.description();
    let [h, w] = held.size;
    let tolerance = expected.0["tolerance"].as_f64().unwrap_or(0.0) as f32;
    for time in 0..held.times {
        for z in 0..held.depth {
            for channel in 0..held.channels {
                let at = PlaneIndex { time, z, channel };
                let found = source.read_plane(at).map_err(|error| error.to_string())?;
                let places = || (0..h).flat_map(|y| (0..w).map(move |x| (y, x)));
                let differences = places().zip(&found).map(|((y, x), found)| (expected.pixel(at, y, x) - found).abs());
                // The formula jumps where it wraps, which JPEG rounds off: there the mean counts.
                if tolerance > 0.0 {
                    let mean = differences.sum::<f32>() / (h * w) as f32;
                    if mean > tolerance {
                        return Err(format!("{at:?}: {mean} off on average"));
                    }
                } else if let Some(first) = differences.into_iter().position(|difference| difference != 0.0) {
                    let (y, x) = (first as u32 / w, first as u32 % w);
                    let right = expected.pixel(at, y, x);
                    return Err(format!("{at:?} at ({y}, {x}): {} instead of {right}", found[first]));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn files_of_every_kind_are_read_right() {
    let (folder, expected) = files();
    let all = expected["files"].as_object().unwrap();
    assert!(all.len() > 80);
    let mut failures = BTreeMap::new();
    for (name, expected) in all {
        let expected = Expected(expected);
        let checked = Source::open(folder.path().join(name)).map_err(|error| error.to_string()).and_then(|source| {
            check_description(name, source.description(), &expected);
            check_pixels(&source, &expected)
        });
        if let Err(message) = checked {
            failures.insert(name, message);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn rectangles_and_projections_equal_parts_of_planes() {
    let (folder, expected) = files();
    for (name, expected) in expected["files"].as_object().unwrap() {
        if expected["tolerance"].is_number() {
            continue;
        }
        let expected = Expected(expected);
        let source = Source::open(folder.path().join(name)).unwrap();
        let held = source.description();
        let at = PlaneIndex { time: held.times - 1, z: held.depth - 1, channel: held.channels - 1 };
        let [h, w] = held.size;
        for rect in [
            Rect { y0: 0, x0: 0, y1: 1, x1: 1 },
            Rect { y0: h - 1, x0: w - 1, y1: h, x1: w },
            Rect { y0: 7, x0: 5, y1: h - 3, x1: 30 },
            Rect { y0: 18, x0: 0, y1: 25, x1: w },
        ] {
            let found = source.read_rect(at, rect).unwrap();
            let right = (rect.y0..rect.y1).flat_map(|y| (rect.x0..rect.x1).map(move |x| (y, x)));
            assert!(right.zip(&found).all(|((y, x), &found)| expected.pixel(at, y, x) == found), "{name}: {rect:?}");
        }
        // Outside the image, or a plane that is not there.
        for (at, rect) in [
            (at, Rect { y0: 0, x0: 0, y1: h + 1, x1: 1 }),
            (PlaneIndex { z: held.depth, ..at }, Rect { y0: 0, x0: 0, y1: 1, x1: 1 }),
        ] {
            assert_eq!(source.read_rect(at, rect).unwrap_err().kind(), ErrorKind::Value, "{name}");
        }
    }
    let source = Source::open(folder.path().join("tzcyx.ome.tif")).unwrap();
    let rect = Rect { y0: 1, x0: 2, y1: 5, x1: 9 };
    let slice = |z| source.read_rect(PlaneIndex { time: 1, z, channel: 1 }, rect).unwrap();
    let slices = [slice(0), slice(1), slice(2)];
    let project = |projection| source.read_image(1, projection, &[1], rect).unwrap().samples;
    assert_eq!(project(Projection::Middle), slices[1]);
    for index in 0..slices[0].len() {
        let column: Vec<f32> = slices.iter().map(|slice| slice[index]).collect();
        assert_eq!(project(Projection::Max)[index], column.iter().copied().fold(0.0, f32::max));
        assert_eq!(project(Projection::Sum)[index], column.iter().sum::<f32>());
        assert_eq!(project(Projection::Mean)[index], (column.iter().map(|&v| f64::from(v)).sum::<f64>() / 3.0) as f32);
    }
    // Channels in the order asked for.
    let both = source.read_image(0, Projection::Plane(2), &[1, 0], rect).unwrap();
    let plane = |channel| source.read_rect(PlaneIndex { time: 0, z: 2, channel }, rect).unwrap();
    let pairs: Vec<f32> = plane(1).into_iter().zip(plane(0)).flat_map(|(a, b)| [a, b]).collect();
    assert_eq!((both.channels, both.samples), (2, pairs));
}

#[test]
fn smaller_resolutions_are_read() {
    let (folder, expected) = files();
    for name in ["pyramid.ome.tif", "pyramid_pages.tif", "v2_zlib.zarr", "v3_sharded.zarr"] {
        let source = Source::open(folder.path().join(name)).unwrap();
        let expected = Expected(&expected["files"][name]);
        let held = source.description();
        let at = PlaneIndex { channel: held.channels - 1, ..PlaneIndex::default() };
        for (level, &size) in held.levels.iter().enumerate() {
            let found = source.read_level_rect(level, at, Rect::whole(size)).unwrap();
            let step = 1 << level;
            let right = (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y * step, x * step)));
            assert!(right.zip(&found).all(|((y, x), &found)| expected.pixel(at, y, x) == found), "{name}: {level}");
        }
    }
}

#[test]
fn what_is_not_read_is_refused_with_a_way_out() {
    let (folder, expected) = files();
    for (name, word) in expected["refused"].as_object().unwrap() {
        let error = Source::open(folder.path().join(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let message = error.to_string();
        assert!(message.contains(name) && message.contains(word.as_str().unwrap()), "{message}");
    }
    // A page by itself, whatever the metadata say.
    let page = Source::open_page(folder.path().join("tzcyx.ome.tif"), 3).unwrap();
    assert_eq!((page.description().channels, page.description().depth), (1, 1));
    let stack = Source::open(folder.path().join("tzcyx.ome.tif")).unwrap();
    let at = PlaneIndex { time: 0, z: 1, channel: 1 };
    assert_eq!(page.read_plane(PlaneIndex::default()).unwrap(), stack.read_plane(at).unwrap());
    let missing = Source::open_page(folder.path().join("tzcyx.ome.tif"), 99).unwrap_err();
    assert!(missing.to_string().contains("page 99 does not exist: the file has 12 pages"), "{missing}");
}

#[test]
fn damaged_zarrs_are_refused_by_name() {
    let (folder, _) = files();
    let root = folder.path().join("v3_sharded.zarr");
    let shard = fs::read_dir(root.join("0/c/0/0/0/0")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&shard).unwrap();
    let error_after = |bytes: &[u8]| {
        fs::write(&shard, bytes).unwrap();
        let source = Source::open(&root).unwrap();
        source.read_plane(PlaneIndex::default()).unwrap_err()
    };
    let mut flipped = whole.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    assert!(error_after(&flipped).to_string().contains("checksum"));
    assert_eq!(error_after(&whole[..10]).kind(), ErrorKind::Format);
    // A dataset outside the image's folder.
    let attributes = folder.path().join("v2_zlib.zarr/.zattrs");
    let text = fs::read_to_string(&attributes).unwrap().replace("\"path\": \"0\"", "\"path\": \"../v2_none.zarr/0\"");
    fs::write(&attributes, text).unwrap();
    let error = Source::open(folder.path().join("v2_zlib.zarr")).unwrap_err();
    assert!(error.to_string().contains("leaves its group"), "{error}");
}

#[test]
fn labels_are_the_numbers_stored() {
    let (folder, expected) = files();
    let read = |name: &str| cytomask_image::read_labels(folder.path().join(name)).unwrap();
    for (name, like) in [("mask.tif", "bool.tif"), ("palette.tif", "tiles_lzw.tif"), ("yx_be.npy", "yx_be.npy")] {
        let expected = Expected(&expected["files"][like]);
        let [h, w] = expected.size();
        let right: Vec<u32> = (0..h)
            .flat_map(|y| (0..w).map(move |x| (y, x)))
            .map(|(y, x)| expected.pixel(PlaneIndex::default(), y, x) as u32)
            .collect();
        assert_eq!(read(name).as_slice(), right, "{name}");
    }
}

#[test]
fn label_stacks_are_all_pages() {
    let (folder, _) = files();
    let read = |name: &str| cytomask_image::read_label_stack(folder.path().join(name));
    for name in ["pages.tif", "zyx.npy", "yx.npy", "mask.tif"] {
        let stack = read(name).unwrap();
        let source = Source::open(folder.path().join(name)).unwrap();
        assert_eq!(stack.size()[0], source.description().depth, "{name}");
    }
    assert_eq!(read("imagej.tif").unwrap_err().kind(), ErrorKind::Unsupported);
    let pages = read("pages.tif").unwrap();
    assert_eq!(pages.as_slice()[2 * 61 * 83 + 1], 2 * 11 + 5);
}

#[test]
fn a_folder_is_an_image_or_not() {
    let (folder, _) = files();
    assert!(cytomask_image::is_image_folder(folder.path().join("v3_zstd.zarr")));
    assert!(!cytomask_image::is_image_folder(folder.path()));
    assert!(!cytomask_image::is_image_folder(folder.path().join("rgb.png")));
    let error = Source::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(Path::new(&error.path().unwrap()).is_dir());
}
