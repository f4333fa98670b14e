//! The loop on seeded weights: it learns, and a resumed run goes on as the unbroken one.

use burn::tensor::Device;
use cytomask_image::{Labels, Rgb};
use cytomask_models::cytomask_t::{CYTOMASK_T, CytomaskT};
use cytomask_models::sam::Sam;
use cytomask_models::seeded::Seeded;
use cytomask_models::tiny_vit::VIT_T;
use cytomask_models::{BareNetwork, DeviceChoice};
use cytomask_train::data::Sample;
use cytomask_train::{ErrorKind, Objective, StepReport, TrainSettings, Trainer, Validation};

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
    // What is kept for gradients is no part of what makes a run, nor of its numbers.
    let mut again = trainer(&TrainSettings { recompute: true, ..settings() }).resume(folder.path()).unwrap();
    let found = again.step().unwrap();
    assert!((found.maps - reports[2].maps).abs() < 1e-4 && (found.masks - reports[2].masks).abs() < 1e-4, "{found:?}");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(trainer(&settings()).resume(empty.path()).err().unwrap().kind(), ErrorKind::Checkpoint);
}

#[test]
fn the_first_model_is_the_best_until_a_checkpoint_beats_it() {
    let scored = |apg| Some(Validation { apg: Some(apg), ..Validation::default() });
    let folder = tempfile::tempdir().unwrap();
    let best = || std::fs::read(folder.path().join("best.safetensors")).ok();
    let mut run = trainer(&settings());
    assert!(!run.save_start(folder.path(), None).unwrap() && best().is_none());
    assert!(run.save_start(folder.path(), scored(0.4)).unwrap());
    let first = best();
    run.step().unwrap();
    run.save(folder.path(), scored(0.3)).unwrap();
    assert!(first.is_some() && best() == first);
    let mut resumed = trainer(&settings()).resume(folder.path()).unwrap();
    assert_eq!((resumed.start(), resumed.best()), (Some(0.4), Some(0.3)));
    resumed.step().unwrap();
    resumed.save(folder.path(), scored(0.4)).unwrap();
    assert!(best() == first, "the best of the checkpoints, but not better than the first model");
    resumed.step().unwrap();
    assert!(resumed.is_best(scored(0.41)));
    resumed.save(folder.path(), scored(0.41)).unwrap();
    assert!(best() != first);

    // First values are nothing to keep, whatever they score.
    let folder = tempfile::tempdir().unwrap();
    let mut untrained = trainer(&settings()).begins_untrained();
    assert!(!untrained.save_start(folder.path(), scored(0.4)).unwrap());
    assert!(!folder.path().join("best.safetensors").exists() && untrained.start().is_none());
    untrained.step().unwrap();
    untrained.save(folder.path(), scored(0.1)).unwrap();
    assert!(folder.path().join("best.safetensors").exists());
}

#[test]
fn a_sam_with_a_new_decoder_is_not_the_best_model() {
    let scored = Some(Validation { apg: Some(0.4), ..Validation::default() });
    let begun = |objective| {
        let sam = BareNetwork::Sam(Sam::tiny_vit(&VIT_T, &device()), None);
        let settings = TrainSettings { objective, input_side: 64, ..settings() };
        Trainer::new(Trainer::from_scratch(sam, 0), &device(), settings, vec![sample()], Vec::new()).unwrap()
    };
    assert!(!begun(Objective::Joint).is_best(scored));
    // Without a decoder it is what it was.
    assert!(begun(Objective::Promptable).is_best(scored));
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
