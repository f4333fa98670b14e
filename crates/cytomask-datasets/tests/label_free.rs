//! Readers of label-free images, each on an archive of the published layout.

mod common;

use std::io::Write;

use common::{Member, SIZE, bmp, from_seed, from_zip, grey_png, ids, raw, rgb, tif, try_prepare, zip, zip_bytes};
use cytomask_datasets::SplitName::{Test, Val};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Image number `seed` and its labels under these names.
fn pair(seed: usize, image: String, labels: String) -> [Member; 2] {
    [(image, tif(&[raw(seed, SIZE)], SIZE)), (labels, tif(&[ids(seed, SIZE)], SIZE))]
}

#[test]
fn livecell() {
    let size = [60, 80];
    let image = |id: usize, name: &str| format!(r#"{{"id": {id}, "file_name": "{name}", "height": 60, "width": 80}}"#);
    // Squares of 10 × 10; the fifth object is too small, the sixth lies over the first half of the first.
    let square = |x: usize, y: usize, w: usize, h: usize| {
        format!("[[{x}, {y}, {}, {y}, {}, {}, {x}, {}]]", x + w, x + w, y + h, y + h)
    };
    let object = |id: usize, image: usize, area: usize, mask: &str| {
        format!(
            r#"{{"id": {id}, "image_id": {image}, "area": {area}, "iscrowd": 0, "category_id": 1, "segmentation": {mask}}}"#
        )
    };
    let objects = [
        object(1, 7, 100, &square(0, 0, 10, 10)),
        object(2, 7, 101, &square(20, 0, 10, 10)),
        object(3, 7, 102, &square(40, 0, 10, 10)),
        // Run lengths go down the columns: columns 0 and 1, rows 20–59.
        object(4, 7, 103, r#"{"counts": [20, 40, 20, 40, 4680], "size": [60, 80]}"#),
        object(5, 7, 20, &square(60, 40, 7, 7)),
        object(6, 7, 500, &square(0, 0, 5, 100)),
        object(7, 8, 100, &square(0, 0, 10, 10)),
    ];
    let json = format!(
        r#"{{"images": [{}, {}, {}], "annotations": [{}], "categories": [{{"id": 1, "name": "cell"}}]}}"#,
        image(7, "SkBr3_b.tif"),
        image(8, "A172_a.tif"),
        image(9, "BV2_none.tif"),
        objects.join(",")
    );
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Member> = ["SkBr3_b", "A172_a", "BV2_none"]
        .iter()
        .enumerate()
        .map(|(seed, name)| (format!("images/livecell_test_images/{name}.tif"), tif(&[raw(seed, size)], size)))
        .collect();
    let annotations = folder.path().join("livecell_coco_test.json");
    std::fs::write(&annotations, json).unwrap();
    let inputs = [zip(folder.path(), "images.zip", &images), annotations];
    let found = try_prepare("livecell", &inputs, folder.path(), Test).unwrap();
    // A172 comes first by name and has one object only; the image without annotations does not count.
    assert_eq!((found.numbers(), found.skipped()), (vec![1], vec![0]));
    assert_eq!(found.manifest["left_out"][0]["from"], "BV2_none.tif");
    let item = &found.items[0];
    assert_eq!(item.samples, raw(0, size).iter().map(|&value| value as f32).collect::<Vec<_>>());
    let at = |y: usize, x: usize| item.labels[y * 80 + x];
    // Ids by area: 1 (half of it covered), 2, 3, 4 and 6, renumbered; all of 5 is gone. The largest covers the runs.
    assert_eq!([at(5, 7), at(5, 25), at(5, 45), at(5, 2), at(42, 62), at(30, 0)], [1, 2, 3, 4, 0, 4]);
    assert_eq!(item.labels.iter().filter(|&&id| id == 1).count(), 50);
}

#[test]
fn omnipose() {
    let mut members: Vec<Member> = Vec::new();
    for seed in 0..3 {
        let place = format!("bact_phase/test_sorted/strain_{}/", seed % 2);
        members.extend(pair(seed, format!("{place}{seed}.tif"), format!("{place}{seed}_masks.tif")));
        members.push((format!("{place}{seed}_flows.tif"), b"not read".to_vec()));
    }
    members.push(("worm/test/w1.png".into(), grey_png(&raw(3, SIZE), SIZE)));
    members.push(("worm/test/w1_masks.png".into(), grey_png(&ids(3, SIZE), SIZE)));
    members.push(("bact_fluor/test_sorted/x/1.tif".into(), b"not read".to_vec()));
    from_zip("omnipose", Test, &members).is(&[(0, 0), (1, 2), (2, 1), (3, 3)]);
}

#[test]
fn deepbacs() {
    let mut members: Vec<Member> = Vec::new();
    for seed in 0..3 {
        members.extend(pair(seed, format!("test/source/t{seed}.tif"), format!("test/target/t{seed}.tif")));
    }
    for seed in 0..20 {
        let name = format!("{}{seed}", ["JE2_", "train_"][seed % 2]);
        members.extend(pair(seed, format!("training/source/{name}.tif"), format!("training/target/{name}.tif")));
    }
    from_zip("deepbacs", Test, &members).is(&from_seed(0..3));
    // Two of each ten, the same every time.
    let val = from_zip("deepbacs", Val, &members);
    let names: Vec<&str> =
        val.manifest["images"].as_array().unwrap().iter().map(|e| e["from"].as_str().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| name.contains("JE2")).count(), 2);
    assert_eq!(names.iter().filter(|name| name.contains("train_")).count(), 2);
    assert_eq!(val.manifest["papers_split"], "not the paper's split");
}

#[test]
fn usiigaci() {
    let mut members: Vec<Member> = Vec::new();
    for (seed, set) in ["train/set1", "train/set10", "train/set2", "val/set1"].iter().enumerate() {
        members.push((format!("Usiigaci-master/Mask R-CNN/{set}/raw.tif"), tif(&[raw(seed, SIZE)], SIZE)));
        members.push((format!("Usiigaci-master/Mask R-CNN/{set}/instances_ids.png"), grey_png(&ids(seed, SIZE), SIZE)));
    }
    members.push(("Usiigaci-master/ExampleData/T98G_sample/a.tif".into(), tif(&[raw(9, SIZE)], SIZE)));
    members.push(("Usiigaci-master/ExampleData/T98G_sample_mask_avg/b.png".into(), grey_png(&ids(9, SIZE), SIZE)));
    from_zip("usiigaci", Test, &members).is(&[(0, 0), (1, 2), (2, 1), (3, 9)]);
    from_zip("usiigaci", Val, &members).is(&[(0, 3)]);
}

#[test]
fn vicar() {
    let mut members: Vec<Member> = Vec::new();
    for (kind, line) in ["PNT1A", "PC3", "HOB", "G361", "A2058"].iter().enumerate() {
        for number in 0..30 {
            let seed = 30 * (4 - kind) + number;
            members.push((format!("labelled/{line}/{number}_img.tif"), tif(&[raw(seed, SIZE)], SIZE)));
            // Number 100 has no cells.
            let labels = if seed == 100 { vec![0; 168] } else { ids(seed, SIZE) };
            members.push((format!("labelled/{line}/{number}_mask.png"), grey_png(&labels, SIZE)));
        }
    }
    let all: Vec<(usize, usize)> = (0..150).filter(|&n| n != 100).map(|n| (n, n)).collect();
    from_zip("vicar", Test, &members).is(&all);
    // Upstream's end of the validation set is looked at only when item 100 is kept: here it goes on.
    from_zip("vicar", Val, &members).is(&all);
}

#[test]
fn toiam() {
    let mut members: Vec<Member> = Vec::new();
    for seed in 0..210 {
        let (movie, frame) = (seed / 105, seed % 105);
        let labels = format!("0{movie}_GT/SEG/man_seg{frame:04}.tif");
        members.extend(pair(seed, format!("0{movie}/t{frame:04}.tif"), labels));
    }
    members.push(("00_GT/TRA/man_track0000.tif".into(), b"not read".to_vec()));
    from_zip("toiam", Test, &members).is(&from_seed(10..210));
    from_zip("toiam", Val, &members).is(&from_seed(0..100));
}

#[test]
fn deepseas() {
    // Twelve separate squares of 255.
    let mask: Vec<u32> = (0..168).map(|at| if at / 14 % 3 < 2 && at % 14 % 4 < 2 { 255 } else { 0 }).collect();
    let members: Vec<Member> = (0..2)
        .flat_map(|seed| {
            [
                (format!("segmentation_dataset/test/images/A_{seed}.png"), grey_png(&raw(seed, SIZE), SIZE)),
                (format!("segmentation_dataset/test/masks/A_{seed}.png"), grey_png(&mask, SIZE)),
            ]
        })
        .collect();
    let found = from_zip("deepseas", Test, &members);
    assert_eq!(found.numbers(), [0, 1]);
    let expected: Vec<u32> =
        (0..168).map(|at: u32| if mask[at as usize] > 0 { at / 14 / 3 * 4 + at % 14 / 4 + 1 } else { 0 }).collect();
    assert_eq!(found.items[0].labels, expected);
}

#[test]
fn yeaz() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gold-standard-BF-V-1.tar.gz");
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for seed in 0..10 {
        let place = "gold-standard-BF-V-1/";
        for (name, bytes) in pair(seed, format!("{place}{seed}_im.tif"), format!("{place}{seed}_mask.tif")) {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
    }
    let bytes = archive.into_inner().unwrap().finish().unwrap();
    std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    // scikit-learn 1.9.1 draws 8 and 1 of ten with seed 42, then 0 and 4 of the rest [5, 0, 7, 2, 9, 4, 3, 6].
    try_prepare("yeaz", std::slice::from_ref(&path), folder.path(), Test).unwrap().is(&[(0, 1), (1, 8)]);
    let val = try_prepare("yeaz", &[path], folder.path(), Val).unwrap();
    assert_eq!(val.numbers(), [0, 1]);
}

#[test]
fn segpc() {
    let mut inner: Vec<Member> = Vec::new();
    for seed in 0..2 {
        inner.push((format!("validation/x/{seed}.bmp"), bmp(&rgb(&raw(seed, SIZE)), SIZE)));
        // Six cells of a row or two each, cytoplasm 20 and nucleus 40; image 1 has just one.
        for cell in 0..if seed == 0 { 6_usize } else { 1 } {
            let mask: Vec<u8> = (0..168_usize)
                .flat_map(|at| {
                    let value = if at / 14 / 2 == cell { [20, 40][at % 2] } else { 0 };
                    [value; 3]
                })
                .collect();
            inner.push((format!("validation/y/{seed}_{}.bmp", cell + 1), bmp(&mask, SIZE)));
        }
    }
    let found = from_zip("segpc", Test, &[("TCIA_SegPC_dataset/validation.zip".into(), zip_bytes(&inner))]);
    assert_eq!((found.numbers(), found.skipped()), (vec![0], vec![1]));
    assert_eq!(found.items[0].labels, (0..168).map(|at| at / 14 / 2 + 1).collect::<Vec<u32>>());
    let expected: Vec<f32> = rgb(&raw(0, SIZE)).into_iter().map(f32::from).collect();
    assert_eq!((found.items[0].channels, &found.items[0].samples), (3, &expected));
    // The folder itself does as well.
    assert_eq!(from_zip("segpc", Test, &inner).numbers(), [0]);
}
