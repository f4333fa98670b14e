//! COCO's instance annotations, masks as compressed run-lengths (`pycocotools.mask`), which hold exactly the pixels. Polygons
//! would not: COCO's reader rounds them.

use std::io::Write;

use cytomask_image::{Error, ErrorKind, Result};

use crate::{Objects, Table, io_failed, json};

/// Writes a file for one image: image 1, category 1 (`category`), and an annotation for each object with its id, `score` and
/// `predicted_iou` where the table has them.
///
/// # Errors
/// `Unsupported` for images of 2³² pixels and more, which COCO's 32-bit counts cannot hold; `Io`.
pub fn write(
    writer: &mut dyn Write,
    objects: &Objects<'_>,
    table: &Table,
    file_name: &str,
    category: &str,
) -> Result<()> {
    let [h, w] = objects.size();
    if u64::from(h) * u64::from(w) > u64::from(u32::MAX) {
        let message = format!("COCO run-lengths: expected fewer than 2³² pixels, found {h} × {w}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let head = format!(
        "{{\"info\":{{\"description\":\"cytomask {}\"}},\"licenses\":[],\"images\":[{{\"id\":1,\"file_name\":{},\"height\":{h},\"width\":{w}}}],\"categories\":[{{\"id\":1,\"name\":{},\"supercategory\":\"\"}}],\"annotations\":[",
        env!("CARGO_PKG_VERSION"),
        json::string(file_name),
        json::string(category),
    );
    writer.write_all(head.as_bytes()).map_err(io_failed)?;
    let known: Vec<_> = ["score", "predicted_iou"].into_iter().filter_map(|name| table.column(name)).collect();
    for (index, &id) in objects.ids().iter().enumerate() {
        let mask = objects.mask(index);
        let rect = mask.rect();
        let mut more = String::new();
        for column in &known {
            if let Some(value) = column.values.number(index) {
                more.push_str(&format!(",\"{}\":{}", column.name, json::number(value)));
            }
        }
        let annotation = format!(
            "{}\n{{\"id\":{id},\"image_id\":1,\"category_id\":1,\"iscrowd\":0,\"area\":{},\"bbox\":[{},{},{},{}],\"segmentation\":{{\"size\":[{h},{w}],\"counts\":{}}}{more}}}",
            if index == 0 { "" } else { "," },
            mask.area(),
            rect.x0,
            rect.y0,
            rect.width(),
            rect.height(),
            json::string(&compressed(&mask.to_coco_counts(objects.size()))),
        );
        writer.write_all(annotation.as_bytes()).map_err(io_failed)?;
    }
    writer.write_all(b"\n]}\n").map_err(io_failed)
}

/// Run-lengths as text: from the fourth on, the difference to the one two before; five bits a character, lowest first.
fn compressed(counts: &[u32]) -> String {
    let mut text = String::new();
    for (index, &count) in counts.iter().enumerate() {
        let mut rest = i64::from(count);
        if index > 2 {
            rest -= i64::from(counts[index - 2]);
        }
        loop {
            let bits = (rest & 0x1f) as u8;
            rest >>= 5;
            // The sign is the fifth bit of the last character.
            let last = if bits & 0x10 == 0 { rest == 0 } else { rest == -1 };
            text.push(char::from(48 + bits + if last { 0 } else { 32 }));
            if last {
                break;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use cytomask_image::{Labels, Mask};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::{Column, measure::measure};

    /// The inverse, as pycocotools reads it.
    fn expanded(text: &str) -> Vec<u32> {
        let mut counts: Vec<i64> = Vec::new();
        let mut bytes = text.bytes().map(|byte| byte - 48).peekable();
        while bytes.peek().is_some() {
            let (mut value, mut shift) = (0_i64, 0);
            loop {
                let byte = bytes.next().unwrap();
                value |= i64::from(byte & 0x1f) << shift;
                shift += 5;
                if byte & 0x20 == 0 {
                    if byte & 0x10 != 0 {
                        value |= -1 << shift
                    }
                    break;
                }
            }
            if counts.len() > 2 {
                value += counts[counts.len() - 2]
            }
            counts.push(value);
        }
        counts.into_iter().map(|count| count as u32).collect()
    }

    #[test]
    fn texts_made_by_pycocotools() {
        // pycocotools 2.0.11: mask.frPyObjects({"size": [3, 4], "counts": [4, 2, 1, 2, 3]}, 3, 4), and one with long runs.
        assert_eq!(compressed(&[4, 2, 1, 2, 3]), "42102");
        assert_eq!(compressed(&[0, 70_000, 5, 1, 40]), "0`[T25adkMS1");
    }

    proptest! {
        #[test]
        fn counts_survive_the_text(counts in proptest::collection::vec(0_u32.., 0..12)) {
            prop_assert_eq!(expanded(&compressed(&counts)), counts);
        }
    }

    #[test]
    fn annotations_hold_the_pixels() {
        let ids: Vec<u32> = (0..97 * 131).map(|at| if at % 131 / 10 % 2 == 0 { at / 131 / 20 } else { 0 }).collect();
        let labels = Labels::from_vec([97, 131], ids).unwrap();
        let objects = Objects::new(&labels);
        let known = vec![Column::numbers("score", "Score", (0..objects.len()).map(|index| index as f64 / 8.0))];
        let table = Table::new(&objects, &measure(&objects, None).unwrap(), known, &[], None).unwrap();
        let mut bytes = Vec::new();
        write(&mut bytes, &objects, &table, "a.png", "cell").unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let annotations = value["annotations"].as_array().unwrap();
        assert_eq!(annotations.len(), objects.len());
        for (index, annotation) in annotations.iter().enumerate() {
            let counts = expanded(annotation["segmentation"]["counts"].as_str().unwrap());
            assert_eq!(Mask::from_coco_counts([97, 131], &counts).unwrap(), objects.mask(index));
            assert_eq!(annotation["area"].as_u64().unwrap(), objects.mask(index).area());
            assert_eq!(annotation["score"].as_f64().unwrap(), index as f64 / 8.0);
        }
    }
}
