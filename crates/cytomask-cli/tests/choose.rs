//! `inspect`, and the flags that choose a part of a file, from outside.

mod common;

use std::path::{Path, PathBuf};

use common::cytomask;
use serde_json::Value;
use tempfile::TempDir;
use tiff::encoder::{TiffEncoder, colortype::Gray16};
use tiff::tags::Tag;

/// Three discs on a pattern, or the pattern alone, 97 × 131.
fn pixels(discs: bool) -> Vec<u16> {
    let pixel = |index: u32| {
        let (y, x) = (index / 131, index % 131);
        let inside = |cy: u32, cx: u32| y.abs_diff(cy).pow(2) + x.abs_diff(cx).pow(2) < 144;
        let disc = discs && (inside(30, 30) || inside(60, 90) || inside(25, 100));
        100 + (index % 7) as u16 + if disc { 3000 } else { 0 }
    };
    (0..97 * 131).map(pixel).collect()
}

/// An ImageJ hyperstack of these axes; `discs` says which planes have them.
fn hyperstack(path: &Path, axes: &str, discs: &[bool]) {
    let mut encoder = TiffEncoder::new(std::fs::File::create(path).unwrap()).unwrap();
    for &with_discs in discs {
        let mut image = encoder.new_image::<Gray16>(131, 97).unwrap();
        let description =
            format!("ImageJ=1.53t\nimages={}\n{axes}\nhyperstack=true\nunit=um\nspacing=2\n", discs.len());
        image.encoder().write_tag(Tag::ImageDescription, description.as_str()).unwrap();
        image.encoder().write_tag(Tag::XResolution, tiff::encoder::Rational { n: 2, d: 1 }).unwrap();
        image.encoder().write_tag(Tag::YResolution, tiff::encoder::Rational { n: 2, d: 1 }).unwrap();
        image.write_data(&pixels(with_discs)).unwrap();
    }
}

/// A stack of two channels and three slices with discs in one slice of channel 1 alone.
fn stack(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("stack.tif");
    hyperstack(&path, "channels=2\nslices=3", &[false, false, false, true, false, false]);
    path
}

fn inspect(path: &Path, more: &[&str]) -> Value {
    let mut arguments = vec!["inspect", path.to_str().unwrap(), "--json"];
    arguments.extend(more);
    let output = cytomask(&arguments);
    assert!(output.code == 0, "{}", output.stderr);
    serde_json::from_str::<Value>(&output.stdout).unwrap()[0].clone()
}

#[test]
fn inspect_says_what_a_file_holds() {
    let folder = TempDir::new().unwrap();
    let path = stack(&folder);
    let picture = folder.path().join("small.png");
    let found = inspect(&path, &["--thumbnail", picture.to_str().unwrap()]);
    assert_eq!(found["format"], "ImageJ TIFF");
    assert_eq!(found["size"], serde_json::json!({ "t": 1, "z": 3, "c": 2, "y": 97, "x": 131 }));
    assert_eq!(found["pixel_size_um"], serde_json::json!([0.5, 0.5]));
    assert_eq!(found["z_step_um"], 2.0);
    assert_eq!(found["statistics"][1]["max"], 106.0);
    let warnings = found["warnings"].to_string();
    assert!(warnings.contains("3 slices (z): only the first is used"), "{warnings}");
    assert!(warnings.contains("2 channels of uint16"), "{warnings}");
    assert!(picture.is_file());
    // The projection sees the discs.
    assert_eq!(inspect(&path, &["--z", "max", "--channels", "1"])["statistics"][1]["max"], 3106.0);
    let text = cytomask(["inspect", path.to_str().unwrap(), "--channels", "1"]).stdout;
    assert!(text.contains("take channel 1 as grey") && text.contains("t 1, z 3, c 2, y 97, x 131"), "{text}");
}

