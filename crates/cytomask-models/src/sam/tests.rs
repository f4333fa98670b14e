//! Against `segment_anything` (`parity/sam.py`), and what only this implementation promises.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use cytomask_image::{LogitFrame, LogitMap, Rgb};
use cytomask_segment::{BoxPrompt, FieldModel, PointPrompt, Prompt, PromptModel};

use super::{model::Encoder, *};
use crate::{
    DeviceChoice, ErrorKind,
    golden::{Golden, TOLERANCE, network_input},
    layers::{join_windows, partition_windows, relative_attention, relative_attention_by_channels},
    loading::{load_into, values},
    seeded::{SMALL_SAM, Seeded, filled, seeded},
};

const SIDE: usize = SMALL_SAM.encoder.trained_side;

fn device() -> Device {
    DeviceChoice::Cpu.open().unwrap()
}

fn small() -> Sam {
    filled(Sam::vit(&SMALL_SAM, &device())).unwrap()
}

fn tensor<const D: usize>(key: &str, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(burn::tensor::TensorData::new(seeded(key, &shape), shape), &device())
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= TOLERANCE * largest, "found {found}, expected {expected}");
    }
}

fn point(x: f32, y: f32, positive: bool) -> PointPrompt {
    PointPrompt { y, x, positive }
}

#[test]
fn image_encoder_matches_reference_after_each_block() {
    let golden = Golden::open("sam_small.safetensors");
    let Encoder::Vit(encoder) = small().image_encoder else { panic!("a vision transformer was built") };
    let image = network_input("input/image", [1, 3, SIDE, SIDE], &device());
    let mut x = encoder.tokens(image.clone()).unwrap();
    golden.check("patch_embed", x.clone() - encoder.pos_embed.val());
    for (index, block) in encoder.blocks.iter().enumerate() {
        x = block.forward(x);
        golden.check(&format!("block{index}"), x.clone());
    }
    golden.check("embedding", encoder.neck.forward(x));
    golden.check("embedding", encoder.forward(image).unwrap());
}

#[test]
fn prompts_and_masks_match_reference() {
    let golden = Golden::open("sam_small.safetensors");
    let sam = small();
    let embedding = sam.image_encoder.forward(network_input("input/image", [1, 3, SIDE, SIDE], &device())).unwrap();
    let extent = [SIDE as f32; 2];
    golden.check("dense_positions", sam.prompt_encoder.dense_positions([10, 10], 16, extent));

    let boxes = [[12.0, 20.0, 90.0, 70.5], [100.0, 3.0, 159.0, 80.0]].map(|xyxy| Some(BoxPrompt::from_xyxy(xyxy)));
    let one = [vec![point(40.0, 31.5, true)], vec![point(0.0, 159.0, true)]];
    let two = [
        vec![point(40.0, 31.5, true), point(90.25, 20.0, false)],
        vec![point(12.0, 100.0, false), point(70.0, 71.0, true)],
    ];
    let none = [vec![], vec![]];
    let masks = network_input("input/mask", [2, 1, 40, 40], &device());
    let cases = [
        ("point", &one, [None; 2], None),
        ("points", &two, [None; 2], None),
        ("box", &none, boxes, None),
        ("point_box", &one, boxes, None),
        ("mask", &one, [None; 2], Some(masks)),
    ];
    for (name, points, bounds, masks) in cases {
        let prompts: Vec<Prompt> = points
            .iter()
            .zip(bounds)
            .map(|(points, bounds)| Prompt { points: points.clone(), bounds, mask: None })
            .collect();
        golden.check(&format!("{name}/sparse"), sam.prompt_encoder.sparse(&prompts, extent).unwrap());
        if let Some(masks) = &masks {
            golden.check(&format!("{name}/dense"), sam.prompt_encoder.masks(masks.clone()));
        }
        let decoded = sam.decode(embedding.clone(), [SIDE as u32; 2], &prompts, masks).unwrap();
        assert_eq!(decoded.mask_tokens.dims(), [2, 4, 32]);
        golden.check(&format!("{name}/logits"), decoded.logits);
        golden.check(&format!("{name}/iou"), decoded.predicted_iou);
    }
}

