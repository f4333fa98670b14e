//! `cytomask evaluate` from outside.

mod common;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use common::{Outcome, cytomask, write_float_tiff, write_png};
use tiff::encoder::TiffEncoder;
use tiff::encoder::colortype::{Gray32, Gray32Float, GrayI16};

/// A label image, 32 bit, a page for each plane.
fn write_labels(path: &Path, height: u32, width: u32, planes: &[&[u32]]) -> PathBuf {
    let mut encoder = TiffEncoder::new(std::fs::File::create(path).unwrap()).unwrap();
    for plane in planes {
        encoder.write_image::<Gray32>(width, height, plane).unwrap();
    }
    path.to_path_buf()
}

fn evaluate(arguments: &[&OsStr]) -> Outcome {
    cytomask([OsStr::new("evaluate")].iter().chain(arguments))
}

fn json(outcome: &Outcome) -> serde_json::Value {
    serde_json::from_str(&outcome.succeeds().stdout).unwrap()
}

/// Two folders: `a` with an object found at an IoU of 0.75, which misses the sixth threshold by a hair, and a missed one, `b` found as it is.
struct Folders {
    root: tempfile::TempDir,
    truth: PathBuf,
    found: PathBuf,
}

impl Folders {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (truth, found) = (root.path().join("truth"), root.path().join("found"));
        std::fs::create_dir_all(&truth).unwrap();
        std::fs::create_dir_all(&found).unwrap();
        write_labels(&truth.join("a.tif"), 2, 6, &[&[1, 1, 1, 1, 0, 9, 0, 0, 0, 0, 0, 9]]);
        write_labels(&found.join("a_labels.tif"), 2, 6, &[&[4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]]);
        write_png(&truth.join("b.png"), 2, 2, &[0, 3, 3, 3]);
        write_labels(&found.join("b_labels.tif"), 2, 2, &[&[0, 7, 7, 7]]);
        Self { root, truth, found }
    }

    fn run(&self, more: &[&str]) -> Outcome {
        let mut arguments = vec![self.truth.as_os_str(), self.found.as_os_str()];
        arguments.extend(more.iter().map(OsStr::new));
        evaluate(&arguments)
    }

    fn at(&self, name: &str) -> String {
        self.root.path().join(name).to_string_lossy().into_owned()
    }
}

#[test]
fn people_read_images_and_a_summary() {
    let folders = Folders::new();
    let outcome = folders.run(&["--metrics", "msa,precision,splits"]);
    let lines: Vec<&str> = outcome.succeeds().stdout.lines().collect();
    assert_eq!(lines[0], "a: mSA 0.250, 1 of 2 objects");
    assert_eq!(lines[1], "b: mSA 1.000, 1 of 1 objects");
    assert_eq!(lines[3], "metric         mean    median  95 % interval of the mean");
    assert_eq!(lines[4], "msa          0.6250    0.6250  0.2500 – 1.0000");
    assert_eq!(lines[5], "precision    1.0000    1.0000  1.0000 – 1.0000");
    assert_eq!(*lines.last().unwrap(), "2 image(s): mSA 0.6250, SA50 0.7500, SA75 0.5000");
    assert_eq!(outcome.stderr, "");
}

#[test]
fn tables_of_images_and_objects() {
    let folders = Folders::new();
    let (images, objects) = (folders.at("images.csv"), folders.at("objects.csv"));
    let options = ["--csv", &images, "--objects", &objects, "--metrics", "msa,f1,true_objects"];
    folders.run(&options).succeeds();
    assert_eq!(
        std::fs::read_to_string(images).unwrap(),
        "image,msa,f1,true_objects,note\na,0.250000,0.666667,2,\nb,1.000000,1.000000,1,\n"
    );
    assert_eq!(
        std::fs::read_to_string(&objects).unwrap(),
        "image,side,id,area_px,best_id,best_iou,matched_id,matched_iou,contains\n\
         a,truth,1,4,4,0.750000,4,0.750000,1\n\
         a,truth,9,2,,0.000000,,0.000000,0\n\
         a,predicted,4,3,1,0.750000,1,0.750000,1\n\
         b,truth,3,3,7,1.000000,7,1.000000,1\n\
         b,predicted,7,3,3,1.000000,3,1.000000,1\n"
    );
    folders.run(&["--objects", &objects, "--threshold", "0.8"]).succeeds();
    assert!(std::fs::read_to_string(objects).unwrap().contains("a,truth,1,4,4,0.750000,,0.000000,1\n"));
}

#[test]
fn json_holds_every_metric_and_the_settings() {
    let folders = Folders::new();
    let found = json(&folders.run(&["--json", "--seed", "5", "--resamples", "200"]));
    assert_eq!((found["msa"].as_f64(), found["sa50"].as_f64()), (Some(0.625), Some(0.75)));
    assert_eq!(found["summary"]["recall"]["mean"], 0.75);
    assert_eq!(found["summary"]["recall"]["interval"], serde_json::json!([0.5, 1.0]));
    assert_eq!(found["settings"]["seed"], 5);
    let image = found["images"][0].as_object().unwrap();
    assert_eq!((&image["image"], &image["false_negatives"]), (&"a".into(), &1.into()));
    assert_eq!(image["segmentation_accuracy"].as_array().unwrap().len(), 10);
    let names = ["panoptic_quality", "aggregated_jaccard", "symmetric_best_dice", "boundary_f1", "ap90", "merges"];
    assert!(names.iter().all(|name| image[*name].is_number()), "{image:?}");
}

