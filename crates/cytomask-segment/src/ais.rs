//! AIS, automatic instance segmentation: a seeded watershed on the maps of the instance decoder.
//!
//! Archit et al., "Segment Anything for Microscopy", Nature Methods 2025; reference: `InstanceSegmentationWithDecoder` of
//! micro-sam and `watershed_from_center_and_boundary_distances` of torch-em. No prompt is decoded; the network is asked for its
//! maps only. A tiled image goes through [`Ais::tile`] tile by tile, [`crate::stitch`] and [`Ais::paint`].

use cytomask_image::{Labels, Rgb, Tile};

use crate::model::{FieldModel, Fields};
use crate::object_size::Smoothing;
use crate::ops::components::{Connectivity, label_mask};
use crate::ops::gaussian::gaussian;
use crate::ops::paint::{Claim, Paint};
use crate::ops::watershed::watershed;
use crate::segmentation::{ObjectOrigin, Segmentation};
use crate::stitch::{Found, keeps, paint_found};

/// Settings of AIS, under µSAM's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ais {
    /// Seeds lie where the smoothed centre distance is below this.
    pub center_distance_threshold: f32,
    /// Seeds lie where the smoothed boundary distance is below this.
    pub boundary_distance_threshold: f32,
    /// Objects lie where the smoothed foreground probability is above this.
    pub foreground_threshold: f32,
    /// Standard deviation, in pixels, of the smoothing of the foreground map; 0 leaves it as it is.
    pub foreground_smoothing: f32,
    /// Smoothing of both distance maps.
    pub distance_smoothing: Smoothing,
    /// Objects of fewer pixels are removed.
    pub min_size: u64,
}

impl Default for Ais {
    /// The defaults of `InstanceSegmentationWithDecoder.generate` (micro-sam 1.8).
    fn default() -> Self {
        Self {
            center_distance_threshold: 0.5,
            boundary_distance_threshold: 0.5,
            foreground_threshold: 0.5,
            foreground_smoothing: 1.0,
            distance_smoothing: Smoothing::Sigma(1.6),
            min_size: 0,
        }
    }
}

/// What µSAM's annotation tool sets for each model (its `AIS_SETTINGS`): beginning of the model's name, centre and boundary
/// distance threshold, distance smoothing. The least size is [`MODEL_MIN_SIZE`] for all of them. µSAM's Python functions and
/// programs do not use this table, they use [`Ais::default`].
const MODEL_SETTINGS: [(&str, f32, f32, f32); 8] = [
    ("vit_t_lm", 0.5, 0.5, 2.0),
    ("vit_b_lm", 0.4, 0.5, 2.0),
    ("vit_l_lm", 0.4, 0.4, 1.6),
    ("vit_h_lm", 0.5, 0.5, 1.4),
    ("vit_t_em", 0.4, 0.5, 1.2),
    ("vit_b_em", 0.3, 0.4, 1.2),
    ("vit_l_em", 0.3, 0.4, 1.2),
    ("vit_h_em", 0.3, 0.4, 1.2),
];
const MODEL_MIN_SIZE: u64 = 100;

impl Ais {
    /// The settings µSAM's annotation tool uses for a model; [`Ais::default`] for a name it has none for.
    pub fn for_model(name: &str) -> Self {
        let listed = MODEL_SETTINGS.iter().find(|(beginning, ..)| name.starts_with(beginning));
        listed.map_or_else(Self::default, |&(_, center, boundary, smoothing)| Self {
            center_distance_threshold: center,
            boundary_distance_threshold: boundary,
            distance_smoothing: Smoothing::Sigma(smoothing),
            min_size: MODEL_MIN_SIZE,
            ..Self::default()
        })
    }

    /// Encodes an image, asks for its maps and segments them.
    ///
    /// # Errors
    /// Whatever the network reports.
    pub fn run<M: FieldModel>(&self, model: &M, image: &Rgb) -> Result<Segmentation, M::Error> {
        let embedding = model.encode(image)?;
        Ok(self.segment(&model.fields(&embedding)?))
    }

    /// Segments the maps of an image: [`Ais::smooth`], [`Ais::flood`], [`Ais::finish`]. An object's score is the mean of the
    /// foreground map, not smoothed, over its pixels.
    ///
    /// # Panics
    /// When a map does not hold `h * w` samples.
    pub fn segment(&self, fields: &Fields) -> Segmentation {
        self.finish(self.flood(&self.smooth(fields)), fields)
    }

    /// The maps smoothed; depends on the two smoothings only.
    ///
    /// # Panics
    /// When a map does not hold `h * w` samples.
    pub fn smooth(&self, fields: &Fields) -> Fields {
        let sigma = self.distance_smoothing.sigma(fields);
        Fields {
            size: fields.size,
            foreground: gaussian(fields.size, &fields.foreground, self.foreground_smoothing),
            center_distance: gaussian(fields.size, &fields.center_distance, sigma),
            boundary_distance: gaussian(fields.size, &fields.boundary_distance, sigma),
        }
    }