#[test]
#[ignore = "full size: two gigabytes and ten seconds; needs fixtures/sam_vit_b_1024.safetensors from `parity/sam.py --full`"]
fn vit_b_at_1024_matches_reference() {
    let golden = Golden::open("sam_vit_b_1024.safetensors");
    let encoder = ImageEncoder::new(&VIT_B.encoder, &device());
    let source = Seeded::of(&encoder, "image_encoder.");
    let encoder = load_into(encoder, &source, "image_encoder.").unwrap().module;
    let embedding = encoder.forward(network_input("input/image", [1, 3, 1024, 1024], &device())).unwrap();
    golden.check("embedding", embedding);
}

/// Softmax attention spelled out for one head: every logit is the scaled product plus the two relative terms.
fn slow_relative_attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    tables: [&[f32]; 2],
    [h, w]: [usize; 2],
    head: usize,
) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let mut out = Vec::new();
    for query in 0..h * w {
        let (y, x) = (query / w, query % w);
        let q = &q[query * head..][..head];
        let weights: Vec<f64> = (0..h * w)
            .map(|key| {
                let (other_y, other_x) = (key / w, key % w);
                let logit = dot(q, &k[key * head..][..head]) / (head as f64).sqrt()
                    + dot(q, &tables[0][(y * h + other_y) * head..][..head])
                    + dot(q, &tables[1][(x * w + other_x) * head..][..head]);
                logit.exp()
            })
            .collect();
        let total: f64 = weights.iter().sum();
        for channel in 0..head {
            let sum: f64 = weights.iter().enumerate().map(|(key, p)| p * f64::from(v[key * head + channel])).sum();
            out.push((sum / total) as f32);
        }
    }
    out
}

#[test]
fn relative_attention_equals_its_slow_twin() {
    let ([h, w], heads, head) = ([3, 5], 2, 4);
    let parts = ["q", "k", "v"].map(|key| tensor(key, [2, heads, h * w, head]) * 3.0);
    let tables = [tensor("h", [h, h, head]), tensor("w", [w, w, head])];
    let [q, k, v] = parts.clone();
    let found = values(relative_attention(q, k, v, tables[0].clone(), tables[1].clone()));
    let parts = parts.map(values);
    let tables = tables.map(values);
    for (index, found) in found.chunks_exact(h * w * head).enumerate() {
        let [q, k, v] = [0, 1, 2].map(|part| &parts[part][index * h * w * head..][..h * w * head]);
        assert_close(found, &slow_relative_attention(q, k, v, [&tables[0], &tables[1]], [h, w], head));
    }
}

/// The CPU has its own loop; other devices take the framework's attention.
#[cfg(feature = "flex")]
#[test]
fn both_ways_of_relative_attention_agree() {
    for ([h, w], batch) in [([5, 7], 6), ([48, 50], 3)] {
        let tokens = h * w;
        let parts = ["q", "k", "v"].map(|key| tensor(key, [batch, tokens, 8]));
        let terms = [tensor("h", [batch, tokens, h]), tensor("w", [batch, tokens, w])];
        let expected = relative_attention_by_channels(parts.clone(), terms.clone(), 0.35);
        assert_close(&values(crate::cpu::relative_attention(parts, terms, 0.35)), &values(expected));
    }
}

