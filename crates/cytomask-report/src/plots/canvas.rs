//! What all plots share: colours, marks, text, the frame of the SVG.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::html::escape;
use crate::{Error, ErrorKind, Result};

/// Stands for the page's text colour until [`svg`] replaces it.
pub(super) const INK: RGBColor = RGBColor(1, 2, 3);
const INK_IN_SVG: &str = "#010203";

/// Colours that are apart for people who see no red or green, and readable on white and on dark grey.
const COLOURS: [RGBColor; 8] = [
    RGBColor(46, 134, 222),
    RGBColor(230, 126, 34),
    RGBColor(22, 160, 108),
    RGBColor(204, 88, 160),
    RGBColor(132, 118, 214),
    RGBColor(150, 140, 30),
    RGBColor(90, 180, 225),
    RGBColor(127, 127, 127),
];

pub(super) type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The axes of a chart on a [`Root`].
pub(super) type Mesh<'a, 'b, 'd, X, Y> = MeshStyle<'a, 'b, X, Y, SVGBackend<'d>>;

/// What plotters reports, whichever of its kinds.
pub(super) type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Height of letters, pixels.
pub(super) const TEXT: i32 = 17;

/// Longest name that is written out in a plot.
const LONGEST_NAME: usize = 34;

pub(super) fn colour(method: usize) -> RGBColor {
    COLOURS[method % COLOURS.len()]
}

/// Draws on an area of the given size; `title` is what a screen reader says.
pub(super) fn svg(title: &str, size: (u32, u32), draw: impl FnOnce(&Root<'_>) -> Drawn) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&root)
            .and_then(|()| Ok(root.present()?))
            .map_err(|error| Error::new(ErrorKind::Drawing, format!("plot {title}: {error}")))?;
    }
    let title = escape(title);
    let (w, h) = size;
    let frame = format!("<svg role=\"img\" aria-label=\"{title}\" style=\"max-width:{w}px\"");
    Ok(text.replacen(&format!("<svg width=\"{w}\" height=\"{h}\""), &frame, 1).replace(INK_IN_SVG, "currentColor"))
}

pub(super) fn style(horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", TEXT).into_font()).color(&INK).pos(Pos::new(horizontal, vertical))
}

/// The look of all axes and grids: pale lines, text below and to the left.
pub(super) fn plain<'m, 'a, 'b, 'd, X, Y>(mesh: &'m mut Mesh<'a, 'b, 'd, X, Y>) -> &'m mut Mesh<'a, 'b, 'd, X, Y>
where
    X: Ranged,
    Y: Ranged,
{
    mesh.x_label_style(style(HPos::Center, VPos::Top))
        .y_label_style(style(HPos::Right, VPos::Center))
        .axis_desc_style(style(HPos::Center, VPos::Top))
        .axis_style(INK.mix(0.5))
        .bold_line_style(INK.mix(0.15))
        .light_line_style(TRANSPARENT)
}

/// Left-aligned text, its middle at `at`.
pub(super) fn label(root: &Root<'_>, text: &str, at: (i32, i32)) -> Drawn {
    Ok(root.draw_text(&shortened(text), &style(HPos::Left, VPos::Center), at)?)
}

/// Right-aligned text, its middle at `at`.
pub(super) fn label_before(root: &Root<'_>, text: &str, at: (i32, i32)) -> Drawn {
    Ok(root.draw_text(&shortened(text), &style(HPos::Right, VPos::Center), at)?)
}

/// A method's own mark.
pub(super) fn mark(root: &Root<'_>, method: usize, at: (i32, i32)) -> Drawn {
    mark_sized(root, method, at, 6, colour(method).filled())
}

pub(super) fn mark_sized(root: &Root<'_>, shape: usize, at: (i32, i32), size: i32, style: ShapeStyle) -> Drawn {
    let (x, y) = at;
    let polygon = |corners: &[(i32, i32)]| {
        Polygon::new(corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>(), style)
    };
    let s = size;
    match shape % 6 {
        0 => root.draw(&Circle::new(at, s, style))?,
        1 => root.draw(&polygon(&[(-s, -s), (s, -s), (s, s), (-s, s)]))?,
        2 => root.draw(&polygon(&[(0, -s - 1), (s + 1, s), (-s - 1, s)]))?,
        3 => root.draw(&polygon(&[(0, -s - 2), (s + 2, 0), (0, s + 2), (-s - 2, 0)]))?,
        4 => root.draw(&polygon(&[(0, s + 1), (s + 1, -s), (-s - 1, -s)]))?,
        _ => root.draw(&Cross::new(at, s, style.stroke_width(3)))?,
    }
    Ok(())
}

/// Marks and names in a column beginning at `at`.
pub(super) fn legend<'n>(
    root: &Root<'_>,
    entries: impl IntoIterator<Item = (usize, &'n str)>,
    at: (i32, i32),
) -> Drawn {
    for (row, (method, name)) in entries.into_iter().enumerate() {
        let y = at.1 + row as i32 * 24;
        mark(root, method, (at.0, y))?;
        label(root, name, (at.0 + 16, y))?;
    }
    Ok(())
}

/// Room a name takes, pixels, by a guess that is rather too large.
pub(super) fn width_of(text: &str) -> u32 {
    (shortened(text).chars().count() as f64 * f64::from(TEXT) * 0.47) as u32 + 8
}

/// Room the longest of names takes.
pub(super) fn widest<'n>(names: impl IntoIterator<Item = &'n str>) -> u32 {
    names.into_iter().map(width_of).max().unwrap_or(0)
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LONGEST_NAME {
        return text.to_owned();
    }
    text.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}

/// The upper end of an axis of scores from 0: a little above `highest`, at most 1.
pub(super) fn axis_end(highest: f64) -> f64 {
    ((highest * 1.08 * 20.0).ceil() / 20.0).clamp(0.05, 1.0)
}
