//! Connected components, numbered in the order their first pixels appear in a row-major scan.
//!
//! Two scans with a union-find forest (Rosenfeld & Pfaltz 1966). The forest always hangs the larger root below the smaller, so
//! a component's root is the provisional number of its first pixel, and numbering the roots in ascending order gives row-major
//! order, as scikit-image's `label` does.

use cytomask_image::Labels;

/// Which pixels count as neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// Those that share an edge.
    Four,
    /// Those that share an edge or a corner.
    Eight,
}

/// Components of the set pixels of a row-major `[H, W]` mask.
///
/// # Panics
/// When `mask` does not hold `h * w` pixels.
pub fn label_mask(size: [u32; 2], mask: &[bool], connectivity: Connectivity) -> Labels {
    assert_eq!(mask.len(), size[0] as usize * size[1] as usize, "mask pixels for size {size:?}");
    label_by(size, connectivity, |pixel| mask[pixel], |_, _| true)
}

/// Components of equal ids of a label image: neighbours join only when their ids are equal. 0 stays 0.
pub fn label_ids(labels: &Labels, connectivity: Connectivity) -> Labels {
    let ids = labels.as_slice();
    label_by(labels.size(), connectivity, |pixel| ids[pixel] != 0, |a, b| ids[a] == ids[b])
}

fn label_by(
    size: [u32; 2],
    connectivity: Connectivity,
    is_set: impl Fn(usize) -> bool,
    joins: impl Fn(usize, usize) -> bool,
) -> Labels {
    let [height, width] = size.map(|side| side as usize);
    let mut labels = Labels::zeros(size);
    let numbers = labels.as_mut_slice();
    // `parents[n]` for provisional number n; 0 is background and its own root.
    let mut parents = vec![0_u32];
    for y in 0..height {
        for x in 0..width {
            let pixel = y * width + x;
            if !is_set(pixel) {
                continue;
            }
            let mut number = 0;
            let mut join = |numbers: &[u32], parents: &mut Vec<u32>, neighbour: usize| {
                if numbers[neighbour] != 0 && joins(pixel, neighbour) {
                    number = if number == 0 {
                        root_of(parents, numbers[neighbour])
                    } else {
                        unite(parents, number, numbers[neighbour])
                    };
                }
            };
            if x > 0 {
                join(numbers, &mut parents, pixel - 1);
            }
            if y > 0 {
                let above = pixel - width;
                join(numbers, &mut parents, above);
                if connectivity == Connectivity::Eight {
                    if x > 0 {
                        join(numbers, &mut parents, above - 1);
                    }
                    if x + 1 < width {
                        join(numbers, &mut parents, above + 1);
                    }
                }
            }
            if number == 0 {
                number = parents.len() as u32;
                parents.push(number);
            }
            numbers[pixel] = number;
        }
    }
    // Parents are never larger than their children, so one ascending sweep resolves every number.
    let mut count = 0;
    let mut finals = vec![0_u32; parents.len()];
    for number in 1..parents.len() {
        let parent = parents[number] as usize;
        finals[number] = if parent == number {
            count += 1;
            count
        } else {
            finals[parent]
        };
    }
    for number in numbers {
        *number = finals[*number as usize];
    }
    labels
}

fn root_of(parents: &mut [u32], mut number: u32) -> u32 {
    while parents[number as usize] != number {
        let grandparent = parents[parents[number as usize] as usize];
        parents[number as usize] = grandparent;
        number = grandparent;
    }
    number
}

