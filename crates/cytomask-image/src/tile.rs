//! Cutting an image into tiles that overlap.
//!
//! Inner blocks partition the image; what is computed for a block sees its surroundings, the halo. The last block of an axis is
//! cut off at the image, as in nifty's `blocking`, which µSAM tiles with.

use crate::Rect;

/// One tile; both rectangles are in the image frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// What is read: `inner` grown by the halo, clipped to the image.
    pub outer: Rect,
    /// What the tile answers for.
    pub inner: Rect,
}

impl Tile {
    /// `inner` in the frame of `outer`.
    pub fn local_inner(&self) -> Rect {
        let (y, x) = (self.outer.y0, self.outer.x0);
        Rect { y0: self.inner.y0 - y, x0: self.inner.x0 - x, y1: self.inner.y1 - y, x1: self.inner.x1 - x }
    }
}

/// The tiles of an image of `size`, rows first: inner blocks of `tile_shape` partition it, outer ones are larger by `halo` on each
/// side where the image goes on. All `[h, w]`; a `tile_shape` of 0 counts as 1. An image without pixels has no tiles.
pub fn tiles(size: [u32; 2], tile_shape: [u32; 2], halo: [u32; 2]) -> Vec<Tile> {
    let starts = |axis: usize| (0..size[axis]).step_by(tile_shape[axis].max(1) as usize);
    let end = |start: u32, axis: usize| start.saturating_add(tile_shape[axis].max(1)).min(size[axis]);
    starts(0)
        .flat_map(|y0| starts(1).map(move |x0| (y0, x0)))
        .map(|(y0, x0)| {
            let inner = Rect { y0, x0, y1: end(y0, 0), x1: end(x0, 1) };
            let outer = Rect {
                y0: inner.y0.saturating_sub(halo[0]),
                x0: inner.x0.saturating_sub(halo[1]),
                y1: inner.y1.saturating_add(halo[0]).min(size[0]),
                x1: inner.x1.saturating_add(halo[1]).min(size[1]),
            };
            Tile { outer, inner }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_tile_is_cut_off_and_halos_are_clipped() {
        let found = tiles([97, 131], [64, 128], [8, 16]);
        assert_eq!(found.len(), 4);
        assert_eq!(found[0].outer, Rect { y0: 0, x0: 0, y1: 72, x1: 131 });
        assert_eq!(found[3].inner, Rect { y0: 64, x0: 128, y1: 97, x1: 131 });
        assert_eq!(found[3].outer, Rect { y0: 56, x0: 112, y1: 97, x1: 131 });
        assert_eq!(found[3].local_inner(), Rect { y0: 8, x0: 16, y1: 41, x1: 19 });
        assert_eq!(tiles([0, 5], [4, 4], [1, 1]), []);
        assert_eq!(tiles([5, 5], [u32::MAX; 2], [u32::MAX; 2]).len(), 1);
    }

    proptest! {
        #[test]
        fn inner_blocks_partition_the_image(
            size in [1_u32..60, 1_u32..60],
            shape in [1_u32..70, 1_u32..70],
            halo in [0_u32..20, 0_u32..20],
        ) {
            let mut covered = vec![0; (size[0] * size[1]) as usize];
            for tile in tiles(size, shape, halo) {
                for y in tile.inner.y0..tile.inner.y1 {
                    for x in tile.inner.x0..tile.inner.x1 {
                        covered[(y * size[1] + x) as usize] += 1;
                    }
                }
                // The slow definition of the outer rectangle: every pixel at most a halo away from the inner one.
                for y in 0..size[0] {
                    for x in 0..size[1] {
                        let near = y + halo[0] >= tile.inner.y0 && y < tile.inner.y1 + halo[0]
                            && x + halo[1] >= tile.inner.x0 && x < tile.inner.x1 + halo[1];
                        prop_assert_eq!(tile.outer.contains(y, x), near);
                    }
                }
            }
            prop_assert!(covered.iter().all(|&count| count == 1));
        }
    }
}
