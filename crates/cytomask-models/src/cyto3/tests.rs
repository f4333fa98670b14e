//! Against cellpose 3 (`parity/cellpose_networks.py`).

use std::path::Path;

use cytomask_weights::Checkpoint;

use super::{CpNet, CpNetConfig, SizeModel};
use crate::golden::{Golden, network_input};
use crate::loading::{state_shapes, values};
use crate::{DeviceChoice, ErrorKind};

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

#[test]
fn network_matches_reference() {
    let golden = Golden::open("cyto3.safetensors");
    let device = DeviceChoice::Cpu.open().unwrap();
    let network = CpNet::load(Checkpoint::open(fixture("cyto3_small.pt")).unwrap().model(), &device).unwrap();
    let image = network_input("input/tile", [2, 2, 224, 96], &device);
    for (index, level) in network.downsample.forward(image.clone()).into_iter().enumerate() {
        golden.check(&format!("tile/level{index}"), level);
    }
    let (maps, style) = network.forward(image).unwrap();
    golden.check("tile/maps", maps);
    for (found, expected) in values(style).iter().zip(golden.numbers("tile/style")) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn released_layout_has_the_published_tensors() {
    // Of the 313 entries 52 count batches.
    let device = DeviceChoice::Cpu.open().unwrap();
    let shapes = state_shapes(&CpNet::new(&CpNetConfig { channels: [2, 32, 64, 128, 256] }, &device), "");
    let counters = shapes.iter().filter(|(name, _)| name.ends_with("running_mean")).count();
    assert_eq!(shapes.len() + counters, 313);
    let values: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let statistics: usize = shapes
        .iter()
        .filter(|(name, _)| name.contains("running_"))
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    assert_eq!(values - statistics, 6_600_845);
}

#[test]
fn the_size_model_is_cellposes() {
    let model = SizeModel::read(&fixture("size_cyto3_small.npy")).unwrap();
    assert_eq!(model.style_channels(), 16);
    let error = SizeModel::read(&fixture("cells_seg.npy")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingTensor);
    assert!(error.to_string().contains("without `A`"), "{error}");
}
