//! Readers of cells in fluorescence, each on an archive of the published layout.

mod common;

use common::{Member, SIZE, fixture, from_seed, from_zip, grey_png, ids, raw, rgb_png, tif, try_prepare, zip};
use cytomask_datasets::SplitName::{Test, Val};

#[test]
fn cellpose() {
    let mut members: Vec<Member> = Vec::new();
    for seed in 0..12 {
        members.push((format!("test/{seed:03}_img.png"), rgb_png(&raw(seed, SIZE), SIZE)));
        members.push((format!("test/{seed:03}_masks.png"), grey_png(&ids(seed, SIZE), SIZE)));
    }
    members.push(("train/000_img.png".into(), rgb_png(&raw(50, SIZE), SIZE)));
    members.push(("train/000_masks.png".into(), grey_png(&[0; 168], SIZE)));
    from_zip("cellpose", Test, &members).is_rgb(&from_seed(0..12));
    // Taken as it is: an image without cells stays.
    let val = from_zip("cellpose", Val, &members);
    assert_eq!((val.numbers(), val.items[0].labels.iter().sum::<u32>()), (vec![0], 0));
}

#[test]
fn tissuenet_npz_and_zarr() {
    let expected = |seed: usize| -> Vec<f32> {
        // Cell is channel 1, nucleus channel 0; each from its range to 0–255, truncated.
        let nucleus: Vec<f32> = raw(seed, SIZE).iter().map(|&value| value as f32).collect();
        let cell: Vec<f32> = nucleus.iter().map(|value| value * 2.5 + 3.0).collect();
        let stretched = |channel: &[f32]| -> Vec<f32> {
            let low = channel.iter().copied().fold(f32::MAX, f32::min);
            let high = channel.iter().map(|value| value - low).fold(0.0, f32::max) + 1e-7;
            channel.iter().map(|value| ((value - low) / high * 255.0).floor()).collect()
        };
        let (cell, nucleus) = (stretched(&cell), stretched(&nucleus));
        cell.iter().zip(&nucleus).flat_map(|(&cell, &nucleus)| [cell, nucleus, 0.0]).collect()
    };
    let found = from_zip("tissuenet", Test, &[("tissuenet_v1.1_test.npz".into(), fixture("tissuenet.npz"))]);
    assert_eq!(found.numbers(), [0, 1, 2]);
    for (seed, item) in found.items.iter().enumerate() {
        assert_eq!((&item.samples, &item.labels), (&expected(seed), &ids(seed, SIZE)));
    }
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("images.zip");
    std::fs::write(&archive, fixture("images.zip")).unwrap();
    let found = try_prepare("tissuenet", &[archive], folder.path(), Test).unwrap();
    assert_eq!((found.numbers(), found.items[1].labels.clone()), (vec![0, 1], ids(1, SIZE)));
    // In the folder's images cell is raw(0) and nucleus raw(1); both have the same shape of values.
    let channel = |at: usize| found.items[0].samples.iter().skip(at).step_by(3).copied().collect::<Vec<f32>>();
    let (low, high) = (raw(0, SIZE)[0] as f32, *raw(0, SIZE).iter().max().unwrap() as f32);
    assert_eq!(channel(0)[1], ((raw(0, SIZE)[1] as f32 - low) / (high - low + 1e-7) * 255.0).floor());
    assert_eq!((channel(0)[0], channel(2).iter().sum::<f32>()), (0.0, 0.0));
}

/// `volume.h5` has 101 slices of 6 × 18: seed is the slice.
const SLICE: [u32; 2] = [6, 18];

#[test]
fn plantseg_root() {
    let mut members: Vec<Member> =
        ["a", "b", "c", "d"].iter().map(|name| (format!("{name}.h5"), fixture("volume.h5"))).collect();
    let expected_labels =
        |seed: usize| -> Vec<u32> { ids(seed, SLICE).into_iter().map(|id| if id == 1 { 0 } else { id }).collect() };
    // 404 slices; the paper's test set begins at slice 400, which is slice 97 of the last file.
    let test = from_zip("plantseg_root", Test, &members);
    assert_eq!(test.numbers(), [0, 1, 2, 3]);
    for (item, seed) in test.items.iter().zip(97..) {
        assert_eq!(item.samples, raw(seed, SLICE).iter().map(|&value| value as f32).collect::<Vec<_>>());
        assert_eq!(item.labels, expected_labels(seed));
    }
    // This file loses its last 50 slices, so the set ends.
    members[3].0 = "Movie2_T00020_crop_gt.h5".into();
    members.push(("e.h5".into(), fixture("volume.h5")));
    // Order by code points: Movie2… (51 slices), a, b, c, e.
    assert_eq!(from_zip("plantseg_root", Test, &members).numbers().len(), 51 + 4 * 101 - 400);
    let val = from_zip("plantseg_root", Val, &members);
    assert_eq!(val.numbers(), (0..=100).collect::<Vec<_>>());
    assert_eq!(val.items[51].samples[0], 0.0);
}

