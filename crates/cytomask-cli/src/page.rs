//! The summary page of a batch: `index.html`, one row an image, with a small picture of its overlay to look through.
//!
//! The page stands alone: pictures lie inside it, the script is twenty lines of it, nothing is loaded from elsewhere. It says
//! nothing of when or how long, so that the same results make the same page.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cytomask::report::html::escape;

/// Longer side of the pictures, pixels: large ones as long as the page stays loadable.
const LARGE_SIDE: u32 = 200;
const SMALL_SIDE: u32 = 72;
const LARGE_UP_TO: usize = 400;
/// Beyond this many images the rest has no pictures: a page of tens of megabytes opens nowhere.
pub(crate) const PICTURES_UP_TO: usize = 4000;

/// One image on the page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// Path of the input below the named folder.
    pub(crate) name: String,
    /// `[h, w]`.
    pub(crate) size: [u32; 2],
    /// Objects found.
    pub(crate) objects: u64,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
    /// Links, relative to the page: what they are called and where they lead.
    pub(crate) links: Vec<(String, String)>,
    /// The picture, a PNG.
    pub(crate) picture: Option<Vec<u8>>,
}

/// An image without results on the page.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// The input's path.
    pub(crate) name: String,
    /// Where it failed and why.
    pub(crate) message: String,
}

/// The longer side of pictures on a page of so many images.
pub(crate) fn picture_side(images: usize) -> u32 {
    if images <= LARGE_UP_TO { LARGE_SIDE } else { SMALL_SIDE }
}

