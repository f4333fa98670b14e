use super::*;
use crate::{Apg, Strategy};

fn space() -> Space {
    let parameters = ["nms_threshold=0.5:0.9:0.1", "min_size=10,25,60"].map(|text| Parameter::parse(text).unwrap());
    Space::new(Strategy::Apg(Apg::default()), parameters.to_vec()).unwrap()
}

fn trial(candidate: usize, score: f64) -> Trial {
    Trial { candidate, settings: space().settings(candidate), score }
}

#[test]
fn ties_go_to_what_is_nearest_to_the_default() {
    let space = space();
    // Candidate 14 is the default's own place on the grid, 13 and 15 differ in one setting, 1 in both.
    assert_eq!(space.settings(14), space.settings(0));
    assert_eq!(best_of(&space, &[trial(0, 0.4), trial(1, 0.5), trial(13, 0.5)]).candidate, 13);
    assert_eq!(best_of(&space, &[trial(0, 0.5), trial(1, 0.5), trial(14, 0.5)]).candidate, 0);
    assert_eq!(best_of(&space, &[trial(0, 0.5 - 1e-14), trial(1, 0.5)]).candidate, 0, "the same but for rounding");
    assert_eq!(best_of(&space, &[trial(0, 0.4), trial(1, 0.41)]).candidate, 1);
    assert_eq!(
        best_of(&space, &[trial(0, 0.4), trial(5, 0.5), trial(8, 0.5)]).candidate,
        8,
        "fewer steps of one setting"
    );
}

#[test]
fn parts_cover_every_image_once() {
    for images in [2, 5, 7, 50] {
        let options = TuneOptions { check: Check::Folds(5), ..TuneOptions::default() };
        let (searched, parts) = split(images, &options);
        assert_eq!(searched, (0..images).collect::<Vec<_>>());
        assert_eq!(parts.len(), images.min(5));
        let mut all = parts.concat();
        all.sort_unstable();
        assert_eq!(all, searched);
        let sizes = parts.iter().map(Vec::len);
        assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);

        let options = TuneOptions { check: Check::HeldOut(0.3), ..options };
        let (searched, parts) = split(images, &options);
        assert_eq!(parts[0].len(), ((images as f64 * 0.3).round() as usize).max(1));
        assert!(parts[0].iter().all(|image| !searched.contains(image)));
        assert_eq!(searched.len() + parts[0].len(), images);
        let other = TuneOptions { seed: 1, ..options.clone() };
        assert!(images < 10 || split(images, &other) != split(images, &options), "the seed matters");
    }
    assert_eq!(split(1, &TuneOptions::default()), (vec![0], vec![]));
}

fn scored(differences: &[f64]) -> Vec<ImageScores> {
    let image = |(index, difference): (usize, &f64)| ImageScores {
        name: index.to_string(),
        part: Some(index % 5),
        default: 0.4,
        tuned: 0.4 + difference,
    };
    differences.iter().enumerate().map(image).collect()
}

fn verdict_of(differences: &[f64]) -> Verdict {
    let gain = gain(&scored(differences), 0).unwrap();
    verdict(&trial(3, 0.5), &[], gain.as_ref())
}

#[test]
fn a_gain_is_real_only_when_it_shows_on_enough_images() {
    assert_eq!(verdict_of(&[0.02, 0.03, 0.01, 0.04, 0.02, 0.05, 0.01]), Verdict::Real);
    assert_eq!(verdict_of(&[0.02, -0.03, 0.01, -0.04, 0.02, 0.05, -0.01]), Verdict::NotShown);
    assert_eq!(verdict_of(&[-0.02, -0.03, -0.01, -0.04, -0.02, -0.05]), Verdict::Worse);
    assert_eq!(verdict_of(&[0.0; 8]), Verdict::NotShown);
    assert_eq!(verdict_of(&[0.2, 0.3, 0.1, 0.4, 0.2]), Verdict::TooFewImages);
    assert_eq!(verdict(&trial(3, 0.5), &[], None), Verdict::TooFewImages);
    // One lucky image carries the mean, the ranks are not deceived.
    assert_eq!(verdict_of(&[0.9, -0.01, 0.01, -0.01, 0.01, -0.01, 0.01, 0.01]), Verdict::NotShown);
    let part = Part { choice: trial(0, 0.4), images: 1, default: 0.4, tuned: 0.4 };
    assert_eq!(verdict(&trial(0, 0.4), &[part], None), Verdict::DefaultIsBest);
    let mut searched = scored(&[0.5; 3]);
    searched.iter_mut().for_each(|image| image.part = None);
    assert_eq!(gain(&searched, 0).unwrap(), None, "images that chose are no check");
}

#[test]
fn options_that_do_not_fit_are_named() {
    let refused = |images, options: TuneOptions| check_options(&space(), images, &options).unwrap_err().to_string();
    let options = TuneOptions::default();
    assert!(refused(0, options.clone()).contains("images"));
    assert!(refused(3, TuneOptions { check: Check::Folds(1), ..options.clone() }).contains("folds"));
    assert!(refused(3, TuneOptions { check: Check::HeldOut(1.0), ..options.clone() }).contains("held_out"));
    assert!(refused(3, TuneOptions { method: Method::Sample(0), ..options.clone() }).contains("trials"));
    let many = ["nms_threshold=0:1:0.001", "min_score=0:1:0.001"].map(|text| Parameter::parse(text).unwrap());
    let many = Space::new(Strategy::Apg(Apg::default()), many.to_vec()).unwrap();
    assert!(check_options(&many, 3, &options).unwrap_err().to_string().contains("1002001"));
}

#[test]
fn replays_count_the_default_too() {
    let space = space();
    let hill = |candidate: usize| match candidate {
        0 => 0.3,
        _ => {
            let position = space.position(candidate);
            0.6 - 0.05 * (position[0].abs_diff(1) + position[1].abs_diff(2)) as f64
        }
    };
    let trials: Vec<Trial> = (0..=space.combinations()).map(|candidate| trial(candidate, hill(candidate))).collect();
    let best = best_of(&space, &trials).clone();
    let found = replay(&space, &trials, &best).unwrap();
    assert!(found.median >= 2 && found.most <= 16 && found.median <= found.most, "{found:?}");
    let flat: Vec<Trial> = (0..=space.combinations()).map(|candidate| trial(candidate, 0.5)).collect();
    assert_eq!(replay(&space, &flat, &flat[0]).unwrap(), SamplerTrials { median: 1, most: 1 });
}