#[test]
fn strays_are_errors_unless_allowed() {
    let folders = Folders::new();
    write_labels(&folders.found.join("c_labels.tif"), 2, 2, &[&[0; 4]]);
    folders.run(&[]).fails(1, &["c_labels.tif", "--allow_extra"]);
    let outcome = folders.run(&["--allow_extra"]);
    assert!(outcome.succeeds().stderr.contains("1 prediction(s) without true labels left out"));

    std::fs::remove_file(folders.found.join("b_labels.tif")).unwrap();
    folders.run(&["--allow_extra"]).fails(1, &["b.png", "b_labels", "--allow_missing"]);
    let csv = folders.at("scores.csv");
    let outcome = folders.run(&["--allow-extra", "--allow-missing", "zero", "--csv", &csv, "--metrics", "sa50"]);
    assert!(outcome.succeeds().stderr.contains("1 image(s) without a prediction scored as if nothing had been found"));
    assert!(outcome.stdout.ends_with("2 image(s): mSA 0.1250, SA50 0.2500, SA75 0.0000\n"), "{}", outcome.stdout);
    assert!(std::fs::read_to_string(csv).unwrap().ends_with("b,0.000000,prediction missing\n"));
    let outcome = folders.run(&["--allow_extra", "--allow_missing", "skip"]);
    assert!(outcome.succeeds().stdout.ends_with("1 image(s): mSA 0.2500, SA50 0.5000, SA75 0.0000\n"));
}

#[test]
fn a_missing_prediction_of_nothing_still_scores_nothing() {
    let folders = Folders::new();
    write_labels(&folders.truth.join("none.tif"), 2, 2, &[&[0; 4]]);
    let found = json(&folders.run(&["--allow_missing", "zero", "--json"]));
    assert_eq!(found["images"][2]["msa"], 0.0);
    write_labels(&folders.found.join("none_labels.tif"), 2, 2, &[&[0; 4]]);
    assert_eq!(json(&folders.run(&["--json"]))["images"][2]["msa"], 1.0);
    assert_eq!(json(&folders.run(&["--json", "--compat"]))["images"][2]["msa"], 0.0);
}

#[test]
fn another_size_is_an_error_unless_allowed() {
    let folders = Folders::new();
    write_labels(&folders.found.join("b_labels.tif"), 1, 4, &[&[0, 7, 7, 7]]);
    folders.run(&[]).fails(1, &["b_labels.tif", "2 × 2", "1 × 4"]);
    let outcome = folders.run(&["--allow_misshaped", "zero"]);
    assert!(outcome.succeeds().stdout.contains("b: mSA 0.000, 0 of 1 objects (prediction of another size)"));
    let outcome = folders.run(&["--allow_misshaped", "skip"]);
    assert!(outcome.succeeds().stdout.ends_with("1 image(s): mSA 0.2500, SA50 0.5000, SA75 0.0000\n"));
}

#[test]
fn a_table_says_what_belongs_together() {
    let folders = Folders::new();
    let table = folders.root.path().join("pairs.csv");
    let run = |more: &[&str]| {
        let mut arguments = vec![OsStr::new("--pairs"), table.as_os_str(), OsStr::new("--json")];
        arguments.extend(more.iter().map(OsStr::new));
        evaluate(&arguments)
    };
    std::fs::write(&table, "name,labels,predictions\nfirst,truth/a.tif,truth/a.tif\n\"b, 2\",truth/b.png,\n").unwrap();
    run(&[]).fails(1, &["b.png", "line 3", "--allow_missing"]);
    let found = json(&run(&["--allow_missing", "zero"]));
    assert_eq!((&found["images"][0]["image"], &found["images"][1]["image"]), (&"first".into(), &"b, 2".into()));
    assert_eq!((&found["images"][0]["msa"], &found["images"][1]["msa"]), (&1.0.into(), &0.0.into()));
    std::fs::write(&table, "labels,prediction\n").unwrap();
    run(&[]).fails(1, &["pairs.csv", "predictions"]);
    std::fs::write(&table, "labels,predictions\ntruth/a.tif,found/absent.tif\n").unwrap();
    run(&[]).fails(1, &["a.tif", "absent.tif"]);
    evaluate(&[folders.truth.as_os_str()]).fails(2, &["PREDICTIONS"]);
    evaluate(&[folders.truth.as_os_str(), folders.found.as_os_str(), OsStr::new("--pairs"), table.as_os_str()])
        .fails(2, &["--pairs"]);
}