/// The CPU shares what prompts have in common and moves projections to the tokens' side; gradients and other devices take the
/// steps as they are written down.
#[cfg(feature = "flex")]
#[test]
fn both_ways_of_decoding_agree() {
    let sam = small();
    let extent = [SIDE as f32; 2];
    let (bounds, masks) = (Some(BoxPrompt { y0: 10.0, x0: 20.0, y1: 60.0, x1: 90.0 }), tensor("masks", [2, 1, 28, 44]));
    let prompts = [Prompt { bounds, ..Prompt::point(40.0, 31.0) }, Prompt { bounds, ..Prompt::point(7.0, 99.0) }];
    let embedding = tensor("embedding", [1, 32, 7, 11]);
    let positions = sam.prompt_encoder.dense_positions([7, 11], 16, extent);
    let sparse = sam.prompt_encoder.sparse(&prompts, extent).unwrap();
    let check = |found: DecodedMasks, expected: DecodedMasks, masks: std::ops::Range<usize>| {
        assert_close(&values(found.logits), &values(expected.logits.slice_dim(1, masks.clone())));
        assert_close(&values(found.predicted_iou), &values(expected.predicted_iou.slice_dim(1, masks.clone())));
        assert_close(&values(found.mask_tokens), &values(expected.mask_tokens.slice_dim(1, masks)));
    };
    for dense in [sam.prompt_encoder.no_mask(), sam.prompt_encoder.masks(masks)] {
        let decoder = &sam.mask_decoder;
        let plain = || decoder.forward(embedding.clone(), positions.clone(), sparse.clone(), dense.clone());
        let image = decoder.prepare(embedding.clone(), positions.clone(), dense.clone());
        assert_eq!(image.images(), dense.dims()[0]);
        let image_of = if image.images() == 1 { [0, 0] } else { [0, 1] };
        for masks in [0..1, 1..4, 0..4] {
            check(decoder.decode(&image, &image_of, sparse.clone(), masks.clone()), plain(), masks);
        }
    }
    // A window is an image of its own.
    let no_mask = sam.prompt_encoder.no_mask();
    let image = sam.mask_decoder.prepare(embedding.clone(), positions.clone(), no_mask.clone());
    let found = sam.mask_decoder.decode(&image.windows(&[[0, 2], [3, 5]], [4, 6]), &[1, 0], sparse.clone(), 0..4);
    let window = |map: &Tensor<4>, y: usize, x: usize| map.clone().narrow(2, y, 4).narrow(3, x, 6);
    for (prompt, (y, x)) in [(3, 5), (0, 2)].into_iter().enumerate() {
        let (embedding, positions) = (window(&embedding, y, x), window(&positions, y, x));
        let sparse = sparse.clone().narrow(0, prompt, 1);
        let expected = sam.mask_decoder.forward(embedding, positions, sparse, no_mask.clone());
        let of_prompt = found.logits.clone().narrow(0, prompt, 1);
        assert_close(&values(of_prompt), &values(expected.logits));
    }
}

#[test]
fn windows_join_to_what_was_cut() {
    let x = tensor("x", [2, 7, 9, 3]);
    let windows = partition_windows(x.clone(), 4);
    assert_eq!(windows.dims(), [2 * 2 * 3, 4, 4, 3]);
    // The second window of the first row starts at column 4.
    assert_eq!(
        values(windows.clone().slice([1..2, 0..1, 0..1, 0..3])),
        values(x.clone().slice([0..1, 0..1, 4..5, 0..3]))
    );
    assert_eq!(values(join_windows(windows, [7, 9])), values(x));
}

