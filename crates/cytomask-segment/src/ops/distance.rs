//! Exact Euclidean distance transform.
//!
//! Two passes in integers (Meijster, Roerdink & Hesselink 2000): distances along columns, then for every row the lower envelope
//! of the parabolas those distances stand for. Squared distances are exact; the square root is rounded once, to `f32`.

/// Distance, in pixels, of every pixel of a row-major `[H, W]` mask to the nearest pixel that is not set; 0 where not set. When
/// every pixel is set all distances are infinite: what lies outside the image does not count.
///
/// # Panics
/// When `mask` does not hold `h * w` pixels.
pub fn distance_to_unset(size: [u32; 2], mask: &[bool]) -> Vec<f32> {
    squared_distance_to_unset(size, mask)
        .into_iter()
        .map(|squared| squared.map_or(f32::INFINITY, |squared| (squared as f64).sqrt() as f32))
        .collect()
}

/// As [`distance_to_unset`], squared; `None` when no pixel of the mask is unset.
///
/// # Panics
/// When `mask` does not hold `h * w` pixels.
pub fn squared_distance_to_unset([height, width]: [u32; 2], mask: &[bool]) -> Vec<Option<u64>> {
    let (height, width) = (height as usize, width as usize);
    assert_eq!(mask.len(), height * width, "mask pixels for size [{height}, {width}]");
    let columns = distances_along_columns(height, width, mask);
    let mut squared = vec![None; mask.len()];
    let mut envelope = Vec::with_capacity(width);
    for y in 0..height {
        let row = y * width..(y + 1) * width;
        lower_envelope(&columns[row.clone()], &mut envelope);
        let mut pieces = envelope.iter().peekable();
        let mut piece = pieces.next();
        for (x, found) in squared[row.clone()].iter_mut().enumerate() {
            while let Some(next) = pieces.next_if(|next| next.from <= x) {
                piece = Some(next);
            }
            *found = piece.map(|piece| piece.at(x as i64) as u64);
        }
    }
    squared
}

/// Rows to the nearest unset pixel of the same column, `None` when the column has none.
fn distances_along_columns(height: usize, width: usize, mask: &[bool]) -> Vec<Option<i64>> {
    let mut distances: Vec<Option<i64>> = mask.iter().map(|&set| if set { None } else { Some(0) }).collect();
    for pixel in width..height * width {
        let above = distances[pixel - width].map(|distance| distance + 1);
        distances[pixel] = distances[pixel].or(above);
    }
    for pixel in (0..(height * width).saturating_sub(width)).rev() {
        if let Some(below) = distances[pixel + width] {
            distances[pixel] = Some(distances[pixel].map_or(below + 1, |distance| distance.min(below + 1)));
        }
    }
    distances
}

/// A parabola `(x − center)² + height²` of the envelope and the first column from which it is the lowest.
struct Parabola {
    center: i64,
    height: i64,
    from: usize,
}

impl Parabola {
    fn at(&self, x: i64) -> i64 {
        (x - self.center).pow(2) + self.height.pow(2)
    }

    /// The first column at which `later`, whose centre lies to the right, is strictly lower.
    fn first_column_below(&self, later: &Self) -> i64 {
        let numerator = later.center.pow(2) - self.center.pow(2) + later.height.pow(2) - self.height.pow(2);
        numerator.div_euclid(2 * (later.center - self.center)) + 1
    }
}

fn lower_envelope(columns: &[Option<i64>], envelope: &mut Vec<Parabola>) {
    envelope.clear();
    for (x, height) in columns.iter().enumerate() {
        let Some(height) = *height else { continue };
        let mut parabola = Parabola { center: x as i64, height, from: 0 };
        let mut from = 0;
        while let Some(last) = envelope.last() {
            from = last.first_column_below(&parabola);
            if from > last.from as i64 {
                break;
            }
            // `last` is nowhere the lowest.
            envelope.pop();
            from = 0;
        }
        if from < columns.len() as i64 {
            parabola.from = from as usize;
            envelope.push(parabola);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::components::tests::noise;
    use super::*;

    /// The slow twin: every pixel asks every unset pixel.
    fn by_asking_everyone([height, width]: [u32; 2], mask: &[bool]) -> Vec<Option<u64>> {
        let position = |pixel: usize| [pixel / width as usize, pixel % width as usize];
        let unset: Vec<[usize; 2]> = (0..mask.len()).filter(|&pixel| !mask[pixel]).map(position).collect();
        assert_eq!(mask.len(), (height * width) as usize);
        (0..mask.len())
            .map(|pixel| {
                let [y, x] = position(pixel);
                unset.iter().map(|&[uy, ux]| (uy.abs_diff(y).pow(2) + ux.abs_diff(x).pow(2)) as u64).min()
            })
            .collect()
    }

    #[test]
    fn agrees_with_asking_everyone() {
        for (seed, density) in [(1, 0.5), (2, 0.9), (3, 0.99), (4, 0.9995), (5, 1.1)] {
            for size in [[97, 131], [1, 40], [40, 1], [3, 60], [23, 29]] {
                let mask: Vec<bool> = noise(seed, (size[0] * size[1]) as usize).iter().map(|&v| v < density).collect();
                if mask.len() > 2000 && density < 0.9 {
                    continue; // slow twin, and dense cases are covered by the small sizes
                }
                assert_eq!(squared_distance_to_unset(size, &mask), by_asking_everyone(size, &mask), "{seed} {size:?}");
            }
        }
    }

    #[test]
    fn a_drawing() {
        let mask = [true, true, true, true, false, true, true, true, true, true, true, true];
        let root = f32::sqrt;
        let expected = [root(2.0), 1.0, root(2.0), 1.0, 0.0, 1.0, root(2.0), 1.0, root(2.0), root(5.0), 2.0, root(5.0)];
        assert_eq!(distance_to_unset([4, 3], &mask), expected);
    }

    #[test]
    fn without_an_unset_pixel_all_is_infinitely_far() {
        assert_eq!(distance_to_unset([2, 2], &[true; 4]), [f32::INFINITY; 4]);
        assert!(distance_to_unset([0, 7], &[]).is_empty());
    }
}
