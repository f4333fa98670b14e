use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use cytomask_image::{LogitFrame, Rgb};
use cytomask_segment::{BoxPrompt, FieldModel, PointPrompt, Prompt, PromptModel};

use super::{CYTOMASK_T, CytomaskT, CytomaskTConfig, CytomaskTOptions, ScaleChoice, box_decoder::proposed_boxes};
use crate::{
    ErrorKind,
    golden::{Golden, network_input},
    loading::load_into,
    seeded::{Seeded, seeded},
};

fn seeded_model(options: CytomaskTOptions) -> CytomaskT {
    let model = CytomaskT::new(&CYTOMASK_T, &Device::flex());
    let source = Seeded::of(&model, "");
    CytomaskT::load(&CYTOMASK_T, &source, &Device::flex()).unwrap().with_options(options)
}

fn fixed(scale: f32) -> CytomaskTOptions {
    CytomaskTOptions { scale: ScaleChoice::Fixed(scale), ..CytomaskTOptions::default() }
}

fn image([h, w]: [u32; 2]) -> Rgb {
    let samples =
        seeded("input/rgb", &[(h * w * 3) as usize]).into_iter().map(|value| 127.5 + 1275.0 * value).collect();
    Rgb { size: [h, w], samples }
}

/// All values of the candidates of one prompt as one tensor.
fn joined(candidates: &[cytomask_segment::Candidate]) -> Tensor<1> {
    let numbers: Vec<f32> = candidates.iter().flat_map(|candidate| candidate.logits.values.clone()).collect();
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), &Device::flex())
}

#[test]
fn stages_equal_the_training_code() {
    let device = Device::flex();
    let model = seeded_model(fixed(1.0));
    let golden = Golden::open("cytomask_t.safetensors");
    let size = [96, 160];
    let frame = LogitFrame { padded: size, input: size, image: size };
    let pixels = network_input("input/cytomask_t", [1, 3, 96, 160], &device);
    let taps = model.image_encoder.forward_with_taps(pixels.clone()).unwrap();
    let decoded = model.instance_decoder.forward(&taps, pixels.clone());
    golden.check("embedding", taps.embedding);
    golden.check("f4", decoded.f4);
    golden.check("f2", decoded.f2);
    let embedding = model.encode_tensor(pixels, frame).unwrap();
    golden.check("maps", embedding.maps.clone());
    golden.check("g", embedding.refiner_features.clone());
    golden.check("boxes", model.box_decoder.as_ref().unwrap().forward(&embedding.box_taps));

    let prompts = [
        ("point", Prompt::point(31.0, 40.0)),
        (
            "two_points",
            Prompt {
                points: vec![
                    PointPrompt { y: 20.25, x: 100.5, positive: true },
                    PointPrompt { y: 80.0, x: 30.0, positive: false },
                ],
                ..Prompt::default()
            },
        ),
        ("box", Prompt::bounds(BoxPrompt { y0: 20.0, x0: 12.0, y1: 70.0, x1: 90.0 })),
    ];
    for (name, prompt) in prompts {
        let prompts = [prompt];
        let mut candidates = model.decode(&embedding, &prompts, false).unwrap().remove(0);
        candidates.extend(model.decode(&embedding, &prompts, true).unwrap().remove(0));
        assert_eq!(candidates.len(), 4);
        assert_eq!(candidates[0].logits.grid, [48, 80]);
        let scores: Vec<f32> = candidates.iter().map(|candidate| candidate.predicted_iou).collect();
        golden.check(&format!("{name}/iou"), Tensor::<1>::from_data(TensorData::new(scores, [4]), &device));
        golden.check(&format!("{name}/refined"), joined(&candidates));
    }
}

