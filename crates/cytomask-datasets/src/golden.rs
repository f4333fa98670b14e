//! Rasters and resampling against their libraries (`parity/datasets.py`).

use cytomask_image::SampleType;
use safetensors::SafeTensors;

use crate::plane::Plane;
use crate::{raster, resize};

fn with<T>(use_it: impl FnOnce(&SafeTensors<'_>) -> T) -> T {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/datasets/raster.safetensors");
    let bytes = std::fs::read(path).unwrap();
    use_it(&SafeTensors::deserialize(&bytes).unwrap())
}

const SIZE: [u32; 2] = [97, 131];

fn unpacked(file: &SafeTensors<'_>, name: &str) -> Vec<bool> {
    let bytes = file.tensor(name).unwrap().data().to_vec();
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).take(97 * 131).collect()
}

#[test]
fn polygons_are_scikit_images_and_pycocotools() {
    with(|file| {
        for number in 0..12 {
            let points: Vec<f64> = file
                .tensor(&format!("points_{number}"))
                .unwrap()
                .data()
                .chunks_exact(8)
                .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            let corners: Vec<(f64, f64)> = points.chunks_exact(2).map(|at| (at[0], at[1])).collect();
            let mut found = vec![false; 97 * 131];
            raster::scikit_image(&corners, SIZE, |y, x| found[(y * 131 + x) as usize] = true);
            assert!(found == unpacked(file, &format!("skimage_{number}")), "scikit-image, polygon {number}");
            let mut found = vec![false; 97 * 131];
            raster::coco(&points, SIZE, &mut found);
            assert!(found == unpacked(file, &format!("coco_{number}")), "pycocotools, polygon {number}");
        }
    });
}

fn plane(file: &SafeTensors<'_>, name: &str) -> Plane {
    let tensor = file.tensor(name).unwrap();
    let shape: Vec<u32> = tensor.shape().iter().map(|&axis| axis as u32).collect();
    let values: Vec<f64> = match tensor.dtype() {
        safetensors::Dtype::U8 => tensor.data().iter().map(|&byte| f64::from(byte)).collect(),
        _ => tensor.data().chunks_exact(2).map(|b| f64::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
    };
    Plane::new([shape[0], shape[1]], shape.get(2).copied().unwrap_or(1), SampleType::U16, values).unwrap()
}

#[test]
fn resampling_is_scikit_images() {
    with(|file| {
        for name in ["down", "up", "rgb"] {
            let expected = plane(file, &format!("resize_{name}_smooth"));
            let found = resize::resize(&plane(file, &format!("resize_{name}_in")), expected.size, true);
            let differing = found.values.iter().zip(&expected.values).filter(|(a, b)| a != b).count();
            let worst = found.values.iter().zip(&expected.values).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // Sums are added in another order, so a value next to a whole number may be cut differently.
            assert!(
                worst <= 1.0 && differing * 500 <= found.values.len(),
                "{name}: {differing} differ, by up to {worst}"
            );
        }
        // HPA's sizes make weights that are exact, and so are the ids.
        assert_eq!(resize::resize(&plane(file, "ids_in"), [24, 24], false).values, plane(file, "ids").values);
    });
}