fn unite(parents: &mut [u32], a: u32, b: u32) -> u32 {
    let (a, b) = (root_of(parents, a), root_of(parents, b));
    let (smaller, larger) = (a.min(b), a.max(b));
    parents[larger as usize] = smaller;
    smaller
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Pseudo-random numbers for tests, uniform in 0–1 (SplitMix64).
    pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
        (1..=len as u64)
            .map(|index| {
                let mut z = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
            })
            .collect()
    }

    /// Pixels from a drawing: one string a row, `.` is 0, digits are themselves.
    pub(crate) fn drawn(rows: &[&str]) -> Labels {
        let width = rows.first().map_or(0, |row| row.len());
        let ids = rows.iter().flat_map(|row| row.chars().map(|c| c.to_digit(10).unwrap_or(0))).collect();
        Labels::from_vec([rows.len() as u32, width as u32], ids).unwrap()
    }

    /// The slow twin: flood fill from every pixel not yet reached, in row-major order.
    fn label_by_flooding(labels: &Labels, connectivity: Connectivity) -> Labels {
        let [height, width] = labels.size().map(i64::from);
        let mut found = Labels::zeros(labels.size());
        let mut count = 0;
        for start_y in 0..height {
            for start_x in 0..width {
                let id = labels.at(start_y as u32, start_x as u32);
                if id == 0 || found.at(start_y as u32, start_x as u32) != 0 {
                    continue;
                }
                count += 1;
                let mut open = vec![(start_y, start_x)];
                while let Some((y, x)) = open.pop() {
                    let inside = (0..height).contains(&y) && (0..width).contains(&x);
                    if !inside || labels.at(y as u32, x as u32) != id || found.at(y as u32, x as u32) != 0 {
                        continue;
                    }
                    found.as_mut_slice()[(y * width + x) as usize] = count;
                    for (dy, dx) in [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)] {
                        if connectivity == Connectivity::Eight || dy * dx == 0 {
                            open.push((y + dy, x + dx));
                        }
                    }
                }
            }
        }
        found
    }

    #[test]
    fn agrees_with_flood_fill() {
        for (seed, density) in [(1, 0.3), (2, 0.5), (3, 0.6), (4, 0.9)] {
            let size = [97, 131];
            let values = noise(seed, 97 * 131);
            let ids = values.iter().map(|&v| if v < density { 1 + (v * 1000.0) as u32 % 2 } else { 0 }).collect();
            let labels = Labels::from_vec(size, ids).unwrap();
            let mask: Vec<bool> = labels.as_slice().iter().map(|&id| id != 0).collect();
            let binary = Labels::from_vec(size, mask.iter().map(|&set| u32::from(set)).collect()).unwrap();
            for connectivity in [Connectivity::Four, Connectivity::Eight] {
                assert_eq!(label_ids(&labels, connectivity), label_by_flooding(&labels, connectivity));
                assert_eq!(label_mask(size, &mask, connectivity), label_by_flooding(&binary, connectivity));
            }
        }
    }

    #[test]
    fn a_drawing() {
        let labels = drawn(&["1.22", ".1.2", "11..", "3111"]);
        assert_eq!(label_ids(&labels, Connectivity::Four), drawn(&["1.22", ".3.2", "33..", "4333"]));
        assert_eq!(label_ids(&labels, Connectivity::Eight), drawn(&["1.22", ".1.2", "11..", "3111"]));
        let mask: Vec<bool> = labels.as_slice().iter().map(|&id| id != 0).collect();
        assert_eq!(label_mask([4, 4], &mask, Connectivity::Four), drawn(&["1.22", ".3.2", "33..", "3333"]));
        assert_eq!(label_mask([4, 4], &mask, Connectivity::Eight), drawn(&["1.11", ".1.1", "11..", "1111"]));
    }

    #[test]
    fn late_joins_keep_row_major_order() {
        let labels = drawn(&["1.1.1", "1.111", "111.."]);
        assert_eq!(label_ids(&labels, Connectivity::Four), labels);
        assert_eq!(label_ids(&drawn(&["..1", "1.1", "..1"]), Connectivity::Four), drawn(&["..1", "2.1", "..1"]));
    }

    #[test]
    fn no_pixels_no_components() {
        for size in [[0, 0], [0, 3], [3, 0]] {
            assert_eq!(label_mask(size, &[], Connectivity::Eight).max_id(), 0);
        }
        assert_eq!(label_mask([1, 1], &[true], Connectivity::Four).as_slice(), [1]);
    }
}
