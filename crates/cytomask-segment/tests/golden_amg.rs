//! Suppression, automatic mask generation and its parts against `fixtures/nms.safetensors` and `fixtures/amg.safetensors`,
//! written by `parity/nms.py` and `parity/amg.py` with torchvision, segment_anything and micro_sam.

use std::path::Path;

use cytomask_image::{Labels, LogitFrame, LogitMap, Mask, Rect};
use cytomask_segment::amg::{Amg, WithBackground, is_cut_off};
use cytomask_segment::ops::nms::{Overlap, box_nms, mask_nms};
use cytomask_segment::ops::otsu::automatic_threshold;
use cytomask_segment::ops::paint::{Claim, Paint};
use cytomask_segment::ops::small_regions::{fill_small_holes, remove_small_islands};
use cytomask_segment::ops::stability::stability_and_mask;
use cytomask_segment::scripted::{Disc, ScriptedModel};
use safetensors::{Dtype, SafeTensors};

const SIZE: [u32; 2] = [97, 131];
const THRESHOLDS: [&str; 5] = ["0.1", "0.3", "0.5", "0.7", "0.9"];

/// A tensor of any type, as `f64`: every number in these files is exact in it.
struct Golden {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Golden {
    fn floats(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }

    fn indices(&self) -> Vec<usize> {
        self.values.iter().map(|&value| value as usize).collect()
    }

    fn bools(&self) -> Vec<bool> {
        self.values.iter().map(|&value| value != 0.0).collect()
    }

