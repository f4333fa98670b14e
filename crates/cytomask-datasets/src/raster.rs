//! Polygons to pixels, in the three ways of the libraries that the published labels are made with. They differ on the border.

/// Calls `paint` with each pixel `(y, x)` inside the image that lies in the polygon or on its border, as
/// `skimage.draw.polygon` does (its test of a point is O'Rourke's). Corners are `(x, y)`.
pub(crate) fn scikit_image(corners: &[(f64, f64)], [h, w]: [u32; 2], mut paint: impl FnMut(u32, u32)) {
    let Some(([y0, x0], [y1, x1])) = bounds(corners) else { return };
    for y in y0.max(0.0) as u32..=(y1.ceil().clamp(-1.0, f64::from(h) - 1.0) as i64).max(0) as u32 {
        for x in x0.max(0.0) as u32..=(x1.ceil().clamp(-1.0, f64::from(w) - 1.0) as i64).max(0) as u32 {
            if y < h && x < w && contains(corners, f64::from(x), f64::from(y)) {
                paint(y, x);
            }
        }
    }
}

/// Lowest and highest `[y, x]`; `None` without corners.
fn bounds(corners: &[(f64, f64)]) -> Option<([f64; 2], [f64; 2])> {
    corners
        .iter()
        .map(|&(x, y)| ([y, x], [y, x]))
        .reduce(|(low, high), ([y, x], _)| ([low[0].min(y), low[1].min(x)], [high[0].max(y), high[1].max(x)]))
}

/// Whether the point lies inside or on the border: rays to the right and to the left cross the border; crossings of different
/// parity mean that the point is on it.
fn contains(corners: &[(f64, f64)], x: f64, y: f64) -> bool {
    const NEAR: f64 = 1e-12;
    let (mut right, mut left) = (false, false);
    let Some(&(last_x, last_y)) = corners.last() else { return false };
    let (mut x1, mut y1) = (last_x - x, last_y - y);
    for &(corner_x, corner_y) in corners {
        let (x0, y0) = (corner_x - x, corner_y - y);
        if x0.abs() < NEAR && y0.abs() < NEAR {
            return true;
        }
        if (y0 > 0.0) != (y1 > 0.0) && (x0 * y1 - x1 * y0) / (y1 - y0) > 0.0 {
            right = !right;
        }
        if (y0 < 0.0) != (y1 < 0.0) && (x0 * y1 - x1 * y0) / (y1 - y0) < 0.0 {
            left = !left;
        }
        (x1, y1) = (x0, y0);
    }
    right || left
}

/// A polygon (`x, y, x, y, …`) as a mask `[H, W]`, as pycocotools draws it: the border is walked at five times the resolution,
/// and a column's pixels change where the walk enters the next column.
pub(crate) fn coco(polygon: &[f64], [h, w]: [u32; 2], mask: &mut [bool]) {
    const SCALE: f64 = 5.0;
    // Far outside nothing is drawn anyway, and the walk must end.
    let reach = 4.0 * f64::from(h.max(w)) + 16.0;
    let fine: Vec<(i64, i64)> = polygon
        .chunks_exact(2)
        .map(|at| [at[0], at[1]].map(|value| (SCALE * value.clamp(-reach, reach) + 0.5) as i64))
        .map(|[x, y]| (x, y))
        .collect();
    let mut walk: Vec<(i64, i64)> = Vec::new();
    for (index, &from) in fine.iter().enumerate() {
        let to = fine[(index + 1) % fine.len()];
        line(from, to, &mut walk);
    }
    let mut toggles: Vec<usize> = Vec::new();
    for pair in walk.windows(2) {
        let ((u0, v0), (u1, v1)) = (pair[0], pair[1]);
        if u1 == u0 {
            continue;
        }
        let column = ((if u1 < u0 { u1 } else { u1 - 1 }) as f64 + 0.5) / SCALE - 0.5;
        if column.fract() != 0.0 || column < 0.0 || column > f64::from(w) - 1.0 {
            continue;
        }
        let row = ((v0.min(v1) as f64 + 0.5) / SCALE - 0.5).clamp(0.0, f64::from(h)).ceil();
        toggles.push(column as usize * h as usize + row as usize);
    }
    toggles.sort_unstable();
    let end = h as usize * w as usize;
    let mut runs = toggles.into_iter();
    while let Some(start) = runs.next() {
        for at in start..runs.next().unwrap_or(end) {
            mask[at % h as usize * w as usize + at / h as usize] = true;
        }
    }
}

/// All points of a line, its ends included, one for each step along the longer axis.
fn line(from: (i64, i64), to: (i64, i64), out: &mut Vec<(i64, i64)>) {
    let (dx, dy) = ((to.0 - from.0).abs(), (to.1 - from.1).abs());
    // Drawn in the direction of the rising longer axis, so that a line and its reverse have the same points.
    let reverse = (dx >= dy && from.0 > to.0) || (dx < dy && from.1 > to.1);
    let (start, end) = if reverse { (to, from) } else { (from, to) };
    let steps = dx.max(dy);
    let slope = if dx >= dy { (end.1 - start.1) as f64 / dx as f64 } else { (end.0 - start.0) as f64 / dy as f64 };
    let slope = if steps == 0 { 0.0 } else { slope };
    for step in 0..=steps {
        let at = if reverse { steps - step } else { step };
        out.push(if dx >= dy {
            (start.0 + at, (start.1 as f64 + slope * at as f64 + 0.5) as i64)
        } else {
            ((start.0 as f64 + slope * at as f64 + 0.5) as i64, start.1 + at)
        });
    }
}

