//! The loop on seeded weights: it learns, and a resumed run goes on as the unbroken one.

use burn::tensor::Device;
use cytomask_image::{Labels, Rgb};
use cytomask_models::cytomask_t::{CYTOMASK_T, CytomaskT};
use cytomask_models::seeded::Seeded;
use cytomask_models::{BareNetwork, DeviceChoice};
use cytomask_train::data::Sample;
use cytomask_train::{ErrorKind, StepReport, TrainSettings, Trainer};

fn device() -> Device {
    DeviceChoice::Cpu.open().unwrap()
}

/// Two bright rectangles on a dark ground.
fn sample() -> Sample {
    let size = [97, 131];
    let mut labels = Labels::zeros(size);
    for (id, [y0, x0, y1, x1]) in [[10, 10, 40, 50], [50, 60, 85, 120]].into_iter().enumerate() {
        for y in y0..y1 {
            for x in x0..x1 {
                labels.as_mut_slice()[y * 131 + x] = id as u32 + 1;
            }
        }
    }
    let samples = labels.as_slice().iter().flat_map(|&id| [if id == 0 { 20.0 } else { 220.0 }; 3]).collect();
    Sample { path: "rectangles.png".into(), image: Rgb { size, samples }, labels }
}

fn trainer(settings: &TrainSettings) -> Trainer {
    let network = CytomaskT::new(&CYTOMASK_T, &device());
    let network = CytomaskT::load(&CYTOMASK_T, &Seeded::of(&network, ""), &device()).unwrap();
    Trainer::new(BareNetwork::CytomaskT(network), &device(), settings.clone(), vec![sample()], Vec::new()).unwrap()
}

fn settings() -> TrainSettings {
    TrainSettings {
        iterations: 12,
        batch_size: 1,
        crop_side: 64,
        learning_rate: 1e-3,
        warm_up: 1,
        objects_per_crop: 2,
        ..TrainSettings::default()
    }
}

#[test]
fn a_resumed_run_goes_on_as_the_unbroken_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut unbroken = trainer(&settings());
    let mut reports: Vec<StepReport> = Vec::new();
    for _ in 0..4 {
        reports.push(unbroken.step().unwrap());
        if unbroken.steps_done() == 2 {
            unbroken.save(folder.path(), None).unwrap();
        }
    }
    let mut resumed = trainer(&settings()).resume(folder.path()).unwrap();
    assert_eq!(resumed.steps_done(), 2);
    for expected in &reports[2..] {
        let found = resumed.step().unwrap();
        assert_eq!(found.step, expected.step);
        // The same sums in the same order, but for threads that share them out.
        assert!((found.maps - expected.maps).abs() < 1e-4, "{found:?} {expected:?}");
        assert!((found.masks - expected.masks).abs() < 1e-4, "{found:?} {expected:?}");
    }
    // A fresh run draws and computes something else at these steps.
    let mut fresh = trainer(&settings());
    assert!((fresh.step().unwrap().maps - reports[2].maps).abs() > 1e-4);

    let other = TrainSettings { batch_size: 2, ..settings() };
    let error = trainer(&other).resume(folder.path()).err().unwrap();
    assert!(error.kind() == ErrorKind::Checkpoint && error.to_string().contains("other settings"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(trainer(&settings()).resume(empty.path()).err().unwrap().kind(), ErrorKind::Checkpoint);
}

#[test]
fn the_loss_of_the_maps_falls() {
    let mut trainer = trainer(&settings());
    let losses: Vec<f32> = (0..10).map(|_| trainer.step().unwrap().maps).collect();
    let (first, last) = (losses[..3].iter().sum::<f32>(), losses[7..].iter().sum::<f32>());
    assert!(last < 0.95 * first, "{losses:?}");
}

#[test]
fn settings_no_run_can_work_with_are_named() {
    for (settings, word) in [
        (TrainSettings { crop_side: 100, ..settings() }, "patch_shape"),
        (TrainSettings { learning_rate: f64::NAN, ..settings() }, "learning_rate"),
        (TrainSettings { batch_size: 0, ..settings() }, "batch_size"),
    ] {
        let network = CytomaskT::new(&CYTOMASK_T, &device());
        let error = Trainer::new(BareNetwork::CytomaskT(network), &device(), settings, vec![sample()], Vec::new())
            .err()
            .unwrap();
        assert!(error.kind() == ErrorKind::Setting && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_batch_with_an_image_of_no_numbers_is_named_and_changes_nothing() {
    let mut bad = sample();
    bad.path = "no_numbers.tif".into();
    bad.image.samples.fill(f32::NAN);
    let network = CytomaskT::new(&CYTOMASK_T, &device());
    let network = CytomaskT::load(&CYTOMASK_T, &Seeded::of(&network, ""), &device()).unwrap();
    let network = BareNetwork::CytomaskT(network);
    let mut trainer = Trainer::new(network, &device(), settings(), vec![bad], Vec::new()).unwrap();
    let error = trainer.step().unwrap_err();
    assert!(error.kind() == ErrorKind::Diverged && error.to_string().contains("no_numbers.tif"), "{error}");
    assert_eq!(trainer.steps_done(), 0);
}