    fn labels(&self) -> Labels {
        let size = [self.shape[0] as u32, self.shape[1] as u32];
        Labels::from_vec(size, self.values.iter().map(|&value| value as u32).collect()).unwrap()
    }
}

fn with_file(name: &str, check: impl Fn(&dyn Fn(&str) -> Golden, &[String])) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: &str| {
        let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let data = view.data();
        let values = match view.dtype() {
            Dtype::U8 => data.iter().map(|&value| f64::from(value)).collect(),
            Dtype::I8 => data.iter().map(|&value| f64::from(value as i8)).collect(),
            Dtype::U16 => data.chunks_exact(2).map(|b| f64::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
            Dtype::I32 => data.chunks_exact(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Dtype::F32 => data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            other => panic!("{name}: {other:?}"),
        };
        Golden { shape: view.shape().to_vec(), values }
    };
    let names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
    check(&read, &names);
}

fn rect(row: &[f64]) -> Rect {
    Rect { y0: row[0] as u32, x0: row[1] as u32, y1: row[2] as u32, x1: row[3] as u32 }
}

#[test]
fn box_suppression_equals_torchvision() {
    with_file("nms.safetensors", |read, _| {
        for case in 0..3 {
            let boxes: Vec<Rect> = read(&format!("box/{case}/boxes")).values.chunks_exact(4).map(rect).collect();
            let scores = read(&format!("box/{case}/scores")).floats();
            for threshold in THRESHOLDS {
                let kept = read(&format!("box/{case}/kept_{threshold}")).indices();
                assert_eq!(box_nms(&boxes, &scores, threshold.parse().unwrap()), kept, "{case} {threshold}");
            }
        }
    });
}

#[test]
fn mask_suppression_equals_micro_sam() {
    with_file("nms.safetensors", |read, _| {
        for case in 0..2 {
            let runs = read(&format!("mask/{case}/runs")).values;
            let mut runs = runs.chunks_exact(3).map(|run| (run[0] as u32, run[1] as u32, run[2] as u32));
            let counts = read(&format!("mask/{case}/run_counts")).indices();
            let masks: Vec<Mask> = counts.iter().map(|&n| Mask::from_runs(runs.by_ref().take(n).collect())).collect();
            let scores = read(&format!("mask/{case}/scores")).floats();
            for (name, overlap) in
                [("iou", Overlap::IntersectionOverUnion), ("iomin", Overlap::IntersectionOverMinimum)]
            {
                let all: Vec<&Mask> = masks.iter().collect();
                for threshold in THRESHOLDS {
                    let expected = read(&format!("mask/{case}/kept_{name}_{threshold}")).indices();
                    let kept = mask_nms(&all, &scores, threshold.parse().unwrap(), overlap, true);
                    assert_eq!(kept, expected, "{case} {name} {threshold}");
                }
                if case == 0 {
                    continue; // the merged labels are in the file for the larger case only
                }
                let large: Vec<usize> = (0..masks.len()).filter(|&index| masks[index].area() > 25).collect();
                let large_masks: Vec<&Mask> = large.iter().map(|&index| &masks[index]).collect();
                let large_scores: Vec<f32> = large.iter().map(|&index| scores[index]).collect();
                let kept = mask_nms(&large_masks, &large_scores, 0.3, overlap, true);
                let kept: Vec<&Mask> = kept.into_iter().map(|index| large_masks[index]).collect();
                let paint = Paint {
                    min_size_px: 25,
                    claim: Claim::Largest,
                    separate_pieces: true,
                    remove_largest: false,
                    compat: true,
                };
                let expected = read(&format!("mask/{case}/labels_{name}")).labels();
                assert_eq!(paint.paint(SIZE, &kept).labels, expected, "{case} {name}");
            }
        }
    });
}

#[test]
fn point_grids_and_crops_equal_segment_anything() {
    with_file("amg.safetensors", |read, names| {
        let mut checked = 0;
        for name in names.iter().filter_map(|name| name.strip_prefix("grid/")) {
            let parts: Vec<u32> = name.split(['_', '/']).map(|part| part.parse().unwrap()).collect();
            let amg = Amg { points_per_side: parts[0], crop_n_points_downscale_factor: parts[1], ..Amg::default() };
            let grid: Vec<f64> = amg.point_grid(parts[2]).into_iter().flat_map(|[y, x]| [x, y]).collect();
            assert_eq!(grid, read(&format!("grid/{name}")).values, "{name}");
            checked += 1;
        }
        for name in names.iter().filter_map(|name| name.strip_prefix("crops/")) {
            let size: Vec<u32> = name.split('_').map(|side| side.parse().unwrap()).collect();
            let amg = Amg { crop_n_layers: 3, ..Amg::default() };
            let crops = amg.crops([size[0], size[1]]);
            // Crops that lie outside a tiny image are boxes of no or negative extent upstream.
            let expected: Vec<Vec<i64>> = read(&format!("crops/{name}"))
                .values
                .chunks_exact(5)
                .map(|row| row.iter().map(|&value| value as i64).collect::<Vec<i64>>())
                .filter(|row| row[1] < row[3] && row[2] < row[4])
                .collect();
            let found: Vec<Vec<i64>> = crops
                .iter()
                .map(|crop| {
                    [crop.layer, crop.rect.x0, crop.rect.y0, crop.rect.x1, crop.rect.y1].map(i64::from).to_vec()
                })
                .collect();
            assert_eq!(found, expected, "{name}");
            checked += 1;
        }
        assert_eq!(checked, 3 + 2 + 1 + 5);
    });
}

#[test]
fn boxes_cut_off_by_their_crop_are_those_of_segment_anything() {
    with_file("amg.safetensors", |read, _| {
        let crop = Rect::from_xyxy([30, 40, 200, 240]);
        let near = read("edge/near").bools();
        for (corners, near) in read("edge/boxes").values.chunks_exact(4).zip(near) {
            // First and last pixel, x first, in the frame of the crop.
            let [x0, y0, x1, y1] = [0, 1, 2, 3].map(|index| corners[index] as u32);
            let rect = Rect::from_xyxy([x0, y0, x1 + 1, y1 + 1]).translate(crop.y0, crop.x0);
            assert_eq!(is_cut_off(&rect, &crop, &Rect::whole([240, 260])), near, "{corners:?}");
        }
    });
}

#[test]
fn stability_equals_segment_anything() {
    with_file("amg.safetensors", |read, _| {
        let logits = read("stability/logits_times_8");
        let size = [logits.shape[1] as u32, logits.shape[2] as u32];
        let frame = LogitFrame { padded: size, input: size, image: size };
        for (threshold, offset) in [(0.0, 1.0), (1.5, 0.5)] {
            let expected = read(&format!("stability/score_{threshold:?}_{offset:?}")).floats();
            for (map, expected) in logits.values.chunks_exact(logits.shape[1] * logits.shape[2]).zip(expected) {
                let values: Vec<f32> = map.iter().map(|&value| value as f32 / 8.0).collect();
                let (mask, stability) =
                    stability_and_mask(&LogitMap { grid: size, values: values.clone(), frame }, threshold, offset);
                assert_eq!(stability, if expected.is_nan() { 0.0 } else { expected });
                assert_eq!(mask.area(), values.iter().filter(|&&logit| logit > threshold).count() as u64);
            }
        }
    });
}

#[test]
fn automatic_threshold_equals_micro_sam() {
    with_file("amg.safetensors", |read, _| {
        let maps = read("otsu/logits");
        let grid = [maps.shape[1] as u32, maps.shape[2] as u32];
        let expected = read("otsu/thresholds").floats();
        let found: Vec<f32> = maps
            .floats()
            .chunks_exact(maps.shape[1] * maps.shape[2])
            .map(|values| {
                let frame = LogitFrame { padded: grid, input: grid, image: grid };
                automatic_threshold(&LogitMap { grid, values: values.to_vec(), frame })
            })
            .collect();
        assert_eq!(found.len(), 4);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{found} {expected}");
        }
    });
}

#[test]
fn small_regions_equal_segment_anything() {
    with_file("amg.safetensors", |read, _| {
        let masks = read("regions/masks");
        let size = [masks.shape[1] as u32, masks.shape[2] as u32];
        let pixels = masks.shape[1] * masks.shape[2];
        for threshold in [3, 20, 90] {
            for mode in ["holes", "islands"] {
                let expected = read(&format!("regions/{mode}_{threshold}")).bools();
                let changed = read(&format!("regions/{mode}_{threshold}_changed")).bools();
                for (index, mask) in masks.bools().chunks_exact(pixels).enumerate() {
                    let mask = Mask::from_bools(size, mask);
                    let found = match mode {
                        "holes" => fill_small_holes(&mask, size, threshold),
                        _ => remove_small_islands(&mask, threshold),
                    };
                    assert_eq!(found.is_some(), changed[index], "{mode} {threshold} {index}");
                    let expected = Mask::from_bools(size, &expected[index * pixels..][..pixels]);
                    assert_eq!(found.unwrap_or(mask), expected, "{mode} {threshold} {index}");
                }
            }
        }
    });
}

#[test]
fn whole_generator_equals_micro_sam() {
    with_file("amg.safetensors", |read, _| {
        for (name, size, crop_n_layers) in [("whole", [97, 131], 0), ("crops", [150, 200], 1)] {
            let mut model = ScriptedModel::new(size, &[]);
            model.discs = read(&format!("generate/{name}/discs"))
                .floats()
                .chunks_exact(3)
                .map(|disc| Disc { y: disc[0], x: disc[1], radius: disc[2] })
                .collect();
            model.sharpness = 12.0;
            let upstream = Amg { points_per_side: 12, crop_n_layers, ..Amg::default() }.compat();
            let lenient = Amg {
                pred_iou_thresh: 0.6,
                stability_score_thresh: 0.8,
                box_nms_thresh: 0.9,
                with_background: WithBackground::Keep,
                ..upstream.clone()
            };
            let regions = Amg {
                pred_iou_thresh: 0.45,
                stability_score_thresh: 0.6,
                min_mask_region_area: 60,
                ..upstream.clone()
            };
            for (setting, amg) in [("default", upstream), ("lenient", lenient), ("regions", regions)] {
                let found = amg.run(&model, &model.image(), &mut |_, _| {}).unwrap();
                let expected = read(&format!("generate/{name}/{setting}")).labels();
                let differing = found.labels.as_slice().iter().zip(expected.as_slice()).filter(|(a, b)| a != b).count();
                assert_eq!((found.labels.max_id(), differing), (expected.max_id(), 0), "{name} {setting}");
            }
        }
    });
}
