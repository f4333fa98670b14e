//! Two methods, image by image.

use plotters::prelude::*;
use serde_json::json;

use super::Plot;
use super::canvas::{INK, axis_end, colour, label, mark_sized, plain, svg, widest};
use crate::{Analysis, Comparison, Result, label as metric_label};

/// Side of the square of points.
const SIDE: u32 = 440;

/// One mark an image: `across`'s score to the right, `up`'s upwards. Groups of images differ in shape and colour.
///
/// # Errors
/// `Shape` and `Value` as [`Comparison::values`]; `Drawing`.
pub fn scatter(comparison: &Comparison, analysis: &Analysis, up: usize, across: usize) -> Result<Plot> {
    let values = comparison.values(analysis.metric)?;
    let metric = metric_label(analysis.metric);
    let (up_name, across_name) = (&comparison.methods[up].name, &comparison.methods[across].name);
    let title = format!("{up_name} against {across_name}");
    let groups = comparison.groups();
    let group_of = |image: usize| {
        let own = comparison.images[image].group.as_deref();
        groups.iter().position(|group| Some(*group) == own).unwrap_or(0)
    };
    let highest = values.iter().flat_map(|row| [row[up], row[across]]).fold(0.0, f64::max);
    let end = axis_end(highest);
    let right = if groups.len() > 1 { widest(groups.iter().copied()) + 40 } else { 0 };
    let drawing = svg(&title, (SIDE + 70 + right, SIDE + 56), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .margin_right(12 + right)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(-0.02 * end..end, -0.02 * end..end)?;
        let mut mesh = chart.configure_mesh();
        plain(&mut mesh)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.2}"))
            .y_label_formatter(&|y| format!("{y:.2}"))
            .x_desc(format!("{metric} of {across_name}"))
            .y_desc(format!("{metric} of {up_name}"))
            .draw()?;
        chart.draw_series([PathElement::new([(0.0, 0.0), (end, end)], INK.mix(0.6).stroke_width(1))])?;
        for (image, row) in values.iter().enumerate() {
            let group = group_of(image);
            let at = chart.backend_coord(&(row[across], row[up]));
            mark_sized(root, group, at, 4, colour(group).mix(0.7).filled())?;
        }
        if groups.len() > 1 {
            for (group, name) in groups.iter().enumerate() {
                let at = ((SIDE + 70) as i32 + 14, 30 + group as i32 * 24);
                mark_sized(root, group, at, 5, colour(group).filled())?;
                label(root, name, (at.0 + 16, at.1))?;
            }
        }
        Ok(())
    })?;
    let pair = analysis.pair(up, across);
    let counts = pair.map_or_else(String::new, |pair| {
        format!(" {} images lie above the line, {} below, {} on it.", pair.first_better, pair.second_better, pair.equal)
    });
    let points: Vec<_> = comparison
        .images
        .iter()
        .zip(&values)
        .map(|(image, row)| json!({ "image": image.name, "group": image.group, "across": row[across], "up": row[up] }))
        .collect();
    Ok(Plot {
        id: format!("scatter-{up}-{across}"),
        title,
        explanation: format!("One mark an image. Above the line {up_name} is better, below it {across_name}.{counts}"),
        svg: drawing,
        data: json!({ "up": up_name, "across": across_name, "metric": metric, "points": points }),
    })
}
