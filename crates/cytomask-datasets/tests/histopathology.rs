//! Readers of stained tissue, each on an archive of the published layout.

mod common;

use common::{Member, SIZE, from_zip, ids, npy, raw, rgb, rgb_png, rgb_tif, rgba_tif, tif, try_prepare, zip};
use cytomask_datasets::SplitName::{Test, Val};

#[test]
fn pannuke() {
    let (count, pixels) = (3, 168);
    let images: Vec<f64> = (0..count).flat_map(|seed| rgb(&raw(seed, SIZE))).map(f64::from).collect();
    // Ids ≤ 20 are of class 0, the others of class 3; each class counts from 100 on. Item 2 is empty.
    let mut masks = vec![0.0; count * pixels * 6];
    for seed in 0..2 {
        for (at, id) in ids(seed, SIZE).into_iter().enumerate() {
            let class = if id == 0 {
                5
            } else if id <= 20 {
                0
            } else {
                3
            };
            masks[(seed * pixels + at) * 6 + class] = if id == 0 { 1.0 } else { f64::from(id) + 100.0 };
        }
    }
    let members = [
        ("Fold 3/images/fold3/images.npy".to_owned(), npy(&[count, 12, 14, 3], &images)),
        ("Fold 3/images/fold3/types.npy".to_owned(), b"not read".to_vec()),
        ("Fold 3/masks/fold3/masks.npy".to_owned(), npy(&[count, 12, 14, 6], &masks)),
    ];
    let found = from_zip("pannuke", Test, &members);
    assert_eq!((found.numbers(), found.skipped()), (vec![0, 1], vec![2]));
    let item = &found.items[1];
    assert_eq!((item.size, item.channels), ([512, 512], 3));
    // Renumbered without gaps: the ids of seed 1 in order.
    let own = ids(1, SIZE);
    let mut known: Vec<u32> = own.iter().copied().filter(|&id| id > 0).collect();
    known.sort_unstable();
    known.dedup();
    for y in 0..512 {
        for x in 0..512 {
            let inside = y < 12 && x < 14;
            let id = if inside { own[y * 14 + x] } else { 0 };
            let expected = if id == 0 { 0 } else { known.binary_search(&id).unwrap() as u32 + 1 };
            assert_eq!(item.labels[y * 512 + x], expected, "({y}, {x})");
            let sample = if inside { raw(1, SIZE)[y * 14 + x] as f32 + 2.0 } else { 0.0 };
            assert_eq!(item.samples[(y * 512 + x) * 3 + 2], sample);
        }
    }
}

#[test]
fn ihc_tma() {
    // Two classes side by side that touch: equal sums belong together.
    let mask: Vec<f64> = (0..2 * 168)
        .map(|at| {
            let (class, y, x) = (at / 168, at % 168 / 14, at % 14);
            f64::from(u8::from(y > 0 && if class == 0 { x < 4 } else { x >= 4 && x % 4 != 3 }))
        })
        .collect();
    let mut members: Vec<Member> = Vec::new();
    for fold in 2..=3 {
        members.push((format!("IHC_TMA_dataset/images/fold{fold}_10.png"), rgb_png(&raw(fold, SIZE), SIZE)));
        members.push((format!("IHC_TMA_dataset/masks/fold{fold}_10.npy"), npy(&[2, 12, 14], &mask)));
    }
    let found = from_zip("ihc_tma", Test, &members);
    let expected: Vec<u32> = (0..168)
        .map(|at| match (at / 14, at % 14) {
            (0, _) => 0,
            // The first class touches the first part of the second one.
            (_, 0..=6) => 1,
            (_, 8..=10) => 2,
            (_, 12..) => 3,
            _ => 0,
        })
        .collect();
    assert_eq!((found.numbers(), found.items[0].labels.clone()), (vec![0], expected));
    assert_eq!(found.items[0].samples[1], raw(3, SIZE)[0] as f32 + 1.0);
}

#[test]
fn lynsec() {
    let mut members: Vec<Member> = vec![("lynsec 2/0_l2.npy".into(), b"not read".to_vec())];
    for seed in 0..10 {
        let (pixels, own) = (rgb(&raw(seed, SIZE)), ids(seed, SIZE));
        let values: Vec<f64> = pixels
            .chunks(3)
            .zip(own)
            .flat_map(|(pixel, id)| [f64::from(pixel[0]), f64::from(pixel[1]), f64::from(pixel[2]), f64::from(id)])
            .collect();
        members.push((format!("lynsec 1/{seed}_l1.npy"), npy(&[12, 14, 4], &values)));
    }
    from_zip("lynsec", Test, &members).is_rgb(&[(0, 1), (1, 8)]);
}

