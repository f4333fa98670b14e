//! Readers of nuclei in fluorescence, each on an archive of the published layout.

mod common;

use common::{Member, SIZE, fixture, from_seed, from_zip, grey_png, ids, png, raw, tif, try_prepare, zip, zip_bytes};
use cytomask_datasets::SplitName::{Test, Val};

/// Image and label TIFFs with these seeds.
fn pairs(
    seeds: std::ops::Range<usize>,
    image: impl Fn(usize) -> String,
    labels: impl Fn(usize) -> String,
) -> Vec<Member> {
    seeds
        .flat_map(|seed| [(image(seed), tif(&[raw(seed, SIZE)], SIZE)), (labels(seed), tif(&[ids(seed, SIZE)], SIZE))])
        .collect()
}

#[test]
fn dsb() {
    let name = |kind: &'static str| move |seed| format!("dsb2018/test/{kind}/{seed}.tif");
    let mut members = pairs(0..12, name("images"), name("masks"));
    members.push(("__MACOSX/dsb2018/test/images/._0.tif".into(), vec![1, 2, 3]));
    // Natural order: 2 comes before 10.
    from_zip("dsb", Test, &members).is(&from_seed(0..12));
}

#[test]
fn u20s() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Member> =
        (0..27).map(|seed| (format!("images/w{seed}.tif"), tif(&[raw(seed, SIZE)], SIZE))).collect();
    // Five regions that touch at corners only belong together; of seed 26 there is just one.
    let mask = |seed: usize| -> Vec<u8> {
        (0..168_usize)
            .flat_map(|at| {
                let (y, x) = (at / 14, at % 14);
                let set = if seed == 26 { x == 0 } else { x % 3 != 2 && (y % 2 == x % 3 || y < 2) };
                [u8::from(set), 9, 9, 255]
            })
            .collect()
    };
    let masks: Vec<Member> =
        (0..27).map(|seed| (format!("masks/w{seed}.png"), png(png::ColorType::Rgba, SIZE, &mask(seed)))).collect();
    let inputs = [zip(folder.path(), "images.zip", &images), zip(folder.path(), "masks.zip", &masks)];
    let found = try_prepare("u20s", &inputs, folder.path(), Test).unwrap();
    assert_eq!((found.numbers(), found.skipped()), (vec![0], vec![1]));
    assert_eq!(found.items[0].samples[0], raw(25, SIZE)[0] as f32);
    assert_eq!(found.items[0].labels[..14], [1, 1, 0, 2, 2, 0, 3, 3, 0, 4, 4, 0, 5, 5]);
    assert_eq!(found.items[0].labels.iter().max(), Some(&5));
    assert_eq!(try_prepare("u20s", &inputs, folder.path(), Val).unwrap().items.len(), 25);
}

#[test]
fn arvidsson() {
    // Colours of blocks of 4 × 4 pixels: neighbours differ, the same colour comes again elsewhere.
    let colour = |at: usize| -> [u8; 3] {
        let (y, x) = (at / 14 / 4, at % 14 / 4);
        if at / 14 == 11 { [0, 0, 0] } else { [(y * 2) as u8, (x % 2) as u8, 7] }
    };
    let labels = png(png::ColorType::Rgb, SIZE, &(0..168).flat_map(colour).collect::<Vec<_>>());
    let mut members: Vec<Member> = Vec::new();
    for seed in 0..2 {
        members.push((format!("test_nuclei/images/p{seed}.png"), grey_png(&raw(seed, SIZE), SIZE)));
        members.push((format!("test_nuclei/annotations/q{seed}.png"), labels.clone()));
    }
    let found = from_zip("arvidsson", Test, &members);
    assert_eq!(found.numbers(), [0, 1]);
    let expected: Vec<u32> =
        (0..168).map(|at| if at / 14 == 11 { 0 } else { (at / 14 / 4 * 4 + at % 14 / 4 + 1) as u32 }).collect();
    assert_eq!(found.items[1].labels, expected);
    assert_eq!(found.items[1].samples[5], raw(1, SIZE)[5] as f32);
}

#[test]
fn bitdepth_nucseg() {
    let mut inner: Vec<Member> = Vec::new();
    for (kind, magnification) in ["20x", "40x air", "40x oil", "63x oil"].iter().enumerate() {
        let name = |folder: &'static str| move |seed| format!("{magnification}/{folder}/n{seed}.tif");
        inner.extend(pairs(kind * 10..kind * 10 + 5, name("images_16bit"), name("label masks")));
    }
    // As cloned: the data are a zip inside.
    let members = [("BitDepth_NucSeg-main/data/data.zip".to_owned(), zip_bytes(&inner))];
    from_zip("bitdepth_nucseg", Test, &members).is(&[(0, 4), (1, 14), (2, 24), (3, 34)]);
    assert_eq!(from_zip("bitdepth_nucseg", Val, &inner).items.len(), 16);
}

