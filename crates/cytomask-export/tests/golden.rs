//! Against `fixtures/measurements.safetensors`, written by `parity/measurements.py` with `skimage.measure.regionprops`.

use std::f64::consts::PI;
use std::path::Path;

use cytomask_export::Objects;
use cytomask_export::measure::{Intensity, Shape, measure};
use cytomask_image::{Image, Labels};
use safetensors::SafeTensors;

/// Both sum in `f64`; ours are rounded less, since sums of coordinates are whole numbers.
const TOLERANCE: f64 = 1e-9;
/// Square roots of differences that should be 0: a line's short axis is 4·√ε with ε about 1e-16 of the long one's square.
const ROOT_TOLERANCE: f64 = 1e-5;

type FromShape = fn(&Shape) -> Vec<f64>;
type FromIntensity = fn(&Intensity) -> f64;

const SHAPES: [(&str, FromShape); 12] = [
    ("area", |shape| vec![shape.area as f64]),
    ("bbox", |shape| [shape.rect.y0, shape.rect.x0, shape.rect.y1, shape.rect.x1].map(f64::from).to_vec()),
    ("centroid", |shape| shape.centroid.to_vec()),
    ("perimeter", |shape| vec![shape.perimeter]),
    ("axis_major_length", |shape| vec![shape.major_axis]),
    ("area_convex", |shape| vec![shape.convex_area as f64]),
    ("solidity", |shape| vec![shape.solidity]),
    ("equivalent_diameter_area", |shape| vec![shape.equivalent_diameter]),
    ("extent", |shape| vec![shape.extent]),
    ("feret_diameter_max", |shape| vec![shape.feret_max]),
    ("euler_number", |shape| vec![shape.euler_number as f64]),
    ("eccentricity", |shape| vec![shape.eccentricity]),
];

const INTENSITIES: [(&str, FromIntensity); 5] = [
    ("intensity_mean", |intensity| intensity.mean),
    ("intensity_min", |intensity| intensity.min),
    ("intensity_max", |intensity| intensity.max),
    ("intensity_std", |intensity| intensity.std),
    ("intensity_median", |intensity| intensity.median),
];

#[test]
fn measurements_equal_those_of_skimage() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/measurements.safetensors");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| -> Vec<[u8; 4]> {
        file.tensor(name).unwrap().data().chunks_exact(4).map(|word| word.try_into().unwrap()).collect()
    };
    let rows = |name: &str| -> Vec<Vec<f64>> {
        let view = file.tensor(name).unwrap();
        let numbers: Vec<f64> =
            view.data().chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect();
        numbers.chunks_exact(view.shape()[1]).map(<[f64]>::to_vec).collect()
    };
    let samples = words("image").into_iter().map(f32::from_le_bytes).collect();
    let image = Image::from_samples([97, 131], 2, samples).unwrap();
    let mut compared = 0;
    for case in ["drawn", "full", "holey", "crumbs"] {
        let ids = words(&format!("{case}/labels")).into_iter().map(u32::from_le_bytes).collect();
        let labels = Labels::from_vec([97, 131], ids).unwrap();
        let objects = Objects::new(&labels);
        let found = measure(&objects, Some(&image)).unwrap();
        let check = |name: &str, index: usize, found: &[f64], expected: &[f64], tolerance: f64| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let id = objects.ids()[index];
                let close = (found - expected).abs() <= tolerance * expected.abs().max(1.0);
                assert!(close, "{case}, object {id}, {name}: found {found}, expected {expected}");
            }
        };
        let expected_ids: Vec<u32> = rows(&format!("{case}/label")).iter().map(|row| row[0] as u32).collect();
        assert_eq!(objects.ids(), expected_ids);
        for (name, of) in SHAPES {
            let tolerance = if name == "eccentricity" { ROOT_TOLERANCE } else { TOLERANCE };
            for (index, expected) in rows(&format!("{case}/{name}")).iter().enumerate() {
                check(name, index, &of(&found.shapes[index]), expected, tolerance);
                compared += 1;
            }
        }
        for (index, expected) in rows(&format!("{case}/axis_minor_length")).iter().enumerate() {
            check("axis_minor_length", index, &[found.shapes[index].minor_axis], expected, ROOT_TOLERANCE);
        }
        for (index, expected) in rows(&format!("{case}/orientation")).iter().enumerate() {
            let shape = &found.shapes[index];
            // The direction of what has none is decided by skimage's rounding.
            if shape.eccentricity > 1e-6 {
                let turn = (shape.orientation - expected[0]).rem_euclid(PI);
                let turn = turn.min(PI - turn);
                assert!(
                    turn < TOLERANCE,
                    "{case}, object {}: {} {expected:?}",
                    objects.ids()[index],
                    shape.orientation
                );
            }
        }
        for (name, of) in INTENSITIES {
            for (index, expected) in rows(&format!("{case}/{name}")).iter().enumerate() {
                let found: Vec<f64> = found.intensities[index].iter().map(of).collect();
                check(name, index, &found, expected, TOLERANCE);
                compared += 1;
            }
        }
    }
    assert!(compared > 1500, "{compared}");
}
