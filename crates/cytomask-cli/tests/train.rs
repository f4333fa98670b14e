//! `train` from outside: what is checked before a run, and what a short run leaves behind.

mod common;

use std::path::{Path, PathBuf};

use common::{Outcome, cytomask, discs, write_float_tiff, write_png};

/// Labels of [`discs`]: 1–4, or one class.
fn disc_labels(class: bool) -> Vec<u8> {
    (0..97 * 131_u32)
        .map(|at| {
            let (y, x) = (i64::from(at / 131), i64::from(at % 131));
            let centers = [(24, 30), (60, 40), (40, 90), (75, 100)];
            let found = centers.iter().position(|(cy, cx)| (y - cy).pow(2) + (x - cx).pow(2) < 100);
            found.map_or(0, |disc| if class { 1 } else { disc as u8 + 1 })
        })
        .collect()
}

fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
    std::fs::create_dir_all(&images).unwrap();
    std::fs::create_dir_all(&labels).unwrap();
    (folder, images, labels)
}

/// `count` images that differ in a corner.
fn write_pairs(images: &Path, labels: &Path, count: u8) {
    for number in 0..count {
        let mut pixels = discs(97, 131);
        (0..5).for_each(|y| pixels[y * 131..y * 131 + 9].fill(30 + 25 * number));
        write_png(&images.join(format!("cell{number}.png")), 97, 131, &pixels);
        write_png(&labels.join(format!("cell{number}.png")), 97, 131, &disc_labels(false));
    }
}

fn train(folder: &Path, more: &[&str]) -> Outcome {
    let mut arguments: Vec<std::ffi::OsString> = vec!["train".into(), folder.into()];
    arguments.extend(more.iter().map(Into::into));
    cytomask(arguments)
}

#[test]
fn what_is_wrong_with_labels_is_named_with_a_remedy() {
    let (folder, images, labels) = folders();
    write_pairs(&images, &labels, 6);
    train(folder.path(), &["--check_only"]).succeeds();

    let values: Vec<f32> = disc_labels(false).iter().map(|&id| f32::from(id) * 0.5).collect();
    std::fs::remove_file(labels.join("cell0.png")).unwrap();
    write_float_tiff(&labels.join("cell0.tif"), 97, 131, &values);
    let colours: Vec<u8> = disc_labels(false).iter().flat_map(|&id| [id * 60, 255 - id, 7]).collect();
    let file = std::fs::File::create(labels.join("cell1.png")).unwrap();
    let mut encoder = png::Encoder::new(file, 131, 97);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&colours).unwrap();
    write_png(&labels.join("cell2.png"), 97, 130, &vec![1; 97 * 130]);
    std::fs::remove_file(labels.join("cell3.png")).unwrap();
    write_png(&labels.join("other.png"), 97, 131, &disc_labels(false));

    let outcome = train(folder.path(), &["--check_only"]);
    outcome.fails(1, &["cannot be learnt from"]);
    for text in [
        "cell0.tif: ",
        "0.5: expected whole numbers",
        "cell1.png: a picture of 3 channels with 5 colours",
        "cell2.png: 97 × 130 pixels, its image 97 × 131",
        "cell3.png: an image without labels",
        "other.png: labels without an image",
        "5 errors",
    ] {
        assert!(outcome.stdout.contains(text), "{text:?} not in {}", outcome.stdout);
    }
    let json = train(folder.path(), &["--check-only", "--json", "--skip_unlabelled"]);
    let found: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let errors = found["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] == "error");
    assert_eq!(errors.count(), 3, "{found:#}");
    // A run does not begin.
    let out = folder.path().join("out");
    train(folder.path(), &["-o", out.to_str().unwrap()]).fails(1, &["error: ", "cell1.png", "cannot be learnt from"]);
    assert!(!out.exists());
}

