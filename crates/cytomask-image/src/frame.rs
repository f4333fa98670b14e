//! The frames a pixel passes through and the way back for mask logits.
//!
//! image `[H, W]` → resized `input` → zero-padded `padded` → network; logits come back on a coarser grid of the padded frame.

use std::ops::Range;

use crate::Mask;
use crate::resample::{Pair, RowCache, linear_pairs, widen};

/// How a grid of logits lies over the image it belongs to: grid → `padded` (bilinear) → crop to `input` → `image` (bilinear).
///
/// For SAM: grid 256², `padded` 1024², `input` the resized size, `image` the original size. For a network that runs at image
/// scale `input == image`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogitFrame {
    /// `[h, w]` of the padded network input.
    pub padded: [u32; 2],
    /// `[h, w]` of the resized image inside it (top left).
    pub input: [u32; 2],
    /// `[h, w]` of the image (or crop) that was encoded.
    pub image: [u32; 2],
}

/// Mask logits on the network's grid, row-major `[grid_h, grid_w]`, and where that grid lies.
#[derive(Clone, Debug)]
pub struct LogitMap {
    /// `[grid_h, grid_w]`.
    pub grid: [u32; 2],
    /// Row-major logits.
    pub values: Vec<f32>,
    /// Where the grid lies over the image.
    pub frame: LogitFrame,
}

impl LogitFrame {
    /// Brings a map on the network's grid back to the image: grid → `padded` (bilinear) → crop to `input` → `image` (bilinear),
    /// as `Sam.postprocess_masks` does. Steps that change nothing are left out.
    ///
    /// # Shapes
    /// - `values`: `[grid[0], grid[1]]`, row-major
    /// - output: `image`, row-major
    ///
    /// # Panics
    /// When `values` holds another number of samples than `grid[0] * grid[1]`.
    pub fn map_to_image(&self, grid: [u32; 2], values: &[f32]) -> Vec<f32> {
        let [h, w] = self.image.map(|extent| extent as usize);
        let Some(route) = Route::new(self, grid, values) else { return vec![0.0; h * w] };
        let mut walker = route.walk(0..self.image[1]);
        let mut out = Vec::with_capacity(h * w);
        let mut row = Vec::with_capacity(w);
        for y in 0..self.image[0] {
            walker.row(y, &mut row);
            out.extend_from_slice(&row);
        }
        out
    }
}

impl LogitMap {
    /// The logits in the image frame, row-major `[H, W]` of `frame.image`. See [`LogitFrame::map_to_image`].
    ///
    /// # Panics
    /// When `values` holds another number of samples than `grid[0] * grid[1]`.
    pub fn to_image(&self) -> Vec<f32> {
        self.frame.map_to_image(self.grid, &self.values)
    }

    /// For each threshold the mask `logit > threshold` in the image frame, equal to thresholding [`LogitMap::to_image`], but
    /// computed row by row and only where a logit above the smallest threshold can reach.
    ///
    /// # Panics
    /// When `values` holds another number of samples than `grid[0] * grid[1]`.
    pub fn threshold(&self, thresholds: &[f32]) -> Vec<Mask> {
        let lowest = thresholds.iter().copied().fold(f32::INFINITY, f32::min);
        // An interpolated value is a mean of its taps up to the rounding of four weighted sums (below 2⁻¹⁹ of its size), so taps
        // that stay this far below the threshold cannot lift it above. At threshold 0 signs alone decide and nothing is given.
        let floor = lowest - lowest.abs() * (1.0 / 65_536.0);
        let Some((rows, columns)) = above(&self.values, self.grid, floor) else {
            return vec![Mask::default(); thresholds.len()];
        };
        let Some(route) = Route::new(&self.frame, self.grid, &self.values) else {
            return vec![Mask::default(); thresholds.len()];
        };
        let (rows, columns) = route.reach(rows, columns);
        if rows.is_empty() || columns.is_empty() {
            // All of it lies in the padding.
            return vec![Mask::default(); thresholds.len()];
        }
        let mut walker = route.walk(columns.clone());
        let mut runs = vec![Vec::new(); thresholds.len()];
        let mut row = Vec::with_capacity(columns.len());
        for y in rows {
            walker.row(y, &mut row);
            for (&threshold, runs) in thresholds.iter().zip(&mut runs) {
                push_runs(&row, threshold, y, columns.start, runs);
            }
        }
        runs.into_iter().map(Mask::from_runs).collect()
    }
}

