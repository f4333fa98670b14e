//! Volumes: the network sees all planes along each of the three axes, and what they say of a voxel is added up.
//!
//! Reference: `run_3D` in `core.py` and `_run_net` in `models.py` of cellpose 4.

use cytomask_image::{Rect, Rgb};
use cytomask_segment::VolumeFlows;

use super::resize::{Pair, pairs};
use super::{FlowPredictor, FlowRow};
use crate::{Error, ErrorKind};

/// SciPy cuts its Gaussian here, standard deviations.
const TRUNCATE: f64 = 4.0;
/// Largest factor of the depth.
const MAX_ANISOTROPY: f64 = 100.0;
/// Largest standard deviation of the smoothing, voxels.
const MAX_SMOOTHING: f64 = 100.0;

/// How volumes are run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VolumeOptions {
    /// Distance of two planes over the size of a pixel.
    pub anisotropy: f64,
    /// Standard deviation of a Gaussian that smooths the flows, voxels; 0 for none.
    pub flow3d_smooth: f64,
}

impl Default for VolumeOptions {
    /// The defaults of `CellposeModel.eval`.
    fn default() -> Self {
        Self { anisotropy: 1.0, flow3d_smooth: 0.0 }
    }
}

/// Maps of a volume, `[M][Z, H, W]`.
struct Volume<const M: usize> {
    size: [usize; 3],
    maps: [Vec<f32>; M],
}

impl FlowPredictor {
    /// The maps of a volume, given as planes of one size.
    ///
    /// # Errors
    /// `Shape` for no planes or planes of several sizes, `Value` for options out of range; as [`FlowPredictor::fields`].
    pub fn volume(&self, planes: &[Rgb], options: &VolumeOptions) -> Result<VolumeFlows, Error> {
        let Some(first) = planes.first() else { return Err(Error::shape("volume", "at least one plane", 0)) };
        if let Some(other) = planes.iter().find(|plane| plane.size != first.size) {
            return Err(Error::shape("planes of a volume", first.size, other.size));
        }
        let within = |value: f64, most: f64| value.is_finite() && (0.0..=most).contains(&value);
        if !within(options.anisotropy, MAX_ANISOTROPY) || options.anisotropy == 0.0 {
            let message = format!("anisotropy: expected above 0, up to {MAX_ANISOTROPY}, found {}", options.anisotropy);
            return Err(Error::new(ErrorKind::Value, message));
        }
        if !within(options.flow3d_smooth, MAX_SMOOTHING) {
            let message = format!("flow3D_smooth: expected 0 to {MAX_SMOOTHING}, found {}", options.flow3d_smooth);
            return Err(Error::new(ErrorKind::Value, message));
        }
        let scale = self.scale_of(self.options.diameter)?;
        let [h, w] = first.size.map(|side| side as usize);
        let channel =
            |channel: usize| planes.iter().flat_map(move |plane| plane.samples[channel..].iter().step_by(3).copied());
        let given = Volume { size: [planes.len(), h, w], maps: [0, 1, 2].map(|index| channel(index).collect()) };
        let size = given.size;
        let factors = [options.anisotropy * scale, scale, scale];
        let seen = [0, 1, 2].map(|axis| ((size[axis] as f64 * factors[axis]) as usize).max(1));
        let maps = self.three_ways(&given.resized(seen))?;
        let [z, y, x, cell_probability] = maps.resized(size).maps;
        let mut flow = [z, y, x];
        if options.flow3d_smooth > 0.0 {
            flow = flow.map(|map| smooth(map, size, options.flow3d_smooth));
        }
        Ok(VolumeFlows { size: size.map(|side| side as u32), flow, cell_probability, scale })
    }

