//! `--precision` from outside: what it changes, what is said of it, what it refuses.

mod common;

use common::{cytomask, discs, segment, write_png};
use serde_json::Value;

/// The provenance and the number of objects of a run on small discs.
fn run(folder: &std::path::Path, more: &[&str]) -> (Value, String) {
    let image = folder.join("discs.png");
    write_png(&image, 97, 131, &discs(97, 131));
    let out = folder.join("out");
    let arguments = [&["--mode", "ais", "--scale", "1", "--no-overlay", "--device", "cpu"], more].concat();
    let outcome = segment(&image, &out, &arguments);
    outcome.succeeds();
    let text = std::fs::read_to_string(out.join("discs_provenance.json")).unwrap();
    (serde_json::from_str(&text).unwrap(), outcome.stderr)
}

#[test]
fn another_format_does_an_image_again_and_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let (exact, _) = run(folder.path(), &[]);
    assert_eq!(exact.get("precision"), None, "f32 is not worth a word");
    let (again, _) = run(folder.path(), &["--precision", "f32"]);
    assert_eq!(again, exact, "auto is f32: nothing to do again");
    for format in ["int8", "bf16"] {
        let (reduced, _) = run(folder.path(), &["--precision", format]);
        assert_eq!(reduced["precision"], format);
        assert_eq!(reduced["objects"], exact["objects"], "as many discs in {format}");
    }
    let (back, _) = run(folder.path(), &["--precision", "auto"]);
    assert_eq!(back, exact);
}

#[test]
fn what_cannot_be_had_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("discs.png");
    write_png(&image, 97, 131, &discs(97, 131));
    let out = folder.path().join("out");
    segment(&image, &out, &["--compat", "--precision", "int8"]).fails(1, &["--compat", "f32"]);
    segment(&image, &out, &["--precision", "int4"]).fails(2, &["int4", "int8"]);
    let outcome = cytomask(["train", "--images", "no", "--labels", "no", "-o", "no", "--precision", "int8"]);
    outcome.fails(1, &["training computes in f32"]);
}
