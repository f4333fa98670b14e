//! `segment --export` and `convert` from outside: every kind of file, from both doors, with the same objects.

mod common;

use std::path::Path;

use common::{Outcome, cytomask, discs, files_in, segment, write_png};
use serde_json::Value;

const ALL: &str = "tiff,png,ome-tiff,ome-zarr,geojson,roi,coco,cellpose,cellpose-png,csv,parquet,overlay,svg";

/// What `ALL` writes for an image called `discs`.
const FILES: [&str; 13] = [
    "discs_coco.json",
    "discs_contours.svg",
    "discs_cp_masks.png",
    "discs_cp_masks.tif",
    "discs_labels.ome.tif",
    "discs_labels.ome.zarr",
    "discs_labels.png",
    "discs_labels.tif",
    "discs_objects.csv",
    "discs_objects.geojson",
    "discs_objects.parquet",
    "discs_overlay.png",
    "discs_rois.zip",
];

fn convert(labels: &Path, output: &Path, more: &[&str]) -> Outcome {
    let mut arguments: Vec<std::ffi::OsString> = vec!["convert".into(), labels.into(), "-o".into(), output.into()];
    arguments.extend(more.iter().map(Into::into));
    cytomask(arguments)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

#[test]
fn all_kinds_at_once_and_again_from_the_labels() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let out = folder.path().join("out");
    segment(&image, &out, &["--mode", "ais", "--export", ALL, "--object_type", "cell"]).succeeds();
    let mut expected: Vec<String> = FILES.iter().map(|&name| name.to_owned()).collect();
    expected.push("discs_provenance.json".into());
    expected.sort();
    assert_eq!(files_in(&out), expected);

    let table = rows(&out.join("discs_objects.csv"));
    assert_eq!(
        table[0][..13].join(","),
        "id,area_px,centroid_y,centroid_x,box_y0,box_x0,box_y1,box_x1,score,predicted_iou,stability_score,prompt_y,prompt_x"
    );
    assert!(table[0].contains(&"intensity_mean_0".to_owned()), "{:?}", table[0]);
    let objects = table.len() - 1;
    assert!(objects >= 3, "{objects}");
    let geojson = json(&out.join("discs_objects.geojson"));
    let features = geojson["features"].as_array().unwrap();
    assert_eq!(features.len(), objects);
    assert_eq!(features[0]["properties"]["objectType"], "cell");
    assert_eq!(features[0]["properties"]["measurements"]["Area px^2"].to_string(), format!("{}.0", table[1][1]));
    let coco = json(&out.join("discs_coco.json"));
    assert_eq!(coco["images"][0]["file_name"], "discs.png");
    assert_eq!(coco["annotations"].as_array().unwrap().len(), objects);
    assert!(coco["annotations"][0]["score"].as_f64().unwrap() > 0.0);
    let zarr = json(&out.join("discs_labels.ome.zarr/.zattrs"));
    assert_eq!(zarr["image-label"]["properties"].as_array().unwrap().len(), objects);
    let provenance = json(&out.join("discs_provenance.json"));
    assert_eq!(provenance["outputs"].as_object().unwrap().len(), FILES.len());
    assert_eq!(provenance["arguments"]["exports"].as_array().unwrap().len(), FILES.len());

    // What is finished is known by all its files, folders too.
    let again = segment(&image, &out, &["--mode", "ais", "--export", ALL, "--object_type", "cell"]);
    assert!(again.succeeds().stderr.contains("finished before"), "{}", again.stderr);
    std::fs::remove_file(out.join("discs_labels.ome.zarr/0/0/0")).unwrap();
    let again = segment(&image, &out, &["--mode", "ais", "--export", ALL, "--object_type", "cell"]);
    assert!(again.succeeds().stderr.contains("discs_labels.ome.zarr was altered"), "{}", again.stderr);

    let converted = folder.path().join("converted");
    let labels = out.join("discs_labels.png");
    let image = image.to_str().unwrap();
    let more = ["--to", ALL, "--image", image, "--object_type", "cell", "--pixel_size", "0.5"];
    convert(&labels, &converted, &more).succeeds();
    assert_eq!(files_in(&converted), FILES);
    for name in ["discs_rois.zip", "discs_contours.svg", "discs_cp_masks.png", "discs_labels.png"] {
        assert!(std::fs::read(out.join(name)).unwrap() == std::fs::read(converted.join(name)).unwrap(), "{name}");
    }
    let measured = rows(&converted.join("discs_objects.csv"));
    let column = |rows: &[Vec<String>], name: &str| {
        let at = rows[0].iter().position(|head| head == name).unwrap_or_else(|| panic!("{name} in {:?}", rows[0]));
        rows[1..].iter().map(|row| row[at].clone()).collect::<Vec<_>>()
    };
    for name in ["area_px", "perimeter_px", "intensity_median_0"] {
        assert_eq!(column(&table, name), column(&measured, name), "{name}");
    }
    let area: f64 = column(&measured, "area_um2")[0].parse().unwrap();
    assert_eq!(area * 4.0, table[1][1].parse::<f64>().unwrap());
    let ids = |geojson: &Value| {
        geojson["features"].as_array().unwrap().iter().map(|f| f["id"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&geojson), ids(&json(&converted.join("discs_objects.geojson"))));
}

#[test]
fn the_list_of_exports_is_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let written = |more: &[&str]| {
        let out = folder.path().join("out");
        let _ = std::fs::remove_dir_all(&out);
        segment(&image, &out, &[&["--mode", "ais"], more].concat()).succeeds();
        let mut names = files_in(&out);
        names.retain(|name| name != "discs_provenance.json");
        names
    };
    assert_eq!(written(&["--export", "geojson", "--export", "csv"]), ["discs_objects.csv", "discs_objects.geojson"]);
    assert_eq!(written(&["--export", "roi", "--format", "png"]), ["discs_labels.png", "discs_rois.zip"]);
    let out = folder.path().join("out");
    // The size of a pixel reaches the table.
    assert_eq!(written(&["--export", "csv", "--pixel_size", "0.5"]), ["discs_objects.csv"]);
    assert!(rows(&out.join("discs_objects.csv"))[0].contains(&"feret_max_um".to_owned()));
    segment(&image, &out, &["--export", "ome-zarr,ome-zarr-0.5"]).fails(1, &["both would be"]);
    segment(&image, &out, &["--export", "jpeg"]).fails(2, &["invalid value 'jpeg'", "geojson"]);
}