/// Shrinks the overlay PNG at `path` to a small PNG whose longer side is at most `side`. Reads it row by row.
///
/// # Errors
/// When the file is no 8-bit RGB PNG.
pub(crate) fn picture(path: &Path, side: u32) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info()?;
    let (width, height) = (reader.info().width, reader.info().height);
    anyhow::ensure!(
        reader.output_color_type() == (png::ColorType::Rgb, png::BitDepth::Eight),
        "{}: expected an RGB PNG of 8 bit",
        path.display()
    );
    let step = width.max(height).div_ceil(side).max(1);
    let [w, h] = [width.div_ceil(step), height.div_ceil(step)];
    // Means over blocks of `step` × `step`.
    let mut sums = vec![[0_u32; 3]; w as usize];
    let mut small = Vec::with_capacity(w as usize * h as usize * 3);
    for y in 0..height {
        let row = reader.next_row()?.context("the picture ends early")?;
        for (x, pixel) in row.data().chunks_exact(3).enumerate() {
            for (sum, &value) in sums[x / step as usize].iter_mut().zip(pixel) {
                *sum += u32::from(value);
            }
        }
        if (y + 1) % step == 0 || y + 1 == height {
            let rows = y % step + 1;
            for (x, sum) in sums.iter_mut().enumerate() {
                let columns = step.min(width - x as u32 * step);
                // Five bits a channel are enough to look through and compress to half.
                small.extend(std::mem::take(sum).map(|sum| ((sum / (rows * columns)) as u8 & 0xF8) | 4));
            }
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, w, h);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.write_header()?.write_image_data(&small)?;
    Ok(bytes)
}

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>cytomask results</title>
<style>
body { font: 15px/1.4 sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; } td, th { padding: 4px 12px; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }
th { cursor: pointer; user-select: none; } td.number { text-align: right; } .warning { color: #8a4b00; } .failed { color: #a00000; }
input { font: inherit; padding: 4px 8px; width: 20em; margin: 1em 0; } img { display: block; }
</style></head><body>
"#;

const SCRIPT: &str = r##"<script>
const body = document.querySelector("#images tbody");
document.querySelector("#search").addEventListener("input", event => {
  const text = event.target.value.toLowerCase();
  for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(text);
});
document.querySelectorAll("#images th").forEach((head, column) => head.addEventListener("click", () => {
  const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
  const order = head.dataset.order === "up" ? -1 : 1;
  head.dataset.order = order === 1 ? "up" : "down";
  [...body.rows].sort((a, b) => order * key(a).localeCompare(key(b), undefined, { numeric: true })).forEach(row => body.append(row));
}));
</script>
"##;

/// The page.
pub(crate) fn html(heading: &str, rows: &[Row], failed: &[Failed]) -> String {
    let mut page = String::from(HEAD);
    let objects: u64 = rows.iter().map(|row| row.objects).sum();
    let _ = writeln!(page, "<h1>cytomask results</h1>\n<p>{}</p>", escape(heading));
    let _ = writeln!(page, "<p>{} images, {objects} objects, {} failed.</p>", rows.len(), failed.len());
    if !failed.is_empty() {
        page.push_str("<h2>Failed</h2>\n<table>\n");
        for Failed { name, message } in failed {
            let _ = writeln!(page, "<tr class=\"failed\"><td>{}</td><td>{}</td></tr>", escape(name), escape(message));
        }
        page.push_str("</table>\n");
    }
    page.push_str("<input id=\"search\" type=\"search\" placeholder=\"show only rows with …\">\n");
    page.push_str("<table id=\"images\"><thead><tr><th>overlay</th><th>image</th><th>objects</th><th>size</th>");
    page.push_str("<th>warnings</th><th>files</th></tr></thead>\n<tbody>\n");
    for row in rows {
        let picture = row.picture.as_ref().map_or_else(String::new, |png| {
            format!("<img alt=\"\" loading=\"lazy\" src=\"data:image/png;base64,{}\">", STANDARD.encode(png))
        });
        let overlay = row.links.iter().find(|(what, _)| what == "overlay");
        let picture = match overlay {
            Some((_, target)) => format!("<a href=\"{}\">{picture}</a>", link(target)),
            None => picture,
        };
        let [h, w] = row.size;
        let links: Vec<String> = row
            .links
            .iter()
            .map(|(what, target)| format!("<a href=\"{}\">{}</a>", link(target), escape(what)))
            .collect();
        let warnings: Vec<String> = row.warnings.iter().map(|text| escape(text)).collect();
        let _ = writeln!(
            page,
            "<tr><td data-key=\"{}\">{picture}</td><td>{}</td><td class=\"number\">{}</td>\
             <td class=\"number\" data-key=\"{}\">{h} × {w}</td><td class=\"warning\">{}</td><td>{}</td></tr>",
            escape(&row.name),
            escape(&row.name),
            row.objects,
            u64::from(h) * u64::from(w),
            warnings.join("<br>"),
            links.join(" "),
        );
    }
    page.push_str("</tbody></table>\n");
    page.push_str(SCRIPT);
    page.push_str("</body></html>\n");
    page
}

/// A relative path as the target of a link: what has a meaning there is percent-encoded.
fn link(path: &str) -> String {
    let mut target = String::new();
    for byte in path.replace('\\', "/").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => target.push(byte as char),
            other => {
                let _ = write!(target, "%{other:02X}");
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_page() {
        let row = Row {
            name: "<b>&\"a\".tif".into(),
            size: [97, 131],
            objects: 7,
            links: vec![("labels".into(), "day 1/#a_labels.tif".into())],
            ..Row::default()
        };
        let failed = Failed { name: "x".into(), message: "<script>".into() };
        let page = html("with <model>", &[row], &[failed]);
        assert!(page.contains("&lt;b&gt;&amp;&quot;a&quot;.tif"));
        assert!(page.contains("href=\"day%201/%23a_labels.tif\""));
        assert!(page.contains("97 × 131") && page.contains("1 images, 7 objects, 1 failed."));
        assert_eq!(page.matches("<script>").count(), 1);
    }

    #[test]
    fn pictures_are_means_of_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay.png");
        // 5 × 3 pixels; the last block of each axis is cut off.
        let bytes: Vec<u8> = (0..15).flat_map(|index| [if index % 5 == 4 { 80 } else { 160 }; 3]).collect();
        cytomask::output::write_rgb_png(&path, [3, 5], &bytes).unwrap();
        let small = picture(&path, 3).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(small)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!((reader.info().width, reader.info().height), (3, 2));
        assert_eq!(pixels.chunks(3).map(|pixel| pixel[0]).collect::<Vec<_>>(), [164, 164, 84, 164, 164, 84]);
        assert!(picture(&folder.path().join("absent.png"), 3).is_err());
    }
}
