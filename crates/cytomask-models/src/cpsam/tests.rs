//! Against cellpose 4 (`parity/cellpose_networks.py`).

use std::path::Path;

use cytomask_weights::Checkpoint;

use super::{CpSam, CpSamConfig, released};
use crate::golden::{Golden, network_input};
use crate::loading::state_shapes;
use crate::{DeviceChoice, ErrorKind};

fn small() -> Checkpoint {
    Checkpoint::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/cpsam_small.pt")).unwrap()
}

#[test]
fn network_matches_reference_after_each_block() {
    let golden = Golden::open("cpsam.safetensors");
    let device = DeviceChoice::Cpu.open().unwrap();
    let network = CpSam::load(small().model(), &device).unwrap();
    let image = network_input("input/tile", [1, 3, 256, 256], &device);
    let mut x = network.encoder.tokens(image.clone()).unwrap();
    for (index, block) in network.encoder.blocks.iter().enumerate() {
        x = block.forward(x);
        golden.check(&format!("tile/block{index}"), x.clone());
    }
    golden.check("tile/neck", network.encoder.neck.forward(x));
    golden.check("tile/maps", network.forward(image).unwrap());
}

#[test]
fn sizes_are_told_from_the_file() {
    let found = CpSamConfig::of(small().model(), "").unwrap();
    let table_rows = vec![27, 127, 27];
    let expected = CpSamConfig { tile_side: 256, patch_size: 8, embed_dim: 32, heads: 2, out_channels: 32, table_rows };
    assert_eq!(found, expected);
    assert!(CpSamConfig::of(small().model(), "module.").is_err());
}

#[test]
fn released_layout_has_the_published_tensors() {
    // Keys and shapes of `cpsam`: 350 tensors, 304,628,930 values.
    let device = DeviceChoice::Cpu.open().unwrap();
    let shapes = state_shapes(&CpSam::new(&released(), &device), "");
    assert_eq!(shapes.len(), 350);
    assert_eq!(shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), 304_628_930);
    let of = |name: &str| shapes.iter().find(|(key, _)| key == name).map(|(_, shape)| shape.clone()).unwrap();
    assert_eq!(of("W2"), [192, 3, 8, 8]);
    assert_eq!(of("encoder.blocks.5.attn.rel_pos_w"), [127, 64]);
    assert_eq!(of("encoder.blocks.6.attn.rel_pos_w"), [27, 64]);
    assert_eq!(of("encoder.neck.2.weight"), [256, 256, 3, 3]);
}

#[test]
fn a_tile_of_another_form_is_refused() {
    let device = DeviceChoice::Cpu.open().unwrap();
    let network = CpSam::load(small().model(), &device).unwrap();
    let error = network.forward(network_input("input/tile", [1, 3, 250, 256], &device)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
}