#[test]
fn plantseg_ovules() {
    let members: Vec<Member> = (0..6).map(|number| (format!("N_{number}_ds2x.h5"), fixture("volume.h5"))).collect();
    let test = from_zip("plantseg_ovules", Test, &members);
    assert_eq!(test.numbers(), (0..6).collect::<Vec<_>>());
    let mut expected = ids(95, SLICE);
    // The last row is to be ignored.
    expected[5 * 18..].fill(0);
    assert_eq!(test.items[0].labels, expected);
}

#[test]
fn mouse_embryo() {
    let members = [
        ("MouseEmbryos/Membrane/val/a.h5".to_owned(), fixture("volume.h5")),
        ("MouseEmbryos/Membrane/train/x.h5".to_owned(), b"not read".to_vec()),
        ("MouseEmbryos/Membrane/val/b.h5".to_owned(), fixture("volume.h5")),
    ];
    let expected: Vec<(usize, usize)> = (0..102).map(|number| (number, (number + 100) % 101)).collect();
    from_zip("mouse_embryo", Test, &members).is(&expected);
    from_zip("mouse_embryo", Val, &members).is(&from_seed(0..100));
}

#[test]
fn pnas_arabidopsis() {
    let size = [16, 20];
    let mut members: Vec<Member> = Vec::new();
    for volume in 0..12 {
        let folder = format!("PNAS/plant{}", volume % 2);
        let name = format!("{volume}hrs_plant_trim-acylYFP");
        let seeds = [volume, volume + 100];
        members.push((format!("{folder}/processed_tiffs/{name}.tif"), tif(&seeds.map(|seed| raw(seed, size)), size)));
        if volume != 3 {
            let labels = tif(&seeds.map(|seed| ids(seed, size)), size);
            members.push((format!("{folder}/segmentation_tiffs/{name}_hmin_2.tif"), labels));
        }
    }
    // 0–2 and 4–11 have labels; the last ten of them, in natural order, are 1, 2, 4, …, 11.
    let found = from_zip("pnas_arabidopsis", Test, &members);
    let volumes = [1, 2, 4, 5, 6, 7, 8, 9, 10, 11];
    let expected: Vec<usize> = volumes.iter().flat_map(|&volume| [volume, volume + 100]).collect();
    assert_eq!(found.items.len(), 20);
    for (item, seed) in found.items.iter().zip(expected) {
        assert_eq!(item.samples[0], raw(seed, size)[0] as f32);
        let labels: Vec<u32> = ids(seed, size).into_iter().map(|id| if id == 1 { 0 } else { id }).collect();
        assert_eq!(item.labels, labels);
    }
    assert!(found.manifest["left_out"][0]["from"].as_str().unwrap().contains("3hrs"));
    assert_eq!(from_zip("pnas_arabidopsis", Val, &members).items.len(), 10);
}

#[test]
fn covid_if() {
    let members: Vec<Member> = (0..12).map(|n| (format!("gt_image_{n:03}.h5"), fixture("image.h5"))).collect();
    let found = from_zip("covid_if", Test, &members);
    assert_eq!(found.numbers(), [0, 1]);
    let (serum, nuclei) = (raw(0, SIZE), raw(1, SIZE));
    let expected: Vec<f32> =
        serum.iter().zip(&nuclei).flat_map(|(&serum, &nucleus)| [serum as f32, nucleus as f32, 0.0]).collect();
    assert_eq!((&found.items[0].samples, &found.items[0].labels), (&expected, &ids(0, SIZE)));
    assert_eq!(from_zip("covid_if", Val, &members).items.len(), 10);
}

