//! Label images as pictures of ids: TIFF, OME-TIFF, PNG, and Cellpose's file names.
//!
//! Ids are 16-bit while they fit and 32-bit otherwise, never wrapped (`docs/decisions/0020-label-types.md`).

use std::path::Path;

use cytomask_image::{Labels, Result, TiffNotes, output};

/// Writes a TIFF; see [`output::write_labels_tiff`]. The pixel size goes into its resolution.
///
/// # Errors
/// As [`output::write_labels_tiff`].
pub fn write_tiff(path: &Path, labels: &Labels, pixel_size_um: Option<[f64; 2]>) -> Result<()> {
    output::write_labels_tiff_with(path, labels, TiffNotes { description: None, pixel_size_um })
}

/// Writes an OME-TIFF (schema 2016-06) of one plane and one channel called `labels`.
///
/// # Errors
/// As [`output::write_labels_tiff`].
pub fn write_ome_tiff(path: &Path, labels: &Labels, name: &str, pixel_size_um: Option<[f64; 2]>) -> Result<()> {
    let description = ome_xml(labels, name, pixel_size_um);
    output::write_labels_tiff_with(path, labels, TiffNotes { description: Some(&description), pixel_size_um })
}

/// Writes a 16-bit PNG.
///
/// # Errors
/// `Value` when an id does not fit, naming TIFF as the way out; otherwise as [`output::write_labels_png16`].
pub fn write_png(path: &Path, labels: &Labels) -> Result<()> {
    output::write_labels_png16(path, labels)
}

/// The name Cellpose gives the masks of an image: `STEM_cp_masks.tif`, or `.png`. The files themselves are those of [`write_tiff`]
/// and [`write_png`].
pub fn cellpose_name(stem: &str, extension: &str) -> String {
    format!("{stem}_cp_masks.{extension}")
}

/// The metadata block, ASCII. µm is OME's default unit of length.
fn ome_xml(labels: &Labels, name: &str, pixel_size_um: Option<[f64; 2]>) -> String {
    let [h, w] = labels.size();
    let sample = if labels.max_id() <= u32::from(u16::MAX) { "uint16" } else { "uint32" };
    let physical = pixel_size_um.map_or_else(String::new, |[y, x]| {
        format!(
            " PhysicalSizeX=\"{x}\" PhysicalSizeXUnit=\"&#181;m\" PhysicalSizeY=\"{y}\" PhysicalSizeYUnit=\"&#181;m\""
        )
    });
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><OME xmlns=\"http://www.openmicroscopy.org/Schemas/OME/2016-06\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xsi:schemaLocation=\"http://www.openmicroscopy.org/Schemas/OME/2016-06 http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd\" \
         Creator=\"cytomask {}\"><Image ID=\"Image:0\" Name=\"{}\"><Pixels ID=\"Pixels:0\" DimensionOrder=\"XYCZT\" \
         Type=\"{sample}\" SizeX=\"{w}\" SizeY=\"{h}\" SizeC=\"1\" SizeZ=\"1\" SizeT=\"1\"{physical}>\
         <Channel ID=\"Channel:0:0\" Name=\"labels\" SamplesPerPixel=\"1\"/><TiffData IFD=\"0\" PlaneCount=\"1\"/>\
         </Pixels></Image></OME>",
        env!("CARGO_PKG_VERSION"),
        escaped(name),
    )
}

/// Text of an XML attribute in ASCII.
fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            ' '..='~' if !"<>&\"'".contains(c) => c.to_string(),
            // Not allowed in XML 1.0 in any form.
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => "_".to_owned(),
            c => format!("&#{};", u32::from(c)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tiff::decoder::{Decoder, DecodingResult};
    use tiff::tags::Tag;

    use super::*;

    fn labels(max: u32) -> Labels {
        let mut ids: Vec<u32> = (0..97 * 131).map(|at| at % 7).collect();
        ids[5000] = max;
        Labels::from_vec([97, 131], ids).unwrap()
    }

    #[test]
    fn types_widen_and_ids_never_wrap() {
        let folder = tempfile::tempdir().unwrap();
        for (max, narrow) in [(65_535, true), (65_536, false), (u32::MAX, false)] {
            let labels = labels(max);
            let path = folder.path().join("a.tif");
            write_tiff(&path, &labels, None).unwrap();
            match Decoder::new(File::open(&path).unwrap()).unwrap().read_image().unwrap() {
                DecodingResult::U16(ids) => {
                    assert!(narrow && ids.iter().map(|&id| u32::from(id)).eq(labels.as_slice().iter().copied()))
                }
                DecodingResult::U32(ids) => assert!(!narrow && ids == labels.as_slice()),
                other => panic!("{other:?}"),
            }
            assert_eq!(write_png(&folder.path().join("a.png"), &labels).is_ok(), narrow);
            assert_eq!(cytomask_image::read_labels(&path).unwrap(), labels);
        }
        assert_eq!(cellpose_name("cells", "png"), "cells_cp_masks.png");
    }

    #[test]
    fn an_ome_tiff_says_its_axes_and_pixel_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ome.tif");
        let labels = labels(70_000);
        write_ome_tiff(&path, &labels, "<µ> \"1\"", Some([0.5, 0.25])).unwrap();
        assert_eq!(cytomask_image::read_labels(&path).unwrap(), labels);
        let mut decoder = Decoder::new(File::open(&path).unwrap()).unwrap();
        let text = decoder.get_tag_ascii_string(Tag::ImageDescription).unwrap();
        for part in [
            "SizeX=\"131\" SizeY=\"97\"",
            "Type=\"uint32\"",
            "PhysicalSizeX=\"0.25\"",
            "PhysicalSizeY=\"0.5\"",
            "Name=\"&#60;&#181;&#62; &#34;1&#34;\"",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        // 10,000 µm / 0.25 µm.
        let resolution = decoder.get_tag(Tag::XResolution).unwrap();
        assert_eq!(format!("{resolution:?}"), "Rational(400000000, 10000)");
    }
}
