//! OME-XML, as far as reading an image needs it: sizes, order of planes, channel names, pixel size.
//!
//! After the OME model of 2016-06 (elements `Image`, `Pixels`, `Channel`, `TiffData`); older schemas use the same names.

use roxmltree::{Document, Node, ParsingOptions};

use crate::{Error, ErrorKind, Result};

/// Elements an OME-XML may have at most.
const MOST_NODES: u32 = 8_000_000;

/// The first image of an OME-XML.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OmeImage {
    /// Axes after X and Y, fastest first: a permutation of `ZCT`.
    pub(super) order: Vec<char>,
    pub(super) size: [u32; 2],
    pub(super) times: u32,
    pub(super) depth: u32,
    pub(super) channels: u32,
    /// µm, `[y, x]`.
    pub(super) pixel_size_um: Option<[f64; 2]>,
    pub(super) z_step_um: Option<f64>,
    /// One for each `Channel` element.
    pub(super) channel_names: Vec<String>,
    pub(super) planes: Vec<TiffData>,
    /// Images of the document, this one included.
    pub(super) images: usize,
}

/// Planes from one place on lie in pages from `page` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TiffData {
    pub(super) page: Option<u32>,
    pub(super) first: [u32; 3],
    pub(super) count: Option<u32>,
}

/// Whether a description is OME-XML.
pub(super) fn is_ome(description: &str) -> bool {
    let text = description.trim_start();
    text.starts_with('<') && text.contains("<OME") && text.trim_end().ends_with('>')
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Format, format!("OME-TIFF: damaged OME-XML: {what}"))
}

/// Reads the first image.
pub(super) fn parse(text: &str) -> Result<OmeImage> {
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| damaged(error.to_string()))?;
    let root = document.root_element();
    if child(root, "BinaryOnly").is_some() {
        let file = child(root, "BinaryOnly").and_then(|node| node.attribute("MetadataFile")).unwrap_or("another file");
        return Err(several_files(&format!("its metadata are in {file}")));
    }
    let images = root.children().filter(|node| node.has_tag_name_in("Image")).count();
    let pixels = child(root, "Image").and_then(|image| child(image, "Pixels")).ok_or_else(|| damaged("no Pixels"))?;
    let size = |name: &str| -> Result<u32> {
        let text = pixels.attribute(name).ok_or_else(|| damaged(format!("Pixels without {name}")))?;
        let value = text.trim().parse::<u32>().ok().filter(|&value| value > 0);
        value.ok_or_else(|| damaged(format!("{name} is {text:?}")))
    };
    let order = pixels.attribute("DimensionOrder").unwrap_or("XYCZT");
    let order = match order.strip_prefix("XY").map(|rest| rest.chars().collect::<Vec<char>>()) {
        Some(rest) if rest.len() == 3 && "ZCT".chars().all(|axis| rest.contains(&axis)) => rest,
        _ => return Err(damaged(format!("DimensionOrder is {order:?}"))),
    };
    let length = |axis: &str| {
        let value = pixels.attribute(format!("PhysicalSize{axis}").as_str())?.trim().parse::<f64>().ok()?;
        let unit = pixels.attribute(format!("PhysicalSize{axis}Unit").as_str()).unwrap_or("µm");
        micrometres(value, unit)
    };
    let pixel_size_um = length("Y").zip(length("X")).map(|(y, x)| [y, x]);
    let channel_names =
        children(pixels, "Channel").map(|node| node.attribute("Name").unwrap_or_default().trim().to_owned()).collect();
    let mut planes = Vec::new();
    let mut files = std::collections::BTreeSet::new();
    for node in children(pixels, "TiffData") {
        let number = |name: &str| -> Result<Option<u32>> {
            let Some(text) = node.attribute(name) else { return Ok(None) };
            text.trim().parse().map(Some).map_err(|_| damaged(format!("TiffData {name} is {text:?}")))
        };
        if let Some(file) = child(node, "UUID").and_then(|uuid| uuid.attribute("FileName")) {
            files.insert(file.to_owned());
        }
        let first = |name: &str| Ok::<u32, Error>(number(name)?.unwrap_or(0));
        planes.push(TiffData {
            page: number("IFD")?,
            first: [first("FirstT")?, first("FirstZ")?, first("FirstC")?],
            count: number("PlaneCount")?,
        });
    }
    if files.len() > 1 {
        return Err(several_files(&format!("its planes are spread over {} files", files.len())));
    }
    Ok(OmeImage {
        order,
        size: [size("SizeY")?, size("SizeX")?],
        times: size("SizeT")?,
        depth: size("SizeZ")?,
        channels: size("SizeC")?,
        pixel_size_um,
        z_step_um: length("Z"),
        channel_names,
        planes,
        images,
    })
}