#[test]
fn other_input_sizes_resample_positions() {
    let Encoder::Vit(encoder) = small().image_encoder else { panic!("a vision transformer was built") };
    let embedding = encoder.forward(network_input("input/other", [1, 3, 96, 128], &device())).unwrap();
    assert_eq!(embedding.dims(), [1, 32, 6, 8]);
    assert!(values(embedding).iter().all(|value| value.is_finite()));
    let error = encoder.forward(Tensor::zeros([1, 3, 97, 131], &device())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert!(error.to_string().contains("97"), "{error}");
}

#[test]
fn a_batch_answers_as_its_prompts_do_alone() {
    let predictor = predictor();
    let embedding = predictor.encode(&image()).unwrap();
    let mask = LogitMap { grid: [40, 40], values: seeded("mask", &[40, 40]), frame: embedding.frame };
    let bounds = Some(BoxPrompt { y0: 10.0, x0: 20.0, y1: 60.0, x1: 90.0 });
    let prompts = [
        Prompt::point(40.0, 31.0),
        Prompt { bounds, ..Prompt::default() },
        Prompt::point(90.0, 12.0),
        Prompt { bounds, ..Prompt::point(40.0, 31.0) },
        Prompt { mask: Some(Arc::new(mask)), ..Prompt::point(40.0, 31.0) },
        Prompt::point(5.0, 120.0),
        Prompt::point(50.0, 60.0),
        Prompt { points: vec![point(31.0, 40.0, true), point(9.0, 9.0, false)], ..Prompt::default() },
    ];
    let together = predictor.decode(&embedding, &prompts, true).unwrap();
    assert_eq!(together.len(), prompts.len());
    for (prompt, found) in prompts.iter().zip(&together) {
        let alone = predictor.decode(&embedding, std::slice::from_ref(prompt), true).unwrap();
        assert_eq!((found.len(), alone[0].len()), (3, 3));
        for (found, alone) in found.iter().zip(&alone[0]) {
            assert_close(&found.logits.values, &alone.logits.values);
            assert!((found.predicted_iou - alone.predicted_iou).abs() < TOLERANCE);
            assert_eq!(found.logits.grid, [40, 40]);
            assert_eq!(found.logits.to_image().len(), 97 * 131);
        }
    }
    // Prompts differ, so must their answers: a mixed-up order would show.
    assert!(together[0][0].logits.values != together[2][0].logits.values);
    assert!(together[0][0].logits.values != together[4][0].logits.values);
    assert_eq!(predictor.decode(&embedding, &prompts[..1], false).unwrap()[0].len(), 1);
    assert!(predictor.decode(&embedding, &[], false).unwrap().is_empty());
}

fn image() -> Rgb {
    let samples = seeded("rgb", &[97 * 131 * 3]).iter().map(|value| (value * 1000.0 + 127.0).round()).collect();
    Rgb { size: [97, 131], samples }
}

fn predictor() -> SamPredictor {
    let options = SamOptions { input_side: SIDE as u32, prompt_batch: 2 };
    SamPredictor::new(small(), None, options, device()).unwrap()
}

#[test]
fn predictor_scales_images_and_prompts() {
    let predictor = predictor();
    let embedding = predictor.encode(&image()).unwrap();
    // 160 / 131 of 97 rows is 118.47.
    assert_eq!(embedding.frame, LogitFrame { padded: [160, 160], input: [118, 160], image: [97, 131] });
    assert_eq!(embedding.features.dims(), [1, 32, 10, 10]);
    let by_hand = Prompt::point(40.0 * 118.0 / 97.0, 31.0 * 160.0 / 131.0);
    let expected = predictor.sam().decode(embedding.features.clone(), [160, 160], &[by_hand], None).unwrap();
    let found = predictor.decode(&embedding, &[Prompt::point(40.0, 31.0)], false).unwrap();
    assert_close(&found[0][0].logits.values, &values(expected.logits.slice_dim(1, 0..1)));
}

#[test]
fn what_cannot_be_done_is_said() {
    let predictor = predictor();
    let embedding = predictor.encode(&image()).unwrap();
    let error = predictor.fields(&embedding).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("no instance decoder"), "{error}");
    let mask = LogitMap { grid: [4, 4], values: vec![0.0; 16], frame: embedding.frame };
    let prompt = Prompt { mask: Some(Arc::new(mask)), ..Prompt::default() };
    assert_eq!(predictor.decode(&embedding, &[prompt], false).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(predictor.encode(&Rgb { size: [0, 3], samples: vec![] }).unwrap_err().kind(), ErrorKind::Shape);
    let mixed = [Prompt::point(1.0, 1.0), Prompt::default()];
    assert_eq!(predictor.sam().prompt_encoder.sparse(&mixed, [160.0; 2]).unwrap_err().kind(), ErrorKind::Value);
    let options = SamOptions { input_side: 100, ..SamOptions::default() };
    assert_eq!(SamPredictor::new(small(), None, options, device()).unwrap_err().kind(), ErrorKind::Value);
}

#[test]
fn names_and_shapes_are_those_of_the_released_checkpoint() {
    let sam = Sam::vit(&VIT_B, &device());
    let shapes = crate::loading::state_shapes(&sam, "");
    assert_eq!(shapes.len(), 314);
    // The published counts leave out the fixed matrix of the positions.
    let parameters = |shapes: &[(String, Vec<usize>)]| {
        let trained = shapes.iter().filter(|(name, _)| !name.ends_with("positional_encoding_gaussian_matrix"));
        trained.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>()
    };
    assert_eq!(parameters(&shapes), 93_735_472);
    for (config, tensors, count) in [(&VIT_L, 482, 312_342_832), (&VIT_H, 594, 641_090_608)] {
        let shapes = crate::loading::state_shapes(&Sam::vit(config, &device()), "");
        assert_eq!(shapes.len(), tensors);
        assert_eq!(parameters(&shapes), count);
    }
    for name in [
        "image_encoder.blocks.11.attn.rel_pos_h",
        "image_encoder.neck.2.weight",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "prompt_encoder.mask_downscaling.6.bias",
        "mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.weight",
        "mask_decoder.output_upscaling.3.bias",
        "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight",
    ] {
        assert!(shapes.iter().any(|(known, _)| known == name), "{name}");
    }
}
