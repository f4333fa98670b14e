use burn::tensor::{Device, Tensor};

use super::{BatchStatistics, UNETR_MICRO_SAM, Unetr, UnetrConfig, UpsamplerKind};
use crate::{
    ErrorKind,
    golden::{Golden, network_input},
    loading::{load_into, state_shapes},
    seeded::Seeded,
};

fn narrow(upsampler: UpsamplerKind, norm_statistics: BatchStatistics) -> UnetrConfig {
    UnetrConfig { features: [64, 32, 16, 8], upsampler, norm_statistics, ..UNETR_MICRO_SAM }
}

fn seeded_decoder(config: &UnetrConfig) -> Unetr {
    let decoder = Unetr::new(config, &Device::flex());
    let source = Seeded::of(&decoder, "").with_key_prefix("decoder_state/");
    load_into(decoder, &source, "").unwrap().module
}

#[test]
fn maps_equal_torch_em() {
    let device = Device::flex();
    let golden = Golden::open("unetr.safetensors");
    for (variant, kind) in [("bilinear", UpsamplerKind::Bilinear), ("transposed", UpsamplerKind::Transposed)] {
        for (name, statistics) in [("current", BatchStatistics::CurrentImage), ("running", BatchStatistics::Running)] {
            let decoder = seeded_decoder(&narrow(kind, statistics));
            let maps = decoder.forward(network_input("input/unetr", [2, 256, 4, 6], &device)).unwrap();
            assert_eq!(maps.dims(), [2, 3, 64, 96]);
            golden.check(&format!("{variant}_{name}"), maps);
        }
    }
}

#[test]
fn names_tell_the_variant() {
    let device = Device::flex();
    for kind in [UpsamplerKind::Bilinear, UpsamplerKind::Transposed] {
        let config = UnetrConfig { upsampler: kind, ..UNETR_MICRO_SAM };
        let shapes = state_shapes(&Unetr::new(&config, &device), "");
        assert_eq!(UpsamplerKind::detect(shapes.iter().map(|(name, _)| name.as_str())), kind);
        // 66 in the file, less four counters.
        assert_eq!(shapes.len(), 62, "{kind:?}");
        let find = |name: &str| shapes.iter().find(|(known, _)| known == name).map(|(_, shape)| shape.clone());
        assert_eq!(find("deconv1.block.1.block.weight"), Some(vec![512, 512, 3, 3]));
        assert_eq!(find("decoder.blocks.2.block.4.bias"), Some(vec![64]));
        let sampler = match kind {
            UpsamplerKind::Bilinear => ("decoder.samplers.1.conv.weight", vec![128, 256, 1, 1]),
            UpsamplerKind::Transposed => ("decoder.samplers.1.block.weight", vec![256, 128, 2, 2]),
        };
        assert_eq!(find(sampler.0), Some(sampler.1));
    }
}

#[test]
fn other_channels_are_refused() {
    let device = Device::flex();
    let decoder = Unetr::new(&UNETR_MICRO_SAM, &device);
    let error = decoder.forward(Tensor::zeros([1, 255, 4, 4], &device)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert!(error.to_string().contains("255"), "{error}");
}
