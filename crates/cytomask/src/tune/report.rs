//! What is written of a search: tables and a page with plots.

use std::fmt::Write as _;

use cytomask_report::html::escape;
use cytomask_report::tables::field;
use serde_json::Value;

use super::{Check, ImageScores, Method, Parameter, Tuning};

/// Trials listed on the page.
const LISTED: usize = 10;

/// One line a trial, in the order they were tried: `trial,score,SETTING,…`.
pub fn trials_csv(tuning: &Tuning) -> String {
    let mut text = String::from("trial,mean_msa");
    for parameter in tuning.space.parameters() {
        let _ = write!(text, ",{}", parameter.name);
    }
    text.push('\n');
    for (index, trial) in tuning.trials.iter().enumerate() {
        let _ = write!(text, "{index},{:.6}", trial.score);
        for parameter in tuning.space.parameters() {
            let _ = write!(text, ",{}", plain(&trial.settings[&parameter.name]));
        }
        text.push('\n');
    }
    text
}

/// One line an image: `image,use,default_msa,tuned_msa,difference`. `use` is `search`, `held out` or the fold.
pub fn images_csv(tuning: &Tuning) -> String {
    let mut text = String::from("image,use,default_msa,tuned_msa,difference\n");
    for image in &tuning.images {
        let _ = writeln!(
            text,
            "{},{},{:.6},{:.6},{:.6}",
            field(&image.name),
            use_of(tuning, image),
            image.default,
            image.tuned,
            image.tuned - image.default
        );
    }
    text
}

/// A few plain lines.
pub fn summary(tuning: &Tuning) -> String {
    let mut text = String::new();
    let searched = match tuning.options.check {
        Check::Folds(_) => tuning.images.len(),
        Check::HeldOut(_) => tuning.images.iter().filter(|image| image.part.is_none()).count(),
    };
    let _ = writeln!(
        text,
        "{} trials on {searched} image(s): default mSA {:.4}, best {:.4}",
        tuning.trials.len(),
        tuning.default.score,
        tuning.best.score
    );
    if tuning.best.candidate == 0 {
        text.push_str("best settings: the defaults\n");
    } else {
        let changed: Vec<String> =
            tuning.best.settings.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
        let _ = writeln!(text, "best settings: {}", changed.join(", "));
    }
    if let Some(gain) = &tuning.gain {
        let how = match tuning.options.check {
            Check::Folds(_) => format!("{} folds, seed {}", tuning.parts.len(), tuning.options.seed),
            Check::HeldOut(_) => format!("held out, seed {}", tuning.options.seed),
        };
        let _ = writeln!(
            text,
            "images not used for the choice ({}; {how}): default mSA {:.4}, tuned {:.4}, gain {:+.4} (95 % interval {:+.4} to {:+.4}, Wilcoxon p {:.3})",
            gain.images, gain.default, gain.tuned, gain.interval.value, gain.interval.low, gain.interval.high, gain.p
        );
    }
    if let Some(sampler) = &tuning.sampler {
        let _ = writeln!(
            text,
            "--method sample would have come within {} of the best in {} trials (median of 20 seeds; at most {})",
            super::NEAR,
            sampler.median,
            sampler.most
        );
    }
    text.push_str(tuning.verdict.sentence());
    text
}

/// A page of its own: the summary, a plot for each setting, the best trials, the parts of the check, the images.
pub fn html(tuning: &Tuning, title: &str) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style></head><body>\n\
         <h1>{0}</h1>\n",
        escape(title)
    );
    for line in summary(tuning).lines() {
        let _ = writeln!(page, "<p>{}</p>", escape(line));
    }
    page.push_str("<h2>Score against each setting</h2>\n<p>For each value: all trials (thin line), the middle half of them (box), their median (dash), and the best trial with it (dot). Blue marks the choice, the dashed line the default's score.</p>\n<div class=\"plots\">\n");
    for parameter in tuning.space.parameters() {
        page.push_str(&plot(tuning, parameter));
    }
    page.push_str("</div>\n<h2>Best trials</h2>\n");
    let mut best: Vec<_> = tuning.trials.iter().collect();
    best.sort_by(|a, b| b.score.total_cmp(&a.score));
    let names: Vec<&str> = tuning.space.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
    best.truncate(LISTED);
    best.extend((tuning.trials.len() > LISTED).then_some(&tuning.default));
    let rows = best.into_iter().map(|trial| {
        let mut row = vec![format!("{:.4}", trial.score)];
        row.extend(names.iter().map(|name| plain(&trial.settings[*name])));
        row.push(if trial.candidate == 0 { "default".into() } else { String::new() });
        row
    });
    table(&mut page, &[&["mean mSA"], &names[..], &[""]].concat(), rows);
    if !tuning.parts.is_empty() {
        page.push_str("<h2>Check on images not used for the choice</h2>\n");
        let rows = tuning.parts.iter().enumerate().map(|(index, part)| {
            let mut row = vec![(index + 1).to_string(), part.images.to_string()];
            row.extend([part.choice.score, part.default, part.tuned].map(|score| format!("{score:.4}")));
            row.extend(names.iter().map(|name| plain(&part.choice.settings[*name])));
            row
        });
        table(&mut page, &[&["part", "images", "mSA where chosen", "default", "tuned"], &names[..]].concat(), rows);
    }
    page.push_str("<h2>Images</h2>\n");
    let rows = tuning.images.iter().map(|image| {
        let difference = format!("{:+.4}", image.tuned - image.default);
        vec![
            image.name.clone(),
            use_of(tuning, image),
            format!("{:.4}", image.default),
            format!("{:.4}", image.tuned),
            difference,
        ]
    });
    table(&mut page, &["image", "use", "default", "tuned", "difference"], rows);
    page.push_str("</body></html>\n");
    page
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right}\
th{font-weight:600}td:first-child,th:first-child{text-align:left}.plots{display:flex;flex-wrap:wrap;gap:1em}";