#[test]
fn monuseg() {
    let square = |x: u32, y: u32| {
        let corner = |x: u32, y: u32| format!(r#"<Vertex X="{x}.75" Y="{y}.5" Z="0"/>"#);
        let corners = [corner(x, y), corner(x + 2, y), corner(x + 2, y + 2), corner(x, y + 2)].concat();
        format!("<Region><Vertices>{corners}</Vertices></Region>")
    };
    let regions: String = (0..6).map(|at| square(at % 3 * 4, at / 3 * 4)).collect();
    let xml = format!(
        "<?xml version=\"1.0\"?><Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>"
    );
    let mut members: Vec<Member> = Vec::new();
    // By code points "TCGA-18" stands before "TCGA-2Z".
    for (seed, name) in [(0, "TCGA-2Z"), (1, "TCGA-18")] {
        members.push((format!("MoNuSegTestData/{name}.tif"), rgb_tif(&raw(seed, SIZE), SIZE)));
        members.push((format!("MoNuSegTestData/{name}.xml"), xml.clone().into_bytes()));
    }
    let found = from_zip("monuseg", Test, &members);
    assert_eq!(found.numbers(), [0, 1]);
    assert_eq!(found.items[0].samples[0], raw(1, SIZE)[0] as f32);
    // Squares of 3 × 3 (the border counts, corners are cut to whole pixels); the first is lost, as upstream.
    let expected: Vec<u32> = (0..168)
        .map(|at| {
            let (y, x) = (at / 14, at % 14);
            if y < 8 && x < 12 && y % 4 < 3 && x % 4 < 3 { y / 4 * 3 + x / 4 } else { 0 }
        })
        .collect();
    assert_eq!(found.items[0].labels, expected);
}

#[test]
fn nuinsseg() {
    let mut members: Vec<Member> = Vec::new();
    for seed in 0..55 {
        let organ = format!("human organ {}", seed / 30);
        let image = if seed == 51 {
            let pixels: Vec<u8> = rgb(&raw(seed, SIZE)).chunks(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
            common::png(png::ColorType::Rgba, SIZE, &pixels)
        } else {
            rgb_png(&raw(seed, SIZE), SIZE)
        };
        members.push((format!("{organ}/tissue images/i_{seed}.png"), image));
        members.push((format!("{organ}/label masks modify/i_{seed}.tif"), tif(&[ids(seed, SIZE)], SIZE)));
        members.push((format!("{organ}/label masks/i_{seed}.tif"), b"not read".to_vec()));
    }
    // 51 has an alpha channel: it is left out and does not count.
    let found = from_zip("nuinsseg", Test, &members);
    found.is_rgb(&[(0, 50), (1, 52), (2, 53), (3, 54)]);
    assert_eq!(found.manifest["left_out"][0]["reason"], "4 channels instead of 3");
}

const NUCLEI: [&str; 10] = [
    "nuclei_stroma",
    "nuclei_tumor",
    "nuclei_plasma_cell",
    "nuclei_histiocyte",
    "nuclei_lymphocyte",
    "nuclei_melanophage",
    "nuclei_neutrophil",
    "nuclei_endothelium",
    "nuclei_epithelium",
    "nuclei_apoptosis",
];
const TISSUES: [&str; 6] = [
    "tissue_stroma",
    "tissue_tumor",
    "tissue_epidermis",
    "tissue_blood_vessel",
    "tissue_necrosis",
    "tissue_white_background",
];

/// Squares on both diagonals, one of each class.
fn diagonals(classes: &[&str]) -> String {
    let count = classes.len();
    let square = |row: usize, column: usize, class: &str| {
        let edge = |at: usize| at * 1024 / count;
        let (y0, y1, x0, x1) = (edge(row), edge(row + 1), edge(column), edge(column + 1));
        format!(
            r#"{{"geometry": {{"type": "Polygon", "coordinates": [[[{x0},{y0}],[{x1},{y0}],[{x1},{y1}],[{x0},{y1}],[{x0},{y0}]]]}},
            "properties": {{"classification": {{"name": "{class}"}}}}}}"#
        )
    };
    let falling = classes.iter().enumerate().map(|(at, class)| square(at, at, class));
    let rising = classes.iter().enumerate().map(|(at, class)| square(at, count - 1 - at, class));
    let features: Vec<String> = falling.chain(rising).collect();
    format!(r#"{{"type": "FeatureCollection", "features": [{}]}}"#, features.join(","))
}

#[test]
fn puma() {
    let folder = tempfile::tempdir().unwrap();
    let (mut rois, mut nuclei, mut tissue): (Vec<Member>, Vec<Member>, Vec<Member>) = Default::default();
    let size = [1024, 1024];
    for (kind, seed) in (0..5).flat_map(|at| [("metastatic", at), ("primary", at)]) {
        let name = format!("training_set_{kind}_roi_{seed:03}");
        let extension = if seed == 3 { "tiff" } else { "tif" };
        rois.push((format!("01_training_dataset_tif_ROIs/{name}.{extension}"), rgba_tif(&raw(seed, size), size)));
        // A class is missing from both images of number 1, which seed 42 draws for testing: the next seed is tried.
        let classes = if seed == 1 { &NUCLEI[..9] } else { &NUCLEI[..] };
        nuclei.push((format!("01_training_dataset_geojson_nuclei/{name}_nuclei.geojson"), diagonals(classes).into()));
        tissue.push((format!("01_training_dataset_geojson_tissue/{name}_tissue.geojson"), diagonals(&TISSUES).into()));
    }
    let inputs = [
        zip(folder.path(), "rois.zip", &rois),
        zip(folder.path(), "nuclei.zip", &nuclei),
        zip(folder.path(), "tissue.zip", &tissue),
    ];
    let found = try_prepare("puma", &inputs, folder.path(), Test).unwrap();
    let names: Vec<&str> =
        found.manifest["images"].as_array().unwrap().iter().map(|e| e["from"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2);
    assert!(names[0].contains("metastatic") && names[1].contains("primary"), "{names:?}");
    assert!(!names[0].contains("001") && !names[1].contains("001"), "{names:?}");
    let item = &found.items[0];
    assert_eq!((item.size, item.channels), ([512, 512], 3));
    // The centre: rows 256–767 show squares 3 to 8 of ten of each diagonal; those of the second count from 11.
    let at = |y: usize, x: usize| item.labels[y * 512 + x];
    assert_eq!([at(0, 0), at(511, 511), at(0, 511), at(200, 200)], [3, 8, 13, 5]);
}

#[test]
fn tnbc() {
    let mut members: Vec<Member> = vec![("__MACOSX/TNBC_NucleiSegmentation/GT_01/._a.png".into(), vec![0])];
    // Eighteen separate squares.
    let mask: Vec<u32> = (0..168).map(|at| if at / 14 % 4 < 3 && at % 14 % 3 < 2 { 255 } else { 0 }).collect();
    for seed in 0..10 {
        let place = "TNBC_NucleiSegmentation";
        members.push((format!("{place}/Slide_{seed:02}/{seed}_1.png"), rgb_png(&raw(seed, SIZE), SIZE)));
        members.push((format!("{place}/GT_{seed:02}/{seed}_1.png"), common::grey_png(&mask, SIZE)));
    }
    let found = from_zip("tnbc", Test, &members);
    assert_eq!(found.numbers(), [0, 1]);
    assert_eq!(found.items[1].samples[0], raw(8, SIZE)[0] as f32);
    let expected: Vec<u32> =
        (0..168).map(|at: u32| if mask[at as usize] > 0 { at / 14 / 4 * 5 + at % 14 / 3 + 1 } else { 0 }).collect();
    assert_eq!(found.items[0].labels, expected);
    assert_eq!(from_zip("tnbc", Val, &members).items.len(), 2);
}

#[test]
fn cryonuseg() {
    let mut members: Vec<Member> = Vec::new();
    for seed in 0..10 {
        members.push((format!("tissue images/Human_{seed}.tif"), rgb_tif(&raw(seed, SIZE), SIZE)));
        for annotator in ["Annotator 1 (biologist)", "Annotator 2 (bioinformatician)/Annotator 2 (bioinformatician)"] {
            let other = usize::from(annotator.contains('2'));
            let labels = tif(&[ids(seed + other, SIZE)], SIZE);
            members.push((format!("{annotator}/label masks modify/Human_{seed}.tif"), labels));
        }
    }
    from_zip("cryonuseg", Test, &members).is_rgb(&[(0, 1), (1, 8)]);
}

#[test]
fn cytodark0() {
    let mut members: Vec<Member> = Vec::new();
    let mut table = "img_id,animal,fold\n".to_owned();
    for seed in 0..6 {
        let place = "cytoDArk0/20x/1024x1024";
        members.push((format!("{place}/image/b_{seed}.png"), rgb_png(&raw(seed, SIZE), SIZE)));
        members.push((format!("{place}/label/b_{seed}.tiff"), tif(&[ids(seed, SIZE)], SIZE)));
        members.push((format!("cytoDArk0/40x/2048x2048/image/b_{seed}.png"), b"not read".to_vec()));
        table.push_str(&format!("b_{seed},cat,{}\n", seed % 3));
    }
    members.push(("cytoDArk0/20x/1024x1024/folds.csv".into(), table.into_bytes()));
    from_zip("cytodark0", Test, &members).is_rgb(&[(0, 2), (1, 5)]);
    from_zip("cytodark0", Val, &members).is_rgb(&[(0, 1), (1, 4)]);
}