/// Appends the half-open runs of `row` above `threshold`; its first sample is column `offset`.
fn push_runs(row: &[f32], threshold: f32, y: u32, offset: u32, runs: &mut Vec<(u32, u32, u32)>) {
    let mut x = 0;
    while let Some(skipped) = row[x..].iter().position(|&value| value > threshold) {
        let start = x + skipped;
        // Not `value <= threshold`: NaN is not above a threshold either.
        let length = row[start..].iter().take_while(|&&value| value > threshold).count();
        runs.push((y, offset + start as u32, offset + (start + length) as u32));
        x = start + length;
    }
}

/// Rows and columns of the grid between the first and the last value above `floor`; `None` when there is no such value.
fn above(values: &[f32], grid: [u32; 2], floor: f32) -> Option<(Range<u32>, Range<u32>)> {
    let width = grid[1] as usize;
    let mut rows: Option<Range<u32>> = None;
    let mut columns = vec![false; width];
    for (y, row) in (0..grid[0]).zip(values.chunks_exact(width.max(1))) {
        // No early exit: the fold vectorises.
        if row.iter().fold(false, |found, &value| found | (value > floor)) {
            rows = Some(rows.map_or(y, |rows| rows.start)..y + 1);
            for (found, &value) in columns.iter_mut().zip(row) {
                *found |= value > floor;
            }
        }
    }
    let first = columns.iter().position(|&found| found)?;
    let last = columns.iter().rposition(|&found| found)?;
    Some((rows?, first as u32..last as u32 + 1))
}

/// Taps of one bilinear step: for rows and for columns.
struct Step {
    rows: Vec<Pair>,
    columns: Vec<Pair>,
}

/// The way from a grid to the image, with the taps of its two steps; a step that changes nothing is `None`.
struct Route<'a> {
    values: &'a [f32],
    grid_width: usize,
    input: [u32; 2],
    to_input: Option<Step>,
    to_image: Option<Step>,
}

impl<'a> Route<'a> {
    /// `None` when a frame on the way has no pixels.
    fn new(frame: &LogitFrame, grid: [u32; 2], values: &'a [f32]) -> Option<Self> {
        assert_eq!(values.len(), grid[0] as usize * grid[1] as usize, "a map has one value for each point of its grid");
        // Cropping to more than there is keeps what there is, as a slice in Python does.
        let input = [frame.input[0].min(frame.padded[0]), frame.input[1].min(frame.padded[1])];
        if grid.contains(&0) || input.contains(&0) || frame.image.contains(&0) {
            return None;
        }
        let step = |from: [u32; 2], to: [u32; 2], crop: [u32; 2]| {
            let axis = |axis: usize| {
                let mut pairs = linear_pairs(from[axis], to[axis]);
                pairs.truncate(crop[axis] as usize);
                pairs
            };
            (from != to).then(|| Step { rows: axis(0), columns: axis(1) })
        };
        Some(Self {
            values,
            grid_width: grid[1] as usize,
            to_input: step(grid, frame.padded, input),
            to_image: step(input, frame.image, frame.image),
            input,
        })
    }