#[test]
fn stacks_are_compared_as_volumes() {
    let folder = tempfile::tempdir().unwrap();
    // One object through both planes and one in the second, which the prediction has in the first.
    let truth = write_labels(&folder.path().join("truth.tif"), 2, 3, &[&[5, 5, 0, 0, 0, 0], &[5, 5, 0, 0, 6, 6]]);
    let found = write_labels(&folder.path().join("found.tif"), 2, 3, &[&[5, 5, 0, 0, 8, 8], &[5, 5, 0, 0, 0, 0]]);
    let paths = [truth.as_os_str(), found.as_os_str(), OsStr::new("--json")];
    let outcome = json(&evaluate(&paths));
    assert_eq!(
        (&outcome["images"][0]["true_objects"], &outcome["images"][0]["true_positives"]),
        (&2.into(), &1.into())
    );
    assert_eq!(outcome["sa75"], 1.0 / 3.0);

    let flat = write_labels(&folder.path().join("flat.tif"), 2, 3, &[&[5, 5, 0, 0, 0, 0]]);
    evaluate(&[truth.as_os_str(), flat.as_os_str()]).fails(1, &["flat.tif", "2 × 2 × 3", "found 2 × 3"]);

    let uneven = folder.path().join("uneven.tif");
    let mut encoder = TiffEncoder::new(std::fs::File::create(&uneven).unwrap()).unwrap();
    encoder.write_image::<Gray32>(3, 2, &[0; 6]).unwrap();
    encoder.write_image::<Gray32>(2, 3, &[0; 6]).unwrap();
    evaluate(&[truth.as_os_str(), uneven.as_os_str()]).fails(1, &["uneven.tif", "page 1", "2 × 3", "3 × 2"]);
}

#[test]
fn relabelling_takes_true_objects_apart() {
    let folder = tempfile::tempdir().unwrap();
    let truth = write_png(&folder.path().join("truth.png"), 3, 5, &[1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    let found = write_png(&folder.path().join("found.png"), 3, 5, &[1, 0, 0, 2, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3]);
    let count = |more: &[&str]| {
        let mut arguments = vec![truth.as_os_str(), found.as_os_str(), OsStr::new("--json")];
        arguments.extend(more.iter().map(OsStr::new));
        let outcome = json(&evaluate(&arguments));
        (outcome["images"][0]["true_objects"].as_u64().unwrap(), outcome["msa"].as_f64().unwrap())
    };
    assert_eq!(count(&["--relabel"]), (3, 1.0));
    assert_eq!(count(&[]).0, 1);
}

#[test]
fn ids_must_be_whole_and_not_negative() {
    let folder = tempfile::tempdir().unwrap();
    let good = write_float_tiff(&folder.path().join("good.tif"), 2, 2, &[0.0, 3.0, 3.0, 70_000.0]);
    let outcome = json(&evaluate(&[good.as_os_str(), good.as_os_str(), OsStr::new("--json")]));
    assert_eq!((&outcome["msa"], &outcome["images"][0]["true_objects"]), (&1.0.into(), &2.into()));
    for (name, ids) in [("half.tif", [0.0, 1.5, 0.0, 2.0]), ("nan.tif", [0.0, f32::NAN, 0.0, 2.0])] {
        let bad = write_float_tiff(&folder.path().join(name), 2, 2, &ids);
        evaluate(&[good.as_os_str(), bad.as_os_str()]).fails(1, &[name, "whole numbers", "found 1 others"]);
    }
    let negative = folder.path().join("negative.tif");
    let mut encoder = TiffEncoder::new(std::fs::File::create(&negative).unwrap()).unwrap();
    encoder.write_image::<GrayI16>(2, 2, &[0, 1, -1, 2]).unwrap();
    evaluate(&[negative.as_os_str(), good.as_os_str()]).fails(1, &["negative.tif", "first -1"]);
    // Also on a later page of a stack.
    let late = folder.path().join("late.tif");
    let mut encoder = TiffEncoder::new(std::fs::File::create(&late).unwrap()).unwrap();
    encoder.write_image::<Gray32Float>(2, 2, &[0.0; 4]).unwrap();
    encoder.write_image::<Gray32Float>(2, 2, &[0.0, 0.5, 0.0, 0.0]).unwrap();
    evaluate(&[late.as_os_str(), late.as_os_str()]).fails(1, &["late.tif", "first 0.5"]);
}

#[test]
fn settings_out_of_range_are_named_and_nothing_is_written() {
    let folders = Folders::new();
    let csv = folders.at("scores.csv");
    for (options, text) in [
        (["--metrics", "map"], "no metric is called \"map\""),
        (["--confidence", "1.5"], "confidence"),
        (["--resamples", "0"], "resamples"),
        (["--boundary_tolerance", "-1"], "boundary tolerance"),
    ] {
        let [name, value] = options;
        folders.run(&[&format!("{name}={value}"), "--csv", &csv]).fails(1, &[text]);
    }
    let objects = folders.at("objects.csv");
    folders.run(&["--objects", &objects, "--threshold", "0"]).fails(1, &["threshold"]);
    let nowhere = folders.at("nowhere");
    evaluate(&[OsStr::new(&nowhere), folders.found.as_os_str()]).fails(1, &["nowhere", "no such file"]);
    assert!(!Path::new(&csv).exists() && !Path::new(&objects).exists());
}
