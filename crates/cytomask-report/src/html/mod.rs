//! The report as one HTML page that needs no other file, no network and no scripts.

mod sections;

pub(crate) use sections::entries;

use std::fmt::Write as _;

use serde_json::Value;

use crate::{Analysis, Comparison, Metric, Scores, panel, plots::Plot};

const STYLE: &str = include_str!("style.css");

/// Everything on the page.
pub struct Page<'a> {
    /// Its heading.
    pub title: &'a str,
    /// The scores.
    pub comparison: &'a Comparison,
    /// What they mean.
    pub analysis: &'a Analysis,
    /// In this order.
    pub plots: &'a [Plot],
    /// Pictures of chosen images.
    pub examples: &'a [Example],
    /// What the reader must know before trusting the numbers: images left out, failures.
    pub warnings: &'a [String],
    /// What made the report: version, folders, conventions.
    pub provenance: &'a Value,
}

/// An image to look at.
pub struct Example {
    /// Index into the comparison's images.
    pub image: usize,
    /// Why it was chosen.
    pub reason: String,
    /// One PNG a method, in their order.
    pub panels: Vec<Vec<u8>>,
}

/// Images worth looking at, with the reason: the best, median and worst of each method that leads or follows closely, and those on
/// which the best method and its closest rival differ most. No image comes twice.
pub fn images_to_show(comparison: &Comparison, analysis: &Analysis) -> Vec<(usize, String)> {
    let metric: Metric = analysis.metric;
    let order = analysis.order();
    let value = |image: usize, method: usize| comparison.images[image].scores[method].get(metric);
    let mut chosen: Vec<(usize, String)> = Vec::new();
    let mut choose = |image: Option<usize>, reason: String| {
        let Some(image) = image else { return };
        match chosen.iter_mut().find(|(other, _)| *other == image) {
            Some((_, reasons)) => {
                reasons.push_str("; ");
                reasons.push_str(&reason);
            }
            None => chosen.push((image, reason)),
        }
    };
    let sorted_by = |key: &dyn Fn(usize) -> f64| {
        let mut images: Vec<usize> = (0..comparison.images.len()).collect();
        images.sort_by(|&a, &b| key(a).total_cmp(&key(b)));
        images
    };
    for &method in order.iter().take(2) {
        let name = &comparison.methods[method].name;
        let images = sorted_by(&|image| value(image, method));
        choose(images.last().copied(), format!("best image of {name}"));
        choose(images.get(images.len() / 2).copied(), format!("median image of {name}"));
        choose(images.first().copied(), format!("worst image of {name}"));
    }
    if let [first, second, ..] = order[..] {
        let images = sorted_by(&|image| value(image, first) - value(image, second));
        let (ahead, behind) = (images.last().copied(), images.first().copied());
        let differs = |image: Option<usize>, sign: f64| {
            image.filter(|&image| sign * (value(image, first) - value(image, second)) > 0.0)
        };
        let (a, b) = (&comparison.methods[first].name, &comparison.methods[second].name);
        choose(differs(ahead, 1.0), format!("{a} most ahead of {b}"));
        choose(differs(behind, -1.0), format!("{b} most ahead of {a}"));
    }
    chosen
}

/// The page.
pub fn render(page: &Page<'_>) -> String {
    let mut out = begun(page.title);
    sections::recommendation(&mut out, page, "recommendation");
    sections::warnings(&mut out, page);
    sections::contents(&mut out, page);
    sections::methods(&mut out, page);
    sections::plots(&mut out, page);
    sections::groups(&mut out, page);
    sections::matrix(&mut out, page);
    sections::pairs(&mut out, page);
    sections::examples(&mut out, page);
    sections::images(&mut out, page);
    sections::provenance(&mut out, page);
    out.push_str("<h2>In short</h2>\n");
    sections::recommendation(&mut out, page, "conclusion");
    out.push_str(END);
    out
}

/// A page up to its heading; it ends with [`END`].
pub(crate) fn begun(title: &str) -> String {
    let mut out = String::with_capacity(1 << 16);
    let title = escape(title);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <main>\n<h1>{title}</h1>\n"
    );
    out
}

/// What [`begun`] left open.
pub(crate) const END: &str = "</main>\n</body>\n</html>\n";

pub(crate) fn figure(out: &mut String, plot: &Plot) {
    let _ = writeln!(
        out,
        "<figure id=\"{}\">\n<h3>{}</h3>\n{}\n<figcaption>{}</figcaption>\n</figure>",
        escape(&plot.id),
        escape(&plot.title),
        plot.svg,
        escape(&plot.explanation)
    );
}

/// Text as it stands in HTML, attributes included.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

pub(crate) fn picture(png: &[u8], alt: &str) -> String {
    format!("<img src=\"{}\" alt=\"{}\">", panel::data_uri(png), escape(alt))
}

fn counts(scores: &Scores) -> String {
    format!(
        "found {}, missed {}, false {}",
        scores.count(Metric::TruePositives),
        scores.count(Metric::FalseNegatives),
        scores.count(Metric::FalsePositives)
    )
}
