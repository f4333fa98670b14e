//! Each operation, and whole networks, against the framework's own differentiation.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Device, GradientCheckpointingStrategy, Gradients, Tensor, TensorData, activation::sigmoid},
};
use cytomask_segment::{BoxPrompt, Prompt};

use super::{by_framework, takes};
use crate::{
    Precision,
    cytomask_t::{BoxTaps, CYTOMASK_T, CytomaskT, CytomaskTConfig},
    layers::{self, Activation, MapAttention, Positions, QkvOrder},
    loading::values,
    sam::ImageEncoder,
    seeded::{SMALL_SAM, filled, seeded},
    tiny_vit::TinyVitConfig,
    unetr::{UNETR_MICRO_SAM, Unetr, UnetrConfig, UpsamplerKind},
};

thread_local! {
    /// Whether what this thread makes up lets graphs compute again what can be.
    static RECOMPUTES: Cell<bool> = const { Cell::new(false) };
}

fn device() -> Device {
    let device = Device::flex().autodiff();
    if RECOMPUTES.get() { device.gradient_checkpointing() } else { device }
}

/// Runs something on a network that has the parts of it run again.
fn recomputing<M: Module, T>(network: &M, run: impl FnOnce(&M) -> T) -> T {
    RECOMPUTES.set(true);
    let result = run(&network.clone().map(&mut Recompute));
    RECOMPUTES.set(false);
    result
}

/// As the trainer does it.
struct Recompute;

impl ModuleMapper for Recompute {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|x| x.with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced))
    }
}

/// Seeded values in ±1.
fn made_up<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
    let values: Vec<f32> = seeded(&format!("{name}.bias"), &[shape.iter().product()]);
    Tensor::from_data(TensorData::new(values.iter().map(|value| value * 10.0).collect(), shape), &device())
}

/// Largest difference of two lists, and the largest value of the second.
fn difference(found: &[f32], expected: &[f32]) -> [f32; 2] {
    assert_eq!(found.len(), expected.len());
    let error = found.iter().zip(expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    [error, expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()))]
}

/// Values and gradients of a function of vectors of these lengths, by the loops and by the framework.
fn assert_agrees<const D: usize>(what: &str, lengths: &[usize], function: impl Fn(&[Tensor<1>]) -> Tensor<D>) {
    let run = || -> Vec<Vec<f32>> {
        let leaf = |(index, &length)| made_up::<1>(&format!("leaf{index}"), [length]).require_grad();
        let leaves: Vec<Tensor<1>> = lengths.iter().enumerate().map(leaf).collect();
        let y = function(&leaves);
        let gradients = (y.clone() * made_up("slope", y.dims())).sum().backward();
        let gradients = leaves.iter().map(|leaf| values(leaf.grad(&gradients).expect("a gradient for each leaf")));
        std::iter::once(values(y)).chain(gradients).collect()
    };
    assert!(takes(&made_up::<1>("x", [1])), "this machine has the loops");
    let (found, expected) = (run(), by_framework(run));
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let [error, most] = difference(found, expected);
        assert!(error <= 2e-5 * most.max(1.0), "{what}, {index} (0: result, then gradients): off by {error} of {most}");
    }
}

#[test]
fn linear_maps_agree() {
    for rows in [5, 131] {
        assert_agrees("linear", &[rows * 7, 9 * 7, 9], |leaves| {
            let [x, weight] = [0, 1].map(|index| leaves[index].clone().reshape([-1, 7]));
            layers::linear(x, weight, Some(leaves[2].clone()))
        });
    }
    // A view whose values lie in another order, and no bias.
    assert_agrees("turned", &[40 * 7, 9 * 7], |leaves| {
        let x = leaves[0].clone().reshape([7, 40]).transpose();
        layers::linear(x, leaves[1].clone().reshape([9, 7]), None)
    });
}

