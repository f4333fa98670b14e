//! Batches from outside: broken files among good ones, stopping and going on, what is done again and what is not.
//! `bench/batch.sh` does the same with 310 real files.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Outcome, cytomask, discs, files_in, write_float_tiff, write_png};
use serde_json::Value;

/// `segment INPUT -o OUT --mode ais --scale 1` with more arguments.
fn run(input: &Path, out: &Path, more: &[&str]) -> Outcome {
    let mut arguments: Vec<std::ffi::OsString> = vec!["segment".into(), input.into(), "-o".into(), out.into()];
    arguments.extend(["--mode", "ais", "--scale", "1"].iter().map(Into::into));
    arguments.extend(more.iter().map(Into::into));
    cytomask(arguments)
}

/// Small images with discs, each a little different.
fn images(folder: &Path, count: usize) {
    std::fs::create_dir_all(folder).unwrap();
    for index in 0..count {
        let mut pixels = discs(97, 131);
        pixels[index] = 250;
        write_png(&folder.join(format!("image{index:02}.png")), 97, 131, &pixels);
    }
}

/// Every file below `folder` with its content.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in files_in(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            found.extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, std::fs::read(path).unwrap());
        }
    }
    found
}

/// The events of `--log json`, by name, with the file names they are about.
fn events(outcome: &Outcome, name: &str) -> Vec<String> {
    let lines = outcome.stderr.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines
        .filter(|event| event["event"] == name)
        .map(|event| {
            Path::new(event["input"].as_str().unwrap_or_default())
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into()
        })
        .collect()
}

#[test]
fn timings_name_every_stage_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("out"));
    images(&input, 2);
    let outcome = run(&input, &out, &["--timings", "--log", "json"]);
    let lines = outcome.stderr.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let told: Vec<Value> = lines.filter(|event| event["event"] == "timings").collect();
    let stages = told[0]["stages"].as_object().unwrap();
    for stage in ["open model", "read", "convert", "encoder", "instance decoder", "prompts and masks", "write"] {
        assert!(stages[stage].as_f64().unwrap() > 0.0, "{stage}: {stages:?}");
    }
    assert_eq!(stages["mask decoder"], 0.0, "AIS decodes no prompts");
    // As text, and skipping what is finished: the flag is not part of what makes a result.
    let again = run(&input, &out, &["--timings"]);
    assert!(again.stderr.contains("encoder                 0.000 s"), "{}", again.stderr);
    assert!(!run(&input, &out, &["--overwrite"]).stderr.contains("encoder"));
}

#[test]
fn broken_files_are_named_and_good_ones_done() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("out"));
    images(&input, 3);
    std::fs::write(input.join("empty.tif"), b"").unwrap();
    std::fs::write(input.join("text.tif"), b"not an image at all").unwrap();
    write_float_tiff(&input.join("nan.tif"), 97, 131, &vec![f32::NAN; 97 * 131]);
    let whole = std::fs::read(input.join("image00.png")).unwrap();
    std::fs::write(input.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    let outcome = run(&input, &out, &["--log", "json"]);
    outcome.fails(1, &[]);
    let mut failed = events(&outcome, "failed");
    failed.sort();
    assert_eq!(failed, ["cut.png", "empty.tif", "nan.tif", "text.tif"]);
    assert_eq!(events(&outcome, "finished").len(), 3);
    let list: Value = serde_json::from_slice(&std::fs::read(out.join("failures.json")).unwrap()).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 4);
    assert_eq!((&list[1]["stage"], &list[2]["stage"]), (&"read".into(), &"segment".into()), "{list:#}");
    assert!(list[1]["message"].as_str().unwrap().contains("empty"), "{list:#}");
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("3 images") && page.contains("4 failed") && page.contains("cut.png"));
    assert_eq!(page.matches("data:image/png;base64,").count(), 3);
    // Repaired, the list is gone.
    for name in failed {
        std::fs::remove_file(input.join(name)).unwrap();
    }
    run(&input, &out, &[]).succeeds();
    assert!(!out.join("failures.json").exists());
}

#[test]
fn only_what_changed_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("out"));
    images(&input, 4);
    run(&input, &out, &[]).succeeds();
    let before = contents(&out);
    let finished = |more: &[&str]| {
        let outcome = run(&input, &out, &[&["--log", "json"], more].concat());
        outcome.succeeds();
        let mut finished = events(&outcome, "finished");
        finished.sort();
        assert_eq!(finished.len() + events(&outcome, "skipped").len(), 4);
        finished
    };
    assert!(finished(&[]).is_empty());
    assert!(finished(&["--jobs", "3", "--max_memory", "2GB"]).is_empty(), "how it is run changes no result");
    assert_eq!(contents(&out), before);

    std::fs::write(out.join("image01_objects.csv"), b"edited").unwrap();
    std::fs::remove_file(out.join("image02_labels.tif")).unwrap();
    assert_eq!(finished(&[]), ["image01.png", "image02.png"]);
    assert_eq!(contents(&out), before);

    let mut pixels = discs(97, 131);
    pixels[77] = 255;
    write_png(&input.join("image03.png"), 97, 131, &pixels);
    assert_eq!(finished(&[]), ["image03.png"]);
    assert_eq!(finished(&["--overwrite"]).len(), 4);
    assert_eq!(finished(&["--min_size", "30"]).len(), 4, "other settings");
    assert_eq!(finished(&["--min_size", "30", "--no-overlay"]).len(), 4, "other outputs");
}