#[test]
fn the_chosen_plane_is_segmented() {
    let folder = TempDir::new().unwrap();
    let path = stack(&folder);
    let run = |name: &str, more: &[&str]| {
        let output = folder.path().join(name);
        let mut arguments =
            vec!["segment", path.to_str().unwrap(), "-o", output.to_str().unwrap(), "--mode", "ais", "--json"];
        arguments.extend(more);
        let done = cytomask(&arguments);
        assert!(done.code == 0, "{}", done.stderr);
        let summary: Value = serde_json::from_str(&done.stdout).unwrap();
        (summary["images"][0]["objects"].as_u64().unwrap(), done.stderr)
    };
    let (empty, words) = run("first", &["--normalize", "range:0,4000"]);
    assert_eq!(empty, 0);
    assert!(words.contains("choose with --z"), "{words}");
    let (discs, words) = run("max", &["--normalize", "range:0,4000", "--z", "max", "--nucleus", "1"]);
    assert!((1..=3).contains(&discs), "{discs}: {words}");
    let (_, words) = run("wide", &["--normalize", "range:0,4000", "--z", "1", "--channels", "1", "--diameter", "90"]);
    assert!(!words.contains("choose with"), "{words}");
    // A tile filter that takes everything for empty leaves nothing.
    let (none, _) =
        run("skipped", &["--normalize", "range:0,4000", "--z", "1", "--channels", "1", "--skip_empty", "256"]);
    assert_eq!(none, 0);
}

#[test]
fn wrong_choices_name_what_there_is() {
    let folder = TempDir::new().unwrap();
    let path = stack(&folder);
    let fails = |more: &[&str], words: &str| {
        let mut arguments = vec!["inspect", path.to_str().unwrap()];
        arguments.extend(more);
        let output = cytomask(&arguments);
        assert!(output.code != 0);
        assert!(output.stderr.contains(words), "{}", output.stderr);
    };
    fails(&["--channels", "DAPI"], "--channels \"DAPI\": the file has 2 channels (without names)");
    fails(&["--z", "3"], "--z 3: the file has 3 slices, counted from 0");
    fails(&["--z", "some"], "expected an index from 0, middle, max, mean or sum");
    fails(&["--time", "all"], "expected one time point");
    fails(&["--diameter=-1"], "above 0");
    fails(&["--page", "9"], "page 9 does not exist: the file has 6 pages");
}

#[test]
fn every_time_point_has_results_of_its_own() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("movie.tif");
    hyperstack(&path, "frames=3", &[true, false, true]);
    let out = folder.path().join("out");
    let arguments = ["segment", path.to_str().unwrap(), "-o", out.to_str().unwrap(), "--time", "all", "--json"];
    let output = cytomask([&arguments[..], &["--mode", "ais"]].concat());
    assert!(output.code == 0, "{}", output.stderr);
    let found: Value = serde_json::from_str(&output.stdout).unwrap();
    let images = found["images"].as_array().unwrap();
    assert_eq!(images.len(), 3);
    let objects = |time: usize| images[time]["objects"].as_u64().unwrap();
    assert_eq!((images[1]["time"].as_u64(), objects(0), objects(2)), (Some(1), objects(2), 3), "{found:#}");
    assert!(objects(1) < 3, "{found:#}");
    for time in 0..3 {
        assert!(out.join(format!("movie_t{time}_labels.tif")).is_file());
    }
    let again = cytomask([&arguments[..], &["--mode", "ais"]].concat());
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again["skipped"].as_array().unwrap().len(), 3, "{again:#}");
    let one = cytomask(["inspect", path.to_str().unwrap(), "--time", "all"]);
    assert!(one.code == 1 && one.stderr.contains("--time all"), "{}", one.stderr);
}