/// Run lengths in column order into a mask `[H, W]`; runs beyond the image are cut off.
pub(crate) fn runs(counts: &[u32], [h, w]: [u32; 2], mask: &mut [bool]) {
    let end = h as usize * w as usize;
    let mut at = 0_usize;
    for (index, &count) in counts.iter().enumerate() {
        let stop = at.saturating_add(count as usize).min(end);
        if index % 2 == 1 {
            for pixel in at..stop {
                mask[pixel % h as usize * w as usize + pixel / h as usize] = true;
            }
        }
        at = stop;
    }
}

/// Closed lines of corners `(x, y)`, filled by the even-odd rule where a pixel's centre lies inside, as GDAL (and so rasterio)
/// does; a horizontal edge through the centres counts from right to left.
pub(crate) fn gdal(rings: &[Vec<(f64, f64)>], [h, w]: [u32; 2], mut paint: impl FnMut(u32, u32)) {
    let edges: Vec<((f64, f64), (f64, f64))> = rings
        .iter()
        .flat_map(|ring| (0..ring.len()).map(move |at| (ring[at], ring[(at + ring.len() - 1) % ring.len()])))
        .collect();
    let low = edges.iter().map(|(a, _)| a.1).fold(f64::INFINITY, f64::min);
    let high = edges.iter().map(|(a, _)| a.1).fold(f64::NEG_INFINITY, f64::max);
    if edges.is_empty() || high < 0.0 || low > f64::from(h) {
        return;
    }
    let column = |x: f64| (x + 0.5).floor().clamp(0.0, f64::from(w)) as u32;
    let mut crossings = Vec::new();
    for y in low.max(0.0) as u32..=(high.min(f64::from(h) - 1.0).max(0.0) as u32) {
        let centre = f64::from(y) + 0.5;
        crossings.clear();
        for &(a, b) in &edges {
            if a.1 == b.1 {
                if a.1 == centre && a.0 > b.0 {
                    (column(b.0)..column(a.0)).for_each(|x| paint(y, x));
                }
                continue;
            }
            let (top, bottom) = if a.1 < b.1 { (a, b) } else { (b, a) };
            if top.1 <= centre && centre < bottom.1 {
                crossings.push((centre - top.1) * (bottom.0 - top.0) / (bottom.1 - top.1) + top.0);
            }
        }
        crossings.sort_unstable_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            (column(pair[0])..column(pair[1])).for_each(|x| paint(y, x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(size: [u32; 2], draw: impl FnOnce(&mut dyn FnMut(u32, u32))) -> Vec<String> {
        let [h, w] = size.map(|extent| extent as usize);
        let mut rows = vec![vec!['.'; w]; h];
        draw(&mut |y, x| rows[y as usize][x as usize] = '#');
        rows.into_iter().map(|row| row.into_iter().collect()).collect()
    }

    fn mask_picture(size: [u32; 2], draw: impl FnOnce(&mut [bool])) -> Vec<String> {
        let mut mask = vec![false; (size[0] * size[1]) as usize];
        draw(&mut mask);
        mask.chunks(size[1] as usize).map(|row| row.iter().map(|&set| if set { '#' } else { '.' }).collect()).collect()
    }

    const SQUARE: [(f64, f64); 4] = [(1.0, 1.0), (4.0, 1.0), (4.0, 3.0), (1.0, 3.0)];

    #[test]
    fn scikit_image_includes_the_border() {
        let found = picture([5, 6], |paint| scikit_image(&SQUARE, [5, 6], paint));
        assert_eq!(found, ["......", ".####.", ".####.", ".####.", "......"]);
        let outside = SQUARE.map(|(x, y)| (x - 3.0, y + 3.0));
        assert_eq!(
            picture([5, 6], |paint| scikit_image(&outside, [5, 6], paint)),
            ["......", "......", "......", "......", "##...."]
        );
        assert!(picture([2, 2], |paint| scikit_image(&[], [2, 2], paint)).concat().chars().all(|pixel| pixel == '.'));
    }

    #[test]
    fn coco_leaves_the_far_border_out() {
        let polygon: Vec<f64> = SQUARE.iter().flat_map(|&(x, y)| [x, y]).collect();
        let found = mask_picture([5, 6], |mask| coco(&polygon, [5, 6], mask));
        assert_eq!(found, ["......", ".###..", ".###..", "......", "......"]);
    }

    #[test]
    fn coco_ends_with_wild_numbers() {
        mask_picture([5, 6], |mask| coco(&[1e300, -1e300, f64::NAN, 2.0, f64::INFINITY, 0.0], [5, 6], mask));
        mask_picture([5, 6], |mask| coco(&[1.0, 2.0], [5, 6], mask));
        mask_picture([5, 6], |mask| coco(&[], [5, 6], mask));
    }

    #[test]
    fn gdal_counts_centres_and_holes() {
        let ring = |points: &[(f64, f64)]| points.to_vec();
        let found = picture([5, 6], |paint| gdal(&[ring(&SQUARE)], [5, 6], paint));
        assert_eq!(found, ["......", ".###..", ".###..", "......", "......"]);
        let outer = ring(&[(0.0, 0.0), (6.0, 0.0), (6.0, 5.0), (0.0, 5.0)]);
        let found = picture([5, 6], |paint| gdal(&[outer, ring(&SQUARE)], [5, 6], paint));
        assert_eq!(found, ["######", "#...##", "#...##", "######", "######"]);
        let far = ring(&[(-9.0, -9.0), (90.0, -9.0), (90.0, 1.2)]);
        assert_eq!(picture([3, 3], |paint| gdal(&[far], [3, 3], paint)).len(), 3);
    }

    #[test]
    fn runs_go_down_the_columns() {
        let found = mask_picture([3, 4], |mask| runs(&[1, 3, 2, 99], [3, 4], mask));
        assert_eq!(found, [".###", "#.##", "#.##"]);
    }
}
