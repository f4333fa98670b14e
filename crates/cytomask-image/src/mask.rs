//! Binary masks as run-lengths inside their bounding box.

use crate::{Error, Rect, Result};

/// A binary mask kept as row-major run-lengths inside its tight bounding box. The owner's doc names the frame.
///
/// An empty mask has an empty box and no runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    rect: Rect,
    area: u64,
    /// `(y, x0, x1)`, half-open, sorted by `y` then `x0`, in the frame of the owner; neighbours in a row never touch.
    runs: Vec<(u32, u32, u32)>,
}

impl Mask {
    /// Packs the pixels of `rect` for which `is_set(y, x)` holds (coordinates in the owner's frame).
    pub fn from_fn(rect: Rect, mut is_set: impl FnMut(u32, u32) -> bool) -> Self {
        let mut runs = Vec::new();
        for y in rect.y0..rect.y1 {
            let mut start = None;
            for x in rect.x0..rect.x1 {
                match (is_set(y, x), start) {
                    (true, None) => start = Some(x),
                    (false, Some(x0)) => {
                        runs.push((y, x0, x));
                        start = None;
                    }
                    _ => {}
                }
            }
            if let Some(x0) = start {
                runs.push((y, x0, rect.x1));
            }
        }
        Self::from_runs(runs)
    }

    /// Packs a row-major `[H, W]` image of booleans.
    pub fn from_bools([h, w]: [u32; 2], pixels: &[bool]) -> Self {
        Self::from_fn(Rect::whole([h, w]), |y, x| pixels[y as usize * w as usize + x as usize])
    }

    /// Takes half-open runs `(y, x0, x1)`, sorted by `y` then `x0`, not empty, not touching within a row.
    pub fn from_runs(runs: Vec<(u32, u32, u32)>) -> Self {
        let mut rect = Rect { y0: u32::MAX, x0: u32::MAX, y1: 0, x1: 0 };
        let mut area = 0;
        for &(y, x0, x1) in &runs {
            debug_assert!(x0 < x1, "a run is never empty");
            rect = Rect { y0: rect.y0.min(y), x0: rect.x0.min(x0), y1: y + 1, x1: rect.x1.max(x1) };
            area += u64::from(x1 - x0);
        }
        if runs.is_empty() {
            rect = Rect::default();
        }
        Self { rect, area, runs }
    }

    /// The tight half-open bounding box.
    pub fn rect(&self) -> Rect {
        self.rect
    }

    /// Pixels set.
    pub fn area(&self) -> u64 {
        self.area
    }

    /// Whether no pixel is set.
    pub fn is_empty(&self) -> bool {
        self.area == 0
    }

    /// Half-open runs `(y, x0, x1)`, sorted.
    pub fn runs(&self) -> &[(u32, u32, u32)] {
        &self.runs
    }

    /// Calls `visit(y, x0, x1)` for every half-open run, in order.
    pub fn for_each_run(&self, mut visit: impl FnMut(u32, u32, u32)) {
        for &(y, x0, x1) in &self.runs {
            visit(y, x0, x1);
        }
    }

    /// Whether pixel `(y, x)` is set.
    pub fn contains(&self, y: u32, x: u32) -> bool {
        let after = self.runs.partition_point(|&(row, x0, _)| (row, x0) <= (y, x));
        after > 0 && self.runs[after - 1].0 == y && x < self.runs[after - 1].2
    }

    /// Pixels set in both masks.
    pub fn intersection_area(&self, other: &Self) -> u64 {
        if self.rect.intersection(&other.rect).is_empty() {
            return 0;
        }
        let (mut i, mut j, mut area) = (0, 0, 0);
        while let (Some(&(ya, a0, a1)), Some(&(yb, b0, b1))) = (self.runs.get(i), other.runs.get(j)) {
            if ya == yb {
                area += u64::from(a1.min(b1).saturating_sub(a0.max(b0)));
            }
            if (ya, a1) <= (yb, b1) { i += 1 } else { j += 1 }
        }
        area
    }

    /// Intersection over union; 0 when both are empty.
    pub fn iou(&self, other: &Self) -> f64 {
        let common = self.intersection_area(other);
        let union = self.area + other.area - common;
        if union == 0 { 0.0 } else { common as f64 / union as f64 }
    }

