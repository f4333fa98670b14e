//! OME-Zarr labels (NGFF 0.4 on Zarr 2, 0.5 on Zarr 3; <https://ngff.openmicroscopy.org>): a multiscales image of ids with
//! `image-label` metadata, by itself or in the `labels` group of an image.
//!
//! The pyramid takes every second pixel (nearest neighbour): ids are never mixed, and level `k` needs no translation. Colours
//! and properties (area, scores) are left out beyond [`DESCRIBED`] objects, where they would outweigh the image.

use std::path::Path;

use cytomask_image::{Error, ErrorKind, Result, write_folder_atomically};
use serde_json::{Map, Value, json};

use crate::zarr::{Format, Level, is_zarr, make_folder, read_json, write_array, write_group, write_json};
use crate::{Objects, Table, color};

/// At most so many objects have a colour and properties of their own.
pub const DESCRIBED: usize = 20_000;
/// The pyramid ends when both sides are at most this long.
const SMALLEST: u32 = 256;

/// Version of the metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// Zarr 2; read by everything.
    #[default]
    V04,
    /// Zarr 3.
    V05,
}

impl Version {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::V04 => "0.4",
            Self::V05 => "0.5",
        }
    }

    fn format(self) -> Format {
        match self {
            Self::V04 => Format::V2,
            Self::V05 => Format::V3,
        }
    }
}

/// The image a label path lies in: `IMAGE` for `IMAGE/labels/NAME`.
pub fn image_group_of(path: &Path) -> Option<&Path> {
    let labels = path.parent()?;
    (labels.file_name()? == "labels").then(|| labels.parent())?.filter(|group| !group.as_os_str().is_empty())
}