#[test]
fn subfolders_are_mirrored_and_patterns_choose() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("in/results"));
    for inner in ["", "day1", "day1/late"] {
        std::fs::create_dir_all(input.join(inner)).unwrap();
        write_png(&input.join(inner).join("a_w1.png"), 97, 131, &discs(97, 131));
        write_png(&input.join(inner).join("a_w2.png"), 97, 131, &discs(97, 131));
    }
    let more = ["--recursive", "--pattern", "*_w1.png", "--exclude", "day1/late/*", "--json"];
    let outcome = run(&input, &out, &more);
    outcome.succeeds();
    let summary: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(summary["images"].as_array().unwrap().len(), 2);
    assert!(out.join("a_w1_labels.tif").exists() && out.join("day1/a_w1_labels.tif").exists());
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("href=\"day1/a_w1_labels.tif\""));
    // The results inside the input folder are not taken for images.
    let again = run(&input, &out, &["--recursive", "--json"]);
    let summary: Value = serde_json::from_str(&again.succeeds().stdout).unwrap();
    assert_eq!(summary["images"].as_array().unwrap().len() + summary["skipped"].as_array().unwrap().len(), 6);

    let twice = cytomask([
        "segment".as_ref(),
        input.join("a_w1.png").as_os_str(),
        input.join("day1/a_w1.png").as_os_str(),
        "-o".as_ref(),
        out.as_os_str(),
    ]);
    twice.fails(1, &["a_w1.png", "same name"]);
}

#[test]
fn an_image_beyond_the_budget_fails_and_the_rest_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("out"));
    images(&input, 2);
    let large = write_png(&input.join("large.png"), 4000, 4000, &vec![7; 16_000_000]);
    let outcome = run(&input, &out, &["--max_memory", "500MB", "--jobs", "2"]);
    outcome.fails(1, &[large.to_str().unwrap(), "the budget is 0.5 GB", "1 of 3 images failed"]);
    assert!(out.join("image01_labels.tif").exists());
    run(&input, &out, &["--max_memory", "much"]).fails(2, &["8GB"]);
}

/// Starts the program without waiting for it.
fn start(input: &Path, out: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cytomask"));
    command.arg("segment").arg(input).arg("-o").arg(out).args(["--mode", "ais", "--scale", "1", "--log", "json"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the first image is finished.
fn wait_for_first(out: &Path) {
    let start = Instant::now();
    while !files_in(out).iter().any(|name| name.ends_with("_provenance.json")) {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing finished");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn killed_and_restarted_it_does_no_finished_work_again_and_ends_with_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let (input, whole, killed) = (folder.path().join("in"), folder.path().join("whole"), folder.path().join("killed"));
    images(&input, 12);
    run(&input, &whole, &[]).succeeds();

    let mut child = start(&input, &killed);
    wait_for_first(&killed);
    child.kill().unwrap();
    child.wait().unwrap();
    let complete: Vec<String> =
        files_in(&killed).into_iter().filter(|name| name.ends_with("_provenance.json")).collect();
    // As if it had died while writing, too.
    std::fs::write(killed.join(".image11_labels.tif.77-0.partial"), b"half").unwrap();
    let outcome = run(&input, &killed, &["--log", "json"]);
    outcome.succeeds();
    assert_eq!(events(&outcome, "skipped").len(), complete.len());
    assert_eq!(events(&outcome, "finished").len(), 12 - complete.len());
    assert!(complete.len() < 12, "killed too late to show anything");
    assert_eq!(contents(&killed), contents(&whole));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_finishes_its_image_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("out"));
    images(&input, 12);
    let child = start(&input, &out);
    wait_for_first(&out);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    let words = String::from_utf8_lossy(&ended.stderr);
    let summary = words.lines().rev().find(|line| line.contains("\"summary\"")).expect(&words);
    let summary: Value = serde_json::from_str(summary).unwrap();
    assert!(summary["left"].as_u64().unwrap() > 0, "{summary}");
    assert!(files_in(&out).iter().all(|name| !name.ends_with(".partial")));
    assert!(out.join("index.html").exists());
    let outcome = run(&input, &out, &["--log", "json"]);
    outcome.succeeds();
    assert_eq!(events(&outcome, "skipped").len() as u64, summary["done"].as_u64().unwrap());
}
