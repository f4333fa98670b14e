//! The pixels of every object as runs, gathered in one pass over the label image.

use std::ops::Range;

use cytomask_image::{Labels, Mask, Rect};
use rayon::prelude::*;

/// A half-open run of pixels `(y, x0, x1)`.
pub(crate) type Run = (u32, u32, u32);

/// The objects of a label image in ascending order of id. Ids may have gaps; memory grows with the objects' edges, not with the
/// largest id.
#[derive(Clone, Debug)]
pub struct Objects<'a> {
    labels: &'a Labels,
    ids: Vec<u32>,
    /// `starts[i]..starts[i + 1]` are the runs of object `i`.
    starts: Vec<usize>,
    runs: Vec<Run>,
}

impl<'a> Objects<'a> {
    /// Gathers the runs of `labels`.
    pub fn new(labels: &'a Labels) -> Self {
        let width = labels.size()[1] as usize;
        let mut found: Vec<(u32, Run)> = labels
            .as_slice()
            .par_chunks(width.max(1) * 64)
            .enumerate()
            .flat_map_iter(|(block, rows)| {
                let mut found = Vec::new();
                for (row, ids) in rows.chunks_exact(width.max(1)).enumerate() {
                    let y = (block * 64 + row) as u32;
                    let mut x0 = 0;
                    for same in ids.chunk_by(|a, b| a == b) {
                        let x1 = x0 + same.len() as u32;
                        if let Some(&id) = same.first().filter(|&&id| id != 0) {
                            found.push((id, (y, x0, x1)));
                        }
                        x0 = x1;
                    }
                }
                found
            })
            .collect();
        // Stable: the runs of an object stay sorted by y, then x.
        found.par_sort_by_key(|&(id, _)| id);
        let (mut ids, mut starts) = (Vec::new(), Vec::new());
        for (index, &(id, _)) in found.iter().enumerate() {
            if ids.last() != Some(&id) {
                ids.push(id);
                starts.push(index);
            }
        }
        starts.push(found.len());
        Self { labels, ids, starts, runs: found.into_iter().map(|(_, run)| run).collect() }
    }

    /// The label image.
    pub fn labels(&self) -> &'a Labels {
        self.labels
    }

    /// `[h, w]` of the label image.
    pub fn size(&self) -> [u32; 2] {
        self.labels.size()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the image is all background.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Ids in ascending order. The position of an id here is the object's `index` everywhere in this crate.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Positions of all objects.
    pub(crate) fn indices(&self) -> Range<usize> {
        0..self.len()
    }

    /// Half-open runs `(y, x0, x1)` of the object at `index`, sorted by `y`, then `x0`.
    ///
    /// # Panics
    /// When there are not so many objects.
    pub fn runs(&self, index: usize) -> &[(u32, u32, u32)] {
        &self.runs[self.starts[index]..self.starts[index + 1]]
    }

    /// The tight box of the object at `index`.
    pub fn rect(&self, index: usize) -> Rect {
        bounds(self.runs(index))
    }

    /// The object at `index` as a mask in the label image's frame.
    pub fn mask(&self, index: usize) -> Mask {
        Mask::from_runs(self.runs(index).to_vec())
    }
}

/// The tight box of sorted runs.
pub(crate) fn bounds(runs: &[Run]) -> Rect {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Rect::default() };
    let x0 = runs.iter().map(|run| run.1).min().unwrap_or(0);
    let x1 = runs.iter().map(|run| run.2).max().unwrap_or(0);
    Rect { y0: first.0, x0, y1: last.0 + 1, x1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_gathered_by_id_and_ids_may_have_gaps() {
        let ids = vec![7, 7, 0, 3, u32::MAX, 7, 3, 3];
        let labels = Labels::from_vec([2, 4], ids).unwrap();
        let objects = Objects::new(&labels);
        assert_eq!(objects.ids(), [3, 7, u32::MAX]);
        assert_eq!(objects.runs(0), [(0, 3, 4), (1, 2, 4)]);
        assert_eq!(objects.runs(1), [(0, 0, 2), (1, 1, 2)]);
        assert_eq!(objects.rect(0), Rect { y0: 0, x0: 2, y1: 2, x1: 4 });
        assert_eq!(objects.mask(1).area(), 3);
        let none = Labels::zeros([3, 0]);
        assert!(Objects::new(&none).is_empty());
    }

    #[test]
    fn every_pixel_is_in_the_run_of_its_id() {
        let ids: Vec<u32> = (0..200 * 131).map(|at| (at * 7919 % 61) / 9).collect();
        let labels = Labels::from_vec([200, 131], ids).unwrap();
        let objects = Objects::new(&labels);
        let mut rebuilt = Labels::zeros([200, 131]);
        for index in 0..objects.len() {
            rebuilt.paint_where_empty(&objects.mask(index), objects.ids()[index]);
        }
        assert_eq!(rebuilt, labels);
    }
}
