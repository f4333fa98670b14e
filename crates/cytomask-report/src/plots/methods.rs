//! Plots of all methods at once.

use cytomask_eval::THRESHOLDS;
use plotters::prelude::*;
use serde_json::json;

use super::Plot;
use super::canvas::{INK, axis_end, colour, label, label_before, legend, mark, plain, svg, widest};
use crate::{Analysis, Result, label as metric_label};

const WIDTH: u32 = 880;

/// Mean score of each method, with its interval.
///
/// # Errors
/// `Drawing`.
pub fn mean_scores(analysis: &Analysis) -> Result<Plot> {
    let order = analysis.order();
    let metric = metric_label(analysis.metric);
    let rows = order.len();
    let left = widest(order.iter().map(|&at| analysis.methods[at].method.as_str())) + 12;
    let title = format!("Mean {metric} of each method");
    let end = axis_end(order.iter().map(|&at| analysis.methods[at].mean.high).fold(0.0, f64::max));
    let drawing = svg(&title, (WIDTH, 64 + 44 * rows as u32), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(64)
            .x_label_area_size(44)
            .y_label_area_size(left)
            .build_cartesian_2d(0.0..end, 0.0..rows as f64)?;
        let mut mesh = chart.configure_mesh();
        plain(&mut mesh).disable_y_mesh().y_labels(0).x_desc(format!("mean {metric}")).draw()?;
        for (row, &at) in order.iter().enumerate() {
            let summary = &analysis.methods[at];
            let middle = rows as f64 - row as f64 - 0.5;
            let bar = Rectangle::new(
                [(0.0, middle - 0.3), (summary.mean.value, middle + 0.3)],
                colour(at).mix(0.75).filled(),
            );
            chart.draw_series([bar])?;
            let ink = INK.stroke_width(2);
            let range = [(summary.mean.low, middle), (summary.mean.high, middle)];
            let end_at = |x: f64| PathElement::new([(x, middle - 0.12), (x, middle + 0.12)], ink);
            chart.draw_series([PathElement::new(range, ink), end_at(summary.mean.low), end_at(summary.mean.high)])?;
            let y = chart.backend_coord(&(0.0, middle)).1;
            label_before(root, &summary.method, (left as i32, y))?;
            let right = chart.backend_coord(&(summary.mean.high.max(summary.mean.value), middle)).0;
            label(root, &format!("{:.3}", summary.mean.value), (right + 8, y))?;
        }
        Ok(())
    })?;
    let data =
        order.iter().map(|&at| json!({ "method": analysis.methods[at].method, "mean": analysis.methods[at].mean }));
    Ok(Plot {
        id: "mean-scores".into(),
        title,
        explanation: format!(
            "Bars are means over {} images. The line on each is its 95 % interval: how far the mean would move with other images of \
             this kind. Overlapping lines do not mean that methods are equal, as all saw the same images; the table of pairs says that.",
            analysis.images
        ),
        svg: drawing,
        data: data.collect(),
    })
}

/// Segmentation accuracy against the IoU an object must reach.
///
/// # Errors
/// `Drawing`.
pub fn score_against_threshold(analysis: &Analysis) -> Result<Plot> {
    let order = analysis.order();
    let title = "Accuracy against the IoU threshold".to_owned();
    let highest = order.iter().flat_map(|&at| &analysis.methods[at].per_threshold).copied().fold(0.0, f64::max);
    let right = widest(order.iter().map(|&at| analysis.methods[at].method.as_str())) + 40;
    let drawing = svg(&title, (WIDTH, 380), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .margin_right(right)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(0.485..0.965, 0.0..axis_end(highest))?;
        let mut mesh = chart.configure_mesh();
        plain(&mut mesh)
            .x_labels(10)
            .x_label_formatter(&|x| format!("{x:.2}"))
            .y_label_formatter(&|y| format!("{y:.2}"))
            .x_desc("IoU at which an object counts as found")
            .y_desc("segmentation accuracy")
            .draw()?;
        for &at in order.iter().rev() {
            let points: Vec<(f64, f64)> =
                THRESHOLDS.into_iter().zip(analysis.methods[at].per_threshold.iter().copied()).collect();
            chart.draw_series([PathElement::new(points.clone(), colour(at).stroke_width(2))])?;
            for point in points {
                mark(root, at, chart.backend_coord(&point))?;
            }
        }
        let names = order.iter().map(|&at| (at, analysis.methods[at].method.as_str()));
        legend(root, names, ((WIDTH - right) as i32 + 24, 30))
    })?;
    let data: Vec<_> = order.iter().map(|&at| &analysis.methods[at]).collect();
    Ok(Plot {
        id: "score-against-threshold".into(),
        title,
        explanation: "On the left an object counts as found when it roughly overlaps the true one, on the right only when its outline \
                      is almost exact. A curve that is high and then falls early finds the objects but draws them loosely."
            .into(),
        svg: drawing,
        data: json!({
            "iou": THRESHOLDS,
            "methods": data.iter().map(|row| json!({ "method": row.method, "accuracy": row.per_threshold })).collect::<Vec<_>>(),
        }),
    })
}