    /// Pixels set in either mask.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut runs: Vec<(u32, u32, u32)> = Vec::with_capacity(self.runs.len() + other.runs.len());
        let (mut i, mut j) = (0, 0);
        while i < self.runs.len() || j < other.runs.len() {
            let from_self = j == other.runs.len() || self.runs.get(i).is_some_and(|run| *run <= other.runs[j]);
            let (y, x0, x1) = if from_self { self.runs[i] } else { other.runs[j] };
            if from_self {
                i += 1
            } else {
                j += 1
            }
            match runs.last_mut() {
                Some(last) if last.0 == y && x0 <= last.2 => last.2 = last.2.max(x1),
                _ => runs.push((y, x0, x1)),
            }
        }
        Self::from_runs(runs)
    }

    /// Pixels set inside `rect`.
    pub fn area_within(&self, rect: &Rect) -> u64 {
        if self.rect.intersection(rect) == self.rect {
            return self.area;
        }
        let first = self.runs.partition_point(|&(y, ..)| y < rect.y0);
        let inside = self.runs[first..].iter().take_while(|&&(y, ..)| y < rect.y1);
        inside.map(|&(_, x0, x1)| u64::from(x1.min(rect.x1).saturating_sub(x0.max(rect.x0)))).sum()
    }

    /// The same mask moved down by `dy` and right by `dx`.
    pub fn translate(&self, dy: u32, dx: u32) -> Self {
        Self {
            rect: if self.is_empty() { self.rect } else { self.rect.translate(dy, dx) },
            area: self.area,
            runs: self.runs.iter().map(|&(y, x0, x1)| (y + dy, x0 + dx, x1 + dx)).collect(),
        }
    }

    /// Unpacks to row-major booleans of an `[h, w]` frame; what lies outside it is dropped.
    pub fn to_bools(&self, [h, w]: [u32; 2]) -> Vec<bool> {
        let mut pixels = vec![false; h as usize * w as usize];
        for &(y, x0, x1) in &self.runs {
            if y < h {
                let row = y as usize * w as usize;
                pixels[row + x0.min(w) as usize..row + x1.min(w) as usize].fill(true);
            }
        }
        pixels
    }
}

impl Mask {
    /// COCO's uncompressed run-lengths of the mask in an `[h, w]` frame: alternating counts of zeros and ones, zeros first,
    /// **column-major**. What lies outside the frame is dropped.
    pub fn to_coco_counts(&self, size: [u32; 2]) -> Vec<u32> {
        let height = u64::from(size[0]);
        let rect = self.rect.intersection(&Rect::whole(size));
        let [box_h, box_w] = rect.size().map(|extent| extent as usize);
        // Column-major pixels of the box.
        let mut pixels = vec![false; box_h * box_w];
        for &(y, x0, x1) in &self.runs {
            if y < rect.y1 {
                for x in x0..x1.min(rect.x1) {
                    pixels[(x - rect.x0) as usize * box_h + (y - rect.y0) as usize] = true;
                }
            }
        }
        let mut counts: Vec<u64> = Vec::new();
        // One past the last set pixel so far, in the column-major frame.
        let mut end = 0;
        for (x, column) in (u64::from(rect.x0)..).zip(pixels.chunks_exact(box_h.max(1))) {
            let mut y = 0;
            while let Some(skipped) = column[y..].iter().position(|&set| set) {
                let start = y + skipped;
                let length = column[start..].iter().position(|&set| !set).unwrap_or(box_h - start);
                let first = x * height + u64::from(rect.y0) + start as u64;
                match counts.last_mut() {
                    // A run down to the last row goes on at the top of the next column.
                    Some(ones) if first == end => *ones += length as u64,
                    _ => counts.extend([first - end, length as u64]),
                }
                end = first + length as u64;
                y = start + length;
            }
        }
        let total = height * u64::from(size[1]);
        if end < total || counts.is_empty() {
            counts.push(total - end);
        }
        counts.into_iter().map(|count| u32::try_from(count).unwrap_or(u32::MAX)).collect()
    }