    /// Objects of smoothed maps, of any size; depends on the three thresholds only.
    ///
    /// # Panics
    /// When a map does not hold `h * w` samples.
    pub fn flood(&self, smoothed: &Fields) -> Labels {
        let Fields { size, foreground, center_distance, boundary_distance } = smoothed;
        let objects: Vec<bool> =
            foreground.iter().map(|&probability| probability > self.foreground_threshold).collect();
        let is_seed = |pixel: usize| {
            objects[pixel]
                && center_distance[pixel] < self.center_distance_threshold
                && boundary_distance[pixel] < self.boundary_distance_threshold
        };
        let seeds: Vec<bool> = (0..objects.len()).map(is_seed).collect();
        let seeds = label_mask(*size, &seeds, Connectivity::Eight);
        watershed(boundary_distance, &seeds, &objects)
    }

    /// Removes small objects and describes the rest; `fields` are the maps before smoothing. Depends on the least size only.
    pub fn finish(&self, mut labels: Labels, fields: &Fields) -> Segmentation {
        // The background is left alone; the reference removes it, when it is that small, by setting it to 0.
        labels.retain_areas(|area| area >= self.min_size);
        with_mean_foreground(labels, &fields.foreground)
    }
}

impl Ais {
    /// The objects of a tile of an image of `size`, in the image's frame. `fields` are the maps of the tile with its halo. Kept are
    /// those whose centroid the tile keeps, and pieces of larger ones that reach into its inner part.
    pub fn tile(&self, fields: &Fields, tile: &Tile, size: [u32; 2]) -> Vec<Found> {
        let segmentation = self.segment(fields);
        let (dy, dx) = (tile.outer.y0, tile.outer.x0);
        let objects = segmentation.labels.masks().into_iter().zip(&segmentation.objects);
        let placed = objects.map(|(mask, object)| Found {
            grown: None,
            mask: mask.translate(dy, dx),
            origin: ObjectOrigin { score: object.score, ..ObjectOrigin::default() },
            anchor: [object.centroid[0].round() as u32 + dy, object.centroid[1].round() as u32 + dx],
            prompt: 0,
            tile: *tile,
        });
        let reaches_in = |found: &Found| !found.mask.rect().intersection(&tile.inner).is_empty();
        placed.filter(|found| keeps(tile, found.anchor) || (found.is_cut(size) && reaches_in(found))).collect()
    }

    /// The image of `size` from the objects of all its tiles; where two claim a pixel, the larger has it.
    pub fn paint(&self, size: [u32; 2], found: &[Found]) -> Segmentation {
        let claim = Paint {
            min_size_px: self.min_size,
            claim: Claim::Largest,
            separate_pieces: false,
            remove_largest: false,
            compat: false,
        };
        paint_found(&claim, size, found)
    }
}