#[test]
fn convolutions_agree() {
    for (kernel, stride, padding, depthwise) in
        [(3, 1, 1, false), (1, 1, 0, false), (3, 2, 1, false), (3, 2, 1, true), (3, 1, 1, true)]
    {
        let (c_in, c_out, groups) = if depthwise { (6, 6, 6) } else { (6, 5, 1) };
        let lengths = [2 * c_in * 17 * 23, c_out * c_in / groups * kernel * kernel, c_out];
        for after in [Activation::None, Activation::Relu, Activation::Gelu] {
            let what = format!("{kernel} {stride} {padding} {depthwise} {after:?}");
            assert_agrees(&what, &lengths, |leaves| {
                let x = leaves[0].clone().reshape([2, c_in, 17, 23]);
                let weight = leaves[1].clone().reshape([c_out, c_in / groups, kernel, kernel]);
                layers::conv2d(x, weight, Some(leaves[2].clone()), stride, padding, groups, after)
            });
        }
    }
}

#[test]
fn norms_activations_and_resizing_agree() {
    assert_agrees("layer norm", &[33 * 11, 11, 11], |leaves| {
        layers::layer_norm(leaves[0].clone().reshape([3, 11, 11]), leaves[1].clone(), leaves[2].clone(), 1e-5)
    });
    assert_agrees("layer norm of pixels", &[2 * 5 * 7 * 9, 5, 5], |leaves| {
        layers::layer_norm2d(leaves[0].clone().reshape([2, 5, 7, 9]), leaves[1].clone(), leaves[2].clone(), 1e-5)
    });
    assert_agrees("instance norm", &[2 * 5 * 63, 2 * 3 * 63], |leaves| {
        layers::instance_norm(vec![leaves[0].clone().reshape([2, 5, 7, 9]), leaves[1].clone().reshape([2, 3, 7, 9])])
    });
    assert_agrees("gelu", &[700], |leaves| layers::gelu(leaves[0].clone() * 3.0));
    assert_agrees("relu", &[700], |leaves| layers::relu(leaves[0].clone()));
    // What goes into the activation is needed elsewhere too, and must not be written over.
    assert_agrees("relu beside", &[700], |leaves| layers::relu(leaves[0].clone()) + leaves[0].clone().square());
    assert_agrees("×2", &[2 * 3 * 5 * 7], |leaves| layers::upsample2(leaves[0].clone().reshape([2, 3, 5, 7])));
    assert_agrees("resized", &[2 * 3 * 5 * 7], |leaves| {
        let x = leaves[0].clone().reshape([2, 3, 5, 7]);
        layers::resize_bilinear(x.clone(), [10, 14]).sum() + layers::resize_bilinear(x, [9, 9]).square().sum()
    });
}

#[test]
fn attentions_agree() {
    assert_agrees("attention", &[2 * 3 * 20 * 8, 2 * 3 * 50 * 8, 2 * 3 * 50 * 8], |leaves| {
        let [q, k, v] = [0, 1, 2].map(|index| leaves[index].clone().reshape([2, 3, -1, 8]));
        layers::attention(q, k, v, None)
    });
    let (heads, head, h, w) = (3, 8, 9, 13);
    for (window, order) in
        [(None, QkvOrder::PartsFirst), (Some(5), QkvOrder::PartsFirst), (Some(4), QkvOrder::HeadsFirst)]
    {
        let [window_h, window_w] = window.map_or([h, w], |side| [side; 2]);
        let (tokens, channels) = (window_h * window_w, 3 * heads * head);
        let of_map = [2 * h * w * channels, channels];
        for table in [true, false] {
            let terms = if table {
                vec![heads * tokens * tokens]
            } else {
                vec![(2 * window_h - 1) * head, (2 * window_w - 1) * head]
            };
            let lengths = [of_map.to_vec(), terms].concat();
            assert_agrees(&format!("{window:?} {order:?} {table}"), &lengths, |leaves| {
                let positions = if table {
                    Positions::Table(leaves[2].clone().reshape([heads, tokens, tokens]))
                } else {
                    let [rows, columns] = [2, 3].map(|index| leaves[index].clone().reshape([-1, head as i32]));
                    Positions::Relative { rows, columns }
                };
                // Without padding the outside token is not asked, and has no gradient by the framework.
                let outside = leaves[1].clone();
                let qkv = leaves[0].clone().reshape([2, h, w, channels]);
                let unused = outside.clone().sum() * 0.0;
                let y = layers::map_attention(
                    qkv,
                    MapAttention { heads, order, window, outside: Some(outside), positions, precision: Precision::F32 },
                );
                y + unused.reshape([1, 1, 1, 1])
            });
        }
    }
}

