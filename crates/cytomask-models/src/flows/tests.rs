//! Whole images against `CellposeModel.eval` of cellpose 4 and 3 (`parity/cellpose_networks.py`).

use std::path::Path;

use cytomask_image::{Image, Normalization, Rgb};
use cytomask_segment::{FlowFields, Flows};
use cytomask_weights::Checkpoint;

use super::*;
use crate::golden::{Golden, subsample};
use crate::{DeviceChoice, Model};

fn model(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
    Model::open(name, &Checkpoint::open(path).unwrap(), None, DeviceChoice::Cpu).unwrap()
}

fn image(golden: &Golden, name: &str, normalization: Normalization) -> Rgb {
    let (shape, bytes) = golden.bytes(&format!("{name}/image"));
    let samples = bytes.iter().map(|&byte| f32::from(byte)).collect();
    let image = Image::from_samples([shape[0] as u32, shape[1] as u32], shape[2] as u32, samples).unwrap();
    image.to_rgb(normalization).unwrap()
}

/// Differences of the maps, relative in the Euclidean norm, and pixels whose label differs, of all.
fn differences(golden: &Golden, name: &str, fields: &FlowFields, settings: &Flows) -> (f64, f64) {
    let maps = [&fields.flow_y, &fields.flow_x, &fields.cell_probability].map(|map| map.as_slice()).concat();
    let (found, expected) = (subsample(&maps), golden.numbers(&format!("{name}/maps")));
    assert_eq!(found.len(), expected.len(), "{name}");
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let of_maps = square(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / square(&mut expected.iter().copied());
    let (shape, masks) = golden.bytes(&format!("{name}/masks"));
    assert_eq!(shape, fields.size.map(|side| side as usize));
    let segmentation = settings.segment(fields);
    assert_eq!(segmentation.objects.len(), usize::from(*masks.iter().max().unwrap()), "{name}: objects");
    let different =
        segmentation.labels.as_slice().iter().zip(masks).filter(|&(&a, &b)| a != u32::from(b)).count() as f64;
    (of_maps.sqrt(), different / masks.len() as f64)
}

#[test]
fn cellpose_4_maps_and_masks_are_the_references() {
    let golden = Golden::open("cpsam.safetensors");
    let model = model("cpsam_small.pt");
    let plain = FlowOptions::default();
    let diameter = |pixels| FlowOptions { diameter: FlowDiameter::Pixels(pixels), ..plain };
    let loose = Flows { niter: 120, cellprob_threshold: -0.5, flow_threshold: 0.0, ..Flows::default() };
    for (name, options, settings) in [
        ("grey", plain, Flows::default()),
        ("large", plain, Flows::default()),
        ("between", plain, Flows::default()),
        ("small_cells", diameter(18.0), Flows::default()),
        ("large_cells", diameter(41.5), Flows::default()),
        ("augment", FlowOptions { augment: true, ..plain }, Flows::default()),
        ("overlap", FlowOptions { tile_overlap: 0.3, ..plain }, loose),
    ] {
        let predictor = model.with_flow_options(options);
        let fields = predictor.flow_predictor().unwrap().fields(&image(&golden, name, model.normalization())).unwrap();
        let (maps, labels) = differences(&golden, name, &fields, &settings);
        assert!(maps <= 1e-4 && labels <= 1e-3, "{name}: maps {maps}, labels {labels}");
    }
}

#[test]
fn cellpose_3_maps_and_masks_are_the_references() {
    let golden = Golden::open("cyto3.safetensors");
    let model = model("cyto3_small.pt");
    for (name, pixels, grey) in [("grey", 30.0, true), ("two", 22.0, false), ("mean", 34.0, true)] {
        let normalization = Normalization::Cellpose { low: 1.0, high: 99.0, grey };
        let predictor = model.with_diameter(pixels);
        let fields = predictor.flow_predictor().unwrap().fields(&image(&golden, name, normalization)).unwrap();
        let (maps, labels) = differences(&golden, name, &fields, &Flows::default());
        // Cellpose 3 follows flows otherwise on CPUs: docs/decisions/0028-flows.md.
        assert!(maps <= 1e-4 && labels <= 0.01, "{name}: maps {maps}, labels {labels}");
    }
}

#[test]
fn cellpose_3_estimates_diameters() {
    let golden = Golden::open("cyto3.safetensors");
    let predictor = model("cyto3_small.pt");
    let predictor = predictor.flow_predictor().unwrap();
    let image = image(&golden, "grey", Normalization::Cellpose { low: 1.0, high: 99.0, grey: true });
    // Printed by the script.
    let (by_style, by_masks) = (28.938_316_739_475_606, 21.719_343_490_614_232);
    let found = predictor.diameter_by_style(&image).unwrap();
    assert!((found / by_style - 1.0).abs() < 1e-4, "{found}");
    let found = predictor.estimate_diameter(&image).unwrap();
    assert!((found / by_masks - 1.0).abs() < 0.02, "{found}");
}

#[test]
fn rows_are_those_of_the_whole() {
    let golden = Golden::open("cpsam.safetensors");
    let model = model("cpsam_small.pt").with_diameter(23.0);
    let image = image(&golden, "large", model.normalization());
    let whole = model.flow_predictor().unwrap().fields(&image).unwrap();
    let mut next = 0;
    let scale = model
        .flow_rows::<Error>(image.size, &mut |rect| Ok(image.crop(rect)), &mut |y, [flow_y, _, cell_probability]| {
            assert_eq!(y, next);
            next += 1;
            let line = y as usize * image.size[1] as usize..(y as usize + 1) * image.size[1] as usize;
            assert_eq!(flow_y, &whole.flow_y[line.clone()]);
            assert_eq!(cell_probability, &whole.cell_probability[line]);
            Ok(())
        })
        .unwrap();
    assert_eq!((next, scale), (image.size[0], whole.scale));
}

#[test]
fn volumes_are_the_references() {
    let golden = Golden::open("cpsam.safetensors");
    let model = model("cpsam_small.pt");
    let predictor = model.flow_predictor().unwrap();
    let (shape, bytes) = golden.bytes("volume/image");
    let whole = Image::from_samples(
        [(shape[0] * shape[1]) as u32, shape[2] as u32],
        1,
        bytes.iter().map(|&byte| f32::from(byte)).collect(),
    )
    .unwrap();
    // Percentiles are those of the stack.
    let rgb = whole.to_rgb(model.normalization()).unwrap();
    let height = shape[1] as u32;
    let planes: Vec<Rgb> = (0..shape[0] as u32)
        .map(|z| rgb.crop(Rect { y0: z * height, x0: 0, y1: (z + 1) * height, x1: shape[2] as u32 }))
        .collect();
    for (name, options) in [
        ("volume3d", VolumeOptions { anisotropy: 2.0, flow3d_smooth: 0.0 }),
        ("volume3d_plain", VolumeOptions { anisotropy: 1.0, flow3d_smooth: 1.0 }),
    ] {
        let fields = predictor.volume(&planes, &options).unwrap();
        let maps = fields.flow.iter().chain([&fields.cell_probability]).flatten().copied().collect::<Vec<f32>>();
        let (found, expected) = (subsample(&maps), golden.numbers(&format!("{name}/maps")));
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-4 * largest), "{name}");
        let labels = Flows::default().segment_volume(&fields);
        compare_stack(&golden, name, labels.as_slice());
    }
    let settings = Flows { min_size: 0, ..Flows::default() };
    let labels: Vec<_> =
        planes.iter().map(|plane| settings.segment(&predictor.fields(plane).unwrap()).labels).collect();
    compare_stack(&golden, "stitched", cytomask_segment::stitch_planes(&labels, 0.25, &Flows::default()).as_slice());
}

