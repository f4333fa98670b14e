//! GeoJSON polygons: HPA's and PUMA's annotations.

use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// Closed lines, each of `(x, y)`.
pub(crate) type Rings = Vec<Vec<(f64, f64)>>;

/// A polygon (or several) and its class.
pub(crate) struct Feature {
    /// Outer lines and holes.
    pub(crate) rings: Rings,
    /// `properties.classification.name`, where there is one.
    pub(crate) class: Option<String>,
}

/// Polygons and multi-polygons in the order of the file; other geometries are left out.
pub(crate) fn read(text: &[u8]) -> Result<Vec<Feature>> {
    let root: Value = serde_json::from_slice(text)
        .map_err(|source| Error::new(ErrorKind::Format, "GeoJSON: the file is damaged").with_source(source))?;
    let features = root["features"].as_array().or_else(|| root.as_array());
    let features =
        features.ok_or_else(|| Error::new(ErrorKind::Format, "GeoJSON: expected a list of features, found none"))?;
    let mut out = Vec::new();
    for (index, feature) in features.iter().enumerate() {
        let geometry = &feature["geometry"];
        let polygons: Vec<&Value> = match geometry["type"].as_str() {
            Some("Polygon") => vec![&geometry["coordinates"]],
            Some("MultiPolygon") => geometry["coordinates"].as_array().into_iter().flatten().collect(),
            _ => continue,
        };
        let mut rings = Vec::new();
        for ring in polygons.into_iter().flat_map(|polygon| polygon.as_array().into_iter().flatten()) {
            let points: Option<Vec<(f64, f64)>> = ring.as_array().into_iter().flatten().map(point).collect();
            rings.push(points.ok_or_else(|| {
                Error::new(
                    ErrorKind::Format,
                    format!("GeoJSON: feature {index}: expected points of two numbers, found others"),
                )
            })?);
        }
        let class = &feature["properties"]["classification"];
        // geopandas turns the object into text; files in which somebody kept that are read as well.
        let parsed = class.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let class = parsed.as_ref().unwrap_or(class)["name"].as_str().map(str::to_owned);
        out.push(Feature { rings, class });
    }
    Ok(out)
}

fn point(value: &Value) -> Option<(f64, f64)> {
    let number = |at: usize| value.get(at).and_then(Value::as_f64).filter(|value| value.abs() < 1e9);
    Some((number(0)?, number(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polygons_are_kept_and_lines_are_not() {
        let text = br#"{"features": [
            {"geometry": {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}, "properties": {}},
            {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [4.5, 0], [0, 4]]]},
             "properties": {"classification": {"name": "tumor"}}},
            {"geometry": {"type": "MultiPolygon", "coordinates": [[[[0, 0]]], [[[1, 1]], [[2, 2]]]]},
             "properties": {"classification": "{\"name\": \"stroma\"}"}}]}"#;
        let found = read(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0].rings[0][1], found[0].class.as_deref()), (&(4.5, 0.0), Some("tumor")));
        assert_eq!((found[1].rings.len(), found[1].class.as_deref()), (3, Some("stroma")));
    }

    #[test]
    fn damage_is_said() {
        for bad in ["{", "{}", r#"{"features": [{"geometry": {"type": "Polygon", "coordinates": [[["a", 1]]]}}]}"#] {
            assert_eq!(read(bad.as_bytes()).map(drop).unwrap_err().kind(), ErrorKind::Format, "{bad}");
        }
    }
}