/// Writes the labels as a group of their own at `path`; a Zarr group already there is replaced. `pixel_size_um` is `[y, x]`.
///
/// # Errors
/// `Shape` when the image has no pixels, `Value` when something else is at `path`, `Io`.
pub fn write(
    path: &Path,
    objects: &Objects<'_>,
    table: &Table,
    version: Version,
    pixel_size_um: Option<[f64; 2]>,
) -> Result<()> {
    let axes = ["y", "x"].map(|name| match pixel_size_um {
        Some(_) => json!({ "name": name, "type": "space", "unit": "micrometer" }),
        None => json!({ "name": name, "type": "space" }),
    });
    let [h, w] = objects.size();
    let [y, x] = pixel_size_um.unwrap_or([1.0, 1.0]);
    let mut levels = Vec::new();
    for step in (0..).map(|level| 1_u32 << level) {
        let scale = json!([{ "type": "scale", "scale": [y * f64::from(step), x * f64::from(step)] }]);
        levels.push(Sampling { rows: every(h, step), columns: every(w, step), transformations: scale });
        if h.max(w).div_ceil(step) <= SMALLEST {
            break;
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".zarr").unwrap_or(&name);
    let name = name.strip_suffix(".ome").unwrap_or(name);
    let pyramid = Pyramid { version, name: name.to_owned(), axes: axes.to_vec(), levels, shared: None, source: None };
    pyramid.write(path, objects, table)
}

/// Writes the labels as `labels/NAME` into the OME-Zarr image at `group`, in its version, with its levels and axes (without the
/// channels), and enters the name in the list of labels. Labels of that name are replaced.
///
/// # Errors
/// `Unsupported` for other versions than 0.4 and 0.5 and for images of several planes or time points; `Shape` when the image has
/// another size than the labels; `Format` when its metadata is damaged; `Io`.
pub fn write_into_image(group: &Path, name: &str, objects: &Objects<'_>, table: &Table) -> Result<()> {
    let pyramid = Pyramid::of_image(group, name, objects.size()).map_err(|error| error.with_path(group))?;
    let folder = group.join("labels");
    make_folder(&folder)?;
    pyramid.write(&folder.join(name), objects, table)?;
    enter_name(&folder, name, pyramid.version)
}

/// The name joins the `labels` list of the group `folder`.
fn enter_name(folder: &Path, name: &str, version: Version) -> Result<()> {
    let (file, exists) = match version {
        Version::V04 => (folder.join(".zattrs"), folder.join(".zattrs").is_file()),
        Version::V05 => (folder.join("zarr.json"), folder.join("zarr.json").is_file()),
    };
    let mut metadata = if exists { read_json(&file)? } else { json!({}) };
    let damaged = || Error::new(ErrorKind::Format, "expected an object").with_path(&file);
    let mut attributes = metadata.as_object_mut().ok_or_else(damaged)?;
    if version == Version::V05 {
        attributes.entry("zarr_format").or_insert(json!(3));
        attributes.entry("node_type").or_insert(json!("group"));
        for key in ["attributes", "ome"] {
            attributes = attributes.entry(key).or_insert(json!({})).as_object_mut().ok_or_else(damaged)?;
        }
        attributes.entry("version").or_insert(json!(version.name()));
    }
    let names = attributes.entry("labels").or_insert(json!([])).as_array_mut().ok_or_else(damaged)?;
    if !names.contains(&json!(name)) {
        names.push(json!(name));
    }
    if version == Version::V04 && !folder.join(".zgroup").is_file() {
        write_json(&folder.join(".zgroup"), &json!({ "zarr_format": 2 }))?;
    }
    write_json(&file, &metadata)
}

/// Which pixels of the labels a level holds, and where its pixels lie.
struct Sampling {
    rows: Vec<u32>,
    columns: Vec<u32>,
    transformations: Value,
}

struct Pyramid {
    version: Version,
    name: String,
    /// As in the metadata; the last two are y and x.
    axes: Vec<Value>,
    levels: Vec<Sampling>,
    /// Transformations of all levels, after their own.
    shared: Option<Value>,
    /// The image, relative to the labels.
    source: Option<&'static str>,
}

impl Pyramid {
    /// The axes and levels of the image at `group`.
    fn of_image(group: &Path, name: &str, size: [u32; 2]) -> Result<Self> {
        let (attributes, version) = if group.join("zarr.json").is_file() {
            (read_json(&group.join("zarr.json"))?["attributes"]["ome"].take(), Version::V05)
        } else if group.join(".zattrs").is_file() {
            (read_json(&group.join(".zattrs"))?, Version::V04)
        } else {
            return Err(Error::new(
                ErrorKind::Format,
                "expected an OME-Zarr image, found neither zarr.json nor .zattrs",
            ));
        };
        let image = &attributes["multiscales"][0];
        let found = match version {
            Version::V04 => image["version"].as_str(),
            Version::V05 => attributes["version"].as_str(),
        };
        if found != Some(version.name()) {
            let message = format!("OME-Zarr image: expected version 0.4 or 0.5, found {}", found.unwrap_or("none"));
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let damaged = |what: &str| Error::new(ErrorKind::Format, format!("OME-Zarr image: {what}"));
        let axes = image["axes"].as_array().ok_or_else(|| damaged("no axes"))?;
        let names: Vec<&str> = axes.iter().map(|axis| axis["name"].as_str().unwrap_or_default()).collect();
        if !names.ends_with(&["y", "x"]) {
            return Err(damaged(&format!("expected axes that end in y, x, found {names:?}")));
        }
        let kept: Vec<usize> =
            (0..axes.len()).filter(|&index| names[index] != "c" && axes[index]["type"] != "channel").collect();
        let datasets = image["datasets"].as_array().filter(|datasets| !datasets.is_empty());
        let mut levels = Vec::new();
        for dataset in datasets.ok_or_else(|| damaged("no datasets"))? {
            let path = dataset["path"].as_str().ok_or_else(|| damaged("a dataset without a path"))?;
            let file = group.join(path).join(if version == Version::V04 { ".zarray" } else { "zarr.json" });
            let shape: Option<Vec<u32>> = read_json(&file)?["shape"].as_array().and_then(|shape| {
                shape.iter().map(|extent| extent.as_u64().and_then(|extent| u32::try_from(extent).ok())).collect()
            });
            let shape =
                shape.filter(|shape| shape.len() == axes.len()).ok_or_else(|| damaged("shape and axes differ"))?;
            let [h, w] = [shape[axes.len() - 2], shape[axes.len() - 1]];
            if let Some(&index) = kept.iter().rev().skip(2).find(|&&index| shape[index] != 1) {
                let message = format!(
                    "labels of one plane cannot go into an image whose axis {} has length {}",
                    names[index], shape[index]
                );
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            if levels.is_empty() && [h, w] != size {
                let found = format!("{} × {}", size[0], size[1]);
                return Err(Error::shape("labels for an OME-Zarr image", format!("its {h} × {w} pixels"), found));
            }
            levels.push(Sampling {
                rows: nearest(size[0], h),
                columns: nearest(size[1], w),
                transformations: without_channels(&dataset["coordinateTransformations"], &kept, axes.len())?,
            });
        }
        let shared = match &image["coordinateTransformations"] {
            Value::Null => None,
            shared => Some(without_channels(shared, &kept, axes.len())?),
        };
        let axes = kept.iter().map(|&index| axes[index].clone()).collect();
        Ok(Self { version, name: name.to_owned(), axes, levels, shared, source: Some("../../") })
    }

    fn write(&self, path: &Path, objects: &Objects<'_>, table: &Table) -> Result<()> {
        let [h, w] = objects.size();
        if h == 0 || w == 0 {
            return Err(Error::shape("image to write", "at least 1 × 1 pixel", format!("{h} × {w}")).with_path(path));
        }
        let format = self.version.format();
        let axes: Vec<String> =
            self.axes.iter().map(|axis| axis["name"].as_str().unwrap_or_default().to_owned()).collect();
        let narrow = objects.ids().last().is_none_or(|&id| id <= u32::from(u16::MAX));
        // Replaced by its like only.
        write_folder_atomically(path, is_zarr, |folder| {
            for (index, sampling) in self.levels.iter().enumerate() {
                let (rows, columns) = (sampling.rows.clone(), sampling.columns.clone());
                let level = Level { labels: objects.labels(), rows, columns, narrow };
                write_array(&folder.join(index.to_string()), format, &axes, &level)?;
            }
            write_group(folder, format, &self.attributes(objects, table))
        })
    }

    fn attributes(&self, objects: &Objects<'_>, table: &Table) -> Value {
        let datasets: Vec<Value> = self
            .levels
            .iter()
            .enumerate()
            .map(|(index, level)| json!({ "path": index.to_string(), "coordinateTransformations": level.transformations }))
            .collect();
        let mut multiscale = json!({ "name": self.name, "axes": self.axes, "datasets": datasets, "type": "nearest" });
        if let Some(shared) = &self.shared {
            multiscale["coordinateTransformations"] = shared.clone();
        }
        let mut label = self.image_label(objects, table);
        match self.version {
            Version::V04 => {
                multiscale["version"] = json!("0.4");
                label.insert("version".into(), json!("0.4"));
                json!({ "multiscales": [multiscale], "image-label": label })
            }
            Version::V05 => {
                json!({ "ome": { "version": "0.5", "multiscales": [multiscale], "image-label": label } })
            }
        }
    }

    /// Colours, properties and source.
    fn image_label(&self, objects: &Objects<'_>, table: &Table) -> Map<String, Value> {
        let mut label = Map::new();
        if objects.len() <= DESCRIBED && !objects.is_empty() {
            let colors = objects.ids().iter().map(|&id| {
                let [r, g, b] = color::of_id(id);
                json!({ "label-value": id, "rgba": [r, g, b, 255] })
            });
            label.insert("colors".into(), colors.collect());
            let columns: Vec<_> =
                ["area_px", "score", "predicted_iou"].into_iter().filter_map(|name| table.column(name)).collect();
            let properties = objects.ids().iter().enumerate().map(|(index, &id)| {
                let mut values = Map::from_iter([("label-value".to_owned(), json!(id))]);
                for column in &columns {
                    if let Some(number) = column.values.number(index) {
                        values.insert(column.name.clone(), json!(number));
                    }
                }
                Value::from(values)
            });
            label.insert("properties".into(), properties.collect());
        }
        if let Some(image) = self.source {
            label.insert("source".into(), json!({ "image": image }));
        }
        label
    }
}

/// Scales and translations of the `kept` ones among `n` axes.
fn without_channels(transformations: &Value, kept: &[usize], n: usize) -> Result<Value> {
    let unsupported = || {
        let message =
            format!("OME-Zarr image: expected scales and translations of {n} numbers, found {transformations}");
        Error::new(ErrorKind::Unsupported, message)
    };
    let mut copied = Vec::new();
    for transformation in transformations.as_array().ok_or_else(unsupported)? {
        let kind = transformation["type"].as_str().filter(|kind| ["scale", "translation"].contains(kind));
        let kind = kind.ok_or_else(unsupported)?;
        let numbers = transformation[kind].as_array().filter(|numbers| numbers.len() == n).ok_or_else(unsupported)?;
        let numbers: Vec<&Value> = kept.iter().map(|&index| &numbers[index]).collect();
        let mut copy = json!({ "type": kind });
        copy[kind] = json!(numbers);
        copied.push(copy);
    }
    Ok(Value::from(copied))
}

/// Every `step`-th of `n` indices.
fn every(n: u32, step: u32) -> Vec<u32> {
    (0..n).step_by(step as usize).collect()
}

/// For each of `fewer` pixels one of `n`: every step-th where the lengths are those of such a pyramid, whichever way it rounds.
fn nearest(n: u32, fewer: u32) -> Vec<u32> {
    let step = (f64::from(n) / f64::from(fewer.max(1))).round().max(1.0) as u32;
    if n.div_ceil(step) == fewer || n / step == fewer {
        return (0..fewer).map(|index| index * step).collect();
    }
    (0..fewer).map(|index| (u64::from(index) * u64::from(n) / u64::from(fewer)).min(u64::from(n) - 1) as u32).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use cytomask_image::Labels;

    use super::*;
    use crate::measure::measure;

    /// Two discs with far ids; the second only in the right half.
    fn labels(size: [u32; 2], id: u32) -> Labels {
        let mut labels = Labels::zeros(size);
        for (index, pixel) in labels.as_mut_slice().iter_mut().enumerate() {
            let (y, x) = (index as u32 / size[1], index as u32 % size[1]);
            if y > 20 && x < 40 {
                *pixel = 3
            }
            if y < 50 && x > size[1] - 30 {
                *pixel = id
            }
        }
        labels
    }

    fn write_any(path: &Path, labels: &Labels, version: Version, into: Option<&str>) -> Result<()> {
        let objects = Objects::new(labels);
        let table = Table::new(&objects, &measure(&objects, None)?, vec![], &[], None)?;
        match into {
            Some(name) => write_into_image(path, name, &objects, &table),
            None => write(path, &objects, &table, version, Some([0.5, 0.25])),
        }
    }

    /// An array of at most one chunk a side beyond the first, as u32; missing chunks are 0.
    fn read_array(folder: &Path, format: Format) -> (Vec<u64>, Vec<u32>) {
        let metadata = read_json(&folder.join(if format == Format::V2 { ".zarray" } else { "zarr.json" })).unwrap();
        let list = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect::<Vec<_>>();
        let shape = list(&metadata["shape"]);
        let (chunk, wide, mut prefix) = match format {
            Format::V2 => (list(&metadata["chunks"]), metadata["dtype"] == "<u4", folder.to_path_buf()),
            Format::V3 => (
                list(&metadata["chunk_grid"]["configuration"]["chunk_shape"]),
                metadata["data_type"] == "uint32",
                folder.join("c"),
            ),
        };
        prefix.extend(std::iter::repeat_n("0", shape.len() - 2));
        let [h, w] = [shape[shape.len() - 2] as usize, shape[shape.len() - 1] as usize];
        let [ch, cw] = [chunk[shape.len() - 2] as usize, chunk[shape.len() - 1] as usize];
        let mut pixels = vec![0; h * w];
        for (cy, cx) in (0..h.div_ceil(ch)).flat_map(|cy| (0..w.div_ceil(cw)).map(move |cx| (cy, cx))) {
            let Ok(stored) = std::fs::read(prefix.join(cy.to_string()).join(cx.to_string())) else { continue };
            let mut bytes = Vec::new();
            flate2::read::GzDecoder::new(stored.as_slice()).read_to_end(&mut bytes).unwrap();
            let each = if wide { 4 } else { 2 };
            assert_eq!(bytes.len(), ch * cw * each);
            for (at, pixel) in bytes.chunks_exact(each).enumerate() {
                let (y, x) = (cy * ch + at / cw, cx * cw + at % cw);
                let value = pixel.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
                if y < h && x < w { pixels[y * w + x] = value } else { assert_eq!(value, 0) }
            }
        }
        (shape, pixels)
    }

    #[test]
    fn the_pyramid_holds_every_second_pixel() {
        let folder = tempfile::tempdir().unwrap();
        for (version, id) in [(Version::V04, 70_000), (Version::V05, 9)] {
            // Larger than a chunk, odd, mostly empty.
            let labels = labels([97, 3500], id);
            let path = folder.path().join("cells.ome.zarr");
            write_any(&path, &labels, version, None).unwrap();
            let attributes = match version {
                Version::V04 => read_json(&path.join(".zattrs")).unwrap(),
                Version::V05 => read_json(&path.join("zarr.json")).unwrap()["attributes"]["ome"].take(),
            };
            let image = &attributes["multiscales"][0];
            assert_eq!(image["name"], "cells");
            let datasets = image["datasets"].as_array().unwrap();
            assert_eq!(datasets.len(), 5);
            for (level, dataset) in datasets.iter().enumerate() {
                let step = 1_usize << level;
                let scale = &dataset["coordinateTransformations"][0]["scale"];
                assert_eq!(*scale, json!([0.5 * step as f64, 0.25 * step as f64]));
                let (shape, pixels) = read_array(&path.join(dataset["path"].as_str().unwrap()), version.format());
                assert_eq!(shape, [97_u64.div_ceil(step as u64), 3500_u64.div_ceil(step as u64)]);
                let expected: Vec<u32> = (0..97)
                    .step_by(step)
                    .flat_map(|y| (0..3500).step_by(step).map(move |x| (y, x)))
                    .map(|(y, x)| labels.at(y, x))
                    .collect();
                assert_eq!(pixels, expected);
            }
            assert_eq!(attributes["image-label"]["colors"][1]["label-value"], id);
            assert_eq!(attributes["image-label"]["properties"][0]["area_px"], 76.0 * 40.0);
            // The middle chunk is background.
            let chunk = if version == Version::V04 { "0/0/1" } else { "0/c/0/1" };
            assert!(!path.join(chunk).exists());
        }
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn only_zarr_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("thesis");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("chapter.txt"), "words").unwrap();
        let error = write_any(&path, &labels([97, 131], 9), Version::V04, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(path.join("chapter.txt").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let none = Labels::zeros([0, 5]);
        assert_eq!(write_any(&path, &none, Version::V04, None).unwrap_err().kind(), ErrorKind::Shape);
    }

    /// Metadata of an image `[1, 3, 1, 97, 131]` and `[1, 3, 1, 48, 65]` without pixels.
    fn image_group(path: &Path, version: Version, shape: [u32; 5]) {
        let smaller = [shape[0], shape[1], shape[2], shape[3] / 2, shape[4] / 2];
        let axes: Vec<Value> = ["t", "c", "z", "y", "x"].iter().map(|name| json!({ "name": name })).collect();
        let dataset = |level: u32| {
            let scale = [1.0, 1.0, 1.0, 0.5, 0.25].map(|value| value * f64::from(1 + level));
            let translation = [0.0, 7.0, 0.0, 0.1, 0.2];
            json!({ "path": format!("s{level}"), "coordinateTransformations": [
                { "type": "scale", "scale": scale }, { "type": "translation", "translation": translation } ] })
        };
        let mut image = json!({ "axes": axes, "datasets": [dataset(0), dataset(1)] });
        for (level, shape) in [shape, smaller].iter().enumerate() {
            let folder = path.join(format!("s{level}"));
            std::fs::create_dir_all(&folder).unwrap();
            let name = if version == Version::V04 { ".zarray" } else { "zarr.json" };
            write_json(&folder.join(name), &json!({ "shape": shape })).unwrap();
        }
        match version {
            Version::V04 => {
                image["version"] = json!("0.4");
                write_group(path, Format::V2, &json!({ "multiscales": [image] })).unwrap();
            }
            Version::V05 => {
                write_group(path, Format::V3, &json!({ "ome": { "version": "0.5", "multiscales": [image] } })).unwrap();
            }
        }
    }

    #[test]
    fn labels_join_an_image() {
        let folder = tempfile::tempdir().unwrap();
        for version in [Version::V04, Version::V05] {
            let path = folder.path().join(version.name());
            image_group(&path, version, [1, 3, 1, 97, 131]);
            let labels = labels([97, 131], 9);
            for name in ["cells", "nuclei", "cells"] {
                write_any(&path, &labels, version, Some(name)).unwrap();
            }
            let (names, attributes) = match version {
                Version::V04 => (
                    read_json(&path.join("labels/.zattrs")).unwrap()["labels"].take(),
                    read_json(&path.join("labels/cells/.zattrs")).unwrap(),
                ),
                Version::V05 => (
                    read_json(&path.join("labels/zarr.json")).unwrap()["attributes"]["ome"]["labels"].take(),
                    read_json(&path.join("labels/cells/zarr.json")).unwrap()["attributes"]["ome"].take(),
                ),
            };
            assert_eq!(names, json!(["cells", "nuclei"]));
            assert_eq!(attributes["image-label"]["source"]["image"], "../../");
            let image = &attributes["multiscales"][0];
            assert_eq!(image["axes"].as_array().unwrap().len(), 4);
            let transformations = &image["datasets"][1]["coordinateTransformations"];
            assert_eq!(transformations[0]["scale"], json!([2.0, 2.0, 1.0, 0.5]));
            assert_eq!(transformations[1]["translation"], json!([0.0, 0.0, 0.1, 0.2]));
            let (shape, pixels) = read_array(&path.join("labels/cells/1"), version.format());
            assert_eq!(shape, [1, 1, 48, 65]);
            assert_eq!(pixels[47 * 65 + 3], labels.at(94, 6));
            let (shape, pixels) = read_array(&path.join("labels/cells/0"), version.format());
            assert_eq!((shape, pixels.as_slice()), (vec![1, 1, 97, 131], labels.as_slice()));
        }
    }

    #[test]
    fn images_the_labels_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let labels = labels([97, 131], 9);
        let kind = |shape| {
            image_group(&path, Version::V04, shape);
            write_any(&path, &labels, Version::V04, Some("cells")).unwrap_err().kind()
        };
        assert_eq!(kind([1, 3, 1, 97, 130]), ErrorKind::Shape);
        assert_eq!(kind([1, 3, 5, 97, 131]), ErrorKind::Unsupported);
        write_group(&path, Format::V2, &json!({ "multiscales": [{ "version": "0.1" }] })).unwrap();
        let error = write_any(&path, &labels, Version::V04, Some("cells")).unwrap_err();
        assert!(error.to_string().contains("found 0.1"), "{error}");
        assert!(!path.join("labels").exists());
        assert_eq!(image_group_of(Path::new("a/i.zarr/labels/cells")), Some(Path::new("a/i.zarr")));
        assert_eq!(image_group_of(Path::new("labels/cells")), None);
        assert_eq!(image_group_of(Path::new("a/cells.zarr")), None);
    }
}
