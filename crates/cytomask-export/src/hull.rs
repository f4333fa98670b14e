//! Convex hulls of pixels as `skimage.morphology.convex_hull_image` means them: each pixel stands for the four midpoints of its
//! edges, and a pixel belongs to the hull when its centre lies inside or on the border of the polygon around these points.
//!
//! All in whole numbers: coordinates are doubled, so that midpoints of edges are whole and nothing is rounded.

use crate::objects::Run;

/// Leftmost and rightmost pixel `(y, x_left, x_right)` of each row, both inclusive.
type Extent = (i64, i64, i64);

/// Pixels in the convex hull, and the largest distance (Feret diameter, pixels) between midpoints of edges of hull pixels.
pub(crate) fn area_and_feret(runs: &[Run]) -> (u64, f64) {
    let extents: Vec<Extent> = runs
        .chunk_by(|a, b| a.0 == b.0)
        .map(|row| (i64::from(row[0].0), i64::from(row[0].1), i64::from(row[row.len() - 1].2) - 1))
        .collect();
    let convex = hull_rows(&diamond_hull(&extents));
    let area = convex.iter().map(|&(_, left, right)| (right - left + 1) as u64).sum();
    // The hull's pixels may reach beyond the hull of the pixels' centres, so theirs is a hull of its own.
    let corners = diamond_hull(&convex);
    let mut feret = 0;
    for (index, a) in corners.iter().enumerate() {
        for b in &corners[..index] {
            feret = feret.max((a.0 - b.0).pow(2) + (a.1 - b.1).pow(2));
        }
    }
    (area, (feret as f64 / 4.0).sqrt())
}

/// Corners, doubled `(y, x)`, in order, of the convex polygon around the midpoints of the edges of the pixels.
fn diamond_hull(extents: &[Extent]) -> Vec<(i64, i64)> {
    // The hull of the centres first: few corners are left to expand.
    let centers = extents.iter().flat_map(|&(y, left, right)| [(2 * y, 2 * left), (2 * y, 2 * right)]).collect();
    let midpoints =
        convex_hull(centers).into_iter().flat_map(|(y, x)| [(y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)]).collect();
    convex_hull(midpoints)
}

/// Andrew's monotone chain; collinear points are left out.
fn convex_hull(mut points: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    points.sort_unstable();
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let turn = |a: (i64, i64), b: (i64, i64), c: (i64, i64)| (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0);
    let half = |points: &mut dyn Iterator<Item = (i64, i64)>| {
        let mut chain: Vec<(i64, i64)> = Vec::new();
        for point in points {
            while chain.len() >= 2 && turn(chain[chain.len() - 2], chain[chain.len() - 1], point) <= 0 {
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let mut chain = half(&mut points.iter().copied());
    chain.extend(half(&mut points.iter().rev().copied()));
    chain
}

/// The pixels whose centres the polygon (doubled corners) holds, row by row.
fn hull_rows(polygon: &[(i64, i64)]) -> Vec<Extent> {
    let top = polygon.iter().map(|corner| corner.0).min().unwrap_or(0);
    let bottom = polygon.iter().map(|corner| corner.0).max().unwrap_or(-1);
    // Doubled rows of centres are even.
    let first = top.div_euclid(2) + top.rem_euclid(2);
    let rows = (bottom.div_euclid(2) - first + 1).max(0) as usize;
    let mut extents: Vec<Extent> = (0..rows as i64).map(|row| (first + row, i64::MAX, i64::MIN)).collect();
    for (a, b) in polygon.iter().zip(polygon.iter().cycle().skip(1)) {
        let (a, b) = if a.0 <= b.0 { (a, b) } else { (b, a) };
        let height = b.0 - a.0;
        if height == 0 {
            continue;
        }
        let (from, to) = (a.0.div_euclid(2) + a.0.rem_euclid(2), b.0.div_euclid(2));
        for y in from..=to {
            // x of the edge in row y is numerator / (2 · height) pixels.
            let numerator = a.1 * height + (b.1 - a.1) * (2 * y - a.0);
            let extent = &mut extents[(y - first) as usize];
            extent.1 = extent.1.min(-(-numerator).div_euclid(2 * height));
            extent.2 = extent.2.max(numerator.div_euclid(2 * height));
        }
    }
    extents.retain(|&(_, left, right)| left <= right);
    extents
}

#[cfg(test)]
mod tests {
    use cytomask_image::Mask;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hand_made_hulls() {
        assert_eq!(area_and_feret(&[(5, 7, 8)]), (1, 1.0));
        assert_eq!(area_and_feret(&[(0, 0, 4)]), (4, 4.0));
        // Two pixels at the ends of a diagonal of three.
        let (area, feret) = area_and_feret(&[(0, 0, 1), (2, 2, 3)]);
        assert_eq!(area, 3);
        assert!((feret - (3.0_f64 * 3.0 + 2.0 * 2.0).sqrt()).abs() < 1e-12);
        // An L: the missing corner's centre lies beyond the diamonds' hull; the inner one is inside.
        assert_eq!(area_and_feret(&[(0, 0, 1), (1, 0, 1), (2, 0, 3)]).0, 6);
    }

    /// A centre is inside when no line through two midpoints of edges has all midpoints on one side and it on the other.
    fn slow_area(runs: &[Run], size: i64) -> u64 {
        let mut points = Vec::new();
        for &(y, x0, x1) in runs {
            for x in x0..x1 {
                let (y, x) = (i64::from(y) * 2, i64::from(x) * 2);
                points.extend([(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]);
            }
        }
        let side = |a: (i64, i64), b: (i64, i64), c: (i64, i64)| (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0);
        let mut borders = Vec::new();
        for &a in &points {
            for &b in &points {
                if a != b && points.iter().all(|&point| side(a, b, point) >= 0) {
                    borders.push((a, b));
                }
            }
        }
        let centers = (0..size * size).map(|at| (at / size * 2, at % size * 2));
        centers.filter(|&center| borders.iter().all(|&(a, b)| side(a, b, center) >= 0)).count() as u64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_area_is_that_of_the_slow_twin(pixels in proptest::collection::vec(proptest::bool::weighted(0.15), 7 * 7)) {
            let mask = Mask::from_bools([7, 7], &pixels);
            prop_assume!(!mask.is_empty());
            prop_assert_eq!(area_and_feret(mask.runs()).0, slow_area(mask.runs(), 7));
        }
    }
}