#[test]
fn batches_keep_the_order_of_prompts_of_different_form() {
    let model = seeded_model(CytomaskTOptions { prompt_batch: 2, ..fixed(1.0) });
    let embedding = model.encode(&image([61, 40])).unwrap();
    assert_eq!(embedding.frame, LogitFrame { padded: [64, 64], input: [61, 40], image: [61, 40] });
    let mut prompts: Vec<Prompt> = (0..3).map(|index| Prompt::point(10.0 * index as f32, 20.0)).collect();
    prompts.insert(1, Prompt::bounds(BoxPrompt { y0: 3.0, x0: 4.0, y1: 30.0, x1: 31.0 }));
    let alone = model.decode(&embedding, &prompts[3..], true).unwrap();
    let first = Arc::new(alone[0][0].logits.clone());
    prompts.push(Prompt { mask: Some(first), ..Prompt::point(20.0, 20.0) });
    let together = model.decode(&embedding, &prompts, true).unwrap();
    assert_eq!(together.iter().map(Vec::len).collect::<Vec<_>>(), [3; 5]);
    let difference = (joined(&together[3]) - joined(&alone[0])).abs().max().into_scalar::<f32>();
    assert!(difference < 1e-4, "{difference}");
    // A mask prompt changes the answer to the same point.
    let difference = (joined(&together[4]) - joined(&alone[0])).abs().max().into_scalar::<f32>();
    assert!(difference > 1e-2, "{difference}");
}

#[test]
fn fields_and_masks_lie_on_the_image_at_any_scale() {
    let rgb = image([97, 131]);
    for (scale, input, padded) in
        [(1.0, [97, 131], [128, 160]), (2.0, [194, 262], [224, 288]), (0.5, [49, 66], [64, 96])]
    {
        let model = seeded_model(fixed(scale));
        let embedding = model.encode(&rgb).unwrap();
        assert_eq!(embedding.frame, LogitFrame { padded, input, image: [97, 131] });
        let fields = model.fields(&embedding).unwrap();
        assert_eq!(fields.size, [97, 131]);
        for map in [&fields.foreground, &fields.center_distance, &fields.boundary_distance] {
            assert_eq!(map.len(), 97 * 131);
            assert!(map.iter().all(|value| (0.0..=1.0).contains(value)));
        }
        let decoded = model.decode(&embedding, &[Prompt::point(96.0, 130.0)], false).unwrap();
        assert_eq!(decoded[0][0].logits.grid, padded.map(|side: u32| side / 2));
    }
}

