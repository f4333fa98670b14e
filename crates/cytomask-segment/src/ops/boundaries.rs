//! Pixels on either side of the borders between objects, as scikit-image's `find_boundaries` defines them.

use cytomask_image::Labels;

/// Which side of a border is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundaryMode {
    /// Object pixels that have a different id above, below, left or right.
    Inner,
    /// Background pixels that have an object above, below, left or right; and object pixels that have a different id there and
    /// another object anywhere among their eight neighbours.
    Outer,
}

/// Whether each pixel of a label image is a boundary pixel, row-major `[H, W]`. What lies outside the image never differs.
pub fn find_boundaries(labels: &Labels, mode: BoundaryMode) -> Vec<bool> {
    let [height, width] = labels.size().map(|side| side as usize);
    let ids = labels.as_slice();
    let mut boundaries = vec![false; ids.len()];
    for y in 0..height {
        for x in 0..width {
            let pixel = y * width + x;
            let id = ids[pixel];
            let differs = (y > 0 && ids[pixel - width] != id)
                || (y + 1 < height && ids[pixel + width] != id)
                || (x > 0 && ids[pixel - 1] != id)
                || (x + 1 < width && ids[pixel + 1] != id);
            boundaries[pixel] = differs
                && match mode {
                    BoundaryMode::Inner => id != 0,
                    BoundaryMode::Outer => id == 0 || touches_another_object(ids, [height, width], [y, x]),
                };
        }
    }
    boundaries
}

fn touches_another_object(ids: &[u32], [height, width]: [usize; 2], [y, x]: [usize; 2]) -> bool {
    let id = ids[y * width + x];
    (y.saturating_sub(1)..(y + 2).min(height)).any(|row| {
        let from = row * width;
        ids[from + x.saturating_sub(1)..from + (x + 2).min(width)].iter().any(|&other| other != 0 && other != id)
    })
}

#[cfg(test)]
mod tests {
    use super::super::components::tests::{drawn, noise};
    use super::*;

    /// The slow twin: grey-value dilation and erosion, as scikit-image writes it.
    fn by_morphology(labels: &Labels, mode: BoundaryMode) -> Vec<bool> {
        let [height, width] = labels.size().map(i64::from);
        let around = |y: i64, x: i64, corners: bool| -> Vec<u32> {
            let mut found = Vec::new();
            for dy in -1..=1 {
                for dx in -1..=1 {
                    let inside = (0..height).contains(&(y + dy)) && (0..width).contains(&(x + dx));
                    if inside && (corners || dy * dx == 0) {
                        found.push(labels.at((y + dy) as u32, (x + dx) as u32));
                    }
                }
            }
            found
        };
        let mut boundaries = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let cross = around(y, x, false);
                let mut boundary = cross.iter().max() != cross.iter().min();
                let background = labels.at(y as u32, x as u32) == 0;
                if mode == BoundaryMode::Inner {
                    boundary &= !background;
                } else {
                    let square = around(y, x, true);
                    let lowest_object = square.iter().map(|&id| if id == 0 { u32::MAX } else { id }).min();
                    boundary &= background || square.iter().copied().max() != lowest_object;
                }
                boundaries.push(boundary);
            }
        }
        boundaries
    }

    #[test]
    fn agrees_with_morphology() {
        for (seed, density) in [(1, 0.1), (2, 0.5), (3, 0.9)] {
            let ids =
                noise(seed, 97 * 131).iter().map(|&v| if v < density { (v * 1e4) as u32 % 4 } else { 0 }).collect();
            let labels = Labels::from_vec([97, 131], ids).unwrap();
            for mode in [BoundaryMode::Inner, BoundaryMode::Outer] {
                assert_eq!(find_boundaries(&labels, mode), by_morphology(&labels, mode));
            }
        }
    }

    #[test]
    fn a_drawing() {
        // Two objects that touch, as in scikit-image's documentation of the modes.
        let labels = drawn(&["......", ".1155.", ".1155.", ".1155.", "......"]);
        let mark = |mode| -> Vec<String> {
            let boundaries = find_boundaries(&labels, mode);
            boundaries.chunks(6).map(|row| row.iter().map(|&b| if b { '#' } else { '.' }).collect()).collect()
        };
        assert_eq!(mark(BoundaryMode::Inner), ["......", ".####.", ".####.", ".####.", "......"]);
        assert_eq!(mark(BoundaryMode::Outer), [".####.", "#.##.#", "#.##.#", "#.##.#", ".####."]);
    }
}
