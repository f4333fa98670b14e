//! Repairs of label images that a user may ask for.

use cytomask_image::{Labels, Rect};
use cytomask_segment::ops::components::{Connectivity, label_ids, label_mask};

/// Makes every connected part (8 neighbours) an object of its own: what a semantic mask needs. Objects of one class that touch stay one.
pub fn split_components(labels: &Labels) -> Labels {
    label_ids(labels, Connectivity::Eight)
}

/// Fills the holes of every object; what lies in a hole and has an id of its own stays. Ids become `1..=n`.
pub fn fill_holes(labels: &Labels) -> Labels {
    let mut filled = labels.clone();
    filled.relabel();
    let width = filled.size()[1] as usize;
    for (index, (_, rect)) in filled.extents().into_iter().enumerate() {
        let id = index as u32 + 1;
        for [y, x] in holes(&filled, id, rect) {
            let pixel = &mut filled.as_mut_slice()[y as usize * width + x as usize];
            if *pixel == 0 {
                *pixel = id;
            }
        }
    }
    filled
}

/// The pixels `[y, x]` that object `id`, whose box is `rect`, encloses: from which no way of 4 neighbours leads out without crossing it.
pub(super) fn holes(labels: &Labels, id: u32, rect: Rect) -> Vec<[u32; 2]> {
    // One pixel of the outside all around, so that all of the outside is one region.
    let [h, w] = [rect.height() + 2, rect.width() + 2];
    let position = |at: usize| [at as u32 / w, at as u32 % w];
    let own = |[v, u]: [u32; 2]| {
        (1..h - 1).contains(&v) && (1..w - 1).contains(&u) && labels.at(rect.y0 + v - 1, rect.x0 + u - 1) == id
    };
    let free: Vec<bool> = (0..h as usize * w as usize).map(|at| !own(position(at))).collect();
    let regions = label_mask([h, w], &free, Connectivity::Four);
    let outside = regions.at(0, 0);
    let inside = regions.as_slice().iter().enumerate().filter(|&(_, &region)| region != 0 && region != outside);
    inside.map(|(at, _)| position(at)).map(|[v, u]| [rect.y0 + v - 1, rect.x0 + u - 1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::labels;

    #[test]
    fn parts_become_objects() {
        let split = split_components(&labels(&["110011", "110011", "000000", "220022"]));
        assert_eq!(split.max_id(), 4);
        assert_eq!(split_components(&labels(&["1221"])).max_id(), 3);
    }

    #[test]
    fn holes_are_filled_but_not_with_other_objects() {
        let filled = fill_holes(&labels(&["77777", "70207", "77777", "00000", "03300", "30300", "03330"]));
        assert_eq!(filled, labels(&["33333", "33133", "33333", "00000", "02200", "22200", "02220"]));
        // A bay is no hole, nor is what lies between an object and the edge of the image.
        let bay = labels(&["1101", "1001", "1111"]);
        assert_eq!(fill_holes(&bay), bay);
    }
}
