//! The critical-difference diagram of Demšar, JMLR 7, 2006.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use serde_json::json;

use super::Plot;
use super::canvas::{INK, colour, label, label_before, mark, style, svg, widest};
use crate::{Analysis, Result};

/// Average ranks on an axis, best on the left; bars join methods that Nemenyi's test does not tell apart. `None` with one method.
///
/// # Errors
/// `Drawing`.
pub fn critical_difference(analysis: &Analysis) -> Result<Option<Plot>> {
    let Some(friedman) = &analysis.friedman else { return Ok(None) };
    let rank = |at: usize| analysis.methods[at].average_rank;
    let mut order: Vec<usize> = (0..analysis.methods.len()).collect();
    order.sort_by(|&a, &b| rank(a).total_cmp(&rank(b)));
    let count = order.len();
    let title = "Average ranks and critical difference".to_owned();

    let side = widest(analysis.methods.iter().map(|row| row.method.as_str())) as i32 + 74;
    let axis_length = 380;
    let to_x = |value: f64| side + ((value - 1.0) / (count as f64 - 1.0) * f64::from(axis_length)) as i32;
    let axis_y = 66;
    let first_row = axis_y + 30 + 14 * friedman.cliques.len() as i32;
    let rows = count.div_ceil(2) as i32;
    let size = ((2 * side + axis_length) as u32, (first_row + rows * 26 + 10) as u32);
    let drawing = svg(&title, size, |root| {
        let line = |points: Vec<(i32, i32)>, width: u32, strength: f64| {
            PathElement::new(points, INK.mix(strength).stroke_width(width))
        };
        // The length of the critical difference, above the axis.
        let length = (friedman.critical_difference / (count as f64 - 1.0) * f64::from(axis_length)) as i32;
        root.draw(&line(vec![(side, 26), (side + length, 26)], 2, 1.0))?;
        for x in [side, side + length] {
            root.draw(&line(vec![(x, 22), (x, 30)], 2, 1.0))?;
        }
        let text = format!("critical difference {:.2}", friedman.critical_difference);
        root.draw_text(&text, &style(HPos::Left, VPos::Bottom), (side, 18))?;

        root.draw(&line(vec![(side, axis_y), (side + axis_length, axis_y)], 1, 1.0))?;
        for tick in 1..=count {
            let x = to_x(tick as f64);
            root.draw(&line(vec![(x, axis_y - 5), (x, axis_y + 5)], 1, 1.0))?;
            root.draw_text(&tick.to_string(), &style(HPos::Center, VPos::Bottom), (x, axis_y - 8))?;
        }
        for (row, group) in friedman.cliques.iter().enumerate() {
            let y = axis_y + 16 + 14 * row as i32;
            let ends = (to_x(rank(group[0])) - 4, to_x(rank(group[group.len() - 1])) + 4);
            root.draw(&line(vec![(ends.0, y), (ends.1, y)], 5, 0.85))?;
        }
        for (position, &at) in order.iter().enumerate() {
            let on_left = position < count.div_ceil(2);
            let row = if on_left { position } else { count - 1 - position } as i32;
            let (x, y) = (to_x(rank(at)), first_row + row * 26 + 12);
            let end = if on_left { side - 6 } else { side + axis_length + 6 };
            root.draw(&PathElement::new([(x, axis_y), (x, y), (end, y)], colour(at).stroke_width(2)))?;
            mark(root, at, (x, axis_y))?;
            let number = format!("{:.2}", rank(at));
            if on_left {
                label_before(root, &analysis.methods[at].method, (end - 46, y))?;
                label_before(root, &number, (end - 6, y))?;
            } else {
                label(root, &number, (end + 6, y))?;
                label(root, &analysis.methods[at].method, (end + 46, y))?;
            }
        }
        Ok(())
    })?;
    let cliques: Vec<Vec<&str>> = friedman
        .cliques
        .iter()
        .map(|group| group.iter().map(|&at| analysis.methods[at].method.as_str()).collect())
        .collect();
    Ok(Some(Plot {
        id: "critical-difference".into(),
        title,
        explanation: format!(
            "On every image the methods are ranked, 1 for the best; the axis shows mean ranks. A thick bar joins methods whose ranks \
             are closer than the critical difference: these images do not tell them apart (Nemenyi's test, alpha {}). It asks less of the \
             scores than the pair tests below and sees less.",
            analysis.alpha
        ),
        svg: drawing,
        data: json!({
            "critical_difference": friedman.critical_difference,
            "average_ranks": order.iter().map(|&at| json!({ "method": analysis.methods[at].method, "rank": rank(at) })).collect::<Vec<_>>(),
            "not_told_apart": cliques,
        }),
    }))
}