/// The same objects, whatever their ids.
fn compare_stack(golden: &Golden, name: &str, found: &[u32]) {
    let (_, masks) = golden.bytes(&format!("{name}/masks"));
    let mut pairs = std::collections::BTreeMap::new();
    for (&found, &mask) in found.iter().zip(masks) {
        *pairs.entry((found, mask)).or_insert(0_u32) += 1;
    }
    let objects = usize::from(*masks.iter().max().unwrap());
    assert!(objects > 1 && *found.iter().max().unwrap() as usize == objects, "{name}: {pairs:?}");
    let agreeing: u32 = (1..=objects as u32)
        .map(|id| {
            pairs.iter().filter(|((found, mask), _)| *found == id && *mask != 0).map(|(_, n)| *n).max().unwrap_or(0)
        })
        .sum();
    let (inside, outside) = (masks.iter().filter(|&&mask| mask != 0).count(), pairs.get(&(0, 0)).copied().unwrap_or(0));
    let different = masks.len() - agreeing as usize - outside as usize;
    assert!(different * 200 <= inside, "{name}: {different} of {inside} voxels differ");
}

#[test]
fn small_images_and_wrong_diameters() {
    let model = model("cpsam_small.pt");
    let dot = Rgb { size: [1, 1], samples: vec![0.0; 3] };
    let fields = model.flow_predictor().unwrap().fields(&dot).unwrap();
    assert_eq!((fields.size, fields.flow_x.len()), ([1, 1], 1));
    for wrong in [0.0, -3.0, f64::NAN, 1e-9] {
        let error = model.with_diameter(wrong).flow_predictor().unwrap().fields(&dot).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value, "{wrong}");
    }
    let options = FlowOptions { diameter: FlowDiameter::Estimated, ..FlowOptions::default() };
    let error = model.with_flow_options(options).flow_predictor().unwrap().fields(&dot).unwrap_err();
    assert!(error.to_string().contains("no size model"), "{error}");
}

#[test]
fn a_released_model_computes_the_same_and_is_no_longer_whole() {
    let golden = Golden::open("cpsam.safetensors");
    let run = |model: &Model| {
        let predictor = model.flow_predictor().unwrap();
        predictor.fields(&image(&golden, "grey", model.normalization())).unwrap().flow_y.as_slice().to_vec()
    };
    let whole = model("cpsam_small.pt");
    let expected = run(&whole);
    assert!(whole.tensors().is_ok());
    let released = whole.clone().released();
    assert_eq!(run(&released), expected);
    assert_eq!(run(&whole), expected, "its clones stay whole");
    let eight = whole.with_precision(crate::Precision::Int8).unwrap();
    let coarse = run(&eight);
    assert_ne!(coarse, expected);
    assert_eq!(run(&eight.released()), coarse);
    // Where the processor has kernels, the weights are gone and that is said.
    if released.tensors().is_err() {
        assert_eq!(released.tensors().unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(released.with_precision(crate::Precision::Int8).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn cellpose_3_takes_f32_only() {
    let error = model("cyto3_small.pt").with_precision(crate::Precision::Int8).unwrap_err();
    assert!(error.to_string().contains("int8"), "{error}");
}
