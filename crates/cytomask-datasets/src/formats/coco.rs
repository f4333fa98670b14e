//! COCO JSON annotations: polygons and run lengths, as pycocotools reads them. LIVECell's labels.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::{Error, ErrorKind, Result};

/// An image and its objects.
pub(crate) struct CocoImage {
    pub(crate) file_name: String,
    /// `[h, w]`.
    pub(crate) size: [u32; 2],
    pub(crate) objects: Vec<Object>,
}

/// An annotated object.
#[derive(Deserialize)]
pub(crate) struct Object {
    image_id: u64,
    #[serde(default)]
    pub(crate) area: f64,
    #[serde(default)]
    iscrowd: u8,
    pub(crate) segmentation: Segmentation,
}

impl Object {
    /// What torch-em sorts by: crowds count as one pixel.
    pub(crate) fn rank(&self) -> f64 {
        if self.iscrowd == 0 { self.area } else { 1.0 }
    }
}

/// A mask.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Segmentation {
    /// `x, y, x, y, …` of each part.
    Polygons(Vec<Vec<f64>>),
    /// Run lengths in column order, starting with background.
    Runs {
        /// As numbers or packed.
        counts: Counts,
        /// `[h, w]`.
        size: [u32; 2],
    },
}

/// Run lengths.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Counts {
    Plain(Vec<u32>),
    Packed(String),
}

impl Counts {
    /// The numbers.
    pub(crate) fn numbers(&self) -> Result<Vec<u32>> {
        match self {
            Counts::Plain(numbers) => Ok(numbers.clone()),
            Counts::Packed(text) => unpack(text),
        }
    }
}

/// COCO's text form: six bits a character from '0' on, of which the sixth says that more follow; from the fourth number on,
/// differences to the number two before.
fn unpack(text: &str) -> Result<Vec<u32>> {
    let bad = || Error::new(ErrorKind::Format, format!("COCO: bad run lengths {text:?}"));
    let mut numbers: Vec<i64> = Vec::new();
    let (mut value, mut shift) = (0_i64, 0_u32);
    for byte in text.bytes() {
        let six = i64::from(byte.checked_sub(48).filter(|&bits| bits < 64).ok_or_else(bad)?);
        if shift > 30 {
            return Err(bad());
        }
        value |= (six & 0x1F) << shift;
        shift += 5;
        if six & 0x20 == 0 {
            if six & 0x10 != 0 {
                value |= -1_i64 << shift;
            }
            if let Some(at) = numbers.len().checked_sub(2).filter(|_| numbers.len() > 2) {
                value += numbers[at];
            }
            numbers.push(value);
            (value, shift) = (0, 0);
        }
    }
    let numbers: Option<Vec<u32>> = numbers.into_iter().map(|value| value.try_into().ok()).collect();
    numbers.filter(|_| shift == 0).ok_or_else(bad)
}

#[derive(Deserialize)]
struct Root {
    images: Vec<Image>,
    #[serde(deserialize_with = "list_or_map")]
    annotations: Vec<Object>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
    height: u32,
    width: u32,
}

/// Some of LIVECell's files hold the annotations as a list, others as a map from their ids.
fn list_or_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Object>, D::Error> {
    struct Both;
    impl<'de> Visitor<'de> for Both {
        type Value = Vec<Object>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list or map of annotations")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut out = Vec::new();
            while let Some(object) = list.next_element()? {
                out.push(object);
            }
            Ok(out)
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut out = Vec::new();
            while let Some((_, object)) = map.next_entry::<String, Object>()? {
                out.push(object);
            }
            Ok(out)
        }
    }
    deserializer.deserialize_any(Both)
}

/// All images in the order of the file, each with its objects.
pub(crate) fn read(path: &Path) -> Result<Vec<CocoImage>> {
    let file = File::open(path).map_err(|source| Error::new(ErrorKind::Io, "cannot read").with_source(source))?;
    let root: Root = serde_json::from_reader(BufReader::new(file)).map_err(|source| {
        Error::new(ErrorKind::Format, "COCO JSON: the file is damaged or of another form").with_source(source)
    })?;
    let mut of_image: BTreeMap<u64, Vec<Object>> = BTreeMap::new();
    for object in root.annotations {
        of_image.entry(object.image_id).or_default().push(object);
    }
    let image = |image: Image| CocoImage {
        objects: of_image.remove(&image.id).unwrap_or_default(),
        file_name: image.file_name,
        size: [image.height, image.width],
    };
    Ok(root.images.into_iter().map(image).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_runs() {
        // pycocotools.mask.encode of a 97 × 131 mask with rectangles at rows 10–19, columns 5–7 and rows 50–89, columns 100–130.
        let runs: Vec<u32> = [495, 10, 87, 10, 87, 10, 9051]
            .into_iter()
            .chain(std::iter::repeat_n([40, 57], 30).flatten())
            .chain([40, 7])
            .collect();
        assert_eq!(
            unpack("_?:g2000Th8n0nVG00000000000000000000000000000000000000000000000000000000000^N").unwrap(),
            runs
        );
        assert!(unpack("\u{7f}").is_err());
        assert!(unpack("ooooooooooooo").is_err());
    }

    #[test]
    fn lists_and_maps_of_annotations() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let object = r#"{"id": 5, "image_id": 2, "area": 7.5, "iscrowd": 0, "segmentation": [[0, 0, 4, 0, 4, 4]]}"#;
        let images = r#"[{"id": 1, "file_name": "a.tif", "height": 3, "width": 4}, {"id": 2, "file_name": "b.tif", "height": 5, "width": 6}]"#;
        for annotations in [format!("[{object}]"), format!("{{\"5\": {object}}}")] {
            std::fs::write(&path, format!("{{\"images\": {images}, \"annotations\": {annotations}}}")).unwrap();
            let found = read(&path).unwrap();
            assert_eq!((found[0].objects.len(), found[1].objects.len(), found[1].size), (0, 1, [5, 6]));
            assert_eq!(found[1].objects[0].rank(), 7.5);
        }
        std::fs::write(&path, "{\"images\": [").unwrap();
        assert_eq!(read(&path).map(drop).unwrap_err().kind(), ErrorKind::Format);
    }
}
