//! Agreement with Pillow, torch, numpy and micro_sam on files written by `parity/*.py`.

use cytomask_image::{Image, LogitFrame, LogitMap, Normalization, Rgb, resize_bilinear};
use safetensors::{Dtype, SafeTensors};

/// Of the largest value. torch rounds differently from kernel to kernel (it fuses multiplications with additions, and small outputs
/// take a kernel of their own): source coordinates below 64 may be off by 2⁻¹⁸, antialiasing weights are kept in `f32`.
const ROUNDING: f32 = 4e-6;

struct Fixture(Vec<u8>);

impl Fixture {
    fn open(name: &str) -> Self {
        let path = format!("{}/../../fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self(std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    /// Shape and samples, widened to `f32`.
    fn get(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        let data = tensor.data();
        let values = match tensor.dtype() {
            Dtype::U8 => data.iter().map(|&byte| f32::from(byte)).collect(),
            Dtype::U16 => data.chunks_exact(2).map(|b| f32::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
            Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            other => panic!("{name}: {other:?}"),
        };
        (tensor.shape().to_vec(), values)
    }

    fn image(&self, name: &str) -> Image {
        let (shape, values) = self.get(name);
        let channels = shape.get(2).map_or(1, |&channels| channels as u32);
        Image::from_samples([shape[0] as u32, shape[1] as u32], channels, values).unwrap()
    }
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(difference <= ROUNDING * largest, "{what}: {found} instead of {expected} at {index}");
    }
}

#[test]
fn resizing_to_the_longest_side_equals_pillow_bit_for_bit() {
    let fixture = Fixture::open("resize");
    let image = fixture.image("input").to_rgb(Normalization::EightBit).unwrap();
    for target in [64, 160] {
        let (shape, expected) = fixture.get(&format!("pil_{target}"));
        let found = image.resize_longest_side(target);
        assert_eq!(found.size.map(|extent| extent as usize), shape[..2], "{target}");
        assert_eq!(found.samples, expected, "{target}");
    }
    assert_eq!(image.resize_longest_side(131), image);
}

#[test]
fn antialiased_resizing_equals_torch() {
    let fixture = Fixture::open("resize");
    let image = fixture.image("input").to_rgb(Normalization::EightBit).unwrap();
    let found: Vec<f32> = image.resize([41, 80]).samples.into_iter().step_by(3).collect();
    assert_close(&found, &fixture.get("antialiased").1, "antialiased");
}

#[test]
fn interpolation_equals_torch() {
    let fixture = Fixture::open("resize");
    let values = fixture.get("map").1;
    for to in [[61, 50], [11, 64]] {
        let name = format!("map_{}x{}", to[0], to[1]);
        assert_close(&resize_bilinear(&values, [37, 29], to), &fixture.get(&name).1, &name);
    }
}

#[test]
fn conversion_equals_micro_sam_and_numpy() {
    let fixture = Fixture::open("normalize");
    for name in ["grey", "two", "four", "flat"] {
        let image = fixture.image(name);
        let found: Rgb = image.to_rgb(Normalization::MicroSam).unwrap();
        assert_eq!(found.samples, fixture.get(&format!("micro_sam_{name}")).1, "{name}");
        let found = image.to_rgb(Normalization::Percentile { low: 0.1, high: 99.9 }).unwrap();
        assert_close(&found.samples, &fixture.get(&format!("percentile_{name}")).1, name);
    }
}

#[test]
fn logits_come_back_to_the_image_as_in_sam() {
    let fixture = Fixture::open("postprocess_masks");
    let logits = fixture.get("logits").1;
    for (name, image) in [("image", [97, 131]), ("smaller", [31, 41])] {
        let (shape, expected) = fixture.get(name);
        let length = shape[1] * shape[2];
        for (map, expected) in logits.chunks_exact(256).zip(expected.chunks_exact(length)) {
            let frame = LogitFrame { padded: [64, 64], input: [48, 64], image };
            let map = LogitMap { grid: [16, 16], values: map.to_vec(), frame };
            assert_close(&map.to_image(), expected, name);
            let set: Vec<bool> = expected.iter().map(|&value| value > 0.0).collect();
            assert_eq!(map.threshold(&[0.0])[0].to_bools(image), set, "{name}");
        }
    }
}