/// Gradients of all parameters, in the module's order.
struct Collect<'a> {
    gradients: &'a Gradients,
    found: Vec<(Vec<usize>, Option<Vec<f32>>)>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        self.found.push((tensor.dims().to_vec(), tensor.grad(self.gradients).map(values)));
    }
}

/// Shape and gradient of each parameter.
type ByParameter = Vec<(Vec<usize>, Option<Vec<f32>>)>;

/// A loss and all gradients of a network, by the loops and by the framework; and with its parts run again.
fn assert_network_agrees<M: Module>(network: &M, loss: impl Fn(&M) -> Tensor<1>) {
    let run = |network: &M| {
        let loss = loss(network);
        let gradients = loss.backward();
        let mut collect = Collect { gradients: &gradients, found: Vec::new() };
        network.visit(&mut collect);
        (loss.into_scalar::<f32>(), collect.found)
    };
    let (found, expected) = (run(network), by_framework(|| run(network)));
    assert_gradients_agree(&found, &expected, 1e-4);
    assert_gradients_agree(&recomputing(network, run), &found, 1e-5);
}

fn assert_gradients_agree(found: &(f32, ByParameter), expected: &(f32, ByParameter), tolerance: f32) {
    let ((loss, found), (expected_loss, expected)) = (found, expected);
    assert!((loss - expected_loss).abs() <= 1e-5 * expected_loss.abs(), "loss {loss}, expected {expected_loss}");
    let largest = expected.iter().flat_map(|(_, values)| values.iter().flatten()).fold(0.0_f32, |a, b| a.max(b.abs()));
    let mut trained = 0;
    let mut wrong = Vec::new();
    assert_eq!(found.len(), expected.len(), "parameters");
    for (index, ((shape, found), (_, expected))) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.is_some(), expected.is_some(), "parameter {index} {shape:?}");
        if let (Some(found), Some(expected)) = (found, expected) {
            let [error, most] = difference(found, expected);
            // Sums that cancel to nothing, as those of biases before a norm, are as exact as their parts.
            if error > tolerance * most && error > 2e-6 * largest {
                wrong.push(format!("parameter {index} {shape:?}: off by {error:.2e} of {most:.2e}"));
            }
            trained += usize::from(most > 0.0);
        }
    }
    assert!(wrong.is_empty(), "{} of {trained}, largest {largest:.2e}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(trained > 5, "{trained} parameters have a gradient");
}

/// A number that all values of a map have a share in.
fn weighed<const D: usize>(name: &str, x: Tensor<D>) -> Tensor<1> {
    let slope = made_up(name, x.dims());
    (x * slope).mean()
}

#[test]
fn the_whole_of_cytomask_t_agrees() {
    let config = CytomaskTConfig {
        encoder: TinyVitConfig {
            embed_dims: [16, 32, 32, 64],
            depths: [1, 1, 2, 1],
            heads: [2, 2, 4],
            ..CYTOMASK_T.encoder
        },
        decoder_widths: [32, 24, 16, 16, 8],
        refiner_channels: 8,
        refiner_hidden: 16,
        box_width: 16,
    };
    let network = filled(CytomaskT::new(&config, &Device::flex())).unwrap().train();
    let prompts: Vec<Prompt> = (0..3)
        .map(|index| {
            let mut prompt = Prompt::point(10.0 + index as f32, 30.0);
            prompt.bounds = Some(BoxPrompt { y0: 3.0, x0: 4.0, y1: 40.0, x1: 50.0 });
            prompt
        })
        .collect();
    assert_network_agrees(&network, |network| {
        let images = made_up("images", [2, 3, 64, 96]);
        let taps = network.image_encoder.forward_with_taps(images.clone()).unwrap();
        let decoded = network.instance_decoder.forward(&taps, images);
        let boxes = network.box_decoder.as_ref().unwrap().forward(&BoxTaps::new(&taps, &decoded.f4));
        let refiner = network.mask_refiner.features(decoded.f4, decoded.f2);
        let mut loss = weighed("maps", sigmoid(decoded.map_logits)) + weighed("boxes", boxes);
        for image in 0..2 {
            let sparse = network.prompt_encoder.sparse(&prompts, [1024.0; 2]).unwrap();
            let positions = network.prompt_encoder.dense_positions([4, 6], 16, [1024.0; 2]);
            let embedding = taps.embedding.clone().narrow(0, image, 1);
            let decoded = network.mask_decoder.forward(embedding, positions, sparse, network.prompt_encoder.no_mask());
            let features = refiner.clone().narrow(0, image, 1);
            let logits = network.mask_refiner.refine(features, decoded.logits, decoded.mask_tokens);
            loss = loss + weighed("masks", sigmoid(layers::resize_bilinear(logits, [64, 96])));
            loss = loss + weighed("iou", decoded.predicted_iou);
        }
        loss
    });
}