fn use_of(tuning: &Tuning, image: &ImageScores) -> String {
    match (tuning.options.check, image.part) {
        (_, None) => "search".into(),
        (Check::Folds(_), Some(fold)) => format!("fold {}", fold + 1),
        (Check::HeldOut(_), Some(_)) => "held out".into(),
    }
}

fn table(page: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    page.push_str("<table><tr>");
    for cell in head {
        let _ = write!(page, "<th>{}</th>", escape(cell));
    }
    page.push_str("</tr>\n");
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<td>{}</td>", escape(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

/// Size of a plot and the margins around its axes, pixels.
const PLOT: [f64; 2] = [340.0, 230.0];
const MARGIN: [f64; 4] = [12.0, 10.0, 44.0, 52.0];

/// Spread of the scores at each value of a setting, as SVG.
fn plot(tuning: &Tuning, parameter: &Parameter) -> String {
    let [width, height] = PLOT;
    let [top, right, bottom, left] = MARGIN;
    let columns: Vec<(&Value, Vec<f64>)> = parameter
        .values
        .iter()
        .map(|value| {
            // The default may lie beside the grid.
            let with = tuning.trials.iter().filter(|trial| trial.settings[&parameter.name] == *value);
            let mut scores: Vec<f64> = with.map(|trial| trial.score).collect();
            scores.sort_by(f64::total_cmp);
            (value, scores)
        })
        .collect();
    let all = || columns.iter().flat_map(|(_, scores)| scores.iter().copied()).chain([tuning.default.score]);
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
    let span = (high - low).max(1e-6);
    let (low, high) = (low - 0.05 * span, high + 0.05 * span);
    let y = |score: f64| top + (high - score) / (high - low) * (height - top - bottom);
    let step = (width - left - right) / columns.len() as f64;
    let mut svg = format!(
        "<svg width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"mSA against {0}\" font-size=\"11\">\n",
        escape(&parameter.name)
    );
    for tick in 0..=4 {
        let score = low + (high - low) * f64::from(tick) / 4.0;
        let at = y(score);
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#eee\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{score:.3}</text>",
            width - right,
            left - 5.0,
            at + 4.0
        );
    }
    let default = y(tuning.default.score);
    let _ = writeln!(
        svg,
        "<line x1=\"{left}\" x2=\"{}\" y1=\"{default:.1}\" y2=\"{default:.1}\" stroke=\"#b00\" stroke-dasharray=\"4 3\"/>",
        width - right
    );
    // At most a dozen labels fit.
    let every = columns.len().div_ceil(12);
    for (index, (value, scores)) in columns.iter().enumerate() {
        let x = left + (index as f64 + 0.5) * step;
        if index % every == 0 {
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                height - bottom + 15.0,
                escape(&plain(value))
            );
        }
        let (Some(&worst), Some(&best)) = (scores.first(), scores.last()) else { continue };
        let quantile = |share: f64| y(scores[((scores.len() - 1) as f64 * share).round() as usize]);
        let half = (step * 0.3).min(11.0);
        let chosen = tuning.best.settings[&parameter.name] == **value;
        let colour = if chosen { "#06c" } else { "#555" };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#bbb\"/><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#e4e4e4\"/><line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#777\"/><circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"{}\" fill=\"{colour}\"/>",
            y(worst),
            y(best),
            x - half,
            quantile(0.75),
            2.0 * half,
            (quantile(0.25) - quantile(0.75)).max(0.5),
            x - half,
            x + half,
            quantile(0.5),
            quantile(0.5),
            y(best),
            if chosen { 5 } else { 3 }
        );
    }
    let method = if tuning.options.method == Method::Grid { "" } else { " (trials cluster near the best)" };
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-weight=\"600\">{}{method}</text>\n</svg>",
        (left + width - right) / 2.0,
        height - 10.0,
        escape(&parameter.name)
    );
    svg
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
