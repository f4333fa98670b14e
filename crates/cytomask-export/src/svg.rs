//! Outlines as a drawing: one path for each object over nothing, in pixels of the image, so that it lies over it.

use std::io::Write;

use cytomask_image::Result;

use crate::{Objects, color, io_failed};

/// Writes an SVG of the size of the label image. Lines keep their width at any zoom; a path's id is `object-ID`.
///
/// # Errors
/// `Io`.
pub fn write(writer: &mut dyn Write, objects: &Objects<'_>) -> Result<()> {
    let [h, w] = objects.size();
    let head = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\">\n<style>path{{fill:none;fill-rule:evenodd;stroke-width:1.5px;stroke-linejoin:round;vector-effect:non-scaling-stroke}}</style>\n"
    );
    writer.write_all(head.as_bytes()).map_err(io_failed)?;
    let mut data = String::new();
    for (index, &id) in objects.ids().iter().enumerate() {
        data.clear();
        for polygon in objects.outline(index) {
            for ring in std::iter::once(&polygon.shell).chain(&polygon.holes) {
                data.push_str(&format!("M{} {}", ring[0][1], ring[0][0]));
                for pair in ring.windows(2) {
                    // Edges are level or upright in turn.
                    if pair[0][0] == pair[1][0] {
                        data.push_str(&format!("H{}", pair[1][1]));
                    } else {
                        data.push_str(&format!("V{}", pair[1][0]));
                    }
                }
                data.push('Z');
            }
        }
        let [r, g, b] = color::of_id(id);
        let path = format!(
            "<path id=\"object-{id}\" stroke=\"#{r:02x}{g:02x}{b:02x}\" d=\"{data}\"><title>{id}</title></path>\n"
        );
        writer.write_all(path.as_bytes()).map_err(io_failed)?;
    }
    writer.write_all(b"</svg>\n").map_err(io_failed)
}

#[cfg(test)]
mod tests {
    use cytomask_image::Labels;

    use super::*;

    #[test]
    fn paths_run_along_the_pixels() {
        let labels = Labels::from_vec([3, 3], vec![4, 4, 4, 4, 0, 4, 4, 4, 4]).unwrap();
        let mut bytes = Vec::new();
        write(&mut bytes, &Objects::new(&labels)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("viewBox=\"0 0 3 3\""), "{text}");
        assert!(text.contains("id=\"object-4\""), "{text}");
        assert!(text.contains("d=\"M0 0H3V3H0ZM1 1V2H2V1Z\""), "{text}");
        assert!(text.ends_with("</path>\n</svg>\n"), "{text}");
    }
}
