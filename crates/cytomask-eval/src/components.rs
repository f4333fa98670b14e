//! Connected components of a label image of two or three dimensions: objects in several pieces become several objects.
//!
//! µSAM does so to true labels it reads from files (`skimage.measure.label`). Neighbours share an edge, a face or a corner (8 in
//! 2-D, 26 in 3-D) and have equal ids. Two scans with a union-find forest (Rosenfeld & Pfaltz, J. ACM 13, 1966). The 2-D one among
//! the strategies' tools (`cytomask-segment`) is out of reach from here, where only label images are known.

use crate::{LabelArray, Result};

/// Components of `[H, W]` or `[D, H, W]` labels, row-major, numbered from 1 in the order of their first pixels; 0 stays 0.
///
/// # Errors
/// `Unsupported` for other dimensions.
pub fn connected_components<'a>(labels: impl Into<LabelArray<'a>>) -> Result<Vec<u32>> {
    let labels = labels.into();
    let [depth, height, width] = labels.depth_height_width("connected components")?;
    let ids = labels.ids();
    // The neighbours that a row-major scan has passed.
    let mut passed: Vec<[isize; 3]> = Vec::new();
    for dz in -1..=0 {
        for dy in -1..=1 {
            for dx in -1..=1 {
                if (dz, dy, dx) < (0, 0, 0) {
                    passed.push([dz, dy, dx]);
                }
            }
        }
    }
    let mut numbers = vec![0_u32; ids.len()];
    // `parents[n]` for provisional number n; the smaller root stays, so roots are in the order of first pixels.
    let mut parents = vec![0_u32];
    for z in 0..depth {
        for y in 0..height {
            for x in 0..width {
                let pixel = (z * height + y) * width + x;
                if ids[pixel] == 0 {
                    continue;
                }
                let mut number = 0;
                for &[dz, dy, dx] in &passed {
                    let at = [(z, dz, depth), (y, dy, height), (x, dx, width)]
                        .map(|(at, step, side)| at.checked_add_signed(step).filter(|&at| at < side));
                    let [Some(z), Some(y), Some(x)] = at else { continue };
                    let neighbour = (z * height + y) * width + x;
                    if ids[neighbour] == ids[pixel] {
                        let root = root(&mut parents, numbers[neighbour]);
                        if number != 0 && number != root {
                            parents[number.max(root) as usize] = number.min(root);
                        }
                        number = if number == 0 { root } else { number.min(root) };
                    }
                }
                if number == 0 {
                    number = parents.len() as u32;
                    parents.push(number);
                }
                numbers[pixel] = number;
            }
        }
    }
    let mut new = vec![0_u32; parents.len()];
    let mut count = 0;
    for number in 1..parents.len() {
        let root = root(&mut parents, number as u32) as usize;
        if root == number {
            count += 1;
            new[number] = count;
        } else {
            new[number] = new[root];
        }
    }
    for number in &mut numbers {
        *number = new[*number as usize];
    }
    Ok(numbers)
}

fn root(parents: &mut [u32], mut number: u32) -> u32 {
    while parents[number as usize] != number {
        parents[number as usize] = parents[parents[number as usize] as usize];
        number = parents[number as usize];
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_join_and_ids_part() {
        #[rustfmt::skip]
        let ids = [
            7, 0, 7, 7,
            0, 7, 0, 2,
            9, 0, 0, 7,
        ];
        #[rustfmt::skip]
        let expected = [
            1, 0, 1, 1,
            0, 1, 0, 2,
            3, 0, 0, 4,
        ];
        assert_eq!(connected_components(LabelArray::new(&[3, 4], &ids).unwrap()).unwrap(), expected);
        // As planes, corners join across them.
        let ids = [5, 0, 0, 0, 0, 0, 0, 5, 5, 0, 0, 0];
        let array = |shape: &[usize]| connected_components(LabelArray::new(shape, &ids).unwrap()).unwrap();
        assert_eq!(array(&[3, 2, 2]), [1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]);
        assert_eq!(array(&[1, 12]), [1, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0]);
        assert!(connected_components(LabelArray::new(&[12], &ids).unwrap()).is_err());
    }

    /// Floods one component after another.
    fn slow([depth, height, width]: [usize; 3], ids: &[u32]) -> Vec<u32> {
        let at = |pixel: usize| [pixel / (height * width), pixel / width % height, pixel % width];
        let mut numbers = vec![0; depth * height * width];
        let mut count = 0;
        for first in 0..ids.len() {
            if ids[first] == 0 || numbers[first] != 0 {
                continue;
            }
            count += 1;
            numbers[first] = count;
            let mut stack = vec![first];
            while let Some(a) = stack.pop() {
                for b in 0..ids.len() {
                    let touches = (0..3).all(|axis| at(a)[axis].abs_diff(at(b)[axis]) <= 1);
                    if touches && ids[b] == ids[a] && numbers[b] == 0 {
                        numbers[b] = count;
                        stack.push(b);
                    }
                }
            }
        }
        numbers
    }

    #[test]
    fn scans_find_what_floods_find() {
        let mut state = 3_u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for size in [[1, 9, 13], [4, 6, 7], [5, 1, 8]] {
            for background in 1..5 {
                let count = size.iter().product();
                let ids: Vec<u32> =
                    (0..count).map(|_| (random(3 + background) as u32).saturating_sub(background as u32)).collect();
                let found = connected_components(LabelArray::new(&size, &ids).unwrap()).unwrap();
                assert_eq!(found, slow(size, &ids), "{size:?}");
            }
        }
    }
}
