//! Seeded watershed by flooding.
//!
//! Flooding in the order of heights (Meyer 1991) as bioimage-cpp does it: heights quantised to 65,536 levels over their range
//! within the mask, one stack of pixels per level, no watershed lines. A pixel takes its label from the first neighbour that
//! reaches it; flooding never goes back to a lower level than the current one.

use cytomask_image::Labels;

const LEVELS: usize = 1 << 16;
/// End of a stack.
const NONE: u32 = u32::MAX;

/// Floods `heights` (row-major `[H, W]`) from `seeds` (ids, 0 is none) over the pixels set in `mask`, low to high, through
/// shared edges. Seeds outside the mask are ignored; pixels of the mask that no seed reaches stay 0.
///
/// The order, where heights tie on a level: seeds enter in row-major order; the pixel that entered last leaves first and labels
/// its free neighbours. In which order it does that makes no difference: all that one pixel brings in on its level has left
/// before an older one is looked at. So the result is the same on every run and machine.
///
/// # Panics
/// When `heights` or `mask` do not have the size of `seeds`, or when that has 2³² pixels or more.
pub fn watershed(heights: &[f32], seeds: &Labels, mask: &[bool]) -> Labels {
    let size = seeds.size();
    let [height, width] = size.map(|side| side as usize);
    assert_eq!(heights.len(), height * width, "heights for size {size:?}");
    assert_eq!(mask.len(), height * width, "mask pixels for size {size:?}");
    assert!(heights.len() < NONE as usize, "the image is too large for one flooding");

    let levels = quantise(heights, mask);
    let mut labels = Labels::zeros(size);
    let ids = labels.as_mut_slice();
    let mut stacks = Stacks { tops: vec![NONE; LEVELS], below: vec![NONE; heights.len()] };
    for (pixel, &seed) in seeds.as_slice().iter().enumerate() {
        if seed != 0 && mask[pixel] {
            ids[pixel] = seed;
            stacks.push(levels[pixel] as usize, pixel);
        }
    }
    for level in 0..LEVELS {
        while let Some(pixel) = stacks.pop(level) {
            let x = pixel % width;
            let neighbours = [
                (pixel >= width).then(|| pixel - width),
                (pixel + width < ids.len()).then(|| pixel + width),
                (x > 0).then(|| pixel - 1),
                (x + 1 < width).then(|| pixel + 1),
            ];
            for neighbour in neighbours.into_iter().flatten() {
                if mask[neighbour] && ids[neighbour] == 0 {
                    ids[neighbour] = ids[pixel];
                    stacks.push(level.max(levels[neighbour] as usize), neighbour);
                }
            }
        }
    }
    labels
}

/// One stack of pixels per level. A pixel enters one stack once, so `below` has room for all of them.
struct Stacks {
    tops: Vec<u32>,
    below: Vec<u32>,
}

impl Stacks {
    fn push(&mut self, level: usize, pixel: usize) {
        self.below[pixel] = std::mem::replace(&mut self.tops[level], pixel as u32);
    }

    fn pop(&mut self, level: usize) -> Option<usize> {
        let top = self.tops[level];
        if top == NONE {
            return None;
        }
        self.tops[level] = self.below[top as usize];
        Some(top as usize)
    }
}

/// Heights as levels, the lowest within the mask 0 and the highest 65,535, fractions cut off. Outside the mask 0; NaN is 0.
fn quantise(heights: &[f32], mask: &[bool]) -> Vec<u16> {
    let inside = || heights.iter().zip(mask).filter(|(_, set)| **set).map(|(height, _)| f64::from(*height));
    let low = inside().fold(f64::INFINITY, f64::min);
    let high = inside().fold(f64::NEG_INFINITY, f64::max);
    if low.partial_cmp(&high) != Some(std::cmp::Ordering::Less) {
        return vec![0; heights.len()];
    }
    let levels_per_unit = (LEVELS - 1) as f64 / (high - low);
    let level = |height: f32| ((f64::from(height) - low) * levels_per_unit) as u16;
    heights.iter().zip(mask).map(|(&height, &set)| if set { level(height) } else { 0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::components::tests::{drawn, noise};
    use super::*;

    /// The slow twin: a list of waiting pixels, searched from end to start for the lowest level at every step.
    fn by_searching_a_list(heights: &[f32], seeds: &Labels, mask: &[bool]) -> Labels {
        let [height, width] = seeds.size().map(i64::from);
        let levels = quantise(heights, mask);
        let mut labels = Labels::zeros(seeds.size());
        let mut waiting: Vec<(u16, i64)> = Vec::new();
        for (pixel, &seed) in seeds.as_slice().iter().enumerate() {
            if mask[pixel] && seed != 0 {
                labels.as_mut_slice()[pixel] = seed;
                waiting.push((levels[pixel], pixel as i64));
            }
        }
        while let Some(lowest) = waiting.iter().map(|&(level, _)| level).min() {
            let last = waiting.iter().rposition(|&(level, _)| level == lowest).unwrap();
            let (level, pixel) = waiting.remove(last);
            let (y, x) = (pixel / width, pixel % width);
            for (ny, nx) in [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)] {
                if !(0..height).contains(&ny) || !(0..width).contains(&nx) {
                    continue;
                }
                let neighbour = (ny * width + nx) as usize;
                if mask[neighbour] && labels.as_slice()[neighbour] == 0 {
                    labels.as_mut_slice()[neighbour] = labels.as_slice()[pixel as usize];
                    waiting.push((levels[neighbour].max(level), neighbour as i64));
                }
            }
        }
        labels
    }

    #[test]
    fn agrees_with_searching_a_list() {
        // Eleven heights make many ties, so the order counts.
        for (seed, steps) in [(1, 11.0), (2, 1e6)] {
            let size = [97, 131];
            let heights: Vec<f32> = noise(seed, 97 * 131).iter().map(|&v| (v * steps).floor() / steps).collect();
            let mask: Vec<bool> = noise(seed + 10, 97 * 131).iter().map(|&v| v < 0.8).collect();
            let draws = noise(seed + 20, 97 * 131);
            let draws = draws.iter().enumerate();
            let seeds = draws.map(|(index, &v)| if v < 0.01 { index as u32 + 1 } else { 0 }).collect();
            let seeds = Labels::from_vec(size, seeds).unwrap();
            assert_eq!(watershed(&heights, &seeds, &mask), by_searching_a_list(&heights, &seeds, &mask));
        }
    }

    #[test]
    fn basins_meet_on_the_ridge_and_the_mask_holds() {
        let heights = [0.0, 0.2, 0.9, 0.1, 0.0, 0.5];
        let seeds = drawn(&["1...2."]);
        let mask = [true, true, true, true, true, false];
        // The ridge (0.9) is waiting on its level before the right basin (0.1) is flooded up to it; level decides first.
        assert_eq!(watershed(&heights, &seeds, &mask), drawn(&["11222."]));
    }

    #[test]
    fn what_no_seed_reaches_stays_background() {
        let mask = [true, false, true];
        assert_eq!(watershed(&[0.0; 3], &drawn(&["1.."]), &mask), drawn(&["1.."]));
        assert_eq!(watershed(&[0.0; 3], &drawn(&[".3."]), &mask), drawn(&["..."]), "a seed outside the mask");
        assert_eq!(watershed(&[], &Labels::zeros([0, 4]), &[]), Labels::zeros([0, 4]));
    }

    #[test]
    fn odd_heights_do_no_harm() {
        let seeds = drawn(&["1...."]);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(watershed(&[0.0, odd, 1.0, odd, 0.5], &seeds, &[true; 5]), drawn(&["11111"]));
        }
    }
}
