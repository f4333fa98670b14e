//! Adapters against layers computed apart, and against the networks they change.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use cytomask_image::{Labels, Rgb};
use cytomask_models::cytomask_t::{CYTOMASK_T, CytomaskT};
use cytomask_models::layers::{Conv2d, ConvBn, LayerNorm, Linear};
use cytomask_models::loading::{NamedTensor, load_into, state_shapes, values};
use cytomask_models::sam::Sam;
use cytomask_models::seeded::{SMALL_SAM, Seeded, filled, seeded};
use cytomask_models::unetr::{UNETR_MICRO_SAM, Unetr, UnetrConfig};
use cytomask_models::{BareNetwork, DeviceChoice};
use cytomask_segment::{PointPrompt, Prompt};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Adapters, Place};
use crate::data::{Crop, Sample};
use crate::parity::Batch;
use crate::{Matrix, Part, Peft, TrainSettings, Trainer};

/// Shapes and values by name.
type Named = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

const CROP: u32 = 96;
const OBJECTS: [[u32; 4]; 2] = [[10, 12, 50, 60], [60, 20, 90, 84]];

fn device() -> Device {
    DeviceChoice::Cpu.open().unwrap()
}

/// One of each method.
fn methods() -> [Peft; 4] {
    [
        Peft::Lora { rank: 2, alpha: 1.0, matrices: Matrix::DEFAULT.to_vec() },
        Peft::Lora { rank: 2, alpha: 0.5, matrices: vec![Matrix::K, Matrix::Proj, Matrix::Mlp] },
        Peft::Fact { rank: 2, alpha: 1.0 },
        Peft::Ssf,
    ]
}

/// Sets every value anew.
struct Drawn(ChaCha8Rng);

impl ModuleMapper for Drawn {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let shape = tensor.dims();
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.0.random_range(-0.5..0.5)).collect();
            Tensor::from_data(TensorData::new(values, shape), &tensor.device())
        })
    }
}

/// A layer with drawn values, the same with drawn adapters merged, and the values of those by name.
fn adapted<M: Module>(module: M, layer: &str, peft: &Peft, heads: Option<usize>) -> (M, M, Named) {
    let module = module.map(&mut Drawn(ChaCha8Rng::seed_from_u64(1)));
    let places = state_shapes(&module, &format!("{layer}.")).into_iter().enumerate();
    let places = places.map(|(index, (name, shape))| Place { index, name, shape, heads });
    let places = places.filter(|place| super::adapts(peft, &place.name, true, true)).collect();
    let adapters = Adapters::new(peft, places, &mut ChaCha8Rng::seed_from_u64(2), &device()).unwrap();
    let adapters = adapters.map(&mut Drawn(ChaCha8Rng::seed_from_u64(3)));
    let named = adapters.tensors().into_iter().map(|(name, shape, values)| (name, (shape, values))).collect();
    (module.clone(), adapters.merged(module), named)
}

fn input<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(seeded("input/adapters", &shape), shape), &device()) * 10.0
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-4, "at {index}: {found}, expected {expected}");
    }
}

