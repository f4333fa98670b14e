//! The main job from outside: the built-in model on a bundled image.

mod common;

use std::path::Path;

use common::{cytomask, discs, files_in, segment, write_png};

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

#[test]
fn the_bundled_nuclei_are_found_by_apg() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = segment(&example("nuclei.png"), folder.path(), &["--json"]);
    outcome.succeeds();
    let summary: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let objects = summary["images"][0]["objects"].as_u64().unwrap();
    assert!((25..=60).contains(&objects), "{objects} objects; the truth has 38");
    let truth = folder.path().join("truth");
    std::fs::create_dir(&truth).unwrap();
    std::fs::copy(example("nuclei_truth.tif"), truth.join("nuclei.tif")).unwrap();
    let scored = cytomask(["evaluate".as_ref(), truth.as_os_str(), folder.path().as_os_str(), "--json".as_ref()]);
    scored.succeeds();
    let scores: serde_json::Value = serde_json::from_str(&scored.stdout).unwrap();
    assert!(scores["sa50"].as_f64().unwrap() > 0.5, "{scores}");
    let provenance = std::fs::read_to_string(folder.path().join("nuclei_provenance.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    assert_eq!(provenance["mode"], "apg");
    assert_eq!(provenance["model"]["name"], "cytomask-t");
}

#[test]
fn tables_labels_and_overlay_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let out = folder.path().join("out");
    segment(&image, &out, &["--mode", "ais", "--format", "png"]).succeeds();
    assert_eq!(files_in(&out), ["discs_labels.png", "discs_objects.csv", "discs_overlay.png", "discs_provenance.json"]);
    let table = std::fs::read_to_string(out.join("discs_objects.csv")).unwrap();
    assert!(table.starts_with("id,area_px,"), "{table}");
    segment(&image, &out.join("named.tif"), &["--mode", "ais", "--no-overlay"]).succeeds();
    assert!(files_in(&out).contains(&"named.tif".to_owned()));
}

#[test]
fn prompts_give_one_object_each() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let outcome = segment(
        &image,
        &folder.path().join("out"),
        &["--mode", "prompt", "--box", "30,80,50,100", "--point", "24,30", "--json"],
    );
    outcome.succeeds();
    let summary: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(summary["images"][0]["objects"], 2, "{summary}");
}

#[test]
fn a_dry_run_estimates_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let outcome = segment(&example("nuclei.png"), &out, &["--dry-run"]);
    outcome.succeeds();
    assert!(outcome.stdout.contains("520 × 696") && outcome.stdout.contains("nothing written"), "{}", outcome.stdout);
    assert!(!out.exists());
}

#[test]
fn the_version_is_one_line() {
    let outcome = cytomask(["--version"]);
    assert_eq!(outcome.succeeds().stdout, format!("cytomask {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn tiles_give_what_the_whole_image_gives_away_from_seams() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let tiled = folder.path().join("tiled");
    let more = ["--mode", "ais", "--no-overlay", "--scale", "1"];
    segment(&example("nuclei.png"), &whole, &more).succeeds();
    segment(&example("nuclei.png"), &tiled, &[&more[..], &["--tile_shape", "288,352", "--halo", "64,64"]].concat())
        .succeeds();
    let scored = cytomask(["evaluate".as_ref(), whole.as_os_str(), tiled.as_os_str(), "--json".as_ref()]);
    scored.succeeds();
    let scores: serde_json::Value = serde_json::from_str(&scored.stdout).unwrap();
    let score = |name: &str| scores["summary"][name]["mean"].as_f64().unwrap();
    // The network sees a tile's border where the image goes on, which decides whether one pair of touching nuclei is one or two
    // (three of 38 objects then differ); the outlines do not move.
    assert!(score("sa75") > 0.85, "{scores}");
    assert!(score("boundary_f1") > 0.98, "{scores}");
}

#[test]
fn every_mode_has_tiles_and_the_number_of_jobs_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let modes: [&[&str]; 4] = [
        &["--mode", "ais"],
        &["--mode", "apg"],
        &["--mode", "amg", "--points_per_side", "6", "--pred_iou_thresh", "0.3", "--stability_score_thresh", "0.5"],
        // The second box lies across the seam at column 64.
        &["--mode", "prompt", "--box", "30,80,50,100", "--box", "50,30,70,70", "--point", "24,30"],
    ];
    for mode in modes {
        let run = |jobs: &str| {
            let out = folder.path().join(format!("{}-{jobs}.tif", mode[1]));
            let tiles = ["--scale", "1", "--tile_shape", "64,64", "--halo", "24,24", "--no-overlay", "--jobs", jobs];
            segment(&image, &out, &[mode, &tiles].concat()).succeeds();
            std::fs::read(out).unwrap()
        };
        let labels = run("1");
        assert_eq!(labels, run("3"), "{mode:?}");
        let table = folder.path().join(format!("{}-1_objects.csv", mode[1]));
        let objects = std::fs::read_to_string(table).unwrap().lines().count() - 1;
        assert!(objects >= 2, "{mode:?}: {objects} objects");
    }
}