#[test]
fn hpa() {
    let size = [1024, 1024];
    let square = |x: u32, y: u32| {
        let (x1, y1) = (x + 300, y + 300);
        format!(
            r#"{{"type": "Feature", "properties": {{"label": "cell"}}, "geometry": {{"type": "Polygon",
            "coordinates": [[[{x}, {y}], [{x1}, {y}], [{x1}, {y1}], [{x}, {y1}], [{x}, {y}]]]}}}}"#
        )
    };
    // Two cells and background make three values.
    let annotation = format!(r#"{{"features": [{}, {}]}}"#, square(100, 600), square(500, 100));
    let few = format!(r#"{{"features": [{}]}}"#, square(100, 600));
    let grey = grey_png(&vec![100; 1024 * 1024], size);
    let mut members: Vec<Member> = Vec::new();
    for (name, text) in [("10_b", &annotation), ("9_a", &few)] {
        members.push((format!("hpa_dataset_v2/train/{name}/protein.png"), grey.clone()));
        members.push((format!("hpa_dataset_v2/train/{name}/annotation.json"), text.clone().into_bytes()));
    }
    let found = from_zip("hpa", Test, &members);
    // Natural order puts 9_a first; it has too few cells.
    assert_eq!((found.numbers(), found.skipped(), found.items[0].size), (vec![1], vec![0], [512, 512]));
    assert!(found.items[0].samples.iter().all(|&value| value == 100.0));
    let at = |y: usize, x: usize| found.items[0].labels[y * 512 + x];
    // y goes upwards: the first cell covers rows 124–424 of 1024, columns 100–400.
    assert_eq!([at(100, 100), at(137, 180), at(350, 300), at(400, 390), at(0, 0)], [1, 1, 2, 2, 0]);
    // On the border of cell 2 the interpolated id is 1, as upstream's.
    assert_eq!(at(400, 400), 1);
}

#[test]
fn cellbindb() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("Other");
    for (kind, stain) in ["10×Genomics_DAPI", "DAPI", "mIF"].into_iter().enumerate() {
        for number in 0..22 {
            let seed = 100 * kind + number;
            let place = root.join(stain).join(format!("s{number}"));
            std::fs::create_dir_all(&place).unwrap();
            let image = if seed == 105 { b"II*\0 damaged".to_vec() } else { tif(&[raw(seed, SIZE)], SIZE) };
            std::fs::write(place.join(format!("s{number}-img.tif")), image).unwrap();
            std::fs::write(place.join(format!("s{number}-instancemask.tif")), tif(&[ids(seed, SIZE)], SIZE)).unwrap();
        }
    }
    let found = try_prepare("cellbindb", &[root], folder.path(), Test).unwrap();
    // In DAPI number 5 is damaged and does not count, so that its first 20 end with number 20.
    found.is(&[(0, 20), (1, 21), (2, 121), (3, 220), (4, 221)]);
    assert!(found.manifest["left_out"][0]["from"].as_str().unwrap().contains("DAPI/s5/"));
}

#[test]
fn a_larger_image_is_cropped_in_its_middle() {
    let size = [515, 600];
    let folder = tempfile::tempdir().unwrap();
    let images = zip(folder.path(), "images.zip", &[("images/a.tif".into(), common::tif8(&raw(0, size), size))]);
    let pixels: Vec<u8> = (0..515_u32 * 600)
        .flat_map(|at| {
            let inside = (at / 600) % 100 < 50 && (at % 600) % 100 < 50;
            [u8::from(inside) * 2, 0, 0, 255]
        })
        .collect();
    let masks = common::png(png::ColorType::Rgba, size, &pixels);
    let masks = zip(folder.path(), "masks.zip", &[("masks/a.png".into(), masks)]);
    let found = try_prepare("u20s", &[images, masks], folder.path(), Val).unwrap();
    let item = &found.items[0];
    assert_eq!(item.size, [512, 512]);
    // Rows from 1 on, columns from 44 on.
    let expected: Vec<f32> = (1..513).flat_map(|y| (44..556).map(move |x| ((3 * y + x) % 250) as f32)).collect();
    assert_eq!(item.samples, expected);
    // Blocks were numbered before the crop, row by row, six in each.
    assert_eq!([item.labels[0], item.labels[6], item.labels[60], item.labels[100 * 512]], [1, 0, 2, 7]);
}