fn several_files(what: &str) -> Error {
    let way = "join them with `bfconvert FIRST.ome.tif ONE.ome.tif`, or use --page to read this file's pages alone";
    Error::new(ErrorKind::Unsupported, format!("OME-TIFF in several files is not read ({what}); {way}"))
}

/// A length in µm; `None` for units without one and for lengths that are none.
pub(in crate::formats) fn micrometres(value: f64, unit: &str) -> Option<f64> {
    let factor = match unit.trim() {
        "\u{b5}m" | "\u{3bc}m" | "um" | "micron" | "microns" | "micrometer" | "micrometre" | "\\u00B5m" => 1.0,
        "nm" | "nanometer" | "nanometre" => 1e-3,
        "pm" => 1e-6,
        "\u{c5}" | "\u{212b}" | "angstrom" => 1e-4,
        "mm" | "millimeter" | "millimetre" => 1e3,
        "cm" | "centimeter" | "centimetre" => 1e4,
        "m" | "meter" | "metre" => 1e6,
        "in" | "inch" => 25_400.0,
        _ => return None,
    };
    Some(value * factor).filter(|value| value.is_finite() && *value > 0.0)
}

/// Namespaces differ between schemas: only local names count.
trait LocalName {
    fn has_tag_name_in(&self, name: &str) -> bool;
}

impl LocalName for Node<'_, '_> {
    fn has_tag_name_in(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}

fn children<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.has_tag_name_in(name))
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0" Name="a">
        <Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="131" SizeY="97" SizeZ="5" SizeC="2" SizeT="3"
          PhysicalSizeX="325" PhysicalSizeXUnit="nm" PhysicalSizeY="0.325" PhysicalSizeZ="1.5">
        <Channel ID="Channel:0:0" Name="DAPI" SamplesPerPixel="1"/><Channel ID="Channel:0:1" Name="actin"/>
        <TiffData IFD="0" PlaneCount="30"/></Pixels></Image></OME>"#;

    #[test]
    fn an_image_is_understood() {
        assert!(is_ome(XML));
        let image = parse(XML).unwrap();
        assert_eq!((image.size, image.times, image.depth, image.channels), ([97, 131], 3, 5, 2));
        assert_eq!(image.order, ['Z', 'C', 'T']);
        assert_eq!(image.channel_names, ["DAPI", "actin"]);
        let [y, x] = image.pixel_size_um.unwrap();
        assert!((y - 0.325).abs() < 1e-12 && (x - 0.325).abs() < 1e-12);
        assert_eq!(image.z_step_um, Some(1.5));
        assert_eq!(image.planes, [TiffData { page: Some(0), first: [0, 0, 0], count: Some(30) }]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |from: &str, to: &str| parse(&XML.replace(from, to)).unwrap_err();
        assert!(wrong("SizeZ=\"5\"", "SizeZ=\"0\"").to_string().contains("SizeZ is \"0\""));
        assert!(wrong("XYZCT", "XYZZT").to_string().contains("DimensionOrder is \"XYZZT\""));
        let files = wrong(
            "<TiffData IFD=\"0\" PlaneCount=\"30\"/>",
            "<TiffData><UUID FileName=\"a.tif\"/></TiffData><TiffData><UUID FileName=\"b.tif\"/></TiffData>",
        );
        assert_eq!(files.kind(), ErrorKind::Unsupported);
        assert!(files.to_string().contains("2 files"), "{files}");
        assert_eq!(parse("<OME><Image></OME>").unwrap_err().kind(), ErrorKind::Format);
    }
}