#[test]
fn a_name_says_what_to_convert_to() {
    let folder = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..97 * 131).map(|at| if at % 131 < 9 { 200 } else { (at / 131 / 40) as u8 }).collect();
    let labels = write_png(&folder.path().join("cells_cp_masks.png"), 97, 131, &pixels);
    let at = |name: &str| folder.path().join(name);
    convert(&labels, &at("a.geojson"), &[]).succeeds();
    assert_eq!(json(&at("a.geojson"))["features"].as_array().unwrap().len(), 3);
    convert(&labels, &at("a.csv"), &[]).succeeds();
    assert_eq!(rows(&at("a.csv")).len(), 4);
    convert(&labels, &at("sub/a.ome.zarr"), &["--to", "ome-zarr-0.5"]).succeeds();
    assert_eq!(json(&at("sub/a.ome.zarr/zarr.json"))["attributes"]["ome"]["version"], "0.5");
    convert(&labels, &at("all"), &["--to", "coco,svg"]).succeeds();
    assert_eq!(files_in(&at("all")), ["cells_coco.json", "cells_contours.svg"]);

    convert(&labels, &at("folder"), &[]).fails(1, &["--to"]);
    convert(&labels, &at("a.csv"), &["--to", "csv,svg"]).fails(1, &["expected a folder"]);
    convert(&labels, &labels, &[]).fails(1, &["would replace what is read"]);
    convert(&labels, &at("o"), &["--to", "overlay"]).fails(1, &["--image"]);
    convert(&labels, &at("o"), &["--to", "csv", "--pixel_size", "0"]).fails(2, &["µm"]);
    convert(&labels, &at("x.zarr/labels/cells"), &[]).fails(1, &["x.zarr", "OME-Zarr image"]);
    convert(&at("absent.png"), &at("b.csv"), &[]).fails(1, &["absent.png"]);
    let small = write_png(&at("small.png"), 9, 9, &[0; 81]);
    convert(&labels, &at("b.csv"), &["--image", small.to_str().unwrap()]).fails(1, &["97 × 131", "9 × 9"]);
    assert!(!at("b.csv").exists() && !at("x.zarr").exists());
}