/// Median time an image against mean score; `None` when fewer than two methods have times.
///
/// # Errors
/// `Drawing`.
pub fn time_against_quality(analysis: &Analysis) -> Result<Option<Plot>> {
    let timed: Vec<(usize, f64)> = analysis
        .order()
        .into_iter()
        .filter_map(|at| {
            analysis.methods[at].median_seconds.filter(|&seconds| seconds > 0.0).map(|seconds| (at, seconds))
        })
        .collect();
    if timed.len() < 2 {
        return Ok(None);
    }
    let metric = metric_label(analysis.metric);
    let title = format!("Time against {metric}");
    let fastest = timed.iter().map(|(_, seconds)| *seconds).fold(f64::INFINITY, f64::min);
    let slowest = timed.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    let highest = timed.iter().map(|&(at, _)| analysis.methods[at].mean.high).fold(0.0, f64::max);
    let right = widest(timed.iter().map(|&(at, _)| analysis.methods[at].method.as_str())) + 40;
    let drawing = svg(&title, (WIDTH, 360), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .margin_right(right)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d((fastest / 1.6..slowest * 1.6).log_scale(), 0.0..axis_end(highest))?;
        let mut mesh = chart.configure_mesh();
        plain(&mut mesh)
            .x_label_formatter(&|x| {
                if *x < 0.1 {
                    format!("{x:.2}")
                } else if *x < 1.0 {
                    format!("{x:.1}")
                } else {
                    format!("{x:.0}")
                }
            })
            .y_label_formatter(&|y| format!("{y:.2}"))
            .x_desc("median seconds an image (logarithmic)")
            .y_desc(format!("mean {metric}"))
            .draw()?;
        for &(at, seconds) in &timed {
            let mean = analysis.methods[at].mean;
            chart.draw_series([PathElement::new(
                [(seconds, mean.low), (seconds, mean.high)],
                colour(at).stroke_width(2),
            )])?;
            let (x, y) = chart.backend_coord(&(seconds, mean.value));
            mark(root, at, (x, y))?;
        }
        let names = timed.iter().map(|&(at, _)| (at, analysis.methods[at].method.as_str()));
        legend(root, names, ((WIDTH - right) as i32 + 24, 30))
    })?;
    let data = timed.iter().map(|&(at, seconds)| {
        json!({ "method": analysis.methods[at].method, "median_seconds": seconds, "mean": analysis.methods[at].mean })
    });
    Ok(Some(Plot {
        id: "time-against-quality".into(),
        title,
        explanation: "Up is better, left is faster. A method with another one above and to the left of it has nothing to offer. Times \
                      hold for the machine of this run."
            .into(),
        svg: drawing,
        data: data.collect(),
    }))
}

/// Mean score of each method in each group of images; `None` without groups.
///
/// # Errors
/// `Drawing`.
pub fn by_group(analysis: &Analysis) -> Result<Option<Plot>> {
    if analysis.groups.is_empty() {
        return Ok(None);
    }
    let metric = metric_label(analysis.metric);
    let title = format!("Mean {metric} by group of images");
    let rows = analysis.groups.len();
    let names: Vec<String> =
        analysis.groups.iter().map(|group| format!("{} ({})", group.group, group.images)).collect();
    let left = widest(names.iter().map(String::as_str)) + 12;
    let right = widest(analysis.methods.iter().map(|row| row.method.as_str())) + 40;
    let highest = analysis.groups.iter().flat_map(|group| &group.means).copied().fold(0.0, f64::max);
    let height = 64 + (40 * rows as u32).max(24 * analysis.methods.len() as u32);
    let drawing = svg(&title, (WIDTH, height), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(right)
            .x_label_area_size(44)
            .y_label_area_size(left)
            .build_cartesian_2d(0.0..axis_end(highest), 0.0..rows as f64)?;
        let mut mesh = chart.configure_mesh();
        plain(&mut mesh).disable_y_mesh().y_labels(0).x_desc(format!("mean {metric}")).draw()?;
        for (row, (group, name)) in analysis.groups.iter().zip(&names).enumerate() {
            let middle = rows as f64 - row as f64 - 0.5;
            chart.draw_series([PathElement::new(
                [(0.0, middle), (axis_end(highest), middle)],
                INK.mix(0.25).stroke_width(1),
            )])?;
            label_before(root, name, (left as i32, chart.backend_coord(&(0.0, middle)).1))?;
            for at in analysis.order().into_iter().rev() {
                mark(root, at, chart.backend_coord(&(group.means[at], middle)))?;
            }
        }
        let names = analysis.order().into_iter().map(|at| (at, analysis.methods[at].method.as_str()));
        legend(root, names, ((WIDTH - right) as i32 + 24, 24))
    })?;
    Ok(Some(Plot {
        id: "by-group".into(),
        title,
        explanation: "One row a group, the number of its images in brackets. Where the order of marks changes from row to row, the best \
                      method depends on the images."
            .into(),
        svg: drawing,
        data: analysis.groups.iter().map(|group| json!({ "group": group.group, "images": group.images, "means": group.means })).collect(),
    }))
}
