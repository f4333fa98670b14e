//! `tune` from outside, on tiny images.

mod common;

use std::path::{Path, PathBuf};

use common::{Outcome, cytomask, files_in, segment, write_png};
use serde_json::Value;

const SIZE: [u32; 2] = [64, 80];

/// Discs that differ from image to image; grey values or ids.
fn discs(shift: u32, labels: bool) -> Vec<u8> {
    let centres = [(16, 18), (44, 22 + shift), (30, 58), (50, 52 + shift)];
    let pixel = |at: u32| {
        let (y, x) = (i64::from(at / SIZE[1]), i64::from(at % SIZE[1]));
        let inside = |&(cy, cx): &(u32, u32)| (y - i64::from(cy)).pow(2) + (x - i64::from(cx)).pow(2) < 81;
        let id = centres.iter().position(inside).map_or(0, |index| index as u8 + 1);
        let texture = ((y * 7 + x * 13 + i64::from(shift) * 5) % 23) as u8;
        if labels { id } else { (if id > 0 { 160 } else { 20 }) + texture }
    };
    (0..SIZE[0] * SIZE[1]).map(pixel).collect()
}

/// Folders `images` and `labels` with `count` images.
fn images(folder: &Path, count: u32) -> (PathBuf, PathBuf) {
    let (images, labels) = (folder.join("images"), folder.join("labels"));
    for folder in [&images, &labels] {
        std::fs::create_dir_all(folder).unwrap();
    }
    for index in 0..count {
        write_png(&images.join(format!("a{index}.png")), SIZE[0], SIZE[1], &discs(index, false));
        write_png(&labels.join(format!("a{index}.png")), SIZE[0], SIZE[1], &discs(index, true));
    }
    (images, labels)
}

fn tune(images: &Path, labels: &Path, output: &Path, more: &[&str]) -> Outcome {
    let paths = [Path::new("tune"), images, labels, Path::new("-o"), output].map(Path::as_os_str);
    cytomask(paths.into_iter().chain(more.iter().map(AsRef::as_ref)))
}

const AIS: [&str; 6] =
    ["--mode", "ais", "--range", "center_distance_threshold=0.3:0.7:0.2", "--range", "min_size=0,60"];

#[test]
fn settings_are_found_checked_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = images(folder.path(), 7);
    let out = folder.path().join("out");
    let outcome = tune(&images, &labels, &out, &[&AIS[..], &["--folds", "3", "--seed", "4"]].concat());
    outcome.succeeds();
    assert!(outcome.stdout.contains("7 trials on 7 image(s)"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("images not used for the choice (7; 3 folds, seed 4)"), "{}", outcome.stdout);
    assert_eq!(files_in(&out), ["images.csv", "report.html", "settings.json", "trials.csv"]);

    let trials = std::fs::read_to_string(out.join("trials.csv")).unwrap();
    assert_eq!(trials.lines().next().unwrap(), "trial,mean_msa,center_distance_threshold,min_size");
    assert_eq!(trials.lines().count(), 1 + 1 + 6, "the header, the default, six combinations");
    let used = std::fs::read_to_string(out.join("images.csv")).unwrap();
    assert_eq!(used.lines().count(), 8);
    assert_eq!(used.matches("fold 1").count(), 3);
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);

    let settings: Value = serde_json::from_str(&std::fs::read_to_string(out.join("settings.json")).unwrap()).unwrap();
    assert_eq!((&settings["mode"], &settings["model"]["name"]), (&"ais".into(), &"cytomask-t".into()));
    assert_eq!(settings["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(settings["tuned"]["images"], 7);
    let file = out.join("settings.json");
    let run = segment(&images.join("a0.png"), &folder.path().join("run"), &["--settings", file.to_str().unwrap()]);
    run.succeeds();
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    let record = std::fs::read_to_string(folder.path().join("run/a0_provenance.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["settings"], settings["settings"]);

    // One seed, one outcome.
    let again = folder.path().join("again");
    tune(&images, &labels, &again, &[&AIS[..], &["--folds", "3", "--seed", "4"]].concat()).succeeds();
    for name in files_in(&out) {
        let read = |folder: &Path| std::fs::read(folder.join(&name)).unwrap();
        assert_eq!(read(&out), read(&again), "{name}");
    }
}

#[test]
fn a_share_can_be_held_out_and_few_images_are_said_to_be_few() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = images(folder.path(), 4);
    let out = folder.path().join("out");
    let outcome = tune(&images, &labels, &out, &[&AIS[..], &["--held_out", "0.5", "--json"]].concat());
    outcome.succeeds();
    let found: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&found["tuned"]["check"]["images"], &found["tuned"]["held_out"]), (&2.into(), &0.5.into()));
    let verdict = found["tuned"]["verdict"].as_str().unwrap();
    assert!(["too few images", "default is best"].contains(&verdict), "{verdict}");
    let used = std::fs::read_to_string(out.join("images.csv")).unwrap();
    assert_eq!((used.matches("held out").count(), used.matches("search").count()), (2, 2));

    let one = tune(&images.join("a0.png"), &labels.join("a0.png"), &out, &AIS);
    one.succeeds();
    assert!(!one.stdout.contains("not used for the choice ("), "nothing was left to check with: {}", one.stdout);
}

