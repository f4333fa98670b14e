//! GeoJSON as QuPath reads and writes it: one feature for each object, in pixels of the full image, origin at the top left
//! corner, y down (<https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html>).
//!
//! Objects are `detection`s unless told otherwise: QuPath draws millions of those, but only some thousands of annotations.
//! Features are written one by one, so that memory does not grow with their number.

use std::io::Write;

use cytomask_image::Result;
use sha2::{Digest, Sha256};

use crate::outline::Polygon;
use crate::{Objects, Table, io_failed, json};

/// What QuPath takes an object for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObjectType {
    /// One of many, with measurements.
    #[default]
    Detection,
    /// A detection that is a whole cell.
    Cell,
    /// Something to edit by hand.
    Annotation,
}

impl ObjectType {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Detection => "detection",
            Self::Cell => "cell",
            Self::Annotation => "annotation",
        }
    }
}

/// What a file says of all its objects.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What QuPath takes the objects for.
    pub object_type: ObjectType,
    /// A QuPath class for all of them, such as `Tumor`.
    pub classification: Option<String>,
    /// The image's name. The objects' UUIDs depend on it and on their ids, and on nothing else.
    pub image_name: String,
}

/// Columns that stay out of the measurements: the feature says them already.
const LEFT_OUT: &str = "";

/// Writes a `FeatureCollection`.
///
/// # Errors
/// `Io`.
pub fn write(writer: &mut dyn Write, objects: &Objects<'_>, table: &Table, options: &Options) -> Result<()> {
    writer.write_all(b"{\"type\":\"FeatureCollection\",\"features\":[").map_err(io_failed)?;
    let shown: Vec<_> = table.columns().iter().filter(|column| column.title != LEFT_OUT).collect();
    let titles: Vec<String> = shown.iter().map(|column| json::string(&column.title)).collect();
    let classification = options.classification.as_ref().map_or_else(String::new, |name| {
        let [r, g, b] = class_color(name);
        format!(",\"classification\":{{\"name\":{},\"color\":[{r},{g},{b}]}}", json::string(name))
    });
    for (index, &id) in objects.ids().iter().enumerate() {
        let measurements: Vec<String> = shown
            .iter()
            .zip(&titles)
            .filter_map(|(column, title)| Some(format!("{title}:{}", json::number(column.values.number(index)?))))
            .collect();
        let feature = format!(
            "{}\n{{\"type\":\"Feature\",\"id\":\"{}\",\"geometry\":{},\"properties\":{{\"objectType\":\"{}\",\"name\":\"{id}\"{classification},\"measurements\":{{{}}}}}}}",
            if index == 0 { "" } else { "," },
            uuid(&options.image_name, id),
            geometry(&objects.outline(index)),
            options.object_type.name(),
            measurements.join(","),
        );
        writer.write_all(feature.as_bytes()).map_err(io_failed)?;
    }
    writer.write_all(b"\n]}\n").map_err(io_failed)
}

/// `Polygon`, or `MultiPolygon` for an object of several parts; x before y, rings closed.
fn geometry(polygons: &[Polygon]) -> String {
    let parts: Vec<String> = polygons
        .iter()
        .map(|polygon| {
            let rings: Vec<String> = std::iter::once(&polygon.shell)
                .chain(&polygon.holes)
                .map(|ring| {
                    let corners: Vec<String> =
                        ring.iter().chain(ring.first()).map(|[y, x]| format!("[{x},{y}]")).collect();
                    format!("[{}]", corners.join(","))
                })
                .collect();
            format!("[{}]", rings.join(","))
        })
        .collect();
    match parts.as_slice() {
        [part] => format!("{{\"type\":\"Polygon\",\"coordinates\":{part}}}"),
        parts => format!("{{\"type\":\"MultiPolygon\",\"coordinates\":[{}]}}", parts.join(",")),
    }
}

/// A UUID of version 8 (RFC 9562) from a hash, the same whenever the same image is written.
fn uuid(image_name: &str, id: u32) -> String {
    let mut hash = Sha256::new();
    hash.update(b"cytomask object\0");
    hash.update(image_name.as_bytes());
    hash.update(id.to_le_bytes());
    let digest = hash.finalize();
    let mut text = String::with_capacity(36);
    for (index, &byte) in digest.iter().take(16).enumerate() {
        let byte = match index {
            6 => byte & 0x0f | 0x80,
            8 => byte & 0x3f | 0x80,
            _ => byte,
        };
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn class_color(name: &str) -> [u8; 3] {
    crate::color::of_id(name.bytes().fold(1, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))))
}

#[cfg(test)]
mod tests {
    use cytomask_image::Labels;
    use serde_json::Value;

    use super::*;
    use crate::{Column, measure::measure};

    #[test]
    fn features_have_outlines_and_measurements() {
        // 2 is a ring, 3 has two parts.
        #[rustfmt::skip]
        let ids = vec![
            2, 2, 2, 0, 3,
            2, 0, 2, 0, 0,
            2, 2, 2, 0, 3,
        ];
        let labels = Labels::from_vec([3, 5], ids).unwrap();
        let objects = Objects::new(&labels);
        let known = vec![Column::numbers("score", "Score", [0.5, f64::NAN])];
        let table = Table::new(&objects, &measure(&objects, None).unwrap(), known, &[], None).unwrap();
        let options = Options {
            object_type: ObjectType::Cell,
            classification: Some("A \"class\"".into()),
            image_name: "cells".into(),
        };
        let text = |options: &Options| {
            let mut bytes = Vec::new();
            write(&mut bytes, &objects, &table, options).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let value: Value = serde_json::from_str(&text(&options)).unwrap();
        assert_eq!(value["type"], "FeatureCollection");
        let [ring, parts] = value["features"].as_array().unwrap().as_slice() else { panic!() };
        assert_eq!(ring["geometry"]["type"], "Polygon");
        let rings = ring["geometry"]["coordinates"].as_array().unwrap();
        assert_eq!(rings[0], serde_json::json!([[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]]));
        assert_eq!(rings.len(), 2);
        assert_eq!(parts["geometry"]["type"], "MultiPolygon");
        assert_eq!(parts["geometry"]["coordinates"][1][0][0], serde_json::json!([4, 2]));
        assert_eq!(ring["properties"]["objectType"], "cell");
        assert_eq!(ring["properties"]["classification"]["name"], "A \"class\"");
        assert_eq!(ring["properties"]["measurements"]["Area px^2"], 8.0);
        assert_eq!(ring["properties"]["measurements"]["Score"], 0.5);
        assert!(parts["properties"]["measurements"].get("Score").is_none());
        let id = ring["id"].as_str().unwrap();
        assert_eq!((id.len(), &id[14..15]), (36, "8"));
        assert_ne!(ring["id"], parts["id"]);
        // The same again, and other ids for another image.
        assert_eq!(text(&options), text(&options));
        assert!(!text(&Options { image_name: "other".into(), ..options }).contains(id));
        let none = Labels::zeros([2, 2]);
        let mut bytes = Vec::new();
        write(&mut bytes, &Objects::new(&none), &Table::default(), &Options::default()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap()["features"], serde_json::json!([]));
    }
}
