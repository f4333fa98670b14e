//! `inspect`, and the flags that choose a part of a file, from outside.

mod common;

use std::path::{Path, PathBuf};

use common::cytomask;
use serde_json::Value;
use tempfile::TempDir;
use tiff::encoder::{TiffEncoder, colortype::Gray16};
use tiff::tags::Tag;

/// An ImageJ stack of two channels and three slices, 97 × 131, with discs in one slice of channel 1 alone.
fn stack(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("stack.tif");
    let mut encoder = TiffEncoder::new(std::fs::File::create(&path).unwrap()).unwrap();
    for z in 0..3_u32 {
        for channel in 0..2_u32 {
            let mut image = encoder.new_image::<Gray16>(131, 97).unwrap();
            let description = "ImageJ=1.53t\nimages=6\nchannels=2\nslices=3\nhyperstack=true\nunit=um\nspacing=2\n";
            image.encoder().write_tag(Tag::ImageDescription, description).unwrap();
            image.encoder().write_tag(Tag::XResolution, tiff::encoder::Rational { n: 2, d: 1 }).unwrap();
            image.encoder().write_tag(Tag::YResolution, tiff::encoder::Rational { n: 2, d: 1 }).unwrap();
            let pixels: Vec<u16> = (0..97 * 131_u32)
                .map(|index| {
                    let (y, x) = (index / 131, index % 131);
                    let inside = |cy: u32, cx: u32| y.abs_diff(cy).pow(2) + x.abs_diff(cx).pow(2) < 144;
                    let disc = z == 1 && channel == 1 && (inside(30, 30) || inside(60, 90) || inside(25, 100));
                    100 + (index % 7) as u16 + if disc { 3000 } else { 0 }
                })
                .collect();
            image.write_data(&pixels).unwrap();
        }
    }
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
    fails(&["--time", "all"], "not supported yet");
    fails(&["--diameter", "0"], "above 0");
    fails(&["--page", "9"], "page 9 does not exist: the file has 6 pages");
}