#[test]
fn classes_become_objects_when_asked() {
    let (folder, images, labels) = folders();
    write_pairs(&images, &labels, 4);
    // Four parts are too few to be sure; eight are not.
    let mut semantic = disc_labels(true);
    for (y0, x0) in [(2, 60), (2, 110), (88, 2), (88, 60)] {
        for y in y0..y0 + 7 {
            semantic[y * 131 + x0..y * 131 + x0 + 7].fill(1);
        }
    }
    write_png(&labels.join("cell2.png"), 97, 131, &semantic);
    let outcome = train(folder.path(), &["--check_only"]);
    outcome.fails(1, &[]);
    assert!(outcome.stdout.contains("cell2.png: one id in 8 separate parts"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("--split_components"));
    train(folder.path(), &["--check_only", "--split_components"]).succeeds();
}

#[test]
fn an_image_with_nan_is_named() {
    let (folder, images, labels) = folders();
    write_pairs(&images, &labels, 4);
    std::fs::remove_file(images.join("cell1.png")).unwrap();
    let mut pixels: Vec<f32> = discs(97, 131).iter().map(|&pixel| f32::from(pixel)).collect();
    pixels[700] = f32::NAN;
    write_float_tiff(&images.join("cell1.tif"), 97, 131, &pixels);
    let outcome = train(folder.path(), &["--check_only"]);
    outcome.fails(1, &[]);
    assert!(outcome.stdout.contains("cell1.tif: image: expected finite samples"), "{}", outcome.stdout);
}

#[test]
fn wrong_flags_are_explained() {
    let (folder, images, labels) = folders();
    write_pairs(&images, &labels, 4);
    train(folder.path(), &["--check_only", "--augment", "fog"]).fails(2, &["none, light, default, strong"]);
    train(folder.path(), &["--check_only", "--weight", "x=2"]).fails(1, &["weight \"x\""]);
    train(folder.path(), &[]).fails(2, &["--output"]);
    train(&folder.path().join("absent"), &["--check_only"]).fails(1, &["absent"]);
}

#[test]
fn a_short_run_leaves_models_a_log_and_a_page() {
    let (folder, images, labels) = folders();
    write_pairs(&images, &labels, 5);
    let out = folder.path().join("run");
    let flags = |iterations: &'static str| {
        let fixed = ["--n_iterations", iterations, "--save_every", "1", "--batch_size", "1", "--patch_shape", "64"];
        [&fixed[..], &["--n_objects_per_batch", "2", "--device", "cpu", "-o"]].concat()
    };
    let with = |iterations, more: &[&str]| {
        train(folder.path(), &[&flags(iterations)[..], &[out.to_str().unwrap()], more].concat())
    };
    let outcome = with("2", &[]);
    outcome.succeeds();
    assert!(outcome.stderr.contains("4 training and 1 validation images"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("batches of 1 crops of 64 pixels"), "{}", outcome.stderr);
    for name in ["last.safetensors", "best.safetensors", "log.jsonl", "report.html"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(out.join("log.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["run"]["settings"]["settings"]["batch_size"], 1);
    assert_eq!(lines.iter().filter(|line| line["waited"].is_number()).count(), 2);
    assert_eq!(lines.iter().filter(|line| line["validation"]["apg"].is_number()).count(), 3);
    // The model one has is the best one until another is better.
    assert!(outcome.stderr.contains("best.safetensors until a checkpoint scores better"), "{}", outcome.stderr);
    assert_eq!(lines.iter().find(|line| line["validation"].is_object()).unwrap()["best"], true);
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    for text in [
        "Finished: 2 steps",
        "data:image/png;base64,",
        "<svg",
        "Validation mSA",
        "cell0.png",
        "batch_size",
        "training crop",
    ] {
        assert!(page.contains(text), "{text}");
    }
    with("2", &[]).fails(1, &["holds a run already", "--resume"]);
    let resumed = with("2", &["--resume"]);
    resumed.succeeds();
    assert!(resumed.stderr.contains("going on after step 2"), "{}", resumed.stderr);
    // What no flag says is the run's own, not what this machine would choose; what one says is compared.
    let fixed =
        ["--n_iterations", "2", "--save_every", "1", "--n_objects_per_batch", "2", "--device", "cpu", "--resume"];
    let again = |more: &[&str]| train(folder.path(), &[&fixed[..], &["-o", out.to_str().unwrap()], more].concat());
    let unsaid = again(&[]);
    unsaid.succeeds();
    assert!(unsaid.stderr.contains("batches of 1 crops of 64 pixels"), "{}", unsaid.stderr);
    again(&["--learning_rate", "3e-5"]).fails(1, &["other settings"]);
}

/// Lines of a run's log without what the clock says.
fn curve(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.retain(|line| line.get("run").is_none());
    for line in &mut lines {
        for clock in ["seconds", "waited", "images_per_second"] {
            line.as_object_mut().unwrap().remove(clock);
        }
    }
    lines
}

/// The whole of it, twenty kills and a real data set, is `bench/resume.sh`.
#[test]
fn a_run_that_is_killed_goes_on_as_if_it_had_not_been() {
    let (folder, images, labels) = folders();
    write_pairs(&images, &labels, 5);
    let arguments = |run: &Path, more: &[&str]| {
        let fixed =
            ["--n_iterations", "6", "--save_every", "2", "--batch_size", "1", "--patch_shape", "64", "--ema", "0.9"];
        let fixed = [&fixed[..], &["--n_objects_per_batch", "2", "--warm_up", "2", "--device", "cpu", "-o"]].concat();
        [&fixed[..], &[run.to_str().unwrap()], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let given = |run: &Path, more: &[&str]| {
        train(folder.path(), &arguments(run, more).iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (unbroken, killed) = (folder.path().join("unbroken"), folder.path().join("killed"));
    given(&unbroken, &[]).succeeds();
    // Once before the first checkpoint, once after the second one began.
    for (number, lines) in [(0, 2), (1, 6)] {
        let more: &[&str] = if number == 0 { &[] } else { &["--resume"] };
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_cytomask"))
            .arg("train")
            .arg(folder.path())
            .args(arguments(&killed, more))
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let logged = || std::fs::read_to_string(killed.join("log.jsonl")).map_or(0, |text| text.lines().count());
        while logged() < lines && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(logged() < 11, "killed too late to prove anything");
    }
    given(&killed, &["--resume"]).succeeds();
    assert_eq!(curve(&killed), curve(&unbroken));
    for model in ["last.safetensors", "best.safetensors"] {
        assert!(std::fs::read(killed.join(model)).unwrap() == std::fs::read(unbroken.join(model)).unwrap(), "{model}");
    }
}

#[test]
fn methods_that_are_not_built_are_named() {
    let (folder, images, labels) = folders();
    write_pairs(&images, &labels, 4);
    let out = folder.path().join("run");
    let with = |more: &[&str]| train(folder.path(), &[&["-o", out.to_str().unwrap()], more].concat());
    with(&["--peft", "qlora"]).fails(1, &["--peft qlora: not supported", "take --peft lora"]);
    with(&["--peft", "adaptformer"]).fails(1, &["--peft adaptformer: not supported", "cannot be merged"]);
    with(&["--peft", "ssf", "--rank", "4"]).fails(1, &["--rank", "--peft lora or fact"]);
    with(&["--peft", "lora", "--peft_blocks", "0,1"]).fails(1, &["peft lora", "no layers that it changes"]);
    with(&["--objective", "flows"]).fails(1, &["Cellpose-SAM", "found cytomask-t"]);
    with(&["--peft", "lora", "--freeze", "image_encoder"]).fails(1, &["freeze"]);
    assert!(!out.exists());
}
