//! The page of a training run: how far it is, curves, pictures before and now, the images and what is wrong with them, settings.
//!
//! One HTML page that needs no other file, no network and no scripts, made anew as the run goes on.

use std::fmt::Write as _;

use serde_json::Value;

use crate::html::{END, begun, entries, escape, figure, picture};
use crate::plots::Plot;

/// Rows of the table of images; more are in the log only.
const MOST_ROWS: usize = 1000;

/// Everything on the page.
pub struct TrainingPage<'a> {
    /// Its heading.
    pub title: &'a str,
    /// In one sentence: how far the run is and how good.
    pub headline: &'a str,
    /// More sentences.
    pub text: &'a str,
    /// What the owner of the images should know.
    pub warnings: &'a [String],
    /// In this order.
    pub plots: &'a [Plot],
    /// Validation images with what was found on them.
    pub examples: &'a [TrainingExample],
    /// PNGs of the first crops as the network sees them, with the outlines of their objects.
    pub crops: &'a [Vec<u8>],
    /// The images.
    pub rows: &'a [TrainingRow],
    /// Settings, versions, hashes.
    pub settings: &'a Value,
}

/// A validation image to look at.
#[derive(Clone, Debug)]
pub struct TrainingExample {
    /// Its name.
    pub name: String,
    /// Its mSA before training.
    pub score_before: f64,
    /// Its mSA now.
    pub score_now: f64,
    /// PNG of the image without outlines.
    pub image: Vec<u8>,
    /// PNG with the outlines of truth and of what was found before training.
    pub before: Vec<u8>,
    /// PNG with the outlines of truth and of what is found now.
    pub now: Vec<u8>,
}

/// One image of the set.
#[derive(Clone, Debug)]
pub struct TrainingRow {
    /// Its name.
    pub name: String,
    /// The source it belongs to.
    pub group: String,
    /// What it is for.
    pub purpose: String,
    /// `[h, w]`.
    pub size: Option<[u32; 2]>,
    /// Objects in it.
    pub objects: u64,
    /// Of them those too small to be trained on.
    pub tiny: u64,
    /// √area of the median object, pixels.
    pub median_side: Option<f64>,
}

/// The page.
pub fn render(page: &TrainingPage<'_>) -> String {
    let mut out = begun(page.title);
    let _ = write!(
        out,
        "<section class=\"recommendation open\">\n<p class=\"headline\">{}</p>\n<p>{}</p>\n</section>\n",
        escape(page.headline),
        escape(page.text)
    );
    warnings(&mut out, page.warnings);
    out.push_str("<nav><a href=\"#curves\">Curves</a> ");
    if !page.examples.is_empty() {
        out.push_str("<a href=\"#examples\">Pictures</a> ");
    }
    if !page.crops.is_empty() {
        out.push_str("<a href=\"#crops\">Crops</a> ");
    }
    out.push_str(
        "<a href=\"#images\">Images</a> <a href=\"#settings\">Settings</a></nav>\n<h2 id=\"curves\">Curves</h2>\n",
    );
    if page.plots.is_empty() {
        out.push_str("<p>None yet.</p>\n");
    }
    page.plots.iter().for_each(|plot| figure(&mut out, plot));
    examples(&mut out, page.examples);
    crops(&mut out, page.crops);
    images(&mut out, page.rows);
    out.push_str("<h2 id=\"settings\">Settings</h2>\n");
    entries(&mut out, page.settings);
    out.push_str(END);
    out
}

fn warnings(out: &mut String, warnings: &[String]) {
    if warnings.is_empty() {
        return;
    }
    let _ = writeln!(out, "<section class=\"warnings\">\n<p><b>What the images should be looked at for</b></p>\n<ul>");
    for warning in warnings.iter().take(MOST_ROWS) {
        let _ = writeln!(out, "<li>{}</li>", escape(warning));
    }
    out.push_str("</ul>\n</section>\n");
}

