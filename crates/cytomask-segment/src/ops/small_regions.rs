//! Removal of small holes and small islands from a mask.
//!
//! As `remove_small_regions` in `segment_anything/utils/amg.py`, on run-lengths: regions are 8-connected there, the mask's as well as
//! the background's, and a region is small when it has fewer pixels than the threshold. A hole is any small region of the
//! background, also one that touches the image border.

use cytomask_image::Mask;

use crate::ops::components::Connectivity;

/// Half-open run `(y, x0, x1)`.
type Run = (u32, u32, u32);

/// Fills every 8-connected region of the background of an `[h, w]` image that has fewer than `area_threshold` pixels. `None`
/// when there is no such region.
pub fn fill_small_holes(mask: &Mask, [h, w]: [u32; 2], area_threshold: u64) -> Option<Mask> {
    let background = background_runs(mask, [h, w]);
    let regions = Regions::of(&background, Connectivity::Eight);
    let mut runs: Vec<Run> = mask.runs().to_vec();
    let before = runs.len();
    runs.extend((0..background.len()).filter(|&run| regions.area_of(run) < area_threshold).map(|run| background[run]));
    if runs.len() == before {
        return None;
    }
    runs.sort_unstable();
    runs.dedup_by(|next, run| {
        let touches = run.0 == next.0 && run.2 == next.1;
        if touches {
            run.2 = next.2;
        }
        touches
    });
    Some(Mask::from_runs(runs))
}

/// Removes every 8-connected region of the mask that has fewer than `area_threshold` pixels; when all are that small the
/// largest stays, of equally large ones the one whose first pixel in row-major order comes first. `None` when no region is
/// small.
///
/// A mask of one small region is returned unchanged, but as `Some`: the reference counts it as changed.
pub fn remove_small_islands(mask: &Mask, area_threshold: u64) -> Option<Mask> {
    let runs = mask.runs();
    let regions = Regions::of(runs, Connectivity::Eight);
    if (0..runs.len()).all(|run| regions.area_of(run) >= area_threshold) {
        return None;
    }
    let largest = regions.largest()?;
    let keeps = |run: usize| {
        if regions.area_of(largest) < area_threshold {
            regions.root[run] == regions.root[largest]
        } else {
            regions.area_of(run) >= area_threshold
        }
    };
    Some(Mask::from_runs((0..runs.len()).filter(|&run| keeps(run)).map(|run| runs[run]).collect()))
}

/// The largest connected part of a mask (by edges), the first in row-major order of equals.
pub fn largest_piece(mask: Mask) -> Mask {
    let runs = mask.runs();
    let regions = Regions::of(runs, Connectivity::Four);
    match regions.largest() {
        Some(largest) if regions.area_of(largest) < mask.area() => {
            let keeps = |run: &usize| regions.root[*run] == regions.root[largest];
            Mask::from_runs((0..runs.len()).filter(keeps).map(|run| runs[run]).collect())
        }
        _ => mask,
    }
}

/// The runs of an `[h, w]` image that the mask leaves free, sorted.
fn background_runs(mask: &Mask, [h, w]: [u32; 2]) -> Vec<Run> {
    let mut free = Vec::new();
    let mut taken = mask.runs().iter().peekable();
    for y in 0..h {
        let mut start = 0;
        while let Some(&(_, x0, x1)) = taken.next_if(|run| run.0 == y) {
            if start < x0 {
                free.push((y, start, x0));
            }
            start = x1;
        }
        if start < w {
            free.push((y, start, w));
        }
    }
    free
}

/// Which connected region each of a list of sorted runs belongs to.
struct Regions {
    /// The first run of the region.
    root: Vec<usize>,
    /// Pixels of the region, at its first run.
    area: Vec<u64>,
}

impl Regions {
    fn of(runs: &[Run], connectivity: Connectivity) -> Self {
        // How far beyond its ends a run touches those above and below.
        let reach = u32::from(connectivity == Connectivity::Eight);
        let mut parent: Vec<usize> = (0..runs.len()).collect();
        // `above` walks the row before the current one; both rows are sorted, so one pass is enough.
        let (mut above, mut row_start) = (0, 0);
        for (index, &(y, x0, x1)) in runs.iter().enumerate() {
            if runs[row_start].0 != y {
                above = row_start;
                row_start = index;
            }
            while above < row_start && (runs[above].0 + 1 < y || runs[above].2 + reach <= x0) {
                above += 1;
            }
            let mut other = above;
            while other < row_start && runs[other].1 < x1 + reach {
                let (a, b) = (find(&mut parent, index), find(&mut parent, other));
                parent[a.max(b)] = a.min(b);
                other += 1;
            }
        }
        let mut area = vec![0; runs.len()];
        for (index, &(_, x0, x1)) in runs.iter().enumerate() {
            parent[index] = find(&mut parent, index);
            area[parent[index]] += u64::from(x1 - x0);
        }
        Self { root: parent, area }
    }

    /// The first run of the largest region, of equally large ones of the first.
    fn largest(&self) -> Option<usize> {
        (0..self.root.len()).max_by_key(|&run| (self.area_of(run), std::cmp::Reverse(run)))
    }

    /// Pixels of the region that holds run `run`.
    fn area_of(&self, run: usize) -> u64 {
        self.area[self.root[run]]
    }
}

