//! The parts of the page, in the order they stand on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::{Page, counts, escape, figure, picture};
use crate::matrix::Matrix;
use crate::tables::p_text;
use crate::{Certainty, Metric, label};

/// Rows of the table of images; more are in the CSV only.
const MOST_ROWS: usize = 1000;

pub(super) fn recommendation(out: &mut String, page: &Page<'_>, id: &str) {
    let found = &page.analysis.recommendation;
    let class = match found.certainty {
        Certainty::Sure | Certainty::FairlySure => "sure",
        Certainty::Undecided => "undecided",
        Certainty::TooFewImages | Certainty::NothingToCompare => "open",
    };
    let _ = writeln!(
        out,
        "<section id=\"{id}\" class=\"recommendation {class}\">\n<p class=\"headline\">{}</p>\n<p>{}</p>",
        escape(&found.headline),
        escape(&found.text)
    );
    if page.analysis.methods.len() > 1 {
        let _ = writeln!(
            out,
            "<p class=\"small\">How sure: <b>{}</b>. Differences are means over {} images with 95&nbsp;% intervals; p-values are \
             two-sided (Wilcoxon) and corrected for {} comparisons (Holm); level {}.</p>",
            found.certainty.name(),
            page.analysis.images,
            page.analysis.pairs.len(),
            page.analysis.alpha
        );
    }
    if !page.analysis.groups.is_empty() {
        out.push_str("<p>By group of images:</p>\n<ul>\n");
        for group in &page.analysis.groups {
            let _ = writeln!(
                out,
                "<li><b>{}</b> ({} images): {}</li>",
                escape(&group.group),
                group.images,
                escape(&group.recommendation.headline)
            );
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</section>\n");
}

pub(super) fn warnings(out: &mut String, page: &Page<'_>) {
    if page.warnings.is_empty() {
        return;
    }
    out.push_str("<section class=\"warnings\">\n<p><b>Before trusting the numbers</b></p>\n<ul>\n");
    for warning in page.warnings {
        let _ = writeln!(out, "<li>{}</li>", escape(warning));
    }
    out.push_str("</ul>\n</section>\n");
}

pub(super) fn contents(out: &mut String, page: &Page<'_>) {
    out.push_str("<nav><a href=\"#methods\">Methods</a> <a href=\"#plots\">Plots</a> ");
    if page.analysis.methods.len() > 1 {
        out.push_str("<a href=\"#matrix\">Wins and losses</a> <a href=\"#pairs\">Pairs</a> ");
    }
    if !page.examples.is_empty() {
        out.push_str("<a href=\"#examples\">Pictures</a> ");
    }
    out.push_str("<a href=\"#images\">All images</a> <a href=\"#settings\">Settings</a></nav>\n");
}

pub(super) fn methods(out: &mut String, page: &Page<'_>) {
    let analysis = page.analysis;
    let metric = label(analysis.metric);
    let _ = writeln!(
        out,
        "<h2 id=\"methods\">Methods</h2>\n<p>Best mean first, over {} images. Counts are objects at IoU&nbsp;0.5. Average rank: 1 is \
         best.</p>\n<div class=\"wide\"><table>\n<thead><tr><th>method</th><th>mean {metric} [95&nbsp;%]</th><th>median {metric}</th>\
         <th>SA50</th><th>SA75</th><th>F1</th><th>average rank</th><th>best on</th><th>found</th><th>missed</th><th>false</th>\
         <th>seconds an image</th></tr></thead>\n<tbody>",
        analysis.images
    );
    for at in analysis.order() {
        let row = &analysis.methods[at];
        let _ = writeln!(
            out,
            "<tr><th>{}</th><td>{:.3} [{:.3}, {:.3}]</td><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td><td>{:.2}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&row.method),
            row.mean.value,
            row.mean.low,
            row.mean.high,
            row.median,
            row.sa50,
            row.sa75,
            row.f1,
            row.average_rank,
            row.best_on,
            row.true_positives,
            row.false_negatives,
            row.false_positives,
            row.median_seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.2}"))
        );
    }
    out.push_str("</tbody></table></div>\n<p class=\"small\">Seconds: the median image; encoder, decoder maps where the method uses them, \
                  and its own part, as if it ran alone. Reading, writing and scoring are left out.");
    if analysis.all_equal_on > 0 && analysis.methods.len() > 1 {
        let _ = write!(out, " All methods have the same score on {} images.", analysis.all_equal_on);
    }
    out.push_str("</p>\n");
}

pub(super) fn plots(out: &mut String, page: &Page<'_>) {
    out.push_str("<h2 id=\"plots\">Plots</h2>\n");
    let (scatter, others): (Vec<_>, Vec<_>) = page.plots.iter().partition(|plot| plot.id.starts_with("scatter"));
    others.into_iter().for_each(|plot| figure(out, plot));
    if !scatter.is_empty() {
        out.push_str("<div class=\"side-by-side\">\n");
        scatter.into_iter().for_each(|plot| figure(out, plot));
        out.push_str("</div>\n");
    }
}

pub(super) fn groups(out: &mut String, page: &Page<'_>) {
    let analysis = page.analysis;
    if analysis.groups.is_empty() {
        return;
    }
    let order = analysis.order();
    let _ = write!(
        out,
        "<h2 id=\"groups\">Groups of images</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>group</th><th>images</th>"
    );
    for &at in &order {
        let _ = write!(out, "<th>{}</th>", escape(&analysis.methods[at].method));
    }
    out.push_str("<th class=\"words\">what to use</th></tr></thead>\n<tbody>\n");
    for group in &analysis.groups {
        let _ = write!(out, "<tr><th>{}</th><td>{}</td>", escape(&group.group), group.images);
        let highest = group.means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for &at in &order {
            score_cell(out, group.means[at], highest);
        }
        let _ = writeln!(
            out,
            "<td class=\"words\">{} {}</td></tr>",
            escape(&group.recommendation.headline),
            escape(&group.recommendation.text)
        );
    }
    out.push_str("</tbody></table></div>\n");
}

/// A score, bold where it is the highest of its row.
fn score_cell(out: &mut String, score: f64, highest: f64) {
    let _ = if score == highest && score > 0.0 {
        write!(out, "<td><b>{score:.3}</b></td>")
    } else {
        write!(out, "<td>{score:.3}</td>")
    };
}

pub(super) fn matrix(out: &mut String, page: &Page<'_>) {
    let analysis = page.analysis;
    if analysis.pairs.is_empty() {
        return;
    }
    let matrix = Matrix::of(analysis);
    let _ = write!(
        out,
        "<h2 id=\"matrix\">Wins and losses</h2>\n<p>The row's method against the column's, as in the APG paper: Wilcoxon's test, one-sided in the \
         direction of the summed difference, level {}, uncorrected. The number is the mean difference; * marks those that remain \
         significant two-sided after Holm's correction.</p>\n<div class=\"wide\"><table class=\"matrix\">\n<thead><tr><th></th>",
        analysis.alpha
    );
    for name in &matrix.methods {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out.push_str("<th>wins</th><th>losses</th><th>neutral</th></tr></thead>\n<tbody>\n");
    for (row, name) in matrix.methods.iter().enumerate() {
        let _ = write!(out, "<tr><th>{}</th>", escape(name));
        for column in 0..matrix.methods.len() {
            let _ = match matrix.outcomes[row][column] {
                None => write!(out, "<td></td>"),
                Some(outcome) => {
                    let star = if matrix.significant[row][column] { "*" } else { "" };
                    write!(
                        out,
                        "<td class=\"{outcome}\">{outcome}<br>{:+.3}{star}</td>",
                        matrix.differences[row][column]
                    )
                }
            };
        }
        let count = |outcome: &str| matrix.outcomes[row].iter().filter(|found| **found == Some(outcome)).count();
        let _ = writeln!(out, "<td>{}</td><td>{}</td><td>{}</td></tr>", count("win"), count("loss"), count("neutral"));
    }
    out.push_str("</tbody></table></div>\n");
}

pub(super) fn pairs(out: &mut String, page: &Page<'_>) {
    let analysis = page.analysis;
    if analysis.pairs.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<h2 id=\"pairs\">Pairs</h2>\n<p>Differences are the first method's {0} less the second's. The typical difference is that of Hodges and \
         Lehmann, with the interval that belongs to the test. Rank-biserial: from −1 (always worse) to 1 (always better).</p>\n\
         <div class=\"wide\"><table>\n<thead><tr><th>first</th><th>second</th><th>mean difference [95&nbsp;%]</th><th>typical difference</th>\
         <th>better / worse / equal</th><th>rank-biserial</th><th>Cliff’s δ</th><th>p</th><th>p (Holm)</th>\
         <th>p (Benjamini–Hochberg)</th></tr></thead>\n<tbody>\n",
        label(analysis.metric)
    );
    let order = analysis.order();
    for (position, &first) in order.iter().enumerate() {
        for &second in &order[position + 1..] {
            let Some(pair) = analysis.pair(first, second) else { continue };
            let number = |p: f64| p_text(p).trim_start_matches("p = ").trim_start_matches("p ").replace('<', "&lt;");
            let _ = writeln!(
                out,
                "<tr><th>{}</th><th>{}</th><td>{:.3} [{:.3}, {:.3}]</td><td>{:.3} [{:.3}, {:.3}]</td><td>{} / {} / {}</td><td>{:.2}</td>\
                 <td>{:.2}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&analysis.methods[first].method),
                escape(&analysis.methods[second].method),
                pair.difference.value,
                pair.difference.low,
                pair.difference.high,
                pair.typical_difference.value,
                pair.typical_difference.low,
                pair.typical_difference.high,
                pair.first_better,
                pair.second_better,
                pair.equal,
                pair.rank_biserial,
                pair.cliffs_delta,
                number(pair.p),
                number(pair.p_holm),
                number(pair.p_benjamini_hochberg)
            );
        }
    }
    out.push_str("</tbody></table></div>\n");
    if let Some(friedman) = &analysis.friedman {
        let _ = writeln!(
            out,
            "<p>All methods at once: Friedman’s χ²({}) = {:.2}, {}.</p>",
            friedman.degrees,
            friedman.statistic,
            escape(&p_text(friedman.p))
        );
    }
}

pub(super) fn examples(out: &mut String, page: &Page<'_>) {
    if page.examples.is_empty() {
        return;
    }
    out.push_str(
        "<h2 id=\"examples\">Pictures</h2>\n<p>Outlines: <span class=\"key truth\">truth</span> \
         <span class=\"key prediction\">prediction</span> <span class=\"key both\">both in the same place</span>. Blue alone was missed or drawn \
         elsewhere; orange alone is not in the truth. Counts are objects at IoU&nbsp;0.5.</p>\n",
    );
    let metric: Metric = page.analysis.metric;
    for example in page.examples {
        let image = &page.comparison.images[example.image];
        let group = image.group.as_ref().map_or_else(String::new, |group| format!(" ({})", escape(group)));
        let _ = writeln!(
            out,
            "<h3>{}{group}</h3>\n<p class=\"small\">{}</p>\n<div class=\"panels\">",
            escape(&image.name),
            escape(&example.reason)
        );
        for at in page.analysis.order() {
            let (method, scores) = (&page.comparison.methods[at].name, &image.scores[at]);
            let Some(png) = example.panels.get(at) else { continue };
            let _ = writeln!(
                out,
                "<figure>{}<figcaption><b>{}</b><br>{} {:.3}<br>{}</figcaption></figure>",
                picture(png, &format!("{} by {method}", image.name)),
                escape(method),
                label(metric),
                scores.get(metric),
                counts(scores)
            );
        }
        out.push_str("</div>\n");
    }
}

pub(super) fn images(out: &mut String, page: &Page<'_>) {
    let metric: Metric = page.analysis.metric;
    let order = page.analysis.order();
    let grouped = !page.analysis.groups.is_empty();
    let _ = write!(
        out,
        "<h2 id=\"images\">All images</h2>\n<details><summary>{} of every method on each of the {} images</summary>\n<div class=\"wide\"><table>\n\
         <thead><tr><th>image</th>{}<th>true objects</th>",
        label(metric),
        page.comparison.images.len(),
        if grouped { "<th>group</th>" } else { "" }
    );
    for &at in &order {
        let _ = write!(out, "<th>{}</th>", escape(&page.comparison.methods[at].name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for image in page.comparison.images.iter().take(MOST_ROWS) {
        let _ = write!(out, "<tr><th>{}</th>", escape(&image.name));
        if grouped {
            let _ = write!(out, "<td>{}</td>", escape(image.group.as_deref().unwrap_or_default()));
        }
        let objects = image.scores.first().map_or(0, |scores| scores.count(Metric::TrueObjects));
        let _ = write!(out, "<td>{objects}</td>");
        let highest = image.scores.iter().map(|scores| scores.get(metric)).fold(f64::NEG_INFINITY, f64::max);
        for &at in &order {
            score_cell(out, image.scores[at].get(metric), highest);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    if page.comparison.images.len() > MOST_ROWS {
        let _ = writeln!(out, "<p>The first {MOST_ROWS}; all are in images.csv.</p>");
    }
    out.push_str("</details>\n");
}

pub(super) fn provenance(out: &mut String, page: &Page<'_>) {
    out.push_str(
        "<h2 id=\"settings\">Settings, hashes, versions</h2>\n<p>Rows in which the methods differ are bold.</p>\n\
         <div class=\"wide\"><table class=\"settings\">\n<thead><tr><th></th>",
    );
    let records: Vec<BTreeMap<String, String>> =
        page.comparison.methods.iter().map(|method| flattened(&method.record)).collect();
    for method in &page.comparison.methods {
        let _ = write!(out, "<th>{}</th>", escape(&method.name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let mut keys: Vec<&String> = records.iter().flat_map(BTreeMap::keys).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let values: Vec<&str> = records.iter().map(|record| record.get(key).map_or("", String::as_str)).collect();
        let differ = values.iter().any(|value| *value != values[0]);
        let _ = write!(out, "<tr{}><th>{}</th>", if differ { " class=\"differ\"" } else { "" }, escape(key));
        for value in values {
            let _ = write!(out, "<td>{}</td>", escape(value));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    entries(out, page.provenance);
}

/// Every entry of an object as a term and its description.
pub(crate) fn entries(out: &mut String, value: &Value) {
    out.push_str("<dl>\n");
    for (key, value) in flattened(value) {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(&key), escape(&value));
    }
    out.push_str("</dl>\n");
}

/// `{"a": {"b": 1}}` as `a.b` = `1`.
fn flattened(value: &Value) -> BTreeMap<String, String> {
    fn walk(value: &Value, name: &str, into: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                    walk(value, &name, into);
                }
            }
            Value::Null => {}
            Value::String(text) => {
                into.insert(name.to_owned(), text.clone());
            }
            other => {
                into.insert(name.to_owned(), other.to_string());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(value, "", &mut found);
    found
}
