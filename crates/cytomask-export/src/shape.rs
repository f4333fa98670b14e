//! The shape of one object from its runs of pixels.

use std::f64::consts::{FRAC_PI_4, PI, SQRT_2};

use cytomask_image::{Labels, Rect};

use crate::hull;
use crate::objects::{Run, bounds};

/// Measurements of an object's pixels, each as `skimage.measure.regionprops` 0.26 defines the one named. Lengths are in pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Pixels (`area`).
    pub area: u64,
    /// Tight half-open box (`bbox`).
    pub rect: Rect,
    /// Mean `[y, x]` of the pixels' indices (`centroid`).
    pub centroid: [f64; 2],
    /// Length of the outline (`perimeter`, after Benkrid and Crookes: border pixels weighed by their neighbours).
    pub perimeter: f64,
    /// Length of the long axis of the ellipse of equal second moments (`axis_major_length`).
    pub major_axis: f64,
    /// Length of its short axis (`axis_minor_length`).
    pub minor_axis: f64,
    /// Angle between the y axis and the long axis, counterclockwise, −π/2 to π/2 (`orientation`).
    pub orientation: f64,
    /// 0 for a circle, 1 for a line (`eccentricity`).
    pub eccentricity: f64,
    /// Pixels in the convex hull (`area_convex`).
    pub convex_area: u64,
    /// `area / convex_area` (`solidity`).
    pub solidity: f64,
    /// Diameter of the circle of equal area (`equivalent_diameter_area`).
    pub equivalent_diameter: f64,
    /// `area` by the area of the box (`extent`).
    pub extent: f64,
    /// Largest distance between two points of the convex hull (`feret_diameter_max`).
    pub feret_max: f64,
    /// Parts, joined through edges or corners, less holes (`euler_number`).
    pub euler_number: i64,
}

impl Shape {
    /// Measures the object `id`, whose runs (sorted, not empty) are given.
    pub(crate) fn new(labels: &Labels, id: u32, runs: &[Run]) -> Self {
        let rect = bounds(runs);
        let moments = Moments::new(rect, runs);
        let area = moments.n as u64;
        let (convex_area, feret_max) = hull::area_and_feret(runs);
        let (major, minor) = moments.eigenvalues();
        Self {
            area,
            rect,
            centroid: moments.centroid(rect),
            perimeter: perimeter(labels, id, runs),
            major_axis: 4.0 * major.sqrt(),
            minor_axis: 4.0 * minor.sqrt(),
            orientation: moments.orientation(),
            eccentricity: if major == 0.0 { 0.0 } else { (1.0 - minor / major).max(0.0).sqrt() },
            convex_area,
            solidity: area as f64 / convex_area as f64,
            equivalent_diameter: (4.0 * area as f64 / PI).sqrt(),
            extent: area as f64 / rect.area() as f64,
            feret_max,
            euler_number: euler_number(runs),
        }
    }
}

/// Sums over pixels, relative to the corner of the box; exact.
struct Moments {
    n: i128,
    y: i128,
    x: i128,
    yy: i128,
    xx: i128,
    xy: i128,
}

impl Moments {
    fn new(rect: Rect, runs: &[Run]) -> Self {
        let mut sums = Self { n: 0, y: 0, x: 0, yy: 0, xx: 0, xy: 0 };
        // Σ k² for k < n.
        let squares = |n: i128| n * (n - 1) * (2 * n - 1) / 6;
        for &(y, x0, x1) in runs {
            let (y, x0, x1) = (i128::from(y - rect.y0), i128::from(x0 - rect.x0), i128::from(x1 - rect.x0));
            let n = x1 - x0;
            let x = (x0 + x1 - 1) * n / 2;
            sums.n += n;
            sums.y += y * n;
            sums.x += x;
            sums.yy += y * y * n;
            sums.xx += squares(x1) - squares(x0);
            sums.xy += y * x;
        }
        sums
    }

    fn centroid(&self, rect: Rect) -> [f64; 2] {
        [self.y as f64 / self.n as f64 + f64::from(rect.y0), self.x as f64 / self.n as f64 + f64::from(rect.x0)]
    }

    /// `n²` times the variances of y and x and their covariance.
    fn covariance(&self) -> [i128; 3] {
        [self.n * self.yy - self.y * self.y, self.n * self.xx - self.x * self.x, self.n * self.xy - self.y * self.x]
    }

    /// Variances along the axes, larger first.
    fn eigenvalues(&self) -> (f64, f64) {
        let [yy, xx, xy] = self.covariance().map(|value| value as f64);
        let major = ((yy + xx) + ((yy - xx).powi(2) + 4.0 * xy * xy).sqrt()) / 2.0;
        // By the determinant: the difference of sum and root would lose the digits of a thin object's short axis.
        let minor = if major == 0.0 { 0.0 } else { ((yy * xx - xy * xy) / major).max(0.0) };
        let scale = (self.n as f64).powi(2);
        (major / scale, minor / scale)
    }

    fn orientation(&self) -> f64 {
        let [yy, xx, xy] = self.covariance();
        if yy == xx {
            // skimage's convention where both diagonals or all directions are alike.
            if xy > 0 { FRAC_PI_4 } else { -FRAC_PI_4 }
        } else {
            0.5 * (2.0 * xy as f64).atan2((yy - xx) as f64)
        }
    }
}

