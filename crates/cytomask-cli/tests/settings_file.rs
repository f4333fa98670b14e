//! `segment --settings`: what a file says, what flags change, what is refused.

mod common;

use std::path::Path;

use common::{discs, files_in, segment, write_png};
use serde_json::{Value, json};

fn provenance(out: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(out.join("discs_provenance.json")).unwrap()).unwrap()
}

#[test]
fn a_settings_file_is_followed_and_flags_go_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let out = folder.path().join("out");
    let file = folder.path().join("settings.json");
    let settings = json!({ "nms_threshold": 0.6, "min_size": 11, "intersection_over_min": true });
    std::fs::write(&file, json!({ "mode": "apg", "settings": settings }).to_string()).unwrap();
    let file = file.to_str().unwrap();

    segment(&image, &out, &["--settings", file]).succeeds();
    let found = provenance(&out);
    assert_eq!(found["mode"], "apg");
    let of = |found: &Value, name: &str| found["settings"][name].clone();
    assert_eq!([of(&found, "nms_threshold"), of(&found, "min_size")], [json!(0.6), json!(11)]);
    assert_eq!(of(&found, "intersection_over_min"), json!(true));
    assert_eq!(of(&found, "min_score"), json!(0.4), "what the file leaves out is as suits the model");

    segment(&image, &out, &["--settings", file, "--min_size", "4", "--intersection_over_min=false"]).succeeds();
    let found = provenance(&out);
    assert_eq!([of(&found, "nms_threshold"), of(&found, "min_size")], [json!(0.6), json!(4)]);
    assert_eq!(of(&found, "intersection_over_min"), json!(false));

    // A run is repeated by the settings of its record.
    let record = folder.path().join("record.json");
    std::fs::write(&record, json!({ "mode": found["mode"], "settings": found["settings"] }).to_string()).unwrap();
    segment(&image, &out, &["--settings", record.to_str().unwrap()]).succeeds();
    assert_eq!(provenance(&out)["settings"], found["settings"]);
}

#[test]
fn settings_that_do_not_fit_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let out = folder.path().join("out");
    let path = folder.path().join("settings.json");
    let with = |content: &str, more: &[&str]| {
        std::fs::write(&path, content).unwrap();
        segment(&image, &out, &[&["--settings", path.to_str().unwrap()], more].concat())
    };
    with("min_size = 3", &[]).fails(1, &["settings.json", "not a settings file"]);
    with(r#"{ "mode": "apg", "settings": { "nms_treshold": 0.5 } }"#, &[]).fails(1, &["settings.json", "nms_treshold"]);
    with(r#"{ "mode": "apg", "settings": {}, "strategy": "ais" }"#, &[]).fails(1, &["settings.json", "strategy"]);
    with(r#"{ "mode": "ais", "settings": { "nms_threshold": 0.5 } }"#, &[]).fails(1, &["nms_threshold", "apg"]);
    with(r#"{ "mode": "ais", "settings": { "min_size": -1 } }"#, &[]).fails(1, &["min_size", "-1"]);
    with(r#"{ "mode": "prompt", "settings": {} }"#, &[]).fails(1, &["settings.json", "prompt"]);
    with(r#"{ "mode": "ais", "settings": {} }"#, &["--mode", "apg"]).fails(1, &["settings.json", "ais"]);
    with(r#"{ "mode": "ais", "settings": {} }"#, &["--nms_threshold", "0.5"]).fails(1, &["--nms_threshold", "apg"]);
    with(r#"{ "mode": "apg", "settings": {} }"#, &["--compat"]).fails(2, &["--compat"]);
    assert!(files_in(&out).is_empty());
}

#[test]
fn settings_of_other_weights_are_used_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_png(&folder.path().join("discs.png"), 97, 131, &discs(97, 131));
    let file = folder.path().join("settings.json");
    let content = json!({ "model": { "name": "vit_b_lm" }, "version": "0.1.0", "mode": "ais", "settings": {} });
    std::fs::write(&file, content.to_string()).unwrap();
    let outcome = segment(&image, &folder.path().join("out"), &["--settings", file.to_str().unwrap()]);
    outcome.succeeds();
    assert!(outcome.stderr.contains("warning") && outcome.stderr.contains("vit_b_lm"), "{}", outcome.stderr);
}
