//! What an OME-Zarr group says of itself.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::{damaged, optional_json};
use crate::{Error, ErrorKind, Result};

/// Metadata files may be as long as this.
const LONGEST: u64 = 64 << 20;

/// Reads a JSON file.
pub(super) fn read_json(path: &Path) -> Result<Value> {
    let io = |error| Error::new(ErrorKind::Io, "cannot read").with_source(error).with_path(path);
    let mut text = Vec::new();
    File::open(path).map_err(io)?.take(LONGEST + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > LONGEST {
        return Err(damaged(format!("metadata of more than {LONGEST} bytes")).with_path(path));
    }
    serde_json::from_slice(&text).map_err(|error| damaged("damaged metadata").with_source(error).with_path(path))
}

/// The attributes of a group that matter here.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) is_array: bool,
    pub(super) version: String,
    pub(super) multiscale: Option<Multiscale>,
    pub(super) images: usize,
    pub(super) channel_names: Vec<String>,
    pub(super) bioformats2raw: bool,
    /// Paths of the wells, when the group is a plate.
    pub(super) wells: Option<Vec<String>>,
    /// Paths of the fields, when the group is a well.
    pub(super) fields: Vec<String>,
}

/// The first multiscale image.
#[derive(Debug, Default)]
pub(super) struct Multiscale {
    /// Empty in files older than 0.3.
    pub(super) axes: Vec<String>,
    pub(super) units: Vec<String>,
    /// Of the full resolution, for each axis.
    pub(super) scale: Vec<f64>,
    pub(super) datasets: Vec<String>,
}

impl Group {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let v3 = optional_json(&path.join("zarr.json"))?;
        if let Some(v3) = v3 {
            if v3.get("node_type").and_then(Value::as_str) == Some("array") {
                return Ok(Self { is_array: true, ..Self::default() });
            }
            let attributes = v3.get("attributes").cloned().unwrap_or_default();
            // 0.5 keeps its attributes under `ome`; some writers did not.
            let ome = attributes.get("ome").cloned().unwrap_or(attributes);
            return Self::parse(&ome, "0.5");
        }
        let attributes = optional_json(&path.join(".zattrs"))?.unwrap_or_default();
        Self::parse(&attributes, "0.4")
    }

    /// `assumed` is the version of metadata that do not say theirs.
    fn parse(attributes: &Value, assumed: &str) -> Result<Self> {
        let list = |key: &str| attributes.get(key).and_then(Value::as_array);
        let images = list("multiscales").map_or(0, Vec::len);
        let first = list("multiscales").and_then(|all| all.first());
        let version = [Some(attributes), first]
            .into_iter()
            .flatten()
            .find_map(|value| value.get("version").and_then(Value::as_str))
            .unwrap_or(assumed);
        let channel_names = attributes
            .get("omero")
            .and_then(|omero| omero.get("channels"))
            .and_then(Value::as_array)
            .map(|channels| {
                let label =
                    |channel: &Value| channel.get("label").and_then(Value::as_str).unwrap_or_default().to_owned();
                channels.iter().map(label).collect()
            })
            .unwrap_or_default();
        let paths = |of: Option<&Value>, key: &str| -> Vec<String> {
            let list = of.and_then(|group| group.get(key)?.as_array());
            list.into_iter().flatten().filter_map(|entry| Some(entry.get("path")?.as_str()?.to_owned())).collect()
        };
        let plate = attributes.get("plate");
        Ok(Self {
            is_array: false,
            version: version.to_owned(),
            multiscale: first.map(Multiscale::parse).transpose()?,
            images,
            channel_names,
            bioformats2raw: attributes.get("bioformats2raw.layout").is_some(),
            wells: plate.map(|_| paths(plate, "wells")),
            fields: paths(attributes.get("well"), "images"),
        })
    }
}

impl Multiscale {
    fn parse(value: &Value) -> Result<Self> {
        let empty = Vec::new();
        let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned();
        let mut found = Self::default();
        for axis in list(value, "axes").unwrap_or_default() {
            // Since 0.4 an axis is an object, in 0.3 it was its name.
            let name = axis.as_str().or_else(|| axis.get("name").and_then(Value::as_str));
            found.axes.push(name.ok_or_else(|| damaged("an axis without a name"))?.to_owned());
            found.units.push(axis.get("unit").and_then(Value::as_str).unwrap_or_default().to_owned());
        }
        let datasets = list(value, "datasets").unwrap_or_default();
        for dataset in &datasets {
            let path =
                dataset.get("path").and_then(Value::as_str).ok_or_else(|| damaged("a dataset without a path"))?;
            found.datasets.push(path.to_owned());
        }
        let scale_of = |value: Option<&Value>| -> Option<Vec<f64>> {
            let transformations = value?.get("coordinateTransformations").and_then(Value::as_array).unwrap_or(&empty);
            let scale = transformations.iter().find(|one| one.get("type").and_then(Value::as_str) == Some("scale"))?;
            scale.get("scale")?.as_array()?.iter().map(Value::as_f64).collect()
        };
        if let Some(scale) = scale_of(datasets.first()) {
            let common = scale_of(Some(value)).unwrap_or_default();
            found.scale =
                scale.iter().enumerate().map(|(axis, own)| own * common.get(axis).copied().unwrap_or(1.0)).collect();
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_multiscale_image_is_understood() {
        let attributes = json!({
            "omero": { "channels": [{ "label": "DAPI" }, { "label": "actin" }] },
            "multiscales": [{
                "version": "0.4",
                "axes": [{ "name": "c", "type": "channel" }, { "name": "y", "unit": "micrometer" }, { "name": "x", "unit": "nanometer" }],
                "datasets": [{ "path": "0", "coordinateTransformations": [{ "type": "scale", "scale": [1.0, 0.25, 250.0] }] }, { "path": "1" }],
                "coordinateTransformations": [{ "type": "scale", "scale": [1, 2, 2] }],
            }],
        });
        let group = Group::parse(&attributes, "?").unwrap();
        assert_eq!((group.version.as_str(), group.channel_names.len()), ("0.4", 2));
        let image = group.multiscale.unwrap();
        assert_eq!(
            (image.axes, image.datasets),
            (["c", "y", "x"].map(String::from).to_vec(), vec!["0".into(), "1".into()])
        );
        assert_eq!((image.scale, image.units[1].as_str()), (vec![1.0, 0.5, 500.0], "micrometer"));
    }

    #[test]
    fn plates_name_wells_and_wells_fields() {
        let plate = json!({ "plate": { "wells": [{ "path": "B/03" }, { "path": "B/04" }] } });
        assert_eq!(Group::parse(&plate, "0.4").unwrap().wells.unwrap(), ["B/03", "B/04"]);
        let well = json!({ "well": { "images": [{ "path": "0" }, { "path": "1", "acquisition": 2 }] } });
        let well = Group::parse(&well, "0.4").unwrap();
        assert_eq!((well.fields, well.wells), (vec!["0".to_owned(), "1".to_owned()], None));
    }
}
