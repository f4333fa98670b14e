use burn::tensor::{Device, Tensor};

use super::{TinyVit, UNUSED_PREFIXES, VIT_T};
use crate::{
    ErrorKind,
    golden::{Golden, network_input},
    loading::{load_into, state_shapes},
    precision::{Precision, SetPrecision as _},
    seeded::Seeded,
};

#[test]
fn stages_equal_mobile_sam() {
    let device = Device::flex();
    let model = TinyVit::new(&VIT_T, &device);
    let source = Seeded::of(&model, "image_encoder.");
    let model = load_into(model, &source, "image_encoder.").unwrap().module;
    let golden = Golden::open("tiny_vit.safetensors");
    let taps = model.forward_with_taps(network_input("input/tiny_vit", [1, 3, 96, 160], &device)).unwrap();
    assert_eq!(taps.embedding.dims(), [1, 256, 6, 10]);
    golden.check("layer0", taps.t4);
    golden.check("layer1", taps.t8);
    golden.check("t2", taps.t2);
    golden.check("embedding", taps.embedding);
}

/// Random weights; real ones are measured by `bench/precision.sh`.
#[test]
fn reduced_formats_are_near_and_leave_the_original_alone() {
    let device = Device::flex();
    let model = TinyVit::new(&VIT_T, &device);
    let source = Seeded::of(&model, "image_encoder.");
    let model = load_into(model, &source, "image_encoder.").unwrap().module;
    let input = network_input("input/pair", [1, 3, 96, 160], &device);
    let exact = model.forward(input.clone()).unwrap();
    let size = |x: &Tensor<4>| x.clone().square().mean().sqrt().into_scalar::<f32>();
    for (precision, most) in [(Precision::Bf16, 0.02), (Precision::Int8, 0.06)] {
        let mut reduced = model.clone();
        reduced.set_precision(precision);
        let error = size(&(reduced.forward(input.clone()).unwrap() - exact.clone())) / size(&exact);
        assert!(error > 1e-4 && error < most, "{precision}: {error}");
        reduced.set_precision(Precision::F32);
        for back in [&reduced, &model] {
            let same = back.forward(input.clone()).unwrap();
            assert_eq!((same - exact.clone()).abs().max().into_scalar::<f32>(), 0.0, "{precision}, and back");
        }
    }
}

#[test]
fn images_of_a_batch_do_not_mix() {
    let device = Device::flex();
    let model = TinyVit::new(&VIT_T, &device);
    let source = Seeded::of(&model, "image_encoder.");
    let model = load_into(model, &source, "image_encoder.").unwrap().module;
    let pair = network_input("input/pair", [2, 3, 64, 32], &device);
    let together = model.forward(pair.clone()).unwrap();
    let second = model.forward(pair.slice([1..2, 0..3, 0..64, 0..32])).unwrap();
    let difference = (together.slice([1..2, 0..256, 0..4, 0..2]) - second).abs().max().into_scalar::<f32>();
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn names_and_shapes_are_those_of_the_checkpoint() {
    let shapes = state_shapes(&TinyVit::new(&VIT_T, &Device::flex()), "");
    let find = |name: &str| shapes.iter().find(|(known, _)| known == name).map(|(_, shape)| shape.clone());
    assert_eq!(find("patch_embed.seq.2.bn.running_var"), Some(vec![64]));
    assert_eq!(find("layers.0.blocks.1.conv2.c.weight"), Some(vec![256, 1, 3, 3]));
    assert_eq!(find("layers.2.blocks.5.attn.attention_biases"), Some(vec![5, 196]));
    assert_eq!(find("layers.2.downsample.conv2.c.weight"), Some(vec![320, 1, 3, 3]));
    assert_eq!(find("neck.3.bias"), Some(vec![256]));
    // 439 in the file, less the prompt encoder and mask decoder (137), the classifier (4) and the counters (27).
    assert_eq!(shapes.len(), 271);
    assert!(shapes.iter().all(|(name, _)| !UNUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))));
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let device = Device::flex();
    let model = TinyVit::new(&VIT_T, &device);
    for shape in [[1, 3, 97, 131], [1, 1, 32, 32], [1, 3, 0, 32], [0, 3, 32, 32]] {
        let error = model.forward(Tensor::zeros(shape, &device)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Shape, "{shape:?}");
    }
}