    /// The rows and columns of the image that values in these rows and columns of the grid contribute to.
    fn reach(&self, rows: Range<u32>, columns: Range<u32>) -> (Range<u32>, Range<u32>) {
        let reach = |pairs: &[Pair], range: Range<u32>| {
            let start = pairs.partition_point(|pair| pair.high < range.start);
            let end = pairs.partition_point(|pair| pair.low < range.end);
            start as u32..(end as u32).max(start as u32)
        };
        let (mut rows, mut columns) = (rows, columns);
        if let Some(step) = &self.to_input {
            rows = reach(&step.rows, rows);
            columns = reach(&step.columns, columns);
        } else {
            // The crop alone.
            rows = rows.start.min(self.input[0])..rows.end.min(self.input[0]);
            columns = columns.start.min(self.input[1])..columns.end.min(self.input[1]);
        }
        if let Some(step) = &self.to_image {
            rows = reach(&step.rows, rows);
            columns = reach(&step.columns, columns);
        }
        (rows, columns)
    }

    /// Prepares for going down the image rows, restricted to `columns` of the image.
    fn walk(&'a self, columns: Range<u32>) -> Walker<'a> {
        let image_columns = self.to_image.as_ref().map_or(&[][..], |step| &step.columns[as_indices(&columns)]);
        let input_range = match (image_columns.first(), image_columns.last()) {
            (Some(first), Some(last)) => first.low..last.high + 1,
            _ => columns,
        };
        let input_columns = self.to_input.as_ref().map_or(&[][..], |step| &step.columns[as_indices(&input_range)]);
        Walker {
            route: self,
            input_range,
            input_columns,
            image_columns,
            grid_rows: RowCache::new(),
            input_rows: RowCache::new(),
            input_row: Vec::new(),
        }
    }
}

fn as_indices(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// Computes image rows top-down. Each grid row is widened to the input's columns once, and each row of the input to the image's
/// columns once. Columns come before rows within a step because torch adds in that order.
struct Walker<'a> {
    route: &'a Route<'a>,
    /// Columns of the input that are needed.
    input_range: Range<u32>,
    input_columns: &'a [Pair],
    image_columns: &'a [Pair],
    /// Grid rows at the input's columns.
    grid_rows: RowCache,
    /// Input rows at the image's columns.
    input_rows: RowCache,
    input_row: Vec<f32>,
}

impl Walker<'_> {
    /// Row `y` of the image at the columns asked for.
    fn row(&mut self, y: u32, into: &mut Vec<f32>) {
        let Self { route, input_range, input_columns, image_columns, grid_rows, input_rows, input_row } = self;
        let mut input = |y: u32, into: &mut Vec<f32>| {
            let grid_row = |row: u32| &route.values[row as usize * route.grid_width..][..route.grid_width];
            into.clear();
            if let Some(step) = &route.to_input {
                let pair = step.rows[y as usize];
                let (low, high) =
                    grid_rows.pair(pair.low, pair.high, |row, into| widen(grid_row(row), 0, input_columns, into));
                into.extend(low.iter().zip(high).map(|(&low, &high)| pair.mix(low, high)));
            } else {
                into.extend_from_slice(&grid_row(y)[as_indices(input_range)]);
            }
        };
        let Some(step) = &route.to_image else { return input(y, into) };
        let pair = step.rows[y as usize];
        let start = input_range.start;
        let (low, high) = input_rows.pair(pair.low, pair.high, |row, into| {
            input(row, input_row);
            widen(input_row, start, image_columns, into);
        });
        into.clear();
        into.extend(low.iter().zip(high).map(|(&low, &high)| pair.mix(low, high)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Rect, resize_bilinear};

    /// The three steps one after the other, each on the whole map.
    fn slow(map: &LogitMap) -> Vec<f32> {
        let LogitFrame { padded, input, image } = map.frame;
        let whole = resize_bilinear(&map.values, map.grid, padded);
        let rows = whole.chunks_exact(padded[1] as usize).take(input[0] as usize);
        let cropped: Vec<f32> = rows.flat_map(|row| &row[..input[1] as usize]).copied().collect();
        resize_bilinear(&cropped, input, image)
    }

    fn extent() -> impl Strategy<Value = u32> {
        1_u32..40
    }

    /// Mostly one blob above the background, on frames where steps shrink, enlarge or change nothing.
    fn maps() -> impl Strategy<Value = LogitMap> {
        let sizes =
            ([extent(), extent()], [extent(), extent()], [0.0..1.0_f32, 0.0..1.0_f32], [extent(), extent()], 0..4_u8);
        sizes
            .prop_flat_map(|(grid, padded, crop, image, same)| {
                let padded = if same & 1 == 1 { grid } else { padded };
                let input = [0, 1].map(|axis| ((padded[axis] as f32 * crop[axis]) as u32).max(1));
                let image = if same & 2 == 2 { input } else { image };
                let frame = LogitFrame { padded, input, image };
                let length = (grid[0] * grid[1]) as usize;
                let noise = proptest::collection::vec(-1.0..1.0_f32, length);
                (Just((grid, frame)), noise, 0.0..1.0_f32, 0.0..1.0_f32, 0.0..12.0_f32, proptest::bool::ANY)
            })
            .prop_map(|((grid, frame), mut values, y, x, radius, steps)| {
                for (index, value) in values.iter_mut().enumerate() {
                    let dy = (index / grid[1] as usize) as f32 - y * grid[0] as f32;
                    let dx = (index % grid[1] as usize) as f32 - x * grid[1] as f32;
                    *value += radius - dy.hypot(dx) - 2.0;
                    // Values that equal the thresholds.
                    if steps {
                        *value = value.round();
                    }
                }
                LogitMap { grid, values, frame }
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn the_way_back_equals_its_three_steps(map in maps()) {
            prop_assert_eq!(map.to_image(), slow(&map));
        }

        #[test]
        fn thresholding_by_rows_equals_thresholding_the_whole(map in maps()) {
            let [_, width] = map.frame.image;
            let image = map.to_image();
            for thresholds in [&[0.0][..], &[-1.0, 0.0, 1.0], &[0.3], &[-7.1, 2.0], &[f32::NEG_INFINITY], &[f32::NAN], &[]] {
                let masks = map.threshold(thresholds);
                prop_assert_eq!(masks.len(), thresholds.len());
                for (mask, &threshold) in masks.iter().zip(thresholds) {
                    let whole = Rect::whole(map.frame.image);
                    let expected = Mask::from_fn(whole, |y, x| image[(y * width + x) as usize] > threshold);
                    prop_assert_eq!(mask, &expected, "threshold {}", threshold);
                }
            }
        }
    }

    #[test]
    fn a_hand_drawn_map() {
        // One step enlarges 1 × 2 to 1 × 4: weights 1, ¾ ¼, ¼ ¾, 1.
        let frame = LogitFrame { padded: [1, 4], input: [1, 4], image: [1, 4] };
        let map = LogitMap { grid: [1, 2], values: vec![-4.0, 4.0], frame };
        assert_eq!(map.to_image(), [-4.0, -2.0, 2.0, 4.0]);
        let masks = map.threshold(&[-3.0, 0.0, 2.0]);
        assert_eq!(masks[0].runs(), [(0, 1, 4)]);
        assert_eq!(masks[1].runs(), [(0, 2, 4)]);
        assert_eq!(masks[2].runs(), [(0, 3, 4)]);
        assert!(map.threshold(&[4.0])[0].is_empty());
    }

    #[test]
    fn a_constant_map_at_the_threshold_has_no_pixel_lost_or_won() {
        // 0.1 is not a binary fraction: interpolating it rounds.
        let frame = LogitFrame { padded: [37, 41], input: [30, 41], image: [97, 131] };
        let map = LogitMap { grid: [7, 9], values: vec![0.1; 63], frame };
        let above = map.to_image().iter().filter(|&&value| value > 0.1).count() as u64;
        assert_eq!(map.threshold(&[0.1])[0].area(), above);
    }

    #[test]
    fn frames_without_pixels_give_nothing() {
        let frame = LogitFrame { padded: [4, 4], input: [0, 4], image: [2, 2] };
        let map = LogitMap { grid: [1, 1], values: vec![1.0], frame };
        assert_eq!(map.to_image(), [0.0; 4]);
        assert!(map.threshold(&[0.0])[0].is_empty());
    }
}
