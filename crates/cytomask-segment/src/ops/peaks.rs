//! Local extrema that stand apart from each other.

/// Pixels of a row-major `[H, W]` map that are the lowest of the square of `distance` pixels on every side around them, among
/// those `allowed`, as ascending indices. Where several of equal height lie within one square, the first in row-major order
/// stands for them. What is not allowed still counts as lower.
///
/// # Panics
/// When `values` or `allowed` do not hold `h * w` pixels.
pub fn local_minima([height, width]: [u32; 2], values: &[f32], allowed: &[bool], distance: u32) -> Vec<usize> {
    let [height, width, distance] = [height, width, distance].map(|side| side as usize);
    assert_eq!(values.len(), height * width, "samples for size [{height}, {width}]");
    assert_eq!(allowed.len(), height * width, "mask pixels for size [{height}, {width}]");
    let around = |at: usize, len: usize| at.saturating_sub(distance)..(at + distance + 1).min(len);

    let mut row_minima = Vec::with_capacity(values.len());
    for row in values.chunks_exact(width.max(1)) {
        row_minima.extend((0..width).map(|x| row[around(x, width)].iter().copied().fold(f32::INFINITY, f32::min)));
    }
    let is_lowest = |pixel: usize| {
        let (y, x) = (pixel / width, pixel % width);
        around(y, height).all(|row| values[pixel] <= row_minima[row * width + x])
    };
    let mut candidates: Vec<usize> = (0..values.len()).filter(|&pixel| allowed[pixel] && is_lowest(pixel)).collect();
    // Two candidates in one square have the same height, so row-major order decides alone.
    let mut taken = vec![false; values.len()];
    candidates.retain(|&pixel| {
        let is_first = !taken[pixel];
        if is_first {
            let (y, x) = (pixel / width, pixel % width);
            for row in around(y, height) {
                taken[row * width..(row + 1) * width][around(x, width)].fill(true);
            }
        }
        is_first
    });
    candidates
}

#[cfg(test)]
mod tests {
    use super::super::components::tests::noise;
    use super::*;

    /// The slow twin: every pixel looks at its whole square; the first of a tie keeps the others away.
    fn by_looking_around([height, width]: [u32; 2], values: &[f32], allowed: &[bool], distance: u32) -> Vec<usize> {
        let position = |pixel: usize| (pixel as u32 / width, pixel as u32 % width);
        let near = |a: usize, b: usize| {
            let ((ay, ax), (by, bx)) = (position(a), position(b));
            ay.abs_diff(by) <= distance && ax.abs_diff(bx) <= distance
        };
        let all = 0..(height * width) as usize;
        let mut found: Vec<usize> = Vec::new();
        for pixel in all.clone() {
            let lowest = all.clone().filter(|&other| near(pixel, other)).all(|other| values[pixel] <= values[other]);
            if allowed[pixel] && lowest && !found.iter().any(|&earlier| near(pixel, earlier)) {
                found.push(pixel);
            }
        }
        found
    }

    #[test]
    fn agrees_with_looking_around() {
        for (steps, distance) in [(5.0, 1), (1e6, 2), (20.0, 5), (5.0, 0)] {
            let size = [37, 41];
            let values: Vec<f32> = noise(3, 37 * 41).iter().map(|&v| (v * steps).floor()).collect();
            let allowed: Vec<bool> = noise(4, 37 * 41).iter().map(|&v| v < 0.7).collect();
            let expected = by_looking_around(size, &values, &allowed, distance);
            assert_eq!(local_minima(size, &values, &allowed, distance), expected);
            assert!(!expected.is_empty());
        }
    }

    #[test]
    fn a_drawing() {
        let values = [5.0, 1.0, 1.0, 5.0, 5.0, 2.0, 5.0, 0.0];
        let mut allowed = [true; 8];
        assert_eq!(local_minima([1, 8], &values, &allowed, 1), [1, 5, 7]);
        assert_eq!(local_minima([1, 8], &values, &allowed, 2), [1, 7]);
        allowed[7] = false;
        assert_eq!(local_minima([1, 8], &values, &allowed, 2), [1], "what is not allowed still hides the 2 beside it");
        assert!(local_minima([0, 3], &[], &[], 1).is_empty());
    }
}