    /// Flow along z, y and x, each from the two ways that see it, and the sum of three logits.
    fn three_ways(&self, image: &Volume<3>) -> Result<Volume<4>, Error> {
        let size = image.size;
        let voxels = size.iter().product();
        let mut sums = Volume { size, maps: [0; 4].map(|_| vec![0.0_f32; voxels]) };
        let steps = [size[1] * size[2], size[2], 1];
        // Which axis is gone along, and which are the rows and columns of its planes.
        for [along, down, across] in [[0, 1, 2], [1, 0, 2], [2, 0, 1]] {
            let plane_size = [size[down] as u32, size[across] as u32];
            for plane in 0..size[along] {
                let voxel = |y: usize, x: usize| plane * steps[along] + y * steps[down] + x * steps[across];
                let mut samples = Vec::with_capacity(size[down] * size[across] * 3);
                for y in 0..size[down] {
                    for x in 0..size[across] {
                        samples.extend(image.maps.iter().map(|map| map[voxel(y, x)]));
                    }
                }
                let rgb = Rgb { size: plane_size, samples };
                let mut read = |rect: Rect| Ok(rgb.crop(rect));
                let mut keep = |y: u32, [flow_down, flow_across, logit]: FlowRow<'_>| {
                    for (map, row) in [(down, flow_down), (across, flow_across), (3, logit)] {
                        for (x, value) in row.iter().enumerate() {
                            sums.maps[map][voxel(y as usize, x)] += value;
                        }
                    }
                    Ok::<(), Error>(())
                };
                self.stream(plane_size, 1.0, plane_size, &mut read, &mut keep)?;
            }
        }
        Ok(sums)
    }
}

impl<const M: usize> Volume<M> {
    /// Linearly: planes first, then along z.
    fn resized(self, to: [usize; 3]) -> Self {
        let mut size = self.size;
        let mut maps = self.maps;
        for axis in [2, 1, 0] {
            if size[axis] != to[axis] {
                let pairs = pairs(size[axis], to[axis]);
                maps = maps.map(|map| along(&map, size, axis, &pairs));
                size[axis] = to[axis];
            }
        }
        Self { size, maps }
    }
}

/// A map with another number of samples along one axis.
fn along(map: &[f32], size: [usize; 3], axis: usize, pairs: &[Pair]) -> Vec<f32> {
    let inner: usize = size[axis + 1..].iter().product();
    let outer: usize = size[..axis].iter().product();
    let mut out = Vec::with_capacity(outer * pairs.len() * inner);
    for block in map.chunks_exact((size[axis] * inner).max(1)).take(outer) {
        for pair in pairs {
            let (low, high) = (&block[pair.low * inner..][..inner], &block[pair.high * inner..][..inner]);
            out.extend(low.iter().zip(high).map(|(&low, &high)| pair.mix(low, high)));
        }
    }
    out
}

/// A Gaussian along all three axes, the border mirrored with its sample repeated (SciPy's `gaussian_filter`).
fn smooth(mut map: Vec<f32>, size: [usize; 3], sigma: f64) -> Vec<f32> {
    let radius = (TRUNCATE * sigma + 0.5) as i64;
    let mut weights: Vec<f64> = (-radius..=radius).map(|at| (-0.5 * (at as f64 / sigma).powi(2)).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    for axis in 0..3 {
        let inner: usize = size[axis + 1..].iter().product();
        let length = size[axis] as i64;
        let mirrored = |at: i64| {
            let at = at.rem_euclid(2 * length);
            at.min(2 * length - 1 - at) as usize
        };
        let mut out = vec![0.0_f32; map.len()];
        for (voxel, value) in out.iter_mut().enumerate() {
            let at = (voxel / inner % size[axis]) as i64;
            let first = voxel - at as usize * inner;
            let sum: f64 = (-radius..=radius)
                .zip(&weights)
                .map(|(offset, weight)| weight * f64::from(map[first + mirrored(at + offset) * inner]))
                .sum();
            *value = sum as f32;
        }
        map = out;
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_is_scipys() {
        // scipy.ndimage.gaussian_filter1d([0, 0, 1, 0, 0, 0], 0.5)
        let found = smooth(vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [1, 1, 6], 0.5);
        for (found, expected) in
            found.iter().zip([0.000_263_9, 0.106_450_8, 0.786_570_7, 0.106_450_8, 0.000_263_9, 0.0])
        {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn a_volume_is_resized_along_each_axis() {
        let volume = Volume { size: [2, 1, 2], maps: [vec![0.0, 1.0, 10.0, 11.0]] };
        let wide = volume.resized([4, 1, 2]);
        assert_eq!(wide.maps[0], [0.0, 1.0, 2.5, 3.5, 7.5, 8.5, 10.0, 11.0]);
    }
}