    /// The mask of COCO's uncompressed run-lengths (column-major, zeros first) in an `[h, w]` frame.
    ///
    /// # Errors
    /// `Shape` when the counts do not add up to `h * w`.
    pub fn from_coco_counts(size: [u32; 2], counts: &[u32]) -> Result<Self> {
        let [h, w] = size.map(u64::from);
        let found: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        if found != h * w {
            return Err(Error::shape("run-lengths", format!("counts of {} pixels for {size:?}", h * w), found));
        }
        let mut pixels = vec![false; (h * w) as usize];
        let mut position = 0_u64;
        for (index, &count) in counts.iter().enumerate() {
            let end = position + u64::from(count);
            if index % 2 == 1 {
                for pixel in position..end {
                    pixels[((pixel % h) * w + pixel / h) as usize] = true;
                }
            }
            position = end;
        }
        Ok(Self::from_bools(size, &pixels))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: [u32; 2] = [13, 17];

    fn pixels() -> impl Strategy<Value = Vec<bool>> {
        // From almost empty to almost full, so that runs of every length occur.
        (0.0..1.0_f64).prop_flat_map(|density| proptest::collection::vec(proptest::bool::weighted(density), 13 * 17))
    }

    #[test]
    fn a_hand_drawn_mask() {
        // . # #
        // # # .
        let mask = Mask::from_bools([2, 3], &[false, true, true, true, true, false]);
        assert_eq!(mask.runs(), [(0, 1, 3), (1, 0, 2)]);
        assert_eq!((mask.area(), mask.rect()), (4, Rect { y0: 0, x0: 0, y1: 2, x1: 3 }));
        assert_eq!(mask.to_coco_counts([2, 3]), [1, 4, 1]);
        assert!(mask.contains(0, 2) && !mask.contains(1, 2) && !mask.contains(0, 0));
        assert_eq!(mask.translate(1, 0).to_coco_counts([2, 3]), [3, 1, 1, 1]);
        assert_eq!(Mask::default().to_coco_counts([2, 3]), [6]);
        assert_eq!(Mask::from_bools([2, 2], &[true; 4]).to_coco_counts([2, 2]), [0, 4]);
        assert_eq!(Mask::from_coco_counts([2, 3], &[1, 4]).unwrap_err().kind(), crate::ErrorKind::Shape);
    }

    proptest! {
        #[test]
        fn packing_and_unpacking_return_the_input(pixels in pixels()) {
            let mask = Mask::from_bools(SIZE, &pixels);
            prop_assert_eq!(mask.area(), pixels.iter().filter(|&&set| set).count() as u64);
            prop_assert_eq!(&mask.to_bools(SIZE), &pixels);
            for (index, &set) in pixels.iter().enumerate() {
                prop_assert_eq!(mask.contains(index as u32 / SIZE[1], index as u32 % SIZE[1]), set);
            }
            let counts = mask.to_coco_counts(SIZE);
            prop_assert_eq!(Mask::from_coco_counts(SIZE, &counts).unwrap(), mask);
            // Column by column, one pixel at a time.
            let mut slow = vec![0_u32];
            for index in 0..pixels.len() as u32 {
                let set = pixels[(index % SIZE[0] * SIZE[1] + index / SIZE[0]) as usize];
                if set == (slow.len() % 2 == 1) { slow.push(0) }
                *slow.last_mut().unwrap() += 1;
            }
            prop_assert_eq!(counts, slow);
        }

        #[test]
        fn the_intersection_counts_common_pixels(a in pixels(), b in pixels()) {
            let common = a.iter().zip(&b).filter(|&(&a, &b)| a && b).count() as u64;
            let either = a.iter().zip(&b).filter(|&(&a, &b)| a || b).count() as f64;
            let (a, b) = (Mask::from_bools(SIZE, &a), Mask::from_bools(SIZE, &b));
            prop_assert_eq!(a.intersection_area(&b), common);
            prop_assert_eq!(b.intersection_area(&a), common);
            prop_assert_eq!(a.iou(&b), if either == 0.0 { 0.0 } else { common as f64 / either });
        }

        #[test]
        fn the_union_has_the_pixels_of_both(a in pixels(), b in pixels()) {
            let either: Vec<bool> = a.iter().zip(&b).map(|(&a, &b)| a || b).collect();
            let union = Mask::from_bools(SIZE, &a).union(&Mask::from_bools(SIZE, &b));
            prop_assert_eq!(union, Mask::from_bools(SIZE, &either));
        }

        #[test]
        fn the_area_within_counts_pixels(a in pixels(), y0 in 0_u32..12, x0 in 0_u32..12, h in 0_u32..12, w in 0_u32..12) {
            let rect = Rect { y0, x0, y1: y0 + h, x1: x0 + w };
            let counted = (0..SIZE[0] * SIZE[1]).filter(|&at| a[at as usize] && rect.contains(at / SIZE[1], at % SIZE[1]));
            prop_assert_eq!(Mask::from_bools(SIZE, &a).area_within(&rect), counted.count() as u64);
        }

        #[test]
        fn translation_moves_every_pixel(pixels in pixels(), dy in 0_u32..5, dx in 0_u32..5) {
            let mask = Mask::from_bools(SIZE, &pixels);
            let moved = mask.translate(dy, dx);
            let by_hand = Mask::from_fn(Rect::whole([30, 30]), |y, x| y >= dy && x >= dx && mask.contains(y - dy, x - dx));
            prop_assert_eq!(moved, by_hand);
        }
    }
}
