//! `cytomask compare` from outside.

mod common;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Outcome, cytomask, discs, files_in, write_png};
use serde_json::Value;

const CENTRES: [(i64, i64); 4] = [(24, 30), (60, 40), (40, 90), (75, 100)];

/// Labels of the discs in [`discs`], moved down by `shift` and without the first `missed`.
fn labels(shift: i64, missed: usize) -> Vec<u8> {
    (0..97 * 131)
        .map(|at| {
            let (y, x) = (at / 131, at % 131);
            let inside = |(cy, cx): &(i64, i64)| (y - cy - shift).pow(2) + (x - cx).pow(2) < 100;
            CENTRES.iter().skip(missed).position(inside).map_or(0, |id| id as u8 + 1)
        })
        .collect()
}

/// `images`, `truth` and two folders of predictions: `good` is off by a pixel, `bad` by four and misses one disc.
fn folders(count: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    for name in ["images", "truth", "good", "bad"] {
        std::fs::create_dir(path.join(name)).unwrap();
    }
    for index in 0..count {
        let mut pixels = discs(97, 131);
        // No two images alike.
        pixels[index] = 255;
        write_png(&path.join(format!("images/cell_{index}.png")), 97, 131, &pixels);
        write_png(&path.join(format!("truth/cell_{index}.png")), 97, 131, &labels(0, 0));
        write_png(&path.join(format!("good/cell_{index}_cp_masks.png")), 97, 131, &labels(1, 0));
        write_png(&path.join(format!("bad/cell_{index}.png")), 97, 131, &labels(4, 1));
    }
    (folder, path)
}

fn arguments(path: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["compare".into(), path.join("images").into(), path.join("truth").into()];
    all.extend(["-o".into(), path.join("out").into()]);
    all.extend(more.iter().map(|text| (*text).replace("DIR", &path.display().to_string()).into()));
    all
}

fn compare(path: &Path, more: &[&str]) -> Outcome {
    cytomask(arguments(path, more))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

const BOTH: [&str; 4] = ["--predictions", "good=DIR/good", "--predictions", "bad=DIR/bad"];

#[test]
fn predictions_are_ranked_and_reported() {
    let (_keep, path) = folders(8);
    let outcome = compare(&path, &[&BOTH[..], &["--json", "--title", "discs & <more>"]].concat());
    outcome.succeeds();
    let found: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let recommendation = &found["analysis"]["recommendation"];
    assert_eq!(
        (&recommendation["method"], &recommendation["certainty"]),
        (&0.into(), &"fairly_sure".into()),
        "{found:#}"
    );
    assert!(recommendation["text"].as_str().unwrap().contains("best on 8 of 8"), "{recommendation}");
    // Eight equal differences: all signs flip in 2 of 256 ways.
    assert_eq!(found["analysis"]["pairs"][0]["p"], 2.0 / 256.0);
    let out = path.join("out");
    for name in ["images.csv", "images.json", "pairs.csv", "report.html", "report.json", "summary.csv", "summary.md"] {
        assert!(files_in(&out).contains(&name.to_owned()), "{name} in {:?}", files_in(&out));
    }
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("discs &amp; &lt;more&gt;") && page.contains("data:image/png;base64,"));
    let plots = json(&out.join("report.json"))["plots"].clone();
    assert_eq!(plots["scatter-0-1"]["data"]["points"].as_array().unwrap().len(), 8, "{plots:#}");
    let table = std::fs::read_to_string(out.join("images.csv")).unwrap();
    assert_eq!(table.lines().count(), 17);
}

#[test]
fn the_built_in_model_stands_beside_predictions_and_is_run_once() {
    let (_keep, path) = folders(2);
    let more = [&BOTH[..], &["--run", "ais", "--run", "few=cytomask-t:ais:min_size=40,scale=1"]].concat();
    let first = compare(&path, &more);
    first.succeeds();
    assert!(first.stderr.contains("8 results computed, 0 taken from before"), "{}", first.stderr);
    let record = path.join("out/records/few/cell_1.json");
    let written = std::fs::metadata(&record).unwrap().modified().unwrap();
    assert!(json(&record)["seconds"]["encoder"].as_f64().unwrap() > 0.0);
    let methods = json(&path.join("out/report.json"))["methods"].clone();
    assert_eq!(methods[0]["name"], "cytomask-t AIS");
    assert_eq!(
        (&methods[1]["record"]["settings"]["min_size"], &methods[1]["record"]["strategy"]),
        (&40.into(), &"ais".into())
    );
    assert_eq!(methods[1]["record"]["model"]["sha256"].as_str().unwrap().len(), 64);

    let again = compare(&path, &more);
    assert!(again.stderr.contains("0 results computed, 8 taken from before"), "{}", again.stderr);
    assert_eq!(std::fs::metadata(&record).unwrap().modified().unwrap(), written);
    // Other settings under the same name are other results.
    let other = compare(&path, &["--run", "few=cytomask-t:ais:min_size=41,scale=1"]);
    assert!(other.stderr.contains("2 results computed, 0 taken from before"), "{}", other.stderr);
    // Another truth is other scores.
    write_png(&path.join("truth/cell_0.png"), 97, 131, &labels(0, 2));
    let other = compare(&path, &["--run", "few=cytomask-t:ais:min_size=41,scale=1"]);
    assert!(other.stderr.contains("1 results computed, 1 taken from before"), "{}", other.stderr);
    // A damaged label file is made again.
    std::fs::write(path.join("out/labels/few/cell_1.tif"), b"II").unwrap();
    let other = compare(&path, &["--run", "few=cytomask-t:ais:min_size=41,scale=1"]);
    assert!(other.stderr.contains("1 results computed, 1 taken from before"), "{}", other.stderr);
}