#[test]
fn boxes_lie_on_the_image_at_any_scale() {
    // A cell in row 3 and column 5 sees an object of 8 to the left, 4 up, 16 to the right and 12 down.
    let (h, w) = (16, 24);
    let device = Device::flex();
    let mut raw = vec![0.0_f32; 5 * h * w];
    for (channel, value) in [(1, 0.5_f32), (2, 0.25), (3, 1.0), (4, 0.75)] {
        raw[channel * h * w..(channel + 1) * h * w].fill(value.ln());
    }
    raw[..h * w].fill(-9.0);
    raw[3 * w + 5] = 3.0;
    // Beyond the image, in the padding.
    raw[15 * w + 3] = 3.0;
    let raw = Tensor::from_data(TensorData::new(raw, [1, 5, h, w]), &device);
    let at = |image| LogitFrame { padded: [64, 96], input: [60, 90], image };
    let found = proposed_boxes(raw.clone(), &at([60, 90]));
    assert_eq!(found.len(), 1);
    // The middle of the cell is at 14 and 22 from the outer edges.
    let BoxPrompt { y0, x0, y1, x1 } = found[0].bounds;
    assert!([(y0, 10.0), (x0, 14.0), (y1, 25.0), (x1, 37.0)].iter().all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
    assert_eq!(found[0].point, [14, 22]);
    assert!((found[0].score - 0.9526).abs() < 1e-4);
    // The network saw the image enlarged to twice its size: a prompt comes back to the same pixels of the input.
    let found = proposed_boxes(raw, &at([30, 45]));
    let prompt = super::model::in_input_frame(&Prompt::bounds(found[0].bounds), &at([30, 45]));
    let BoxPrompt { y0, x0, y1, x1 } = prompt.bounds.unwrap();
    assert!([(y0, 10.0), (x0, 14.0), (y1, 25.0), (x1, 37.0)].iter().all(|(a, b)| (a - b).abs() < 1e-4), "{prompt:?}");
    assert_eq!(found[0].point, [7, 11]);
}

#[test]
fn a_model_of_earlier_versions_proposes_no_boxes() {
    let mut whole = CytomaskT::new(&CYTOMASK_T, &Device::flex());
    whole.box_decoder = None;
    let source = Seeded::of(&whole, "");
    let model = CytomaskT::load(&CYTOMASK_T, &source, &Device::flex()).unwrap().with_options(fixed(1.0));
    assert!(model.box_decoder.is_none());
    assert!(model.boxes(&model.encode(&image([33, 33])).unwrap()).unwrap().is_none());
}

/// The same scene at 1× and, enlarged beforehand, at ½: the network sees the same pixels, and a prompt must reach the same place.
#[test]
fn prompts_follow_the_scale() {
    let small = image([64, 64]);
    let large = small.resize([128, 128]);
    let (whole, half) = (seeded_model(fixed(1.0)), seeded_model(fixed(2.0)));
    let (at_whole, at_half) = (whole.encode(&large).unwrap(), half.encode(&small).unwrap());
    let expected = whole.decode(&at_whole, &[Prompt::point(40.5, 20.5)], false).unwrap();
    let found = half.decode(&at_half, &[Prompt::point(20.0, 10.0)], false).unwrap();
    let difference = (joined(&expected[0]) - joined(&found[0])).abs().max().into_scalar::<f32>();
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let model = seeded_model(CytomaskTOptions { max_side: 100, ..fixed(1.0) });
    let kind = |result: Result<super::CytomaskTEmbedding, crate::Error>| result.unwrap_err().kind();
    assert_eq!(kind(model.encode(&image([97, 131]))), ErrorKind::Unsupported);
    assert_eq!(kind(model.encode_at(&image([9, 9]), 0.0)), ErrorKind::Value);
    assert_eq!(kind(model.encode_at(&image([9, 9]), f32::NAN)), ErrorKind::Value);
    assert_eq!(kind(model.encode(&Rgb { size: [0, 5], samples: Vec::new() })), ErrorKind::Shape);
    assert_eq!(kind(model.encode(&Rgb { size: [2, 5], samples: vec![0.0; 10] })), ErrorKind::Shape);

    let embedding = model.encode(&image([1, 1])).unwrap();
    let refused = |prompt: Prompt| model.decode(&embedding, &[prompt], true).unwrap_err();
    assert_eq!(refused(Prompt::default()).kind(), ErrorKind::Value);
    assert_eq!(refused(Prompt::point(f32::NAN, 0.0)).kind(), ErrorKind::Value);
    assert!(model.decode(&embedding, &[], true).unwrap().is_empty());

    let other = model.encode(&image([40, 40])).unwrap();
    let foreign = model.decode(&other, &[Prompt::point(1.0, 1.0)], false).unwrap().remove(0).remove(0).logits;
    assert_eq!(refused(Prompt { mask: Some(Arc::new(foreign)), ..Prompt::default() }).kind(), ErrorKind::Shape);
}

#[test]
fn a_tensor_without_place_is_named() {
    let device = Device::flex();
    let config = CytomaskTConfig { decoder_widths: [8, 8, 8, 8, 8], ..CYTOMASK_T };
    // Everything of the narrow model, under names of the wide one.
    let source = Seeded::of(&CytomaskT::new(&config, &device), "");
    let error = CytomaskT::load(&CYTOMASK_T, &source, &device).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert!(error.to_string().contains("instance_decoder"), "{error}");
    let whole = Seeded::of(&CytomaskT::new(&CYTOMASK_T, &device), "");
    let encoder = load_into(crate::tiny_vit::TinyVit::new(&CYTOMASK_T.encoder, &device), &whole, "image_encoder.");
    assert!(encoder.unwrap().unused.is_empty());
}
