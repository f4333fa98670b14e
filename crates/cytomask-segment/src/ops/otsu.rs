//! A mask threshold found in the logits themselves: µSAM's `mask_threshold = "auto"`.
//!
//! Otsu's threshold (IEEE Trans. Syst. Man Cybern. 9, 1979) in every 31 × 31 window of the logit grid, and of all windows the
//! highest, as `_local_otsu_threshold` in `micro_sam/inference.py`. It is found on the network's grid; the mask is then cut
//! from the logits at image size.

use cytomask_image::LogitMap;

/// Side of the window, in grid cells.
const WINDOW: usize = 31;
/// Bins the logits are sorted into, over their whole range.
const BINS: usize = 64;
/// Smallest range and smallest class weight that are divided by.
const EPSILON: f32 = 1e-6;

/// The highest of the local Otsu thresholds of a logit map, at least 0.
///
/// Logits are scaled to 0–1 over the map. Windows that reach over the edge of the grid see the smallest logit there, as
/// upstream's zero padding does. 0 when the map is empty.
pub fn automatic_threshold(logits: &LogitMap) -> f32 {
    let [rows, columns] = logits.grid.map(|side| side as usize);
    if logits.values.is_empty() || logits.values.len() != rows * columns {
        return 0.0;
    }
    let low = logits.values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = logits.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = (high - low).max(EPSILON);
    let bin = |logit: f32| ((((logit - low) / range) * (BINS - 1) as f32) as usize).min(BINS - 1);

    // Padding falls into bin 0; padded once, windows need no special case.
    let reach = WINDOW / 2;
    let stride = columns + 2 * reach;
    let mut bins = vec![0_u8; stride * (rows + 2 * reach)];
    for (index, &logit) in logits.values.iter().enumerate() {
        bins[(index / columns + reach) * stride + index % columns + reach] = bin(logit) as u8;
    }

    let mut highest = 0;
    for row in 0..rows {
        let mut counts = [0_u32; BINS];
        let column_of = |column: usize| (row..row + WINDOW).map(move |y| y * stride + column);
        for column in 0..WINDOW - 1 {
            column_of(column).for_each(|at| counts[bins[at] as usize] += 1);
        }
        for column in 0..columns {
            column_of(column + WINDOW - 1).for_each(|at| counts[bins[at] as usize] += 1);
            highest = highest.max(otsu_bin(&counts));
            column_of(column).for_each(|at| counts[bins[at] as usize] -= 1);
        }
    }
    (low + highest as f32 / (BINS - 1) as f32 * range).max(0.0)
}

/// The last bin of the lower class that makes the variance between the classes largest; the first such bin when several do.
///
/// Empty bins between two classes leave the variance the same up to rounding, so which of them is found depends on the
/// arithmetic: running sums in `f64` rounded to `f32`, the rest in `f32`, as upstream.
fn otsu_bin(counts: &[u32; BINS]) -> usize {
    let total = (WINDOW * WINDOW) as f32;
    let (mut weight, mut moment) = (0.0_f64, 0.0_f64);
    let mut below = [(0.0_f32, 0.0_f32); BINS];
    for (bin, (&count, below)) in counts.iter().zip(&mut below).enumerate() {
        let share = count as f32 / total;
        weight += f64::from(share);
        moment += f64::from(share * bin as f32);
        *below = (weight as f32, moment as f32);
    }
    let whole_moment = below[BINS - 1].1;
    let mut best = (0, f32::NEG_INFINITY);
    for (bin, (lower, moment)) in below.into_iter().enumerate() {
        let upper = 1.0 - lower;
        let distance = moment / lower.max(EPSILON) - (whole_moment - moment) / upper.max(EPSILON);
        let between = lower * upper * (distance * distance);
        if between > best.1 {
            best = (bin, between);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use cytomask_image::LogitFrame;

    use super::*;

    fn map(grid: [u32; 2], value: impl Fn(u32, u32) -> f32) -> LogitMap {
        let values = (0..grid[0]).flat_map(|y| (0..grid[1]).map(move |x| (y, x))).map(|(y, x)| value(y, x)).collect();
        LogitMap { grid, values, frame: LogitFrame { padded: grid, input: grid, image: grid } }
    }

    /// The same with a histogram counted afresh in every window.
    fn slow(logits: &LogitMap) -> f32 {
        let [rows, columns] = logits.grid.map(i64::from);
        let low = logits.values.iter().copied().fold(f32::INFINITY, f32::min);
        let range = logits.values.iter().copied().fold(f32::NEG_INFINITY, f32::max) - low;
        let mut highest = 0;
        for y in 0..rows {
            for x in 0..columns {
                let mut counts = [0; BINS];
                for (dy, dx) in (-15..=15).flat_map(|dy| (-15..=15).map(move |dx| (dy, dx))) {
                    let (y, x) = (y + dy, x + dx);
                    let inside = (0..rows).contains(&y) && (0..columns).contains(&x);
                    let scaled = if inside { (logits.values[(y * columns + x) as usize] - low) / range } else { 0.0 };
                    counts[((scaled * 63.0) as usize).min(63)] += 1;
                }
                highest = highest.max(otsu_bin(&counts));
            }
        }
        (low + highest as f32 / 63.0 * range).max(0.0)
    }

    #[test]
    fn two_levels_are_parted_at_the_lower_one() {
        // All bins from that of −8 up to that of 8 part them equally well; the first bin wins, which is the low level: below 0.
        let logits = map([40, 40], |y, _| if y < 20 { -8.0 } else { 8.0 });
        assert_eq!(automatic_threshold(&logits), 0.0);
        // Three levels: some window sees the upper two only, and parts them at the middle one.
        let logits = map([20, 120], |_, x| {
            if x < 40 {
                -8.0
            } else if x < 80 {
                2.0
            } else {
                12.0
            }
        });
        let threshold = automatic_threshold(&logits);
        assert!((1.5..2.0 + 1e-6).contains(&threshold), "{threshold}");
    }

    #[test]
    fn sliding_histograms_equal_counted_ones() {
        let hill = |y: u32, x: u32| 40.0 - (y as f32 - 9.0).hypot(x as f32 - 20.0);
        let logits = map([23, 37], |y, x| hill(y, x) + ((y * 7 + x * 13) % 5) as f32 * 0.3);
        let low = logits.values.iter().copied().fold(f32::INFINITY, f32::min);
        assert_eq!(automatic_threshold(&logits), slow(&logits));
        assert!(automatic_threshold(&logits) > low);
    }

    #[test]
    fn a_constant_or_empty_map_has_a_threshold() {
        assert_eq!(automatic_threshold(&map([5, 5], |_, _| 3.0)), 3.0);
        assert_eq!(automatic_threshold(&map([0, 0], |_, _| 3.0)), 0.0);
    }
}