/// `w · x`, `w` being `[rows, columns]`.
fn product((shape, w): &(Vec<usize>, Vec<f32>), x: &[f32]) -> Vec<f32> {
    assert_eq!(shape[1], x.len());
    w.chunks_exact(shape[1]).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

/// What a projection of 8 channels to queries, keys and values gains, for each of five tokens.
fn gains(peft: &Peft, heads: Option<usize>) -> (Vec<[Vec<f32>; 3]>, Named) {
    let (plain, merged, named) = adapted(Linear::new(8, 24, &device()), "blocks.0.attn.qkv", peft, heads);
    let x = input([5, 8]);
    let gain = values(merged.forward(x.clone()) - plain.forward(x));
    let head = 8 / heads.unwrap_or(1);
    let part = |row: &[f32], part: usize| -> Vec<f32> {
        row.chunks_exact(head).skip(part).step_by(3).flatten().copied().collect()
    };
    (gain.chunks_exact(24).map(|row| [0, 1, 2].map(|which| part(row, which))).collect(), named)
}

#[test]
fn a_projection_gains_the_products_of_narrow_matrices() {
    let x = values(input([5, 8]));
    let tokens = || x.chunks_exact(8);
    for heads in [None, Some(2)] {
        let lora = Peft::Lora { rank: 3, alpha: 0.5, matrices: vec![Matrix::V, Matrix::Q] };
        let (gains_of_lora, named) = gains(&lora, heads);
        for ([query, key, value], x) in gains_of_lora.iter().zip(tokens()) {
            let expected = |part: &str| {
                let of = |which: &str| &named[&format!("blocks.0.attn.qkv.w_{which}_linear_{part}.weight")];
                product(of("b"), &product(of("a"), x)).into_iter().map(|gain| 0.5 * gain).collect::<Vec<_>>()
            };
            assert_close(query, &expected("q"));
            assert_close(key, &[0.0; 8]);
            assert_close(value, &expected("v"));
        }
        let (gains_of_fact, named) = gains(&Peft::Fact { rank: 3, alpha: 1.0 }, heads);
        for ([query, key, value], x) in gains_of_fact.iter().zip(tokens()) {
            let of = |which: &str| &named[&format!("blocks.0.attn.qkv.{which}.weight")];
            let expected = |inner: &str| product(of("FacTv"), &product(of(inner), &product(of("FacTu"), x)));
            assert_close(query, &expected("q_FacTs"));
            assert_close(key, &[0.0; 8]);
            assert_close(value, &expected("v_FacTs"));
        }
    }
}

#[test]
fn other_weights_gain_them_too() {
    for (matrix, layer, suffix) in [
        (Matrix::Mlp, "blocks.1.mlp.lin2", "_2"),
        (Matrix::Mlp, "blocks.1.mlp.fc1", "_1"),
        (Matrix::Proj, "blocks.1.attn.proj", ""),
    ] {
        let lora = Peft::Lora { rank: 2, alpha: 1.0, matrices: vec![matrix] };
        let (plain, merged, named) = adapted(Linear::new(8, 6, &device()), layer, &lora, None);
        let x = input([5, 8]);
        let gain = values(merged.forward(x.clone()) - plain.forward(x.clone()));
        let base = if suffix.is_empty() { "blocks.1.attn.proj" } else { "blocks.1.mlp" };
        let of = |which: &str| &named[&format!("{base}.w_{which}_linear{suffix}.weight")];
        let expected: Vec<f32> =
            values(x).chunks_exact(8).flat_map(|x| product(of("b"), &product(of("a"), x))).collect();
        assert_close(&gain, &expected);
    }
}

/// `scale ∘ y + shift` of maps whose channels are followed by `inner` values each.
fn scaled(y: Vec<f32>, named: &Named, layer: &str, inner: usize) -> Vec<f32> {
    let of = |what: &str| &named[&format!("{layer}.{what}")].1;
    let (scale, shift) = (of("scale"), of("shift"));
    let channel = |index: usize| index / inner % scale.len();
    y.into_iter().enumerate().map(|(index, y)| scale[channel(index)] * y + shift[channel(index)]).collect()
}

#[test]
fn scales_and_shifts_merge_into_every_kind_of_layer() {
    let (plain, merged, named) = adapted(Linear::new(8, 6, &device()), "blocks.0.mlp.lin1", &Peft::Ssf, None);
    let x = input([5, 8]);
    let expected = scaled(values(plain.forward(x.clone())), &named, "blocks.0.mlp.lin1", 1);
    assert_close(&values(merged.forward(x)), &expected);

    let (plain, merged, named) = adapted(LayerNorm::new(8, 1e-6, &device()), "blocks.0.norm1", &Peft::Ssf, None);
    let x = input([5, 8]);
    let expected = scaled(values(plain.forward(x.clone())), &named, "blocks.0.norm1", 1);
    assert_close(&values(merged.forward(x)), &expected);

    let patches = Conv2d::new(3, 6, 4, &device()).with_stride(4);
    let (plain, merged, named) = adapted(patches, "patch_embed.proj", &Peft::Ssf, None);
    let x = input([1, 3, 8, 12]);
    let expected = scaled(values(plain.forward(x.clone())), &named, "patch_embed.proj", 6);
    assert_close(&values(merged.forward(x)), &expected);

    // The convolution has no bias and stays; the norm after it is changed.
    let (plain, merged, named) =
        adapted(ConvBn::new(Conv2d::new(3, 6, 3, &device())), "patch_embed.seq.2", &Peft::Ssf, None);
    assert_eq!(named.keys().collect::<Vec<_>>(), ["patch_embed.seq.2.bn.scale", "patch_embed.seq.2.bn.shift"]);
    // Variances are positive.
    let positive = |layer: ConvBn| {
        let mut layer = layer;
        layer.bn.running_var = layer.bn.running_var.map(|variance| variance + 1.0);
        layer
    };
    let x = input([1, 3, 6, 7]);
    let expected = scaled(values(positive(plain).forward(x.clone())), &named, "patch_embed.seq.2.bn", 4 * 5);
    assert_close(&values(positive(merged).forward(x)), &expected);
}

fn crop() -> Crop {
    let mut labels = Labels::zeros([CROP; 2]);
    for (object, [y0, x0, y1, x1]) in OBJECTS.into_iter().enumerate() {
        for y in y0..y1 {
            for x in x0..x1 {
                labels.as_mut_slice()[(y * CROP + x) as usize] = object as u32 + 1;
            }
        }
    }
    let noise = seeded("input/crop0", &[(CROP * CROP * 3) as usize]);
    let samples = noise.into_iter().map(|value| 127.5 + 1275.0 * value).collect();
    Crop { image: Rgb { size: [CROP; 2], samples }, labels, source: 0, targets: None }
}

fn batch() -> Batch {
    let at = |y: f32, x: f32| Prompt { points: vec![PointPrompt { y, x, positive: true }], ..Prompt::default() };
    Batch { crops: vec![crop()], rounds: vec![vec![vec![at(20.0, 30.0), at(75.0, 50.0)]]] }
}

fn vit() -> BareNetwork {
    let config = UnetrConfig { embed_channels: 32, features: [64, 32, 16, 8], ..UNETR_MICRO_SAM };
    let decoder = Unetr::new(&config, &device());
    let source = Seeded::of(&decoder, "").with_key_prefix("decoder_state/");
    let decoder = load_into(decoder, &source, "").unwrap().module;
    BareNetwork::Sam(filled(Sam::vit(&SMALL_SAM, &device())).unwrap(), Some(decoder))
}

fn tiny_vit() -> BareNetwork {
    let network = CytomaskT::new(&CYTOMASK_T, &device());
    BareNetwork::CytomaskT(CytomaskT::load(&CYTOMASK_T, &Seeded::of(&network, ""), &device()).unwrap())
}

/// The network of a checkpoint of that form.
fn loaded(network: BareNetwork, tensors: Vec<NamedTensor>) -> BareNetwork {
    let source: Named = tensors.into_iter().map(|(name, shape, values)| (name, (shape, values))).collect();
    match network {
        BareNetwork::Sam(sam, decoder) => {
            let decoder = decoder.map(|decoder| load_into(decoder, &source, cytomask_weights::DECODER_PREFIX).unwrap());
            BareNetwork::Sam(load_into(sam, &source, "").unwrap().module, decoder.map(|loaded| loaded.module))
        }
        BareNetwork::CytomaskT(network) => BareNetwork::CytomaskT(load_into(network, &source, "").unwrap().module),
        BareNetwork::CpSam(_) => panic!("not made here"),
    }
}

fn settings() -> TrainSettings {
    TrainSettings {
        gradient_norm: None,
        input_side: 160,
        crop_side: CROP,
        batch_size: 1,
        warm_up: 1,
        learning_rate: 1e-2,
        objects_per_crop: 2,
        ..TrainSettings::default()
    }
}

fn trainer(network: BareNetwork, settings: TrainSettings) -> Trainer {
    let Crop { image, labels, .. } = crop();
    let sample = Sample { path: "made.png".into(), image, labels };
    Trainer::new(network, &device(), settings, vec![sample], Vec::new()).unwrap()
}

/// The adapted network begins as the one it was made of, learns by its adapters alone, and is exported as a network that does the same
/// without them.
fn begins_at_and_merges_into(network: fn() -> BareNetwork, trained: [usize; 4]) {
    let batch = batch();
    let (plain, _) = trainer(network(), settings()).gradients_on(&batch).unwrap();
    for (peft, trained) in methods().into_iter().zip(trained) {
        let freeze = vec![Part::PromptEncoder, Part::MaskDecoder, Part::InstanceDecoder];
        let mut adapted = trainer(network(), TrainSettings { peft: Some(peft.clone()), freeze, ..settings() });
        let counts = adapted.counts();
        assert_eq!([counts.all.trained, counts.image_encoder.trained], [trained; 2], "{peft:?}");
        let (before, gradients) = adapted.gradients_on(&batch).unwrap();
        assert_eq!(before, plain, "{peft:?}");
        assert!(gradients.iter().all(|(name, _)| name.starts_with("adapters.")), "{peft:?} trains something else");
        let values: usize = gradients.iter().map(|(_, values)| values.len()).sum();
        assert_eq!(values, trained, "{peft:?}");
        for _ in 0..3 {
            adapted.step_on(&batch, 3e-3).unwrap();
        }
        let (after, _) = adapted.gradients_on(&batch).unwrap();
        assert!(after[0] + after[1] < before[0] + before[1], "{peft:?}: {after:?} {before:?}");
        let merged = trainer(loaded(network(), adapted.exported()), settings());
        assert_eq!(merged.gradients_on(&batch).unwrap().0, after, "{peft:?}");
    }
}

#[test]
fn adapters_of_a_plain_vit_begin_at_the_network_and_merge_into_it() {
    // Three blocks of 32 channels, the MLP four times as wide.
    let lora = 3 * 2 * (2 * 32 + 32 * 2);
    let other = 3 * ((2 * 32 + 32 * 2) + (2 * 32 + 32 * 2) + 2 * (2 * 32 + 128 * 2));
    let fact = 2 * 32 + 32 * 2 + 3 * 2 * (2 * 2);
    let ssf = 2 * (32 + 3 * (32 + 96 + 32 + 32 + 128 + 32));
    begins_at_and_merges_into(vit, [lora, other, fact, ssf]);
}

#[test]
fn adapters_of_tiny_vit_begin_at_the_network_and_merge_into_it() {
    let widths: Vec<usize> = [(128, 2), (160, 6), (320, 2)].iter().flat_map(|&(c, n)| vec![c; n]).collect();
    let each = |of: fn(usize) -> usize| widths.iter().map(|&c| of(c)).sum::<usize>();
    let lora = each(|c| 2 * (2 * c + c * 2));
    let other = each(|c| 2 * (2 * c + c * 2) + 2 * (2 * c + 4 * c * 2));
    let fact = [128, 160, 320].iter().map(|c| 2 * c + c * 2).sum::<usize>() + widths.len() * 2 * (2 * 2);
    // Norm, projections, local convolution, norm and MLP; two blocks of three convolutions, and both of the stem.
    let ssf = 2 * (each(|c| c + 3 * c + c + c + c + 4 * c + c) + 2 * (256 + 256 + 64) + 32 + 64);
    begins_at_and_merges_into(tiny_vit, [lora, other, fact, ssf]);
}

#[test]
fn a_resumed_run_with_adapters_goes_on_as_the_unbroken_one() {
    for peft in methods() {
        let settings = TrainSettings { peft: Some(peft.clone()), average: Some(0.9), ..settings() };
        let folder = tempfile::tempdir().unwrap();
        let mut unbroken = trainer(vit(), settings.clone());
        let before = unbroken.tensors();
        let mut reports = Vec::new();
        for step in 1..=4 {
            reports.push(unbroken.step().unwrap());
            if step == 2 {
                unbroken.save(folder.path(), None).unwrap();
            }
        }
        assert_eq!(Trainer::stored_settings(folder.path()).unwrap().as_ref(), Some(&settings));
        assert!(folder.path().join(format!("{}.safetensors", peft.name())).is_file());
        // Decoders and adapters change, nothing else of the encoder.
        let changed = |(before, after): (NamedTensor, NamedTensor)| (before.2 != after.2).then_some(before.0);
        let changed: Vec<String> = before.into_iter().zip(unbroken.tensors()).filter_map(changed).collect();
        assert!(!changed.iter().any(|name| name.contains("image_encoder.")), "{changed:?}");
        assert!(
            ["adapters.", "network.decoder.", "network.sam.mask_decoder."]
                .iter()
                .all(|part| changed.iter().any(|name| name.starts_with(part)))
        );

        let mut resumed = trainer(vit(), settings).resume(folder.path()).unwrap();
        for expected in &reports[2..] {
            let found = resumed.step().unwrap();
            assert!((found.maps - expected.maps).abs() < 1e-4, "{peft:?}: {found:?} {expected:?}");
            assert!((found.masks - expected.masks).abs() < 1e-4, "{peft:?}: {found:?} {expected:?}");
        }
        for ((name, _, found), (_, _, expected)) in resumed.exported().iter().zip(&unbroken.exported()) {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{peft:?}: {name}");
        }
    }
}