#[test]
fn sam_and_its_instance_decoder_agree() {
    let encoder = filled(ImageEncoder::new(&SMALL_SAM.encoder, &Device::flex())).unwrap().train();
    assert_network_agrees(&encoder, |encoder| {
        weighed("embedding", encoder.forward(made_up("images", [2, 3, 96, 160])).unwrap())
    });
    for upsampler in [UpsamplerKind::Bilinear, UpsamplerKind::Transposed] {
        let config = UnetrConfig { embed_channels: 32, features: [32, 16, 8, 4], upsampler, ..UNETR_MICRO_SAM };
        let decoder = filled(Unetr::new(&config, &Device::flex())).unwrap().train();
        // Small maps: processors round differently, and in a large one some value lies so near a ReLU's kink that its sign turns and the
        // gradients jump.
        assert_network_agrees(&decoder, |decoder| {
            weighed("maps", decoder.forward(made_up("embedding", [2, 32, 2, 3])).unwrap())
        });
    }
}

#[test]
fn a_part_is_run_again_where_checkpointing_is_on() {
    let norm = filled(layers::LayerNorm::new(7, 1e-5, &Device::flex())).unwrap().train();
    let runs = |norm: &layers::LayerNorm| {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let y = layers::recomputed(norm, [made_up("x", [5, 7])], move |norm, [x]| {
            counted.fetch_add(1, Ordering::Relaxed);
            norm.forward(x)
        });
        let there = count.load(Ordering::Relaxed);
        assert!(norm.weight.val().grad(&y.sum().backward()).is_some());
        [there, count.load(Ordering::Relaxed)]
    };
    assert_eq!(runs(&norm), [1, 1]);
    assert_eq!(recomputing(&norm, runs), [1, 2]);
}

/// Holds every third parameter fixed.
struct Fix {
    next: usize,
}

impl ModuleMapper for Fix {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.next += 1;
        if self.next.is_multiple_of(3) { param.set_require_grad(false) } else { param }
    }
}

/// With parameters held fixed, with one that is computed as with LoRA, and with an input that gradients are wanted for, through parts
/// of one input and of two.
#[test]
fn parts_run_again_lose_no_gradient() {
    let encoder = filled(ImageEncoder::new(&SMALL_SAM.encoder, &Device::flex())).unwrap();
    let config = UnetrConfig { embed_channels: 32, features: [32, 16, 8, 4], ..UNETR_MICRO_SAM };
    let decoder = filled(Unetr::new(&config, &Device::flex())).unwrap();
    let trained = (encoder, decoder).train();
    let run = |network: &(ImageEncoder, Unetr)| {
        let mut network = network.clone();
        let (image, update) = (made_up("image", [2 * 3 * 96, 160]).require_grad(), made_up("update", [96, 32]));
        let update = update.require_grad();
        let weight = &mut network.0.blocks[1].attn.qkv.weight;
        *weight = weight.clone().map(|weight| weight + update.clone() * 0.1);
        let x = image.clone().reshape([2, 3, 96, 160]);
        let loss = weighed("maps", network.1.forward(network.0.forward(x).unwrap()).unwrap());
        let gradients = loss.backward();
        let mut collect = Collect { gradients: &gradients, found: Vec::new() };
        network.visit(&mut collect);
        for leaf in [image, update] {
            let found = leaf.grad(&gradients).expect("a gradient of the leaf");
            collect.found.push((leaf.dims().to_vec(), Some(values(found))));
        }
        (loss.into_scalar::<f32>(), collect.found)
    };
    for first in 0..4 {
        // At last the whole encoder: gradients flow through it to the image all the same.
        let fixed = match first {
            3 => (trained.0.clone().no_grad(), trained.1.clone()),
            _ => trained.clone().map(&mut Fix { next: first }),
        };
        assert_gradients_agree(&recomputing(&fixed, run), &run(&fixed), 1e-5);
    }
}