#[test]
fn ifnuclei() {
    let mut members =
        pairs(0..12, |seed| format!("rawimages/n_{seed}.tif"), |seed| format!("groundtruth/n_{seed}.tif"));
    members.push(("groundtruth_svgs/n_0.svg".into(), b"<svg/>".to_vec()));
    from_zip("ifnuclei", Test, &members).is(&[(0, 10), (1, 11)]);
}

#[test]
fn dynamicnuclearnet() {
    let members = [("DynamicNuclearNet-segmentation-v1_0/test.npz".to_owned(), fixture("tissuenet.npz"))];
    from_zip("dynamicnuclearnet", Test, &members).is(&from_seed(0..3));
}

/// Slices with these seeds as one TIFF.
fn volume(seeds: std::ops::Range<usize>, pixels: impl Fn(usize) -> Vec<u32>, size: [u32; 2]) -> Vec<u8> {
    tif(&seeds.map(pixels).collect::<Vec<_>>(), size)
}

#[test]
fn gonuclear() {
    let flipped = |seed: usize| -> Vec<u32> { ids(seed, SIZE).chunks(14).rev().flatten().copied().collect() };
    let mut members: Vec<Member> = Vec::new();
    for (sample, seeds) in [("1135", 0..200), ("1137", 200..261)] {
        let place = format!("Training image dataset_Tiff Files/{sample}/{sample}_n_");
        members.push((format!("{place}H2BtdTomato.tif"), volume(seeds.clone(), |seed| raw(seed, SIZE), SIZE)));
        members.push((format!("{place}stain_StarDist_goldGT.tiff"), volume(seeds, flipped, SIZE)));
    }
    // 200 slices of the first and 60 of the second volume (its last is dropped); from 250 on.
    from_zip("gonuclear", Test, &members).is(&from_seed(250..260));
}

#[test]
fn nis3d() {
    let size = [600, 30];
    let shifted = |seed: usize| -> Vec<u32> {
        let mut labels = vec![0; 600 * 30];
        labels[450 * 30..462 * 30].copy_from_slice(&ids(seed, [12, 30]));
        labels
    };
    let place = "NIS3D/suggestive splitting/cross-image/test";
    let mut members: Vec<Member> = vec![("NIS3D/Zebrafish_1/data.tif".into(), b"not read".to_vec())];
    for (animal, labels, seeds) in [("MusMusculus_2", "gt", 0..2), ("Zebrafish_1", "GroundTruth", 2..4)] {
        members.push((format!("{place}/{animal}/data.tif"), volume(seeds.clone(), |seed| raw(seed, size), size)));
        members.push((format!("{place}/{animal}/{labels}.tif"), volume(seeds, shifted, size)));
    }
    let found = from_zip("nis3d", Test, &members);
    assert_eq!(found.numbers(), [0, 1, 2, 3]);
    // Labels fill rows 451–461, middle 456: the crop wants to begin at 200 and is pushed back to 88.
    assert_eq!(found.items[3].size, [512, 30]);
    assert_eq!(
        found.items[3].samples[..],
        raw(3, size)[88 * 30..].iter().map(|&value| value as f32).collect::<Vec<_>>()
    );
    assert_eq!(found.items[3].labels[..], shifted(3)[88 * 30..]);
}

#[test]
fn parhyale_regen() {
    let folder = tempfile::tempdir().unwrap();
    // Eight slices at each of 50 time points; the seed is 10 · time + slice.
    let seeds: Vec<Vec<u32>> = (0..400).map(|at| raw(at / 8 * 10 + at % 8, SIZE)).collect();
    std::fs::write(folder.path().join("Parhyale_H2B-EGFP_images_tp01-50.tif"), tif(&seeds, SIZE)).unwrap();
    for time in [0_usize, 10, 20, 30, 40, 49] {
        let labels: Vec<Vec<u32>> = (0..8).map(|slice| ids(time * 10 + slice, SIZE)).collect();
        let name = format!("Parhyale_H2B-EGFP_instance-segmentation-labels_tp{:02}.tif", time + 1);
        std::fs::write(folder.path().join(name), tif(&labels, SIZE)).unwrap();
    }
    let found = try_prepare("parhyale_regen", &[folder.path().to_owned()], &folder.path().join("out"), Test).unwrap();
    // Slices 0–39 are the first five time points.
    found.is(&(0..8).map(|slice| (slice, 490 + slice)).collect::<Vec<_>>());
}