#[test]
fn a_killed_comparison_goes_on_where_it_was() {
    let (_keep, path) = folders(6);
    let more = ["--run", "apg"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_cytomask"))
        .args(arguments(&path, &more))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let records = path.join("out/records");
    let finished = || {
        let folders = files_in(&records);
        let of = |folder: &String| files_in(&records.join(folder)).into_iter().filter(|name| name.ends_with(".json"));
        folders.iter().flat_map(of).count()
    };
    let start = Instant::now();
    while finished() == 0 {
        assert!(start.elapsed() < Duration::from_secs(300), "no result");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = finished();
    assert!((1..6).contains(&before) && !path.join("out/report.html").exists(), "{before} results");
    let outcome = compare(&path, &more);
    outcome.succeeds();
    let expected = format!("{} results computed, {before} taken from before", 6 - before);
    assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
    assert!(path.join("out/report.html").exists());
}

#[test]
fn groups_of_a_table_are_told_apart() {
    let (_keep, path) = folders(12);
    let rows =
        (0..12).map(|at| format!("images/cell_{at}.png,truth/cell_{at}.png,{}\n", if at < 6 { "a" } else { "b" }));
    std::fs::write(path.join("table.csv"), format!("image,labels,group\n{}", rows.collect::<String>())).unwrap();
    let more = ["compare", "--table", "DIR/table.csv", "-o", "DIR/out"].into_iter().chain(BOTH);
    let outcome = cytomask(more.map(|text| text.replace("DIR", &path.display().to_string())));
    outcome.succeeds();
    assert!(outcome.stdout.contains("a (6 images): Use good"), "{}", outcome.stdout);
    assert!(std::fs::read_to_string(path.join("out/summary.md")).unwrap().contains("| b | 6 |"));
}

#[test]
fn a_failing_image_is_left_out_and_said() {
    let (_keep, path) = folders(7);
    write_png(&path.join("bad/cell_3.png"), 4, 4, &[0; 16]);
    let outcome = compare(&path, &BOTH);
    outcome.fails(1, &["cell_3 (bad)", "97 × 131", "1 of 7 images left out"]);
    let page = std::fs::read_to_string(path.join("out/report.html")).unwrap();
    assert!(page.contains("1 of 7 images are left out"));
    assert_eq!(json(&path.join("out/report.json"))["analysis"]["images"], 6);
}

#[test]
fn wrong_use_is_refused_before_any_work() {
    let (_keep, path) = folders(2);
    compare(&path, &["--run", "cytomask-t:agp"]).fails(1, &["\"agp\" is no mode"]);
    compare(&path, &["--run", "ais:nms_threshold=0.5"]).fails(1, &["nms_threshold", "apg"]);
    compare(&path, &["--run", "ais:min_size"]).fails(1, &["min_size"]);
    compare(&path, &["--run", "no_such_model:ais"]).fails(1, &["no_such_model"]);
    compare(&path, &["--predictions", "good"]).fails(1, &["NAME=FOLDER"]);
    compare(&path, &["--run", "ais", "--run", "ais"]).fails(1, &["two methods"]);
    compare(&path, &["--metric", "best"]).fails(2, &["panoptic_quality"]);
    compare(&path, &["--alpha", "5"]).fails(2, &["between 0 and 1"]);
    std::fs::remove_file(path.join("good/cell_1_cp_masks.png")).unwrap();
    compare(&path, &BOTH).fails(1, &["good", "cell_1"]);
    cytomask(["compare", "-o", "x"]).fails(2, &["IMAGES"]);
    assert!(!path.join("out").join("report.html").exists());
}
