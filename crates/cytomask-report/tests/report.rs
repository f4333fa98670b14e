//! A report of made-up scores: what it recommends, and that the page stands alone.

use cytomask_image::{Labels, Rgb};
use cytomask_report::html::{Example, Page, images_to_show, render};
use cytomask_report::{
    Analysis, Certainty, ComparedImage, Comparison, ErrorKind, Method, Metric, Scores, panel, plots, tables,
};
use serde_json::json;

fn scores(msa: f64, seconds: f64) -> Scores {
    let values = [
        (Metric::Msa, msa),
        (Metric::Sa50, (msa * 1.3).min(1.0)),
        (Metric::Sa75, msa),
        (Metric::F1, msa.sqrt()),
        (Metric::PanopticQuality, msa),
        (Metric::TrueObjects, 40.0),
        (Metric::TruePositives, (msa * 40.0).floor()),
        (Metric::FalsePositives, 3.0),
        (Metric::FalseNegatives, 40.0 - (msa * 40.0).floor()),
    ];
    Scores {
        values: values.into_iter().map(|(metric, value)| (metric.name().to_owned(), value)).collect(),
        per_threshold: std::array::from_fn(|at| (msa * (1.4 - 0.08 * at as f64)).min(1.0)),
        seconds: Some(seconds),
    }
}

/// Deterministic spread between −1 and 1.
fn spread(at: usize) -> f64 {
    ((at * 7919 + 13) % 101) as f64 / 50.0 - 1.0
}

/// Three methods: `apg` is `lead` above `ais` on average and twice as slow; `<amg>` is far behind.
fn comparison(images: usize, lead: f64) -> Comparison {
    let method =
        |name: &str| Method { name: name.into(), record: json!({ "model": { "name": "m" }, "strategy": name }) };
    let image = |at: usize| {
        let ground = 0.6 + 0.2 * spread(at);
        let apg = ground + lead + 0.02 * spread(at * 3 + 1);
        ComparedImage {
            name: format!("image_{at:02}"),
            group: Some(if at.is_multiple_of(2) { "cells" } else { "nuclei" }.into()),
            scores: vec![scores(0.1, 9.0), scores(ground, 1.0), scores(apg, 2.0)],
        }
    };
    Comparison { methods: ["<amg>", "ais", "apg"].map(method).into(), images: (0..images).map(image).collect() }
}

#[test]
fn a_clear_lead_is_sure() {
    let found = Analysis::of(&comparison(40, 0.05), Metric::Msa, 0.05).unwrap();
    let recommendation = &found.recommendation;
    assert_eq!((recommendation.method, recommendation.certainty), (2, Certainty::Sure));
    assert!(recommendation.headline.starts_with("Use apg"), "{}", recommendation.headline);
    assert!(recommendation.text.contains("best on 40 of 40"), "{}", recommendation.text);
    assert_eq!(found.order(), [2, 1, 0]);
    assert_eq!(found.groups.len(), 2);
    let pair = found.pair(1, 2).unwrap();
    assert!(pair.difference.value < -0.04 && pair.difference.low <= pair.difference.value, "{pair:?}");
    assert_eq!((pair.paper_outcome, found.pair(2, 1).unwrap().paper_outcome), ("loss", "win"));
}

#[test]
fn no_lead_leaves_the_choice_and_names_the_faster() {
    let found = Analysis::of(&comparison(40, 0.001), Metric::Msa, 0.05).unwrap().recommendation;
    assert_eq!((found.certainty, found.as_good.as_slice()), (Certainty::Undecided, &[1][..]));
    assert!(
        found.headline.contains("do not tell them apart") && found.headline.contains("ais is the faster"),
        "{found:?}"
    );
    assert!(found.text.contains("not significant") && found.text.contains("2.0× faster"), "{found:?}");
}

/// Wilcoxon's test is two-sided: here it is significant for `ais`, while two images give `apg` the higher mean.
#[test]
fn a_mean_against_most_images_is_no_lead() {
    let mut images = comparison(40, -0.02);
    images.images[..2].iter_mut().for_each(|image| image.scores[1] = scores(0.0, 1.0));
    let found = Analysis::of(&images, Metric::Msa, 0.05).unwrap();
    let pair = found.pair(2, 1).unwrap();
    assert!(pair.difference.value > 0.0 && pair.rank_biserial < 0.0 && pair.p_holm < 0.05, "{pair:?}");
    let advice = &found.recommendation;
    assert_eq!((advice.method, advice.certainty, advice.as_good.as_slice()), (2, Certainty::Undecided, &[1][..]));
    assert!(advice.headline.contains("apg has the higher mean, ais is better on more images"), "{advice:?}");
    assert!(advice.text.contains("but on ") && advice.text.contains("look at those"), "{advice:?}");
}

/// The same where `apg` is better on more images too, but by next to nothing.
#[test]
fn a_lead_by_next_to_nothing_is_not_said_to_lose_on_more_images() {
    let mut images = comparison(100, 0.0);
    for (at, image) in images.images.iter_mut().enumerate() {
        let apg = match at {
            0..2 => 0.99,
            2..54 => 0.501 + 0.00001 * at as f64,
            _ => 0.49 - 0.0001 * at as f64,
        };
        image.scores = vec![scores(0.1, 9.0), scores(if at < 2 { 0.0 } else { 0.5 }, 1.0), scores(apg, 2.0)];
    }
    let found = Analysis::of(&images, Metric::Msa, 0.05).unwrap();
    let pair = found.pair(2, 1).unwrap();
    assert!(pair.first_better > pair.second_better && pair.rank_biserial < 0.0 && pair.p_holm < 0.05, "{pair:?}");
    let advice = &found.recommendation;
    assert!(advice.headline.contains("apg has the higher mean, ais is better on the typical image"), "{advice:?}");
}

