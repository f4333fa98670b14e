//! The GPU path on a software Vulkan driver: tiny networks give the CPU's numbers. Run by `bench/wgpu.sh`.
#![cfg(all(feature = "wgpu", feature = "flex"))]

use burn::tensor::{Device, Tensor, TensorData};
use cytomask_models::DeviceChoice;
use cytomask_models::cytomask_t::{CYTOMASK_T, InstanceDecoder};
use cytomask_models::loading::values;
use cytomask_models::sam::Sam;
use cytomask_models::seeded::{SMALL_SAM, filled, seeded};
use cytomask_models::tiny_vit::{TinyVit, VIT_T};
use cytomask_models::unetr::{UNETR_MICRO_SAM, Unetr, UnetrConfig};
use cytomask_segment::{BoxPrompt, PointPrompt, Prompt};

/// Two devices sum in other orders.
const TOLERANCE: f32 = 1e-3;

fn image(side: usize, device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(seeded("input/image", &[3 * side * side]), [1, 3, side, side]), device)
}

#[track_caller]
#[expect(clippy::print_stdout, reason = "the differences are what one runs this for")]
fn agree(what: &str, run: impl Fn(&Device) -> Vec<f32>) {
    let [cpu, gpu] =
        [DeviceChoice::Cpu, DeviceChoice::Wgpu].map(|choice| run(&choice.open().expect("the device opens")));
    assert_eq!(cpu.len(), gpu.len(), "{what}");
    let largest = cpu.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let difference = cpu.iter().zip(&gpu).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    println!("{what}: relative difference {}", difference / largest);
    assert!(difference <= TOLERANCE * largest, "{what}: {difference} of {largest}");
}

#[test]
#[ignore = "needs a Vulkan driver; run by bench/wgpu.sh"]
fn sam_on_wgpu_equals_sam_on_the_cpu() {
    agree("SAM: masks and IoU of a point with a box", |device| {
        let sam = filled(Sam::vit(&SMALL_SAM, device)).unwrap();
        let embedding = sam.image_encoder.forward(image(160, device)).unwrap();
        let prompt = Prompt {
            points: vec![PointPrompt { y: 70.0, x: 60.0, positive: true }],
            bounds: Some(BoxPrompt { y0: 40.0, x0: 30.0, y1: 100.0, x1: 90.0 }),
            mask: None,
        };
        let decoded = sam.decode(embedding.clone(), [160, 160], &[prompt], None).unwrap();
        [values(embedding), values(decoded.logits), values(decoded.predicted_iou)].concat()
    });
}

#[test]
#[ignore = "needs a Vulkan driver; run by bench/wgpu.sh"]
fn decoders_and_tiny_vit_on_wgpu_equal_those_on_the_cpu() {
    let unetr = UnetrConfig { embed_channels: 8, features: [32, 16, 8, 4], ..UNETR_MICRO_SAM };
    agree("UNETR: maps", |device| {
        let decoder = filled(Unetr::new(&unetr, device)).unwrap();
        let embedding = TensorData::new(seeded("input/embedding", &[8 * 4 * 6]), [1, 8, 4, 6]);
        values(decoder.forward(Tensor::from_data(embedding, device)).unwrap())
    });
    agree("TinyViT and the slim decoder: map logits", |device| {
        let encoder = filled(TinyVit::new(&VIT_T, device)).unwrap();
        let decoder = filled(InstanceDecoder::new(&CYTOMASK_T, device)).unwrap();
        let input = image(64, device);
        let taps = encoder.forward_with_taps(input.clone()).unwrap();
        values(decoder.forward(&taps, input).map_logits)
    });
}
