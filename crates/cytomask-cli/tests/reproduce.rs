//! `cytomask reproduce` and `cytomask datasets` from outside.

mod common;

use std::ffi::OsString;
use std::path::Path;

use common::{cytomask, discs, write_png};
use serde_json::Value;

/// A prepared TNBC of two images, as `datasets prepare` leaves it.
fn prepare(folder: &Path) {
    let set = folder.join("tnbc/test");
    for name in ["images", "labels"] {
        std::fs::create_dir_all(set.join(name)).unwrap();
    }
    for index in 0..2 {
        let mut pixels = discs(97, 131);
        pixels[index] = 255;
        let png = folder.join("image.png");
        write_png(&png, 97, 131, &pixels);
        // Prepared sets are TIFF; the program itself makes labels of that kind.
        let name = format!("tnbc_{index:04}.tif");
        let labels = set.join("labels").join(&name);
        let made: Vec<OsString> =
            vec!["segment".into(), (&png).into(), "-o".into(), labels.clone().into(), "--no_overlay".into()];
        cytomask(made).succeeds();
        std::fs::copy(&labels, set.join("images").join(&name)).unwrap();
        for beside in ["objects.csv", "provenance.json"] {
            let _ = std::fs::remove_file(set.join(format!("labels/tnbc_{index:04}_{beside}")));
        }
    }
}

#[test]
fn ours_and_the_papers_numbers_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let (prepared, out) = (folder.path().join("prepared"), folder.path().join("out"));
    let arguments = || -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["reproduce".into(), (&prepared).into(), "-o".into(), (&out).into()];
        all.extend(["--run", "ais", "--run", "apg", "--json"].map(OsString::from));
        all
    };
    std::fs::create_dir(&prepared).unwrap();
    cytomask(arguments()).fails(1, &["no prepared dataset", "KEY/test/manifest.json"]);

    prepare(&prepared);
    cytomask(arguments()).fails(1, &["no prepared dataset"]);
    std::fs::write(prepared.join("tnbc/test/manifest.json"), "{}").unwrap();
    let first = cytomask(arguments());
    let table: Value = serde_json::from_str(&first.succeeds().stdout).unwrap();
    let row = &table[0];
    assert_eq!((row["dataset"].as_str(), row["images"].as_u64()), (Some("tnbc"), Some(2)));
    assert_eq!(row["ours"].as_array().unwrap().len(), 2);
    assert_eq!(row["paper"][0]["msa"], 0.209);
    let markdown = std::fs::read_to_string(out.join("table.md")).unwrap();
    assert!(markdown.contains("| TNBC |") && markdown.contains("SAM AMG (paper)"), "{markdown}");
    assert!(out.join("table.csv").is_file() && out.join("tnbc/report.html").is_file());

    // Nothing is done twice.
    let again = cytomask(arguments());
    assert_eq!(serde_json::from_str::<Value>(&again.succeeds().stdout).unwrap(), table);
}

#[test]
fn unknown_and_unprepared_names_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let only = |name: &str| {
        let arguments: Vec<OsString> = vec![
            "reproduce".into(),
            folder.path().into(),
            "-o".into(),
            folder.path().join("out").into(),
            "--only".into(),
            name.into(),
        ];
        cytomask(arguments)
    };
    only("nothing").fails(1, &["nothing", "cytomask datasets list"]);
    only("dsb").fails(1, &["dsb is not prepared here"]);
}

#[test]
fn all_datasets_are_listed_and_told() {
    let listed = cytomask(["datasets", "list", "--json"].map(OsString::from));
    let list: Value = serde_json::from_str(&listed.succeeds().stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 36);
    let told = cytomask(["datasets", "info", "pannuke"].map(OsString::from));
    assert!(told.succeeds().stdout.contains("PanNuke"));
    cytomask(["datasets", "info", "pannukes"].map(OsString::from)).fails(1, &["pannukes"]);
}
