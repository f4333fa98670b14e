//! What `evaluate` writes and prints.

use std::fmt::Write as _;

use cytomask::eval::{Metric, ScoreOptions, Scores, Side, Summary};
use cytomask::report::tables::field;
use serde_json::{Map, Value, json};

use super::{EvaluateArgs, Row};

/// A line for each image; undefined scores are empty.
pub(crate) fn per_image(rows: &[Row], metrics: &[Metric]) -> String {
    let mut text = String::from("image");
    for metric in metrics {
        let _ = write!(text, ",{}", metric.name());
    }
    text.push_str(",note\n");
    for row in rows {
        text.push_str(&field(&row.name));
        for &metric in metrics {
            let _ = write!(text, ",{}", number(&row.scores, metric));
        }
        let _ = writeln!(text, ",{}", row.note);
    }
    text
}

/// A line for each object.
pub(crate) fn per_object(rows: &[Row]) -> String {
    let mut text = String::from("image,side,id,area_px,best_id,best_iou,matched_id,matched_iou,contains\n");
    let optional = |id: Option<u32>| id.map_or_else(String::new, |id| id.to_string());
    for row in rows {
        let name = field(&row.name);
        for object in &row.objects {
            let side = match object.side {
                Side::Truth => "truth",
                Side::Predicted => "predicted",
            };
            let _ = writeln!(
                text,
                "{name},{side},{},{},{},{:.6},{},{:.6},{}",
                object.id,
                object.area_px,
                optional(object.best_id),
                object.best_iou,
                optional(object.matched_id),
                object.matched_iou,
                object.contains,
            );
        }
    }
    text
}

/// Everything, with the settings it was made with. Undefined scores are null.
pub(crate) fn as_json(
    rows: &[Row],
    summaries: &[(Metric, Summary)],
    arguments: &EvaluateArgs,
    options: &ScoreOptions,
) -> Value {
    let images: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut image = Map::new();
            image.insert("image".into(), json!(row.name));
            for (metric, _) in summaries {
                let value = row.scores.get(*metric);
                let value = if metric.is_count() { json!(value as u64) } else { json!(value) };
                image.insert(metric.name().into(), value);
            }
            image.insert("segmentation_accuracy".into(), json!(row.scores.segmentation_accuracy));
            if !row.note.is_empty() {
                image.insert("note".into(), json!(row.note));
            }
            Value::Object(image)
        })
        .collect();
    let summary: Map<String, Value> = summaries
        .iter()
        .map(|(metric, summary)| {
            let interval = summary.interval.map(|interval| [interval.low, interval.high]);
            let value = json!({
                "images": summary.images, "mean": summary.mean, "median": summary.median, "interval": interval,
            });
            (metric.name().to_owned(), value)
        })
        .collect();
    json!({
        "msa": mean(rows, Metric::Msa),
        "sa50": mean(rows, Metric::Sa50),
        "sa75": mean(rows, Metric::Sa75),
        "summary": summary,
        "images": images,
        "settings": {
            "version": env!("CARGO_PKG_VERSION"),
            "compat": arguments.compat,
            "relabel": arguments.relabel,
            "boundary_tolerance_px": options.boundary_tolerance_px,
            "interval": "percentile bootstrap of the mean over images",
            "confidence": arguments.confidence,
            "resamples": arguments.resamples,
            "seed": arguments.seed,
        },
    })
}

/// A line for each image, a table of the summary, and the three scores of the paper last.
pub(crate) fn for_people(rows: &[Row], summaries: &[(Metric, Summary)], confidence: f64) -> Vec<String> {
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let Scores { msa, true_objects, predicted_objects, .. } = &row.scores;
            let note = if row.note.is_empty() { String::new() } else { format!(" ({})", row.note) };
            format!("{}: mSA {msa:.3}, {predicted_objects} of {true_objects} objects{note}", row.name)
        })
        .collect();
    lines.push(String::new());
    let width = summaries.iter().map(|(metric, _)| metric.name().len()).max().unwrap_or(0).max(6);
    lines.push(
        format!(
            "{:width$}  {:>8}  {:>8}  {:.3} % interval of the mean",
            "metric",
            "mean",
            "median",
            confidence * 100.0
        )
        .replace(".000 %", " %"),
    );
    for (metric, summary) in summaries {
        let interval = summary
            .interval
            .map_or_else(|| "–".to_owned(), |interval| format!("{:.4} – {:.4}", interval.low, interval.high));
        lines.push(format!("{:width$}  {:8.4}  {:8.4}  {interval}", metric.name(), summary.mean, summary.median));
    }
    lines.push(String::new());
    let [msa, sa50, sa75] = [Metric::Msa, Metric::Sa50, Metric::Sa75].map(|metric| mean(rows, metric));
    lines.push(format!("{} image(s): mSA {msa:.4}, SA50 {sa50:.4}, SA75 {sa75:.4}", rows.len()));
    lines
}

fn mean(rows: &[Row], metric: Metric) -> f64 {
    rows.iter().map(|row| row.scores.get(metric)).sum::<f64>() / rows.len() as f64
}

fn number(scores: &Scores, metric: Metric) -> String {
    let value = scores.get(metric);
    match (metric.is_count(), value.is_nan()) {
        (true, _) => format!("{value:.0}"),
        (false, true) => String::new(),
        (false, false) => format!("{value:.6}"),
    }
}
