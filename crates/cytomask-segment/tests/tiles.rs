//! Tiled images on a network that knows discs by heart: what crosses seams is found once, order does not matter, and what is larger
//! than the halo is looked at again or reported.

use std::sync::atomic::{AtomicUsize, Ordering};

use cytomask_image::{Labels, Rgb, Tile, tiles};
use cytomask_segment::ops::nms::Overlap;
use cytomask_segment::scripted::{ScriptedError, ScriptedModel};
use cytomask_segment::stitch::{Found, Join, join};
use cytomask_segment::{Ais, Amg, Apg, BoxPrompt, FieldModel, Prompt, PromptModel, Prompted, Segmentation, Smoothing};
use proptest::prelude::*;

const SIZE: [u32; 2] = [97, 131];

#[derive(Clone)]
enum Method {
    Ais(Ais),
    Apg(Apg),
    Amg(Amg),
    Prompted(Prompted, Vec<Prompt>),
}

fn all_methods(model: &ScriptedModel) -> [Method; 4] {
    // Discs free of noise; smoothing would blur the small ones.
    let ais = Ais { foreground_smoothing: 0.0, distance_smoothing: Smoothing::Sigma(0.0), ..Ais::default() };
    let boxes = model.discs.iter().map(|disc| {
        let (low, high) = ([disc.y - disc.radius, disc.x - disc.radius], [disc.y + disc.radius, disc.x + disc.radius]);
        Prompt::bounds(BoxPrompt { y0: low[0], x0: low[1], y1: high[0], x1: high[1] })
    });
    [
        Method::Ais(ais),
        Method::Apg(Apg { min_size: 5, ..Apg::default() }),
        Method::Amg(Amg { points_per_side: 16, stability_score_thresh: 0.9, ..Amg::default() }),
        Method::Prompted(Prompted::default(), boxes.collect()),
    ]
}

impl Method {
    fn tile(&self, model: &ScriptedModel, image: &Rgb, tile: &Tile, chosen: Option<&[usize]>) -> Vec<Found> {
        let pixels = image.crop(tile.outer);
        let at = model.encode(&pixels).unwrap();
        let quiet = &mut |_, _| {};
        match self {
            Self::Ais(ais) => ais.tile(&model.fields(&at).unwrap(), tile, SIZE),
            Self::Apg(apg) => apg.tile(model, &at, &model.fields(&at).unwrap(), None, tile, quiet).unwrap(),
            Self::Amg(amg) => amg.tile(model, &pixels, &at, tile, SIZE, quiet).unwrap(),
            Self::Prompted(prompted, prompts) => {
                let mine = |index: &usize| {
                    let [y, x] = Prompted::anchor(&prompts[*index], SIZE).unwrap();
                    tile.inner.contains(y, x)
                };
                let owned: Vec<usize> = (0..prompts.len()).filter(mine).collect();
                prompted.tile(model, &at, tile, prompts, chosen.unwrap_or(&owned), quiet).unwrap()
            }
        }
    }

    fn overlap(&self) -> Option<Overlap> {
        match self {
            Self::Ais(_) | Self::Apg(_) => Some(Overlap::IntersectionOverMinimum),
            Self::Amg(_) => Some(Overlap::IntersectionOverUnion),
            Self::Prompted(..) => None,
        }
    }

    fn paint(&self, found: &[Found]) -> Segmentation {
        match self {
            Self::Ais(ais) => ais.paint(SIZE, found),
            Self::Apg(apg) => apg.paint_found(SIZE, found),
            Self::Amg(amg) => amg.paint_found(SIZE, found),
            Self::Prompted(prompted, _) => prompted.paint_found(SIZE, found),
        }
    }

    /// The image in tiles, given in an order of their own; and how many windows were looked at.
    fn run(
        &self,
        model: &ScriptedModel,
        shape: [u32; 2],
        halo: [u32; 2],
        max_window: u32,
        turn: usize,
    ) -> (Segmentation, usize) {
        let image = model.image();
        let mut tiles = tiles(SIZE, shape, halo);
        let turn = turn % tiles.len();
        tiles.rotate_left(turn);
        if turn % 2 == 1 {
            tiles.reverse();
        }
        let found = tiles.iter().flat_map(|tile| self.tile(model, &image, tile, None)).collect();
        let windows = AtomicUsize::new(0);
        let settings = Join { size: SIZE, halo, max_window, overlap: self.overlap() };
        let joined = join(found, &settings, &mut |window, prompts| {
            windows.fetch_add(1, Ordering::Relaxed);
            Ok::<_, ScriptedError>(self.tile(model, &image, window, Some(prompts)))
        });
        (self.paint(&joined.unwrap()), windows.into_inner())
    }
}