#[test]
fn few_images_and_poor_scores_are_said() {
    let found = Analysis::of(&comparison(5, 0.05), Metric::Msa, 0.05).unwrap().recommendation;
    assert_eq!(found.certainty, Certainty::TooFewImages);
    let mut poor = comparison(10, 0.0);
    poor.images.iter_mut().for_each(|image| image.scores = vec![scores(0.0, 1.0); 3]);
    let found = Analysis::of(&poor, Metric::Msa, 0.05).unwrap();
    assert!(found.recommendation.text.contains("no method does well"), "{:?}", found.recommendation);
    assert_eq!((found.all_equal_on, found.pairs[0].p, found.methods[0].best_on), (10, 1.0, 0));
    let mut one = comparison(10, 0.0);
    one.methods.truncate(1);
    one.images.iter_mut().for_each(|image| image.scores.truncate(1));
    let found = Analysis::of(&one, Metric::F1, 0.05).unwrap();
    assert_eq!(found.recommendation.certainty, Certainty::NothingToCompare);
    assert!(plots::critical_difference(&found).unwrap().is_none());
    assert!(plots::mean_scores(&found).is_ok());
}

#[test]
fn incomplete_tables_are_errors() {
    let mut broken = comparison(8, 0.0);
    broken.images[3].scores.pop();
    let error = Analysis::of(&broken, Metric::Msa, 0.05).unwrap_err();
    assert!(error.kind() == ErrorKind::Shape && error.to_string().contains("image_03"), "{error}");
    broken.images.clear();
    assert_eq!(Analysis::of(&broken, Metric::Msa, 0.05).unwrap_err().kind(), ErrorKind::Shape);
    let mut no_number = comparison(8, 0.0);
    no_number.images[1].scores[2].values.clear();
    let error = Analysis::of(&no_number, Metric::Msa, 0.05).unwrap_err().to_string();
    assert!(error.contains("image_01") && error.contains("apg"), "{error}");
}

#[test]
fn the_page_stands_alone_and_escapes_names() {
    let comparison = comparison(20, 0.02);
    let analysis = Analysis::of(&comparison, Metric::Msa, 0.05).unwrap();
    let drawn = [
        Some(plots::mean_scores(&analysis).unwrap()),
        Some(plots::score_against_threshold(&analysis).unwrap()),
        plots::time_against_quality(&analysis).unwrap(),
        plots::by_group(&analysis).unwrap(),
        plots::critical_difference(&analysis).unwrap(),
        Some(plots::scatter(&comparison, &analysis, 2, 0).unwrap()),
    ];
    let drawn: Vec<_> = drawn.into_iter().flatten().collect();
    assert_eq!(drawn.len(), 6);
    for plot in &drawn {
        assert!(plot.svg.contains("currentColor") && !plot.svg.contains("#010203"), "{}", plot.id);
        assert!(!plot.data.is_null() && plot.svg.contains("</svg>"), "{}", plot.id);
    }
    let grey = Rgb { size: [97, 131], samples: vec![50.0; 97 * 131 * 3] };
    let none = Labels::zeros([97, 131]);
    let picture = panel::outlines_png(&grey, &none, &none).unwrap();
    let chosen = images_to_show(&comparison, &analysis);
    assert!(chosen.len() >= 4 && chosen[0].1.contains("best image of apg"), "{chosen:?}");
    let examples: Vec<Example> =
        chosen.into_iter().map(|(image, reason)| Example { image, reason, panels: vec![picture.clone(); 3] }).collect();
    let page = render(&Page {
        title: "cells & <nuclei>",
        comparison: &comparison,
        analysis: &analysis,
        plots: &drawn,
        examples: &examples,
        warnings: &["one image was left out".into()],
        provenance: &json!({ "version": "0.1.0" }),
    });
    assert!(page.contains("cells &amp; &lt;nuclei&gt;") && page.contains("&lt;amg&gt;") && !page.contains("<amg>"));
    assert!(page.contains("one image was left out"));
    // Addresses appear only as names of XML languages and as embedded pictures.
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http:", "https:", "<script", "url(", "@import", "<link"] {
        assert!(!outside.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("src=\"data:image/png;base64,"));
    if let Some(path) = std::env::var_os("CYTOMASK_REPORT_SAMPLE") {
        std::fs::write(path, &page).unwrap();
    }
}

#[test]
fn tables_have_a_line_for_each_thing() {
    let comparison = comparison(6, 0.02);
    let analysis = Analysis::of(&comparison, Metric::Msa, 0.05).unwrap();
    assert_eq!(tables::images_csv(&comparison).lines().count(), 1 + 6 * 3);
    assert_eq!(tables::summary_csv(&analysis).lines().count(), 1 + 3);
    let pairs = tables::pairs_csv(&analysis);
    assert_eq!(pairs.lines().count(), 1 + 3);
    let columns = |line: &str| line.split(',').count();
    assert!(pairs.lines().all(|line| columns(line) == columns(pairs.lines().next().unwrap())), "{pairs}");
    let markdown = tables::summary_markdown(&analysis);
    assert!(markdown.contains("| apg |") && markdown.contains("Friedman"), "{markdown}");
}
