//! Networks of Cellpose from outside: small ones in the official layouts, made by `parity/cellpose_small.py`.

mod common;

use std::path::{Path, PathBuf};

use common::{discs, segment, write_png};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// A copy of a network's file, with its size model where it has one.
fn network(folder: &Path, name: &str) -> String {
    let copy = folder.join(name);
    std::fs::copy(fixture(name), &copy).unwrap();
    copy.display().to_string()
}

/// A stack of `depth` planes of discs, as NPY.
fn stack(path: &Path, [depth, height, width]: [u32; 3]) {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({depth}, {height}, {width}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    for _ in 0..depth {
        bytes.extend(discs(height, width));
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_image_is_segmented_in_mode_flows() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    for (name, more) in [
        ("cpsam_small.pt", &[][..]),
        ("cpsam_small.pt", &["--augment", "--tile_overlap", "0.2", "--niter", "150", "--flow_threshold", "0"]),
        ("cpsam_small.pt", &["--diameter", "25", "--cellprob_threshold", "-1", "--max_size_fraction=0.3"]),
        ("cyto3_small.pt", &["--diameter", "30"]),
    ] {
        let network = network(folder.path(), name);
        let out = folder.path().join("out");
        let arguments = [&["--model", &network, "--json", "--overwrite"], more].concat();
        let outcome = segment(&image, &out, &arguments);
        outcome.succeeds();
        let summary: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(summary["images"][0]["objects"], 4, "{name} {more:?}: {summary}");
        let provenance = std::fs::read_to_string(out.join("discs_provenance.json")).unwrap();
        let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
        assert_eq!(provenance["mode"], "flows");
        assert_eq!(
            provenance["settings"]["flow_threshold"],
            if more.contains(&"--flow_threshold") { 0.0 } else { 0.4 }
        );
        assert!(provenance["normalization"].as_str().unwrap().starts_with("Cellpose"), "{provenance}");
    }
}

#[test]
fn diameters_are_estimated_where_there_is_a_size_model() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let network = network(folder.path(), "cyto3_small.pt");
    let run = || segment(&image, &folder.path().join("out"), &["--model", &network, "--diameter", "0"]);
    run().fails(1, &["--diameter 0", "no size model (size_NAME.npy)"]);
    std::fs::copy(fixture("size_cyto3_small.npy"), folder.path().join("size_cyto3_small.npy")).unwrap();
    run().succeeds();
}

#[test]
fn stacks_become_volumes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stack.npy");
    stack(&path, [6, 97, 131]);
    let network = network(folder.path(), "cpsam_small.pt");
    for (out, flags) in
        [("3d", &["--do_3D", "--anisotropy", "3", "--min_size", "30"][..]), ("joined", &["--stitch_threshold=0.3"])]
    {
        let out = folder.path().join(out);
        let outcome = segment(&path, &out, &[&["--model", &network, "--json"], flags].concat());
        outcome.succeeds();
        let summary: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        let objects = summary["images"][0]["objects"].as_u64().unwrap();
        let labels = cytomask::read_label_stack(out.join("stack_labels.tif")).unwrap();
        assert_eq!(labels.size(), [6, 97, 131]);
        assert_eq!(u64::from(*labels.as_slice().iter().max().unwrap()), objects);
        assert!(out.join("stack_provenance.json").is_file());
        if flags[0] != "--do_3D" {
            assert_eq!(objects, 4, "the same discs in every plane");
        }
    }
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let (cpsam, cyto3) = (network(folder.path(), "cpsam_small.pt"), network(folder.path(), "cyto3_small.pt"));
    let run = |arguments: &[&str]| segment(&image, &folder.path().join("out"), arguments);
    run(&["--model", &cpsam, "--do_3D"]).fails(1, &["discs.png: --do_3D needs a stack", "single plane of 97 × 131"]);
    run(&["--model", &cpsam, "--stitch_threshold", "0.3"]).fails(1, &["--stitch_threshold needs a stack"]);
    run(&["--model", &cpsam, "--diameter", "0"]).fails(1, &["--diameter: expected a number above 0, found 0"]);
    run(&["--model", &cpsam, "--diameter", "NaN"]).fails(2, &["--diameter", "expected a number above 0"]);
    run(&["--model", &cpsam, "--diameter=-3"]).fails(2, &["--diameter", "expected a number above 0"]);
    run(&["--model", &cpsam, "--channels", "3"]).fails(1, &["--channels \"3\": the file has 1 channel"]);
    run(&["--model", &cyto3, "--channels", "0,0,0"]).fails(1, &["--channels: ", "sees one or two", "found 3"]);
    run(&["--model", &cpsam, "--tile_overlap", "0.7"]).fails(2, &["0.05 to 0.5"]);
    run(&["--model", &cpsam, "--flow_threshold", "-1"])
        .fails(1, &["--flow_threshold: expected a number of at least 0"]);
    run(&["--model", &cpsam, "--mode", "apg"]).fails(1, &["--mode apg", "predicts flows; use --mode flows"]);
    run(&["--model", &cpsam, "--tile_shape", "256"]).fails(1, &["--tile_shape", "--tile_overlap"]);
    run(&["--model", &cpsam, "--anisotropy", "2"]).fails(2, &["--do_3D"]);
    run(&["--mode", "flows"]).fails(1, &["--mode flows: cytomask-t predicts no flows"]);
    run(&["--augment"]).fails(1, &["--augment: cytomask-t predicts no flows"]);
    run(&["--do_3D"]).fails(1, &["--do_3D: cytomask-t predicts no flows"]);
    run(&["--diameter", "0"]).fails(1, &["--diameter: expected a number above 0, found 0"]);
}

#[test]
fn masks_of_a_seg_file_are_truth() {
    let folder = tempfile::tempdir().unwrap();
    let (truth, found) = (folder.path().join("truth"), folder.path().join("found"));
    std::fs::create_dir(&truth).unwrap();
    std::fs::create_dir(&found).unwrap();
    std::fs::copy(fixture("cells_seg.npy"), truth.join("cells_seg.npy")).unwrap();
    let labels = cytomask::read_labels(fixture("cells_seg.npy")).unwrap();
    cytomask::output::write_labels_tiff(found.join("cells_labels.tif"), &labels).unwrap();
    let scored = common::cytomask(["evaluate".as_ref(), truth.as_os_str(), found.as_os_str(), "--json".as_ref()]);
    scored.succeeds();
    let scores: serde_json::Value = serde_json::from_str(&scored.stdout).unwrap();
    assert_eq!(scores["msa"], 1.0, "{scores}");
}

#[test]
fn models_say_what_their_licence_is() {
    let listed = common::cytomask(["models", "list"]);
    listed.succeeds();
    for name in ["cpsam ", "cpsam_v2", "cyto3", "nuclei"] {
        let line = listed.stdout.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains("to pull") && line.contains("CC-BY-NC"), "{line}");
    }
    let folder = tempfile::tempdir().unwrap();
    let info = common::cytomask(["models", "info", &network(folder.path(), "cpsam_small.pt")]);
    info.succeeds();
    assert!(info.stdout.contains("Cellpose-SAM"), "{}", info.stdout);
}
