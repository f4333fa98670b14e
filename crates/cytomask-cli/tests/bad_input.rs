//! Bad input: each case with its message and exit code; nothing panics, nothing half-written stays.

mod common;

use std::path::Path;
use std::process::Command;

use common::{cytomask, discs, files_in, segment, write_float_tiff, write_png};

#[test]
fn an_empty_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("empty.tif");
    std::fs::write(&image, b"").unwrap();
    segment(&image, &folder.path().join("out"), &[]).fails(1, &["empty.tif", "empty"]);
    assert!(files_in(&folder.path().join("out")).is_empty());
}

#[test]
fn a_folder_without_images_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), b"").unwrap();
    segment(folder.path(), &folder.path().join("out"), &[]).fails(1, &["no images in this folder", ".tif"]);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_missing_file_is_named_and_the_rest_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let good = write_png(&folder.path().join("good.png"), 97, 131, &discs(97, 131));
    let out = folder.path().join("out");
    let outcome = cytomask([
        "segment".as_ref(),
        folder.path().join("absent.png").as_os_str(),
        good.as_os_str(),
        "-o".as_ref(),
        out.as_os_str(),
        "--mode".as_ref(),
        "ais".as_ref(),
    ]);
    outcome.fails(1, &["absent.png", "1 of 2 images failed"]);
    let good = ["good_labels.tif", "good_objects.csv", "good_overlay.png", "good_provenance.json"];
    assert_eq!(files_in(&out), [&["failures.json"], &good[..], &["index.html"]].concat());
}

#[test]
fn a_truncated_tiff_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_float_tiff(&folder.path().join("cut.tif"), 97, 131, &vec![0.5; 97 * 131]);
    let bytes = std::fs::read(&image).unwrap();
    for length in [4, bytes.len() / 2, bytes.len() - 20] {
        std::fs::write(&image, &bytes[..length]).unwrap();
        segment(&image, &folder.path().join("out"), &[]).fails(1, &["cut.tif"]);
    }
    assert!(files_in(&folder.path().join("out")).is_empty());
}

#[test]
fn an_image_without_pixels_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("none.png"), 1, 1, &[7]);
    let mut bytes = std::fs::read(&image).unwrap();
    // Width and height of the header, then its checksum.
    bytes[16..24].fill(0);
    let checksum = crc32(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&checksum);
    std::fs::write(&image, bytes).unwrap();
    segment(&image, &folder.path().join("out"), &[]).fails(1, &["none.png"]);
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn one_pixel_and_constant_images_have_no_objects() {
    let folder = tempfile::tempdir().unwrap();
    let one = write_png(&folder.path().join("one.png"), 1, 1, &[200]);
    let flat = write_png(&folder.path().join("flat.png"), 97, 131, &vec![80; 97 * 131]);
    for image in [&one, &flat] {
        let outcome = segment(image, &folder.path().join("out"), &["--json"]);
        outcome.succeeds();
        let summary: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(summary["images"][0]["objects"], 0, "{}", image.display());
    }
}

#[test]
fn pixels_that_are_no_numbers_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("nan.tif", f32::NAN), ("infinite.tif", f32::INFINITY)] {
        let mut pixels = vec![0.5; 97 * 131];
        pixels[3 * 131 + 5] = value;
        let image = write_float_tiff(&folder.path().join(name), 97, 131, &pixels);
        segment(&image, &folder.path().join("out"), &[]).fails(1, &[name, "3", "5"]);
    }
}

#[test]
fn a_very_long_image_is_segmented_in_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let row = |y: u32| (0..60_000_u32).map(move |x| ((x / 40 + y) % 3 * 60 + x % 17) as u8);
    let image = write_png(&folder.path().join("long.png"), 4, 60_000, &(0..4).flat_map(row).collect::<Vec<_>>());
    let out = folder.path().join("out");
    segment(&image, &out, &["--mode", "ais", "--no-overlay", "--scale", "1"]).succeeds();
    assert!(files_in(&out).contains(&"long_labels.tif".to_owned()));
}

