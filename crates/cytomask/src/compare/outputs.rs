//! The files a comparison leaves: tables, data, report.

use std::path::{Path, PathBuf};

use cytomask_eval::Metric;
use cytomask_image::{Image, Normalization, Rgb};
use cytomask_report::html::{Example, Page, images_to_show, render};
use cytomask_report::{Analysis, Comparison, panel, plots, tables};
use serde_json::{Value, json};

use super::cases::Case;
use super::runner::{CompareOptions, Results};
use crate::{Error, ErrorKind, read_labels};
use cytomask_image::output::write_text;

/// Rivals of the best method that are drawn against it.
const MOST_SCATTERS: usize = 4;

/// What the report says besides the scores.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// Its heading.
    pub title: String,
    /// What methods are compared by.
    pub metric: Metric,
    /// Level of the tests.
    pub alpha: f64,
    /// What made it, shown at the end.
    pub provenance: Value,
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Setting, error.to_string())
}

/// Writes `report.html`, `report.json` (everything, with the numbers of each plot), `images.csv`, `images.json`, `summary.csv`,
/// `summary.md` and `pairs.csv` into `folder`, the report last; returns what it says and where it lies.
///
/// # Errors
/// `Setting` when no image is left to compare, `Image` when a picture cannot be read or a file not written.
pub fn write(
    folder: &Path,
    cases: &[Case],
    results: &Results,
    compare: &CompareOptions,
    options: &ReportOptions,
) -> Result<(Analysis, PathBuf), Error> {
    let comparison = &results.comparison;
    if comparison.images.is_empty() {
        return Err(Error::new(ErrorKind::Setting, "no image on which all methods have a score: nothing to compare"));
    }
    let analysis = Analysis::of(comparison, options.metric, options.alpha).map_err(|error| failed(&error))?;
    let drawn = draw(comparison, &analysis).map_err(|error| failed(&error))?;
    let examples = examples(cases, results, compare, &analysis)?;
    let warnings = warnings(cases, results);

    write_text(folder.join("images.csv"), &tables::images_csv(comparison))?;
    write_text(folder.join("images.json"), &format!("{:#}\n", json!(comparison.images)))?;
    write_text(folder.join("summary.csv"), &tables::summary_csv(&analysis))?;
    write_text(folder.join("summary.md"), &tables::summary_markdown(&analysis))?;
    write_text(folder.join("pairs.csv"), &tables::pairs_csv(&analysis))?;
    let plot_data: serde_json::Map<String, Value> = drawn
        .iter()
        .map(|plot| {
            (plot.id.clone(), json!({ "title": plot.title, "explanation": plot.explanation, "data": plot.data }))
        })
        .collect();
    let everything = json!({
        "title": options.title,
        "provenance": options.provenance,
        "methods": comparison.methods,
        "analysis": analysis,
        "plots": plot_data,
        "warnings": warnings,
    });
    write_text(folder.join("report.json"), &format!("{everything:#}\n"))?;
    let page = Page {
        title: &options.title,
        comparison,
        analysis: &analysis,
        plots: &drawn,
        examples: &examples,
        warnings: &warnings,
        provenance: &options.provenance,
    };
    let path = folder.join("report.html");
    write_text(&path, &render(&page))?;
    Ok((analysis, path))
}

fn draw(comparison: &Comparison, analysis: &Analysis) -> cytomask_report::Result<Vec<plots::Plot>> {
    let mut drawn = vec![plots::mean_scores(analysis)?];
    drawn.extend(plots::by_group(analysis)?);
    drawn.push(plots::score_against_threshold(analysis)?);
    drawn.extend(plots::time_against_quality(analysis)?);
    drawn.extend(plots::critical_difference(analysis)?);
    let order = analysis.order();
    for &rival in order.iter().skip(1).take(MOST_SCATTERS) {
        drawn.push(plots::scatter(comparison, analysis, order[0], rival)?);
    }
    Ok(drawn)
}

fn examples(
    cases: &[Case],
    results: &Results,
    compare: &CompareOptions,
    analysis: &Analysis,
) -> Result<Vec<Example>, Error> {
    images_to_show(&results.comparison, analysis)
        .into_iter()
        .map(|(image, reason)| {
            let case = &cases[results.kept[image]];
            let shown = for_the_eye(&compare.selection.read(&case.image)?.image)?;
            let truth = read_labels(&case.truth)?;
            let panel = |path: &PathBuf| -> Result<Vec<u8>, Error> {
                panel::outlines_png(&shown, &truth, &read_labels(path)?).map_err(|error| failed(&error))
            };
            let panels = results.labels[image].iter().map(panel).collect::<Result<_, _>>()?;
            Ok(Example { image, reason, panels })
        })
        .collect()
}

/// Grey images are stretched so that dim ones can be seen; colours of stained slides stay as they are.
fn for_the_eye(image: &Image) -> Result<Rgb, Error> {
    let stretched = Normalization::Percentile { low: 0.1, high: 99.9 };
    if image.channels == 3 && image.samples.iter().all(|sample| (0.0..=255.0).contains(sample)) {
        let grey = image.samples.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
        return Ok(image.to_rgb(if grey { stretched } else { Normalization::EightBit })?);
    }
    Ok(image.to_rgb(stretched)?)
}

fn warnings(cases: &[Case], results: &Results) -> Vec<String> {
    let left_out = cases.len() - results.kept.len();
    let mut warnings = Vec::new();
    if left_out > 0 {
        warnings.push(format!(
            "{left_out} of {} images are left out for all methods, because at least one method failed on them.",
            cases.len()
        ));
        for failure in results.failures.iter().take(5) {
            let method = failure.method.as_deref().unwrap_or("all methods");
            warnings.push(format!("{} ({method}): {}", failure.case, failure.message));
        }
    }
    warnings
}