fn with_mean_foreground(labels: Labels, foreground: &[f32]) -> Segmentation {
    let mut sums = vec![(0.0_f64, 0_u64); labels.max_id() as usize + 1];
    for (&id, &probability) in labels.as_slice().iter().zip(foreground) {
        let (sum, count) = &mut sums[id as usize];
        *sum += f64::from(probability);
        *count += 1;
    }
    Segmentation::from_labels(labels, |id| {
        let (sum, count) = sums[id as usize];
        ObjectOrigin { score: (sum / count as f64) as f32, ..ObjectOrigin::default() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Golden, mean_best_iou};
    use crate::ops::components::tests::drawn;
    use crate::scripted::ScriptedModel;

    #[test]
    fn smoothing_is_the_references() {
        let golden = Golden::open("ais.safetensors");
        let fields = golden.fields("borders/maps");
        let smoothed = gaussian(fields.size, &fields.boundary_distance, 1.6);
        let expected = golden.f32s("gaussian/1.6");
        assert_eq!(expected.len(), 24 * 131, "the first rows");
        for (ours, theirs) in smoothed.iter().zip(&expected) {
            assert!((ours - theirs).abs() < 5e-7, "{ours} {theirs}");
        }
        let corner: Vec<f32> = fields.boundary_distance.chunks(131).take(4).flat_map(|row| row[..9].to_vec()).collect();
        for (ours, theirs) in gaussian([4, 9], &corner, 2.0).iter().zip(golden.f32s("gaussian/corner/2.0")) {
            assert!((ours - theirs).abs() < 5e-7, "{ours} {theirs}");
        }
    }

    #[test]
    fn label_images_are_the_references() {
        let golden = Golden::open("ais.safetensors");
        let raw = Ais {
            foreground_smoothing: 0.0,
            distance_smoothing: Smoothing::Sigma(0.0),
            min_size: 10,
            ..Ais::default()
        };
        for (case, settings, ais) in [
            ("borders", "default", Ais::default()),
            ("borders", "vit_b_lm", Ais::for_model("vit_b_lm")),
            ("touching", "default", Ais::default()),
            ("ragged", "default", Ais::default()),
            ("ragged", "vit_b_lm", Ais::for_model("vit_b_lm")),
            ("ragged", "raw", raw),
        ] {
            let ours = ais.segment(&golden.fields(&format!("{case}/maps"))).labels;
            let theirs = golden.labels(&format!("{case}/{settings}"));
            let pixels = ours.as_slice().iter().zip(theirs.as_slice()).filter(|(a, b)| a != b).count();
            // Without smoothing the maps are the same numbers, and so is the order of equal heights. With it they differ in the
            // last bits, which may move a pixel between levels of the watershed.
            if ais == raw {
                assert_eq!(pixels, 0, "{case} {settings}");
            }
            assert!(pixels <= 5, "{case} {settings}: {pixels} pixels differ");
            assert!(
                mean_best_iou(&ours, &theirs) >= 0.995 && mean_best_iou(&theirs, &ours) >= 0.995,
                "{case} {settings}"
            );
        }
    }

    /// Discs whose maps are free of noise; smoothing would blur the small ones.
    fn sharp() -> Ais {
        Ais { foreground_smoothing: 0.0, distance_smoothing: Smoothing::Sigma(0.0), ..Ais::default() }
    }

    #[test]
    fn discs_come_back_even_touching_each_other_and_the_border() {
        let size = [97, 131];
        for discs in [
            vec![],
            vec![(48.0, 65.0, 12.0)],
            vec![(48.0, 50.0, 12.0), (48.0, 73.0, 12.0), (70.0, 61.0, 13.0)],
            vec![(2.0, 40.0, 9.0), (94.0, 90.0, 9.0), (30.0, 1.0, 8.0), (60.0, 129.0, 8.0), (0.0, 0.0, 7.0)],
        ] {
            let model = ScriptedModel::new(size, &discs);
            let found = sharp().run(&model, &model.image()).unwrap();
            assert_eq!((model.encode_calls(), model.fields_calls(), model.prompts_decoded()), (1, 1, 0));
            assert_eq!(found.objects.len(), discs.len());
            if !discs.is_empty() {
                assert!(mean_best_iou(&model.truth(), &found.labels) > 0.97, "{discs:?}");
            }
            for object in &found.objects {
                assert!((object.score - 1.0).abs() < 1e-6);
                assert_eq!((object.predicted_iou, object.prompt), (None, None));
            }
        }
    }

    #[test]
    fn the_smallest_images() {
        for size in [[1, 1], [1, 5], [0, 0], [0, 3]] {
            let model = ScriptedModel::new(size, &[(0.0, 0.0, 3.0)]);
            let found = Ais::default().run(&model, &model.image()).unwrap();
            assert_eq!(found.labels.size(), size);
            assert_eq!(found.objects.len(), usize::from(size[0] > 0), "{size:?}");
        }
    }

    #[test]
    fn a_score_is_the_mean_foreground_and_small_objects_go() {
        let fields = Fields {
            size: [1, 6],
            foreground: vec![0.6, 1.0, 0.2, 0.9, 0.1, 0.5],
            center_distance: vec![0.0, 0.9, 0.0, 0.0, 0.0, 0.0],
            boundary_distance: vec![0.0; 6],
        };
        let found = sharp().segment(&fields);
        assert_eq!(found.labels, drawn(&["11.2.."]), "0.5 is not above the threshold");
        assert_eq!(found.objects.iter().map(|object| object.score).collect::<Vec<_>>(), [0.8, 0.9]);
        let found = Ais { min_size: 2, ..sharp() }.segment(&fields);
        assert_eq!(found.labels, drawn(&["11...."]));
    }

    #[test]
    fn failures_of_the_network_come_through() {
        let mut model = ScriptedModel::new([9, 9], &[]);
        model.encode_fails_after = Some(0);
        assert!(Ais::default().run(&model, &model.image()).is_err());
    }

    #[test]
    fn models_have_their_settings() {
        let organelles = Ais::for_model("vit_b_em_organelles");
        assert_eq!((organelles.center_distance_threshold, organelles.boundary_distance_threshold), (0.3, 0.4));
        assert_eq!((organelles.distance_smoothing, organelles.min_size), (Smoothing::Sigma(1.2), 100));
        assert_eq!(Ais::for_model("vit_h_lm").distance_smoothing, Smoothing::Sigma(1.4));
        assert_eq!(Ais::for_model("vit_b_histopathology"), Ais::default());
    }
}
