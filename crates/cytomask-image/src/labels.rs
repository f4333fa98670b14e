//! Label images: one unsigned id per pixel, 0 is background.

use crate::{Error, Mask, Rect, Result};

/// A label image, `[H, W]`, row-major; 0 is background, objects are `1..=n` once [`Labels::relabel`] has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    size: [u32; 2],
    data: Vec<u32>,
}

impl Labels {
    /// All background.
    pub fn zeros(size: [u32; 2]) -> Self {
        Self { size, data: vec![0; size[0] as usize * size[1] as usize] }
    }

    /// Takes row-major ids, `[H, W]`.
    ///
    /// # Errors
    /// `Shape` when the length is not `h * w`.
    pub fn from_vec(size: [u32; 2], data: Vec<u32>) -> Result<Self> {
        let expected = size[0] as usize * size[1] as usize;
        if data.len() != expected {
            return Err(Error::shape(
                "label image",
                format!("{expected} pixels for {size:?}"),
                format!("{}", data.len()),
            ));
        }
        Ok(Self { size, data })
    }

    /// `[h, w]`.
    pub fn size(&self) -> [u32; 2] {
        self.size
    }

    /// Row-major ids, `[H, W]`.
    pub fn as_slice(&self) -> &[u32] {
        &self.data
    }

    /// Row-major ids, `[H, W]`.
    pub fn as_mut_slice(&mut self) -> &mut [u32] {
        &mut self.data
    }

    /// Takes the ids out, `[H, W]`.
    pub fn into_vec(self) -> Vec<u32> {
        self.data
    }

    /// The id at `(y, x)`.
    ///
    /// # Panics
    /// When the position lies outside the image.
    pub fn at(&self, y: u32, x: u32) -> u32 {
        self.data[y as usize * self.size[1] as usize + x as usize]
    }

    /// The largest id, 0 when there is no object.
    pub fn max_id(&self) -> u32 {
        self.data.iter().copied().max().unwrap_or(0)
    }

    /// Renumbers the objects `1..=n` in ascending order of their old ids, keeps 0, and returns the old id of each new one
    /// (`old[0]` is 0).
    pub fn relabel(&mut self) -> Vec<u32> {
        // As many marks as ids where that is little beside the image: collecting every pixel's id first would double the memory.
        let largest = self.max_id() as usize;
        let mut old: Vec<u32> = if largest <= self.data.len().max(1 << 16) {
            let mut seen = vec![false; largest + 1];
            for &id in &self.data {
                seen[id as usize] = true;
            }
            (1..=largest as u32).filter(|&id| seen[id as usize]).collect()
        } else {
            let mut old: Vec<u32> = self.data.iter().copied().filter(|&id| id != 0).collect();
            old.sort_unstable();
            old.dedup();
            old
        };
        old.insert(0, 0);
        let max = *old.last().unwrap_or(&0);
        if max as usize <= self.data.len().max(1 << 16) {
            let mut new = vec![0_u32; max as usize + 1];
            for (index, &id) in old.iter().enumerate() {
                new[id as usize] = index as u32;
            }
            for id in &mut self.data {
                *id = new[*id as usize];
            }
        } else {
            for id in &mut self.data {
                *id = old.binary_search(id).unwrap_or(0) as u32;
            }
        }
        old
    }

    /// The mask of every id `1..=max_id`; index 0 is id 1. Absent ids have empty masks.
    pub fn masks(&self) -> Vec<Mask> {
        let mut runs: Vec<Vec<(u32, u32, u32)>> = vec![Vec::new(); self.max_id() as usize];
        let width = self.size[1].max(1) as usize;
        for (y, row) in self.data.chunks_exact(width).enumerate() {
            let mut x0 = 0;
            for run in row.chunk_by(|a, b| a == b) {
                let x1 = x0 + run.len();
                if run[0] != 0 {
                    runs[run[0] as usize - 1].push((y as u32, x0 as u32, x1 as u32));
                }
                x0 = x1;
            }
        }
        runs.into_iter().map(Mask::from_runs).collect()
    }

    /// Area in pixels and bounding box of every id `1..=max_id`; index 0 is id 1. Absent ids have area 0 and an empty box.
    pub fn extents(&self) -> Vec<(u64, Rect)> {
        let mut found = vec![(0_u64, Rect { y0: u32::MAX, x0: u32::MAX, y1: 0, x1: 0 }); self.max_id() as usize];
        let width = self.size[1] as usize;
        for (index, &id) in self.data.iter().enumerate() {
            if id != 0 {
                let (area, rect) = &mut found[id as usize - 1];
                let (y, x) = ((index / width) as u32, (index % width) as u32);
                *area += 1;
                *rect = Rect { y0: rect.y0.min(y), x0: rect.x0.min(x), y1: rect.y1.max(y + 1), x1: rect.x1.max(x + 1) };
            }
        }
        for (area, rect) in &mut found {
            if *area == 0 {
                *rect = Rect::default();
            }
        }
        found
    }

    /// Removes the objects whose area in pixels is not `wanted`; other ids stay as they are.
    pub fn retain_areas(&mut self, wanted: impl Fn(u64) -> bool) {
        let unwanted: Vec<bool> = self.extents().iter().map(|&(area, _)| !wanted(area)).collect();
        for id in &mut self.data {
            if *id != 0 && unwanted[*id as usize - 1] {
                *id = 0;
            }
        }
    }

    /// Paints `id` wherever `mask` is set and the image is still background.
    pub fn paint_where_empty(&mut self, mask: &Mask, id: u32) {
        let width = self.size[1] as usize;
        mask.for_each_run(|y, x0, x1| {
            let row = y as usize * width;
            for pixel in &mut self.data[row + x0 as usize..row + x1 as usize] {
                if *pixel == 0 {
                    *pixel = id;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relabel_closes_gaps_and_keeps_order() {
        let mut labels = Labels::from_vec([2, 3], vec![0, 9, 4, 9, 70_000, 0]).unwrap();
        assert_eq!(labels.relabel(), [0, 4, 9, 70_000]);
        assert_eq!(labels.as_slice(), [0, 2, 1, 2, 3, 0]);
        let mut wide = Labels::from_vec([1, 2], vec![u32::MAX, 7]).unwrap();
        assert_eq!(wide.relabel(), [0, 7, u32::MAX]);
        assert_eq!(wide.as_slice(), [2, 1]);
    }

    #[test]
    fn extents_are_half_open() {
        let labels = Labels::from_vec([2, 3], vec![0, 3, 3, 0, 3, 0]).unwrap();
        assert_eq!(labels.extents()[2], (3, Rect { y0: 0, x0: 1, y1: 2, x1: 3 }));
        assert_eq!(labels.extents()[0], (0, Rect::default()));
    }
}
