//! Values against steps.

use plotters::prelude::*;
use serde_json::json;

use super::Plot;
use super::canvas::{colour, legend, mark, plain, svg, widest};
use crate::Result;

const WIDTH: u32 = 880;

/// More points than this are replaced by means of neighbours.
const MOST_POINTS: usize = 240;

/// One line of a plot of curves.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// `(step, value)`, in the order of steps.
    pub points: Vec<(f64, f64)>,
    /// Whether each point is a measurement to look at (few, with marks) or one of many (a line).
    pub marked: bool,
}

/// Curves over the steps of a run. The vertical axis begins at 0, or below the least value where that is negative. `None` without any
/// point; what is no number is left out.
///
/// # Errors
/// `Drawing`.
pub fn curves(id: &str, title: &str, explanation: &str, unit: &str, series: &[Curve]) -> Result<Option<Plot>> {
    let drawn: Vec<Curve> = series.iter().map(thinned).filter(|curve| !curve.points.is_empty()).collect();
    let points = || drawn.iter().flat_map(|curve| &curve.points);
    if drawn.is_empty() {
        return Ok(None);
    }
    let last = points().map(|point| point.0).fold(1.0, f64::max);
    let highest = points().map(|point| point.1).fold(0.0, f64::max);
    let least = points().map(|point| point.1).fold(0.0, f64::min);
    let range = (highest - least).max(1e-12);
    let right = widest(drawn.iter().map(|curve| curve.name.as_str())) + 40;
    let digits = (2.0 - range.log10().floor()).clamp(0.0, 8.0) as usize;
    let written = |value: f64| if range < 0.01 { format!("{value:.1e}") } else { format!("{value:.digits$}") };
    let drawing = svg(title, (WIDTH, 300), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .margin_right(right)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0..last * 1.02, least..highest + range * 0.08)?;
        let mut mesh = chart.configure_mesh();
        plain(&mut mesh)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| written(*y))
            .x_desc("step")
            .y_desc(unit)
            .draw()?;
        for (number, curve) in drawn.iter().enumerate() {
            let line = PathElement::new(curve.points.clone(), colour(number).stroke_width(2));
            chart.draw_series([line])?;
            if curve.marked || curve.points.len() == 1 {
                for &point in &curve.points {
                    mark(root, number, chart.backend_coord(&point))?;
                }
            }
        }
        let names = drawn.iter().enumerate().map(|(number, curve)| (number, curve.name.as_str()));
        legend(root, names, ((WIDTH - right) as i32 + 24, 30))
    })?;
    Ok(Some(Plot {
        id: id.to_owned(),
        title: title.to_owned(),
        explanation: explanation.to_owned(),
        svg: drawing,
        data: drawn.iter().map(|curve| json!({ "name": curve.name, "points": curve.points })).collect(),
    }))
}

/// Means of as many neighbours as leave [`MOST_POINTS`] at most.
fn thinned(curve: &Curve) -> Curve {
    let points: Vec<(f64, f64)> =
        curve.points.iter().copied().filter(|point| point.0.is_finite() && point.1.is_finite()).collect();
    let together = if curve.marked { 1 } else { points.len().div_ceil(MOST_POINTS).max(1) };
    let mean = |part: &[(f64, f64)]| {
        let count = part.len() as f64;
        (part.iter().map(|point| point.0).sum::<f64>() / count, part.iter().map(|point| point.1).sum::<f64>() / count)
    };
    Curve { points: points.chunks(together).map(mean).collect(), ..curve.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, points: Vec<(f64, f64)>, marked: bool) -> Curve {
        Curve { name: name.into(), points, marked }
    }

    #[test]
    fn many_points_become_means_and_no_number_is_left_out() {
        let many = (0..1000).map(|step| (f64::from(step), if step == 7 { f64::NAN } else { 2.0 })).collect();
        let thin = thinned(&curve("loss", many, false));
        assert!(thin.points.len() <= MOST_POINTS && thin.points.iter().all(|point| point.1 == 2.0));
        let plot = curves("loss", "Loss", "Lower is better.", "loss", &[thin]).unwrap().unwrap();
        assert!(plot.svg.contains("aria-label=\"Loss\"") && plot.svg.contains("loss"));
        assert!(curves("x", "X", "", "", &[curve("none", vec![(1.0, f64::NAN)], true)]).unwrap().is_none());
        assert!(curves("x", "X", "", "", &[curve("one", vec![(0.0, 0.0)], true)]).unwrap().is_some());
    }
}