/// The smallest run known to be connected with `index`, shortening the way there.
fn find(parent: &mut [usize], mut index: usize) -> usize {
    while parent[index] != index {
        parent[index] = parent[parent[index]];
        index = parent[index];
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mask drawn with `#`.
    fn drawn(rows: &[&str]) -> (Mask, [u32; 2]) {
        let pixels: Vec<bool> = rows.iter().flat_map(|row| row.bytes().map(|byte| byte == b'#')).collect();
        let size = [rows.len() as u32, rows[0].len() as u32];
        (Mask::from_bools(size, &pixels), size)
    }

    /// Region sizes by flood fill, per pixel; 0 where `pixels` is false.
    fn slow_areas(pixels: &[bool], [h, w]: [u32; 2]) -> Vec<u64> {
        let mut areas = vec![0; pixels.len()];
        for start in 0..pixels.len() {
            if !pixels[start] || areas[start] != 0 {
                continue;
            }
            let (mut region, mut next) = (vec![start], 0);
            while next < region.len() {
                let (y, x) = (region[next] as i64 / i64::from(w), region[next] as i64 % i64::from(w));
                for (dy, dx) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))) {
                    let (y, x) = (y + dy, x + dx);
                    if (0..i64::from(h)).contains(&y) && (0..i64::from(w)).contains(&x) {
                        let index = (y * i64::from(w) + x) as usize;
                        if pixels[index] && !region.contains(&index) {
                            region.push(index);
                        }
                    }
                }
                next += 1;
            }
            for &index in &region {
                areas[index] = region.len() as u64;
            }
        }
        areas
    }

    #[test]
    fn hand_drawn_holes() {
        let (mask, size) = drawn(&["#####..", "#.###..", "#####..", "##.##..", "#####.."]);
        let (filled, _) = drawn(&["#####..", "#####..", "#####..", "#####..", "#####.."]);
        assert_eq!(fill_small_holes(&mask, size, 2), Some(filled));
        assert_eq!(fill_small_holes(&mask, size, 1), None);
        let (ring, size) = drawn(&["####.", "#.#..", "####."]);
        assert_eq!(
            fill_small_holes(&ring, size, 2).map(|mask| mask.area()),
            Some(11),
            "the border region has four pixels"
        );
        assert_eq!(
            fill_small_holes(&ring, size, 9).map(|mask| mask.area()),
            Some(15),
            "and is a hole when that is small"
        );
    }

    #[test]
    fn hand_drawn_islands() {
        let (mask, _) = drawn(&["##....#", "##...#.", "....#..", "#......"]);
        let (kept, _) = drawn(&["##....#", "##...#.", "....#..", "......."]);
        assert_eq!(remove_small_islands(&mask, 3), Some(kept), "diagonals connect");
        let (largest, _) = drawn(&["##.....", "##.....", ".......", "......."]);
        assert_eq!(remove_small_islands(&mask, 9), Some(largest));
        let (twins, _) = drawn(&["..#.", "#.#.", "#..."]);
        let (first, _) = drawn(&["..#.", "..#.", "...."]);
        assert_eq!(remove_small_islands(&twins, 5), Some(first));
        assert_eq!(remove_small_islands(&twins, 2), None);
        assert_eq!(remove_small_islands(&Mask::default(), 5), None);
        let (one, _) = drawn(&["##"]);
        assert_eq!(remove_small_islands(&one, 5), Some(one.clone()), "changed, by the reference's count");
    }

    #[test]
    fn runs_equal_flood_fill() {
        let size = [29, 41];
        let mut state = 5_u64;
        for density in [1, 2, 3] {
            for threshold in [2, 5, 40] {
                let pixels: Vec<bool> = (0..size[0] * size[1])
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (state >> 33) % 4 < density
                    })
                    .collect();
                let mask = Mask::from_bools(size, &pixels);
                let inverse: Vec<bool> = pixels.iter().map(|&set| !set).collect();
                let holes = slow_areas(&inverse, size);
                let filled: Vec<bool> =
                    pixels.iter().zip(&holes).map(|(&set, &area)| set || (area > 0 && area < threshold)).collect();
                let found = fill_small_holes(&mask, size, threshold);
                assert_eq!(found.is_some(), filled != pixels);
                assert_eq!(found.unwrap_or(mask.clone()), Mask::from_bools(size, &filled));

                let islands = slow_areas(&pixels, size);
                let largest = islands.iter().copied().max().unwrap();
                if largest >= threshold {
                    let kept: Vec<bool> = islands.iter().map(|&area| area >= threshold).collect();
                    assert_eq!(remove_small_islands(&mask, threshold).unwrap_or(mask), Mask::from_bools(size, &kept));
                }
            }
        }
    }

    #[test]
    fn the_largest_piece_stays() {
        let mask = Mask::from_runs(vec![(3, 5, 7), (3, 9, 10), (4, 5, 7), (5, 7, 9), (6, 7, 9), (6, 20, 21)]);
        // Two of four pixels touch at a corner: the first stays.
        assert_eq!(largest_piece(mask).runs(), [(3, 5, 7), (4, 5, 7)]);
        let whole = Mask::from_runs(vec![(0, 0, 3), (1, 2, 4)]);
        assert_eq!(largest_piece(whole.clone()), whole);
        assert!(largest_piece(Mask::default()).is_empty());
    }
}