/// `skimage.measure.perimeter` with neighbourhood 4.
fn perimeter(labels: &Labels, id: u32, runs: &[Run]) -> f64 {
    let [height, width] = labels.size().map(i64::from);
    let pixels = labels.as_slice();
    let is_set = |y: i64, x: i64| {
        y >= 0 && x >= 0 && y < height && x < width && pixels[y as usize * width as usize + x as usize] == id
    };
    // A pixel of the object with a pixel outside it above, below or beside.
    let is_border = |y: i64, x: i64| {
        is_set(y, x) && !(is_set(y - 1, x) && is_set(y + 1, x) && is_set(y, x - 1) && is_set(y, x + 1))
    };
    // Pixels by (border neighbours through edges, border neighbours through corners).
    let mut counts = [[0_u64; 5]; 5];
    for &(y, x0, x1) in runs {
        let y = i64::from(y);
        for x in i64::from(x0)..i64::from(x1) {
            if is_border(y, x) {
                let count = |offsets: [(i64, i64); 4]| {
                    offsets.into_iter().filter(|&(dy, dx)| is_border(y + dy, x + dx)).count()
                };
                counts[count([(-1, 0), (1, 0), (0, -1), (0, 1)])][count([(-1, -1), (-1, 1), (1, -1), (1, 1)])] += 1;
            }
        }
    }
    let mut weights = [[0.0; 5]; 5];
    for (edges, corners, weight) in [
        (2, 0, 1.0),
        (3, 0, 1.0),
        (2, 1, 1.0),
        (3, 1, 1.0),
        (2, 2, 1.0),
        (3, 2, 1.0),
        (0, 2, SQRT_2),
        (1, 3, SQRT_2),
        (1, 1, (1.0 + SQRT_2) / 2.0),
        (1, 2, (1.0 + SQRT_2) / 2.0),
    ] {
        weights[edges][corners] = weight;
    }
    counts.iter().flatten().zip(weights.iter().flatten()).map(|(&count, weight)| count as f64 * weight).sum()
}

/// Runs less pairs of runs of neighbouring rows that touch, corners included: each hole closes one cycle of such pairs.
fn euler_number(runs: &[Run]) -> i64 {
    let mut rows = runs.chunk_by(|a, b| a.0 == b.0).peekable();
    let mut number = runs.len() as i64;
    while let Some(row) = rows.next() {
        let Some(following) = rows.peek().filter(|following| following[0].0 == row[0].0 + 1) else { continue };
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (row.get(i), following.get(j)) {
            number -= i64::from(a.1 <= b.2 && b.1 <= a.2);
            if a.2 <= b.2 { i += 1 } else { j += 1 }
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Objects;

    fn of(rows: &[&str]) -> Shape {
        let ids = rows.iter().flat_map(|row| row.bytes().map(|byte| u32::from(byte == b'#') * 9)).collect();
        let labels = Labels::from_vec([rows.len() as u32, rows[0].len() as u32], ids).unwrap();
        let objects = Objects::new(&labels);
        Shape::new(&labels, 9, objects.runs(0))
    }

    #[test]
    fn a_pixel_and_a_line() {
        let pixel = of(&["..", ".#"]);
        assert_eq!((pixel.area, pixel.centroid, pixel.perimeter), (1, [1.0, 1.0], 0.0));
        assert_eq!((pixel.major_axis, pixel.minor_axis, pixel.eccentricity), (0.0, 0.0, 0.0));
        assert_eq!((pixel.orientation, pixel.solidity, pixel.feret_max), (-FRAC_PI_4, 1.0, 1.0));
        let line = of(&["####"]);
        assert_eq!((line.minor_axis, line.eccentricity, line.feret_max), (0.0, 1.0, 4.0));
        // Variance of 0, 1, 2, 3 is 5/4.
        assert!((line.major_axis - 4.0 * 1.25_f64.sqrt()).abs() < 1e-12);
        assert!((line.orientation - PI / 2.0).abs() < 1e-12);
    }

    #[test]
    fn euler_numbers_count_parts_and_holes() {
        assert_eq!(of(&["###", "#.#", "###"]).euler_number, 0);
        assert_eq!(of(&["#.", ".#"]).euler_number, 1);
        assert_eq!(of(&["#.#"]).euler_number, 2);
        assert_eq!(of(&["#####", "#.#.#", "#####"]).euler_number, -1);
        // Two background pixels that touch at a corner are two holes: the object is joined through that corner.
        assert_eq!(of(&["####", "#.##", "##.#", "####"]).euler_number, -1);
        assert_eq!(of(&["#", ".", "#"]).euler_number, 2);
    }

    #[test]
    fn a_square_of_ten() {
        let square = of(&["##########"; 10]);
        // Skimage's perimeter runs through the centres of border pixels.
        assert_eq!((square.area, square.perimeter, square.solidity, square.extent), (100, 36.0, 1.0, 1.0));
        assert_eq!(square.convex_area, 100);
        assert!((square.equivalent_diameter - (400.0 / PI).sqrt()).abs() < 1e-12);
    }
}