#[test]
fn the_sampler_keeps_to_its_number_of_trials() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = images(folder.path(), 3);
    let out = folder.path().join("out");
    let file = folder.path().join("parameters.json");
    let parameters = r#"{ "min_score": "0:0.9:0.1", "nms_threshold": "0.5:0.9:0.1", "min_size": [10, 25, 50] }"#;
    std::fs::write(&file, parameters).unwrap();
    let more = ["--mode", "apg", "--method", "sample", "--trials", "12", "--parameters", file.to_str().unwrap()];
    tune(&images, &labels, &out, &more).succeeds();
    let trials = std::fs::read_to_string(out.join("trials.csv")).unwrap();
    assert_eq!(trials.lines().count(), 1 + 12);
    assert_eq!(trials.lines().next().unwrap(), "trial,mean_msa,min_score,min_size,nms_threshold");
}

#[test]
fn amg_is_tuned_too() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = images(folder.path(), 2);
    let out = folder.path().join("out");
    let file = folder.path().join("parameters.json");
    let parameters =
        r#"{ "points_per_side": [4, 6], "pred_iou_thresh": "0.2:0.6:0.2", "stability_score_thresh": [0.5, 0.8] }"#;
    std::fs::write(&file, parameters).unwrap();
    for method in ["grid", "sample"] {
        tune(&images, &labels, &out, &["--mode", "amg", "--method", method, "--parameters", file.to_str().unwrap()])
            .succeeds();
    }
}

#[test]
fn what_cannot_be_tuned_is_named_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = images(folder.path(), 2);
    let out = folder.path().join("out");
    let refused = |more: &[&str], code: i32, texts: &[&str]| tune(&images, &labels, &out, more).fails(code, texts);
    refused(&["--range", "nms_treshold=0.5,0.6"], 1, &["nms_treshold", "nms_threshold"]);
    refused(&["--mode", "ais", "--range", "nms_threshold=0.5,0.6"], 1, &["nms_threshold", "apg"]);
    refused(&["--range", "nms_threshold=0.5:1.5:0.5"], 1, &["nms_threshold", "1.5"]);
    refused(&["--range", "nms_threshold"], 1, &["--range", "name=start:stop:step"]);
    refused(&["--trials", "10"], 1, &["--trials", "sample"]);
    refused(&["--folds", "1"], 1, &["folds", "at least 2"]);
    refused(&["--held_out", "1.5"], 1, &["held_out", "1.5"]);
    refused(&["--folds", "2", "--held_out", "0.5"], 2, &["--held_out"]);
    refused(&["--mode", "prompt"], 1, &["--mode", "prompt"]);
    refused(&["--parameters", "absent.json"], 1, &["absent.json"]);
    refused(&["--range", "min_size=0:9999:1", "--range", "min_score=0:1:0.01"], 1, &["1010000", "sample"]);
    std::fs::remove_file(labels.join("a1.png")).unwrap();
    refused(&AIS, 1, &["a1.png", "no labels"]);
    assert!(files_in(&out).is_empty());
    write_png(&labels.join("a1.png"), 5, 5, &[0; 25]);
    refused(&AIS, 1, &["a1.png", "[5, 5]"]);
    assert!(files_in(&out).is_empty());
}