#[test]
fn an_unsupported_depth_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_float_tiff(&folder.path().join("odd.tif"), 8, 8, &[0.0; 64]);
    let mut bytes = std::fs::read(&image).unwrap();
    // Tag 258, bits per sample, inline value: 24-bit floats exist on no machine.
    let at = bytes.windows(8).position(|tag| tag[..4] == [2, 1, 3, 0] && tag[4..8] == [1, 0, 0, 0]).unwrap();
    bytes[at + 8] = 24;
    std::fs::write(&image, bytes).unwrap();
    segment(&image, &folder.path().join("out"), &[]).fails(1, &["odd.tif"]);
}

#[test]
fn a_text_file_is_no_image_and_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.png");
    std::fs::write(&text, b"this is not an image, whatever its name says").unwrap();
    let out = folder.path().join("out");
    segment(&text, &out, &[]).fails(1, &["text.png"]);
    let image = write_png(&folder.path().join("good.png"), 97, 131, &discs(97, 131));
    segment(&image, &out, &["--model", text.to_str().unwrap()]).fails(1, &["text.png"]);
    assert!(files_in(&out).is_empty());
}

#[test]
fn a_page_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_float_tiff(&folder.path().join("single.tif"), 8, 8, &[0.0; 64]);
    segment(&image, &folder.path().join("out"), &["--page", "3"]).fails(1, &["single.tif", "page 3"]);
}

#[test]
fn a_file_where_the_folder_should_be_is_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("good.png"), 97, 131, &discs(97, 131));
    let taken = folder.path().join("taken");
    std::fs::write(&taken, b"precious").unwrap();
    segment(&image, &taken, &[]).fails(1, &["taken", "expected a folder"]);
    assert_eq!(std::fs::read(&taken).unwrap(), b"precious");
}

/// Mounts a small tmpfs for `check`; says so and skips where that is not allowed.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn on_tmpfs(options: &str, check: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: mounting a tmpfs ({options}) is not allowed here");
        return;
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(folder.path())));
    let _ = Command::new("umount").arg("-l").arg(folder.path()).output();
    if let Err(cause) = outcome {
        std::panic::resume_unwind(cause);
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("good.png"), 97, 131, &discs(97, 131));
    on_tmpfs("size=4k", |disk| {
        segment(&image, disk, &["--mode", "ais"]).fails(1, &["good_"]);
        let left = files_in(disk);
        assert!(left.iter().all(|name| !name.contains("tmp") && !name.contains("overlay")), "{left:?}");
    });
}

#[test]
fn a_read_only_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("good.png"), 97, 131, &discs(97, 131));
    on_tmpfs("ro,size=1m", |disk| {
        segment(&image, disk, &["--mode", "ais"]).fails(1, &["good_labels.tif"]);
        assert!(files_in(disk).is_empty());
    });
}

#[test]
fn wrong_flags_get_a_hint_and_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("good.png"), 97, 131, &discs(97, 131));
    let out = folder.path().join("out");
    segment(&image, &out, &["--nms_treshold", "0.5"]).fails(2, &["nms_threshold"]);
    segment(&image, &out, &["--mode", "apgg"]).fails(2, &["apg"]);
    segment(&image, &out, &["--nms_threshold", "1.5"]).fails(1, &["--nms_threshold", "1.5"]);
    segment(&image, &out, &["--mode", "ais", "--nms_threshold", "0.5"]).fails(1, &["--nms_threshold", "apg"]);
    segment(&image, &out, &["--model", "vit_b_ml"]).fails(1, &["vit_b_ml"]);
    segment(&image, &out, &["--mode", "prompt", "--point", "5000,3"]).fails(1, &["5000"]);
    assert!(files_in(&out).is_empty());
}

#[test]
fn two_images_of_one_name_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let a = write_png(&folder.path().join("cells.png"), 97, 131, &discs(97, 131));
    let b = write_float_tiff(&folder.path().join("cells.tif"), 8, 8, &[0.0; 64]);
    let out = folder.path().join("out");
    let outcome = cytomask(["segment".as_ref(), a.as_os_str(), b.as_os_str(), "-o".as_ref(), out.as_os_str()]);
    outcome.fails(1, &["cells.png", "cells.tif", "same name"]);
    assert!(!out.exists());
}
