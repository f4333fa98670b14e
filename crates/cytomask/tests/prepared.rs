//! A prepared image gives what a plain run gives. Needs the built-in weights, as the default features have them.
#![cfg(feature = "embedded")]

use cytomask::{Ais, Amg, Apg, Model, Rgb, Segmenter, Strategy, apg, load_model};

const SIZE: [u32; 2] = [97, 131];

/// Bright discs on a textured ground, 0–255.
fn discs() -> Rgb {
    let centres = [(24.0, 30.0), (60.0, 40.0), (40.0, 90.0), (75.0, 100.0), (64.0, 60.0)];
    let pixel = |y: u32, x: u32| {
        let inside = centres.iter().any(|(cy, cx)| (y as f32 - cy).hypot(x as f32 - cx) < 10.0);
        let texture = ((y * 7 + x * 13) % 11) as f32;
        if inside { 180.0 + texture } else { 20.0 + texture }
    };
    let samples = (0..SIZE[0]).flat_map(|y| (0..SIZE[1]).flat_map(move |x| [pixel(y, x); 3])).collect();
    Rgb { size: SIZE, samples }
}

fn model() -> Model {
    load_model("cytomask-t", None, cytomask::DeviceChoice::Cpu).unwrap()
}

fn strategies(model: &Model) -> Vec<Strategy> {
    let amg = Amg { points_per_side: 5, pred_iou_thresh: 0.3, stability_score_thresh: 0.5, ..Amg::default() };
    let refined = Apg { refine_with_box_prompts: true, prompt_kind: apg::PromptKind::Point, ..Apg::default() };
    vec![amg.into(), Ais::default().into(), Strategy::apg_for(model).into(), refined.into()]
}

#[test]
fn a_prepared_image_gives_what_a_plain_run_gives() {
    let model = model();
    let prepared = Segmenter::new(model.clone()).prepare(discs(), &mut |_| {}).unwrap();
    for strategy in strategies(&model) {
        let plain = Segmenter::new(model.clone()).strategy(strategy.clone());
        let plain = plain.run_rgb(&discs(), None, &mut |_| {}).unwrap();
        let again = prepared.segment(&strategy, &mut |_| {}).unwrap();
        assert!(plain.objects.len() >= 3, "{strategy:?}: {} objects", plain.objects.len());
        assert_eq!(plain.labels, again.labels, "{strategy:?}");
        assert_eq!(plain.objects.len(), again.objects.len());
    }
}

#[test]
fn the_built_in_model_finds_objects_by_amg_without_further_settings() {
    let model = model();
    let amg = Amg { points_per_side: 12, ..Strategy::amg_for(&model) };
    let found = Segmenter::new(model).strategy(amg).run_rgb(&discs(), None, &mut |_| {}).unwrap();
    assert!((4..=6).contains(&found.objects.len()), "{} objects", found.objects.len());
}

#[test]
fn tiles_of_a_prepared_image_too() {
    let model = model();
    let tiled =
        |strategy: Strategy| Segmenter::new(model.clone()).strategy(strategy).tile_shape(Some([64, 64])).halo([16, 16]);
    for strategy in [Strategy::Ais(Ais::default()), Strategy::apg_for(&model).into()] {
        let segmenter = tiled(strategy.clone());
        let plain = segmenter.run_rgb(&discs(), None, &mut |_| {}).unwrap();
        let prepared = segmenter.prepare(discs(), &mut |_| {}).unwrap();
        assert_eq!(plain.labels, prepared.segment(&strategy, &mut |_| {}).unwrap().labels, "{strategy:?}");
    }
    let nothing = Rgb { size: [0, 5], samples: Vec::new() };
    let prepared = tiled(Ais::default().into()).prepare(nothing, &mut |_| {}).unwrap();
    assert_eq!(prepared.segment(&Ais::default().into(), &mut |_| {}).unwrap().labels.size(), [0, 5]);
}

/// Settings that differ in every part of each strategy.
fn many(model: &Model) -> Vec<Strategy> {
    let settings = [
        ("amg", r#"{ "points_per_side": 5, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.7 }"#),
        (
            "amg",
            r#"{ "points_per_side": 5, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.8, "box_nms_thresh": 0.3 }"#,
        ),
        ("ais", r#"{ "center_distance_threshold": 0.3, "min_size": 400 }"#),
        ("ais", r#"{ "center_distance_threshold": 0.3, "min_size": 0 }"#),
        ("ais", r#"{ "distance_smoothing": 3.0, "boundary_distance_threshold": 0.7 }"#),
        ("apg", r#"{ "min_size": 400, "nms_threshold": 0.5 }"#),
        ("apg", r#"{ "center_distance_threshold": 0.3, "intersection_over_min": true, "min_score": 0.0 }"#),
        ("apg", r#"{ "prompt_kind": "point", "multimasking": true, "min_score": 0.2 }"#),
        ("apg", r#"{ "prompt_kind": "point", "refine_with_box_prompts": true, "mask_threshold": "auto" }"#),
    ];
    let strategy = |(mode, text): (&str, &str)| {
        Strategy::from_settings(mode, &serde_json::from_str(text).unwrap(), model).unwrap()
    };
    settings.map(strategy).to_vec()
}

#[test]
fn many_settings_at_once_give_what_each_gives_alone() {
    let model = model();
    let all = many(&model);
    for (tiles, strategies) in [(None, &all[..]), (Some([64, 64]), &all[2..])] {
        let segmenter = Segmenter::new(model.clone()).tile_shape(tiles).halo([16, 16]);
        let prepared = segmenter.prepare(discs(), &mut |_| {}).unwrap();
        let at_once = prepared.segment_each(strategies, &|index, found| (index, found)).unwrap();
        assert_eq!(at_once.len(), strategies.len());
        let mut counts = Vec::new();
        for (strategy, (index, found)) in strategies.iter().zip(&at_once) {
            let plain = Segmenter::new(model.clone()).tile_shape(tiles).halo([16, 16]).strategy(strategy.clone());
            let plain = plain.run_rgb(&discs(), None, &mut |_| {}).unwrap();
            assert_eq!(plain.labels, found.labels, "{index}: {strategy:?}");
            counts.push(found.objects.len());
        }
        assert!(counts.iter().min() < counts.iter().max(), "the settings matter: {counts:?}");
        let again = prepared.segment_each(strategies, &|_, found| found.labels).unwrap();
        assert!(again.iter().zip(&at_once).all(|(again, (_, first))| *again == first.labels));
    }
}

#[test]
fn one_setting_that_fails_fails_the_whole() {
    let model = model();
    let prepared = Segmenter::new(model).tile_shape(Some([64, 64])).prepare(discs(), &mut |_| {}).unwrap();
    let outside = cytomask::Prompt::point(500.0, 3.0);
    let strategies = [Strategy::from(Ais::default()), Strategy::Prompted(Default::default(), vec![outside])];
    assert!(prepared.segment_each(&strategies, &|_, _| ()).is_err(), "a prompt outside the image");
    assert_eq!(prepared.segment_each(&strategies[..1], &|index, _| index).unwrap(), [0]);
}
