//! Linear resize a row at a time, as OpenCV's `INTER_LINEAR` on floats: pixel centres at half-integers, borders repeated, no
//! antialiasing; along x first.

/// `[h, w]` of an image enlarged by `scale`, truncated as the reference truncates; at least one pixel.
pub(super) fn scaled_size(size: [u32; 2], scale: f64) -> [u32; 2] {
    size.map(|side| ((f64::from(side) * scale) as u32).max(1))
}

/// Two neighbours and the weight of the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pair {
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) share: f32,
}

impl Pair {
    pub(super) fn mix(self, low: f32, high: f32) -> f32 {
        low * (1.0 - self.share) + high * self.share
    }
}

/// What every new pixel is made of.
pub(super) fn pairs(from: usize, to: usize) -> Vec<Pair> {
    let factor = from as f64 / to as f64;
    let last = from.saturating_sub(1);
    (0..to)
        .map(|at| {
            let place = ((at as f64 + 0.5) * factor - 0.5) as f32;
            let low = place.floor();
            if low < 0.0 {
                return Pair { low: 0, high: last.min(1), share: 0.0 };
            }
            if low as usize >= last {
                return Pair { low: last, high: last, share: 0.0 };
            }
            Pair { low: low as usize, high: low as usize + 1, share: place - low }
        })
        .collect()
}

/// A row of several maps, each of `row.len() / maps` samples, at other columns.
pub(super) fn widen(row: &[f32], maps: usize, columns: &[Pair]) -> Vec<f32> {
    let width = row.len() / maps;
    row.chunks_exact(width.max(1))
        .flat_map(|map| columns.iter().map(|pair| pair.mix(map[pair.low], map[pair.high])))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_stays_a_ramp() {
        // cv2.resize(np.arange(4.)[None], (8, 1)) and (2, 1)
        let wide = widen(&[0.0, 1.0, 2.0, 3.0], 1, &pairs(4, 8));
        assert_eq!(wide, [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]);
        assert_eq!(widen(&[0.0, 1.0, 2.0, 3.0], 1, &pairs(4, 2)), [0.5, 2.5]);
        assert_eq!(widen(&[5.0, 7.0], 2, &pairs(1, 3)), [5.0, 5.0, 5.0, 7.0, 7.0, 7.0]);
        assert_eq!(scaled_size([97, 3], 0.3), [29, 1]);
    }
}
