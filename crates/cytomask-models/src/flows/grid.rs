//! Padding, places and weights of tiles along one axis. Both axes are treated alike, and the weight of a pixel in a tile is the product
//! of its weights along both.

use super::FlowOptions;

/// Sides are padded to multiples of this.
const MULTIPLE: usize = 16;
/// Zeros around an image beyond that, together.
const EXTRA: usize = 16;
/// The taper of a tile of less than this is cut from that of one of this.
const LEAST_TAPER: usize = 224;
/// Pixels from the border of a tile to where its weight is a half.
const TAPER_WIDTH: f64 = 20.0;
/// Steepness of the taper, pixels.
const TAPER_SIGMA: f64 = 7.5;

/// What an image smaller than a tile is padded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// A whole tile (Cellpose 4).
    ToTile,
    /// The next multiple (Cellpose 3): the tile is as small as the image.
    Least,
}

/// One axis of an image that is cut into tiles.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// Pixels of the image.
    pub(super) length: usize,
    /// Zeros before it.
    pub(super) before: usize,
    /// Side of a tile.
    pub(super) tile: usize,
    /// Where tiles begin, in the padded image.
    pub(super) starts: Vec<usize>,
    /// Whether every other tile is turned over.
    pub(super) flips: bool,
}

impl Axis {
    pub(super) fn new(length: usize, side: usize, padding: Padding, options: &FlowOptions) -> Self {
        let missing = if padding == Padding::Least || length >= side {
            length.next_multiple_of(MULTIPLE) - length
        } else {
            // Between a tile less the extra and a tile, nothing: such an image is two tiles.
            side.saturating_sub(length + EXTRA)
        };
        let before = EXTRA / 2 + missing / 2;
        let mut padded = length + EXTRA + missing;
        let count = if options.augment {
            padded = padded.max(side);
            (2.0 * padded as f64 / side as f64).ceil().max(2.0) as usize
        } else if padded <= side {
            1
        } else {
            let overlap = options.tile_overlap.clamp(0.05, 0.5);
            ((1.0 + 2.0 * overlap) * padded as f64 / side as f64).ceil() as usize
        };
        let tile = side.min(padded);
        let last = padded - tile;
        let step = last as f64 / count.saturating_sub(1).max(1) as f64;
        let starts = (0..count)
            .map(|index| if index > 0 && index + 1 == count { last } else { (index as f64 * step) as usize })
            .collect();
        Self { length, before, tile, starts, flips: options.augment }
    }

    /// Pixels with the padding.
    pub(super) fn padded(&self) -> usize {
        self.starts.last().map_or(0, |start| start + self.tile)
    }

    /// Weights of a tile's pixels; `other` is the tile's extent along the other axis.
    pub(super) fn taper(&self, other: usize) -> Vec<f64> {
        let full = LEAST_TAPER.max(self.tile).max(other);
        let first = full / 2 - self.tile / 2;
        let middle = (full as f64 - 1.0) / 2.0;
        (first..first + self.tile)
            .map(|at| {
                let distance = (at as f64 - middle).abs();
                1.0 / (1.0 + ((distance - (full as f64 / 2.0 - TAPER_WIDTH)) / TAPER_SIGMA).exp())
            })
            .collect()
    }

    /// The sum of all tiles' weights at each padded pixel.
    pub(super) fn total(&self, taper: &[f64]) -> Vec<f64> {
        let mut total = vec![0.0; self.padded()];
        for &start in &self.starts {
            for (total, weight) in total[start..].iter_mut().zip(taper) {
                *total += weight;
            }
        }
        total
    }

    /// Whether the tile at `index` is turned over.
    pub(super) fn is_flipped(&self, index: usize) -> bool {
        self.flips && index % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(length: usize, padding: Padding, options: FlowOptions) -> (usize, usize, usize, Vec<usize>) {
        let axis = Axis::new(length, if padding == Padding::ToTile { 256 } else { 224 }, padding, &options);
        (axis.before, axis.padded(), axis.tile, axis.starts)
    }

    /// Numbers of `get_pad_yx` and `make_tiles` of cellpose 4.2 and 3.1.
    #[test]
    fn tiles_lie_where_the_reference_puts_them() {
        let plain = FlowOptions::default();
        assert_eq!(axis(97, Padding::ToTile, plain), (79, 256, 256, vec![0]));
        assert_eq!(axis(240, Padding::ToTile, plain), (8, 256, 256, vec![0]));
        assert_eq!(axis(250, Padding::ToTile, plain), (8, 266, 256, vec![0, 10]));
        assert_eq!(axis(1000, Padding::ToTile, plain), (12, 1024, 256, vec![0, 192, 384, 576, 768]));
        assert_eq!(axis(97, Padding::Least, plain), (15, 128, 128, vec![0]));
        assert_eq!(axis(417, Padding::Least, plain), (15, 448, 224, vec![0, 112, 224]));
        let augment = FlowOptions { augment: true, ..plain };
        assert_eq!(axis(97, Padding::ToTile, augment), (79, 256, 256, vec![0, 0]));
        assert_eq!(axis(300, Padding::ToTile, augment), (10, 320, 256, vec![0, 32, 64]));
        assert_eq!(axis(97, Padding::Least, augment), (15, 224, 224, vec![0, 0]));
    }

    #[test]
    fn weights_are_symmetric_and_cover_everything() {
        let axis = Axis::new(1000, 256, Padding::ToTile, &FlowOptions::default());
        let taper = axis.taper(256);
        assert!((taper[0] - taper[255]).abs() < 1e-15 && taper[128] > 0.999_99 && taper[0] > 0.05);
        assert!(axis.total(&taper).iter().all(|&total| total > 0.05));
        // A small tile has the middle of the taper of a large one.
        let small = Axis::new(97, 224, Padding::Least, &FlowOptions::default());
        assert_eq!(small.taper(128).len(), 128);
        assert!(small.taper(128)[0] > 0.97);
    }
}