/// Whether every disc is one object with the disc's pixels, and nothing else is.
fn same_objects(found: &Labels, truth: &Labels) -> bool {
    let (mut found, mut truth): (Vec<_>, Vec<_>) = (found.masks(), truth.masks());
    found.sort_by_key(|mask| mask.runs().first().copied());
    truth.sort_by_key(|mask| mask.runs().first().copied());
    found == truth
}

/// Discs on the seams at row 50 and columns 40, 80, 120, and where four tiles meet.
const ACROSS: [(f32, f32, f32); 6] = [
    (20.0, 40.0, 9.0),
    (50.0, 40.4, 8.0),
    (50.3, 79.6, 9.0),
    (30.0, 81.0, 7.0),
    (80.0, 119.0, 8.0),
    (49.5, 110.0, 6.0),
];

#[test]
fn discs_across_seams_are_found_once() {
    let model = ScriptedModel::new(SIZE, &ACROSS);
    for (index, method) in all_methods(&model).iter().enumerate() {
        let (found, windows) = method.run(&model, [50, 40], [24, 24], 1000, 0);
        assert!(same_objects(&found.labels, &model.truth()), "method {index}: {} objects", found.objects.len());
        assert_eq!(windows, 0, "method {index}: every disc is whole in the tile that owns it");
        assert!(found.objects.iter().all(|object| !object.cut));
    }
}

#[test]
fn a_disc_larger_than_the_halo_is_looked_at_again() {
    let model = ScriptedModel::new(SIZE, &[(48.0, 62.0, 30.0), (20.0, 10.0, 6.0), (85.0, 120.0, 7.0)]);
    for (index, method) in all_methods(&model).iter().enumerate() {
        let (found, windows) = method.run(&model, [50, 40], [12, 12], 1000, 0);
        assert!(same_objects(&found.labels, &model.truth()), "method {index}: {} objects", found.objects.len());
        assert!(windows >= 1, "method {index}");
        assert!(found.objects.iter().all(|object| !object.cut), "method {index}");
    }
}

#[test]
fn a_disc_larger_than_every_window_is_reported_and_put_together() {
    let model = ScriptedModel::new(SIZE, &[(48.0, 62.0, 30.0), (20.0, 10.0, 6.0), (85.0, 120.0, 7.0)]);
    let [ais, ..] = all_methods(&model);
    let (found, windows) = ais.run(&model, [50, 40], [12, 12], 60, 0);
    assert_eq!(windows, 0);
    let cut: Vec<_> = found.objects.iter().filter(|object| object.cut).collect();
    assert_eq!((found.objects.len(), cut.len()), (3, 1));
    let disc = model.discs[0].mask(SIZE);
    assert!(cut[0].area_px * 10 > disc.area() * 9, "{} of {} pixels", cut[0].area_px, disc.area());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// In whatever order tiles come, the result is the same to the last pixel; and it is that of the whole image.
    #[test]
    fn neither_order_nor_tiles_change_the_result(
        at in prop::collection::vec((4.0_f32..93.0, 4.0_f32..127.0, 3.0_f32..11.0), 0..9),
        shape in [30_u32..70, 30_u32..70],
        turn in 1_usize..12,
    ) {
        // Apart from each other, so that there is one right answer.
        let mut discs: Vec<(f32, f32, f32)> = Vec::new();
        for (y, x, r) in at {
            if discs.iter().all(|&(oy, ox, or)| (y - oy).hypot(x - ox) > r + or + 3.0) {
                discs.push((y, x, r));
            }
        }
        let model = ScriptedModel::new(SIZE, &discs);
        for (index, method) in all_methods(&model).iter().enumerate() {
            let (first, _) = method.run(&model, shape, [26, 26], 1000, 0);
            let (second, _) = method.run(&model, shape, [26, 26], 1000, turn);
            prop_assert_eq!(&first.labels, &second.labels, "method {}", index);
            prop_assert_eq!(&first.objects, &second.objects);
            // A grid may miss a small disc.
            if !matches!(method, Method::Amg(_)) {
                prop_assert!(same_objects(&first.labels, &model.truth()), "method {}: {:?}", index, discs);
            }
        }
    }
}