#[test]
fn a_plate_is_a_folder_of_images() {
    let folder = TempDir::new().unwrap();
    let plate = folder.path().join("plate.zarr");
    let group = |below: &str, attributes: &str| {
        std::fs::create_dir_all(plate.join(below)).unwrap();
        std::fs::write(plate.join(below).join(".zgroup"), r#"{"zarr_format": 2}"#).unwrap();
        std::fs::write(plate.join(below).join(".zattrs"), attributes).unwrap();
    };
    group("", r#"{"plate": {"wells": [{"path": "B/03"}, {"path": "B/04"}]}}"#);
    group("B/03", r#"{"well": {"images": [{"path": "0"}, {"path": "1"}]}}"#);
    for field in ["B/03/0", "B/03/1"] {
        let axes = r#"[{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]"#;
        group(
            field,
            &format!(r#"{{"multiscales": [{{"version": "0.4", "axes": {axes}, "datasets": [{{"path": "0"}}]}}]}}"#),
        );
        let array = plate.join(field).join("0");
        std::fs::create_dir(&array).unwrap();
        let header = r#"{"zarr_format": 2, "shape": [97, 131], "chunks": [97, 131], "dtype": "<u2", "compressor": null,
                         "fill_value": 0, "filters": null, "order": "C"}"#;
        std::fs::write(array.join(".zarray"), header).unwrap();
        let bytes: Vec<u8> = pixels(field.ends_with('0')).into_iter().flat_map(u16::to_le_bytes).collect();
        std::fs::write(array.join("0.0"), bytes).unwrap();
    }
    let out = folder.path().join("out");
    let output = cytomask(["segment", plate.to_str().unwrap(), "-o", out.to_str().unwrap(), "--mode", "ais", "--json"]);
    // The well that is missing fails by name, the rest is done.
    assert!(output.code == 1 && output.stderr.contains("B/04"), "{}", output.stderr);
    let found: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        (found["images"].as_array().unwrap().len(), &found["images"][0]["objects"]),
        (2, &3.into()),
        "{found:#}"
    );
    assert!(out.join("plate/B_03_0_labels.tif").is_file() && out.join("plate/B_03_1_labels.tif").is_file());
}

#[test]
fn compare_and_tune_see_the_chosen_plane() {
    let folder = TempDir::new().unwrap();
    let [images, labels] = ["images", "labels"].map(|name| folder.path().join(name));
    std::fs::create_dir(&images).unwrap();
    std::fs::create_dir(&labels).unwrap();
    let names = ["a.tif", "b.tif"].map(|name| images.join(name));
    for path in &names {
        hyperstack(path, "channels=2\nslices=3", &[false, false, false, true, false, false]);
        let ids = pixels(true).into_iter().zip(0_u32..).map(|(pixel, index)| match (pixel > 1000, index) {
            (false, _) => 0,
            (true, index) if index % 131 > 70 && index / 131 > 42 => 3,
            (true, index) if index % 131 > 70 => 2,
            (true, _) => 1,
        });
        let label = labels.join(path.file_stem().unwrap()).with_extension("png");
        common::write_png(&label, 97, 131, &ids.collect::<Vec<u8>>());
    }
    let score = |out: &str, more: &[&str]| {
        let out = folder.path().join(out);
        let paths = [&images, &labels].map(|path| path.to_str().unwrap());
        let output =
            cytomask([&["compare"], &paths[..], &["-o", out.to_str().unwrap(), "--run", "ais"], more].concat());
        output.succeeds();
        let report: Value = serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
        report["analysis"]["methods"][0]["mean"]["value"].as_f64().unwrap()
    };
    let plane = ["--z", "1", "--channels", "1"];
    // The same folder twice: another plane is another result, not the one from before.
    assert!(score("compared", &[]) < 0.1);
    assert!(score("compared", &plane) > 0.5);
    let out = folder.path().join("tuned");
    let arguments = ["tune", images.to_str().unwrap(), labels.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let search = ["--mode", "ais", "--range", "min_size=10,20", "--folds", "2", "--json"];
    let output = cytomask([&arguments[..], &search, &plane].concat());
    output.succeeds();
    let found: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(found.to_string().contains("min_size"), "{found:#}");
}

#[test]
fn time_points_of_volumes_are_told_apart() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("movie.tif");
    // Two time points of two slices each; the second has no discs, and the small network makes something else of its pattern.
    hyperstack(&path, "slices=2\nframes=2", &[true, true, false, false]);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/cpsam_small.pt");
    let out = folder.path().join("out");
    let arguments =
        ["segment", path.to_str().unwrap(), "-o", out.to_str().unwrap(), "--model", model.to_str().unwrap()];
    let output = cytomask([&arguments[..], &["--stitch_threshold", "0.25", "--time", "all", "--json"]].concat());
    output.succeeds();
    let found: Value = serde_json::from_str(&output.stdout).unwrap();
    let objects = [0, 1].map(|time| found["images"][time]["objects"].as_u64().unwrap());
    assert!(objects[0] == 3 && objects[1] != 3, "{found:#}");
    assert!(out.join("movie_t0_labels.tif").is_file() && out.join("movie_t1_labels.tif").is_file());
}