fn examples(out: &mut String, examples: &[TrainingExample]) {
    if examples.is_empty() {
        return;
    }
    out.push_str(
        "<h2 id=\"examples\">Pictures</h2>\n<p>Validation images, which the model does not learn from; of large ones the middle. Outlines: \
         <span class=\"key truth\">true only</span> <span class=\"key prediction\">found only</span> \
         <span class=\"key both\">both</span>.</p>\n",
    );
    for example in examples {
        let _ = writeln!(
            out,
            "<h3>{}</h3>\n<div class=\"panels\">\n<figure>{}<figcaption>image</figcaption></figure>\n\
             <figure>{}<figcaption>before training: mSA {:.3}</figcaption></figure>\n\
             <figure>{}<figcaption>now: mSA {:.3}</figcaption></figure>\n</div>",
            escape(&example.name),
            picture(&example.image, "image"),
            picture(&example.before, "outlines before training"),
            example.score_before,
            picture(&example.now, "outlines now"),
            example.score_now
        );
    }
}

fn crops(out: &mut String, crops: &[Vec<u8>]) {
    if crops.is_empty() {
        return;
    }
    out.push_str(
        "<h2 id=\"crops\">Crops</h2>\n<p>The first crops as the model sees them, changed at random, with the outlines of their true objects. Where \
         objects can no longer be told by eye, use a weaker set of changes.</p>\n<div class=\"panels\">\n",
    );
    for crop in crops {
        let _ = writeln!(out, "<figure>{}</figure>", picture(crop, "training crop"));
    }
    out.push_str("</div>\n");
}

fn images(out: &mut String, rows: &[TrainingRow]) {
    let grouped = rows.iter().any(|row| row.group != rows[0].group);
    let _ = writeln!(
        out,
        "<h2 id=\"images\">Images</h2>\n<details{}><summary>{} images</summary>\n<div class=\"wide\"><table>\n<thead><tr><th>image</th>{}\
         <th>for</th><th>size</th><th>objects</th><th>too small</th><th>median side, px</th></tr></thead>\n<tbody>",
        if rows.len() <= 30 { " open" } else { "" },
        rows.len(),
        if grouped { "<th>source</th>" } else { "" }
    );
    for row in rows.iter().take(MOST_ROWS) {
        let _ = write!(out, "<tr><th>{}</th>", escape(&row.name));
        if grouped {
            let _ = write!(out, "<td>{}</td>", escape(&row.group));
        }
        let size = row.size.map_or_else(|| "–".to_owned(), |[h, w]| format!("{h} × {w}"));
        let side = row.median_side.map_or_else(|| "–".to_owned(), |side| format!("{side:.1}"));
        let _ = writeln!(
            out,
            "<td>{}</td><td>{size}</td><td>{}</td><td>{}</td><td>{side}</td></tr>",
            escape(&row.purpose),
            row.objects,
            row.tiny
        );
    }
    out.push_str("</tbody></table></div>\n");
    if rows.len() > MOST_ROWS {
        let _ = writeln!(out, "<p>The first {MOST_ROWS}.</p>");
    }
    out.push_str("</details>\n");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_page_stands_alone_and_names_cannot_break_it() {
        let row = TrainingRow {
            name: "<a>.tif".into(),
            group: String::new(),
            purpose: "training".into(),
            size: Some([97, 131]),
            objects: 12,
            tiny: 1,
            median_side: Some(10.25),
        };
        let example = TrainingExample {
            name: "b&c".into(),
            score_before: 0.25,
            score_now: 0.5,
            image: vec![1],
            before: vec![2],
            now: vec![3],
        };
        let page = TrainingPage {
            title: "cells",
            headline: "Step 3 of 10",
            text: "",
            warnings: &["<script>".into()],
            plots: &[],
            examples: &[example],
            crops: &[vec![4]],
            rows: &[row],
            settings: &json!({ "batch_size": 4, "augmentation": { "blur": { "share": 0.5 } } }),
        };
        let html = render(&page);
        assert!(html.contains("&lt;a&gt;.tif") && html.contains("b&amp;c") && html.contains("97 × 131"));
        assert!(html.contains("before training: mSA 0.250") && html.contains("now: mSA 0.500"));
        assert!(html.contains("<dt>augmentation.blur.share</dt><dd>0.5</dd>"));
        assert!(!html.contains("<script>") && !html.contains("http"), "{html}");
    }
}
