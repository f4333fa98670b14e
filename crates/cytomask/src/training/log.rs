//! What a run leaves to look at: `log.jsonl`, one JSON object a line, and `report.html`, made anew at each validation.
//!
//! The log is the record: the page is made of it, so that a resumed run shows the whole of it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cytomask_image::output::{write_atomically, write_text};
use cytomask_image::{Labels, Rect};
use cytomask_report::panel::outlines_png;
use cytomask_report::plots::{Curve, Plot, curves};
use cytomask_report::training::{TrainingExample, TrainingPage, TrainingRow, render};
use cytomask_train::data::Crop;
use cytomask_train::{ValidatedImage, Validation};
use serde_json::{Value, json};

use super::{DataRow, Dataset};
use crate::{Error, ErrorKind};

/// Validation images shown on the page.
const EXAMPLES: usize = 4;

/// Larger images are shown by their middle: three pictures stand side by side, and outlines of one pixel must be seen.
const SHOWN_SIDE: u32 = 280;

/// Where the pictures of the first validation lie.
const PICTURES: &str = "examples";

/// The name of the log.
const LOG: &str = "log.jsonl";

/// A validation image's pictures: of the image, and with what was found.
#[derive(Clone, Debug)]
struct Seen {
    name: String,
    score: f64,
    image: Vec<u8>,
    found: Vec<u8>,
}

/// How far a run is, for one line on the terminal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    /// Mean loss of the last steps.
    pub loss: f64,
    /// Score of the last validation.
    pub msa: Option<f64>,
    /// Training images a second, of the last steps.
    pub images_per_second: f64,
    /// Seconds to the end at this pace, validations left out.
    pub seconds_left: f64,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "loss {:.3}", self.loss)?;
        if let Some(msa) = self.msa {
            write!(f, ", validation {msa:.3}")?;
        }
        let left = self.seconds_left.round() as u64;
        let left = match left {
            0..60 => format!("{left} s"),
            60..3600 => format!("{} min", left.div_ceil(60)),
            _ => format!("{} h {:02} min", left / 3600, left % 3600 / 60),
        };
        write!(f, ", {:.1} images/s, {left} left", self.images_per_second)
    }
}

/// Steps the terminal's means are over.
const RECENT: usize = 20;

/// The record of a run.
pub struct RunLog {
    folder: PathBuf,
    file: File,
    title: String,
    settings: Value,
    rows: Vec<TrainingRow>,
    warnings: Vec<String>,
    /// By step.
    steps: BTreeMap<u64, Value>,
    validations: BTreeMap<u64, Value>,
    /// Validation images as they are found in the validation that runs, by index.
    seen: BTreeMap<usize, Seen>,
    /// Training crops, PNGs.
    crops: Vec<Vec<u8>>,
    /// The same of the first validation, those that are shown.
    before: BTreeMap<usize, Seen>,
}

impl RunLog {
    /// Begins the log of a run in `folder`, or, with `goes_on`, keeps the one there up to `done` steps: what a killed run did after its last checkpoint is done again. `settings` is everything that decides the run.
    ///
    /// # Errors
    /// `Setting` when the log cannot be written.
    pub fn open(
        folder: &Path,
        title: &str,
        settings: Value,
        data: &Dataset,
        done: u64,
        goes_on: bool,
    ) -> Result<Self, Error> {
        let path = folder.join(LOG);
        let failed = |error: std::io::Error| unwritable(&path, &error);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        let earlier = std::fs::read_to_string(&path).map_err(failed)?;
        let kept = if goes_on { kept(&earlier, done) } else { 0 };
        file.set_len(kept as u64).map_err(failed)?;
        let (mut steps, mut validations) = (BTreeMap::new(), BTreeMap::new());
        for line in earlier[..kept].lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let step = line["step"].as_u64().unwrap_or(0);
            if line.get("validation").is_some() {
                validations.insert(step, line);
            } else if line.get("run").is_none() {
                steps.insert(step, line);
            }
        }
        file.flush().map_err(failed)?;
        let mut log = Self {
            folder: folder.to_path_buf(),
            file,
            title: title.to_owned(),
            rows: data.rows.iter().map(row).collect(),
            warnings: data.findings.iter().map(ToString::to_string).collect(),
            steps,
            validations,
            seen: BTreeMap::new(),
            crops: Vec::new(),
            before: if goes_on { read_pictures(&folder.join(PICTURES)) } else { BTreeMap::new() },
            settings,
        };
        let start = json!({
            "step": done,
            "run": { "settings": log.settings, "images": data.rows, "findings": data.findings, "shares": data.shares },
        });
        log.line(&start)?;
        Ok(log)
    }

    /// Whether a run lies in `folder`.
    pub fn exists(folder: &Path) -> bool {
        folder.join(LOG).exists()
    }

    fn line(&mut self, value: &Value) -> Result<(), Error> {
        let failed = |error: std::io::Error| unwritable(&self.folder.join(LOG), &error);
        // One write a line, so that a kill cuts off no more than this one.
        self.file.write_all(format!("{value}\n").as_bytes()).map_err(failed)
    }

    /// A step: its report as an object with `step`, loss parts and `learning_rate`; how long it took, of that how long it waited for crops,
    /// and how many crops it had.
    ///
    /// # Errors
    /// `Setting` when the log cannot be written.
    pub fn step(&mut self, report: &Value, took: Duration, waited: Duration, crops: usize) -> Result<(), Error> {
        let mut line = report.clone();
        line["seconds"] = json!(took.as_secs_f64());
        line["waited"] = json!(waited.as_secs_f64());
        line["crops"] = json!(crops);
        self.line(&line)?;
        self.steps.insert(line["step"].as_u64().unwrap_or(0), line);
        Ok(())
    }

    /// How far the run is of `total` steps.
    pub fn status(&self, total: u64) -> Status {
        let recent: Vec<&Value> = self.steps.values().rev().take(RECENT).collect();
        let sum = |name: &str| recent.iter().filter_map(|line| line[name].as_f64()).sum::<f64>();
        let (seconds, count) = (sum("seconds").max(1e-9), recent.len().max(1) as f64);
        let done = self.steps.last_key_value().map_or(0, |(step, _)| *step);
        let loss = self.loss_parts().iter().map(|part| sum(part)).sum::<f64>() / count;
        let msa = self.validations.values().next_back().and_then(best_of);
        Status {
            loss,
            msa,
            images_per_second: sum("crops") / seconds,
            seconds_left: total.saturating_sub(done) as f64 * seconds / count,
        }
    }

    /// Shows training crops on the page.
    ///
    /// # Errors
    /// `Image` when a picture cannot be made.
    pub fn show_crops(&mut self, crops: &[Crop]) -> Result<(), Error> {
        let draw = |crop: &Crop| {
            let none = Labels::zeros(crop.labels.size());
            let failed = |error| Error::new(ErrorKind::Image, format!("crops: {error}"));
            outlines_png(&crop.image, &crop.labels, &none).map_err(failed)
        };
        self.crops = crops.iter().map(draw).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Takes up what validation found on one image; [`RunLog::validation`] follows when all are seen.
    ///
    /// # Errors
    /// `Image` when the picture cannot be made.
    pub fn see(&mut self, image: &ValidatedImage<'_>) -> Result<(), Error> {
        if !self.before.is_empty() && !self.before.contains_key(&image.index) {
            return Ok(());
        }
        let sample = image.sample;
        let rect = middle(sample.image.size);
        let shown = sample.image.crop(rect);
        let none = Labels::zeros(rect.size());
        let picture = |truth: &Labels, found: &Labels| {
            let drawn = outlines_png(&shown, truth, found);
            drawn.map_err(|error| Error::new(ErrorKind::Image, format!("{}: {error}", sample.path.display())))
        };
        let seen = Seen {
            name: file_name(&sample.path),
            score: image.scores.score(),
            image: picture(&none, &none)?,
            found: picture(&cropped(&sample.labels, rect), &cropped(image.found, rect))?,
        };
        self.seen.insert(image.index, seen);
        Ok(())
    }

    /// The end of a validation after `step` steps; `best` says whether the model is the best so far. Writes the page.
    ///
    /// # Errors
    /// `Setting` when log or page cannot be written, `Image` when they cannot be drawn.
    pub fn validation(&mut self, step: u64, scores: Option<Validation>, best: bool, total: u64) -> Result<(), Error> {
        let line = json!({ "step": step, "validation": scores, "best": best });
        self.line(&line)?;
        self.validations.insert(step, line);
        if self.before.is_empty() && !self.seen.is_empty() {
            self.before = chosen(std::mem::take(&mut self.seen));
            self.seen = self.before.clone();
            write_pictures(&self.folder.join(PICTURES), &self.before)?;
        }
        self.write_page(step, total)?;
        self.seen.clear();
        Ok(())
    }

    fn write_page(&self, step: u64, total: u64) -> Result<(), Error> {
        let examples: Vec<TrainingExample> = self
            .before
            .iter()
            .filter_map(|(index, before)| {
                let now = self.seen.get(index)?;
                Some(TrainingExample {
                    name: before.name.clone(),
                    score_before: before.score,
                    score_now: now.score,
                    image: before.image.clone(),
                    before: before.found.clone(),
                    now: now.found.clone(),
                })
            })
            .collect();
        let (headline, text) = self.words(step, total);
        let page = TrainingPage {
            title: &self.title,
            headline: &headline,
            text: &text,
            warnings: &self.warnings,
            plots: &self.plots()?,
            examples: &examples,
            crops: &self.crops,
            rows: &self.rows,
            settings: &self.settings,
        };
        let path = self.folder.join("report.html");
        Ok(write_text(path, &render(&page))?)
    }

    fn words(&self, step: u64, total: u64) -> (String, String) {
        let headline = match step >= total {
            true => format!("Finished: {total} steps"),
            false => format!("Step {step} of {total}"),
        };
        let minutes = self.steps.values().filter_map(|line| line["seconds"].as_f64()).sum::<f64>() / 60.0;
        let mut text = format!("{minutes:.1} minutes of training.");
        let mut scores = self.validations.iter().filter_map(|(step, line)| Some((*step, best_of(line)?)));
        let Some((_, first)) = scores.next() else {
            return (headline, text + " There are no validation images, so nothing says how good the model is.");
        };
        text += &format!(" Validation score: {first:.3} before");
        let best = self.validations.iter().rev().find(|(_, line)| line["best"] == true);
        text += &match best.and_then(|(step, line)| Some((*step, best_of(line)?))) {
            Some((0, _)) if scores.next().is_some() => {
                "; none since is better, so best.safetensors is the model before training.".to_owned()
            }
            None | Some((0, _)) => ".".to_owned(),
            Some((step, best)) => format!(", {best:.3} at its best (step {step})."),
        };
        (headline, text)
    }

    /// Names of the loss parts: numbers of a step's line that are not bookkeeping.
    fn loss_parts(&self) -> Vec<String> {
        const OTHER: [&str; 5] = ["step", "learning_rate", "seconds", "waited", "crops"];
        let line = self.steps.values().next_back().and_then(Value::as_object);
        let names =
            line.into_iter().flatten().filter(|(name, value)| !OTHER.contains(&name.as_str()) && value.is_number());
        names.map(|(name, _)| name.clone()).collect()
    }

    fn plots(&self) -> Result<Vec<Plot>, Error> {
        let of_steps = |name: &str, value: &dyn Fn(&Value) -> Option<f64>| Curve {
            name: name.to_owned(),
            points: self.steps.iter().filter_map(|(step, line)| Some((*step as f64, value(line)?))).collect(),
            marked: false,
        };
        let of_validations = |name: &str, key: &str| Curve {
            name: name.to_owned(),
            points: self
                .validations
                .iter()
                .filter_map(|(step, line)| Some((*step as f64, score(line, key)?)))
                .collect(),
            marked: true,
        };
        let parts = self.loss_parts();
        let losses: Vec<Curve> = parts.iter().map(|part| of_steps(part, &|line| line[part].as_f64())).collect();
        let rate =
            of_steps("crops a second", &|line| Some(line["crops"].as_f64()? / line["seconds"].as_f64()?.max(1e-9)));
        let waited =
            of_steps("waited", &|line| Some(100.0 * line["waited"].as_f64()? / line["seconds"].as_f64()?.max(1e-9)));
        let drawn = [
            curves(
                "score",
                "Validation mSA",
                "Mean segmentation accuracy of images the model does not learn from. Higher is better; where it falls while the loss still falls, \
                 the model learns its images by heart.",
                "mSA",
                &[
                    of_validations("APG", "apg"),
                    of_validations("AIS", "ais"),
                    of_validations("flows", "flows"),
                    of_validations("boxes (IoU)", "boxes"),
                ],
            ),
            curves(
                "loss",
                "Loss",
                "The parts of what training makes small; means of neighbouring steps.",
                "loss",
                &losses,
            ),
            curves(
                "learning-rate",
                "Learning rate",
                "How far a step may go.",
                "learning rate",
                &[of_steps("learning rate", &|line| line["learning_rate"].as_f64())],
            ),
            curves("speed", "Speed", "Crops trained on a second, validation left out.", "crops a second", &[rate]),
            curves(
                "waiting",
                "Waiting for crops",
                "Share of a step's time in which it waited for its crops. Above a few per cent reading or augmentation is the bottleneck.",
                "per cent",
                &[waited],
            ),
        ];
        let mut plots = Vec::new();
        for plot in drawn {
            plots.extend(plot.map_err(|error| Error::new(ErrorKind::Image, error.to_string()))?);
        }
        Ok(plots)
    }
}

/// The middle of an image, as much as is shown.
fn middle([h, w]: [u32; 2]) -> Rect {
    let [height, width] = [h, w].map(|side| side.min(SHOWN_SIDE));
    let (y0, x0) = ((h - height) / 2, (w - width) / 2);
    Rect { y0, x0, y1: y0 + height, x1: x0 + width }
}

fn cropped(labels: &Labels, rect: Rect) -> Labels {
    let mut piece = Labels::zeros(rect.size());
    let width = rect.width();
    for (at, id) in piece.as_mut_slice().iter_mut().enumerate() {
        *id = labels.at(rect.y0 + at as u32 / width, rect.x0 + at as u32 % width);
    }
    piece
}

/// The score that the best weights are chosen by.
fn best_of(line: &Value) -> Option<f64> {
    let scores: Option<Validation> = serde_json::from_value(line["validation"].clone()).ok()?;
    Some(scores?.score())
}

fn score(line: &Value, way: &str) -> Option<f64> {
    line["validation"][way].as_f64()
}

fn unwritable(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::Setting, format!("{}: cannot write the log: {error}", path.display()))
}

/// Bytes of the whole lines up to a step.
fn kept(text: &str, step: u64) -> usize {
    let before = |line: &&str| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        line.ends_with('\n') && value.and_then(|value| value["step"].as_u64()).is_some_and(|at| at <= step)
    };
    text.split_inclusive('\n').take_while(before).map(str::len).sum()
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn row(row: &DataRow) -> TrainingRow {
    TrainingRow {
        name: file_name(&row.image),
        group: row.group.clone(),
        purpose: row.purpose_name().to_owned(),
        size: row.size,
        objects: row.objects,
        tiny: row.tiny,
        median_side: row.median_side,
    }
}

/// The worst, the best and those between, evenly by score.
fn chosen(seen: BTreeMap<usize, Seen>) -> BTreeMap<usize, Seen> {
    let mut order: Vec<(usize, Seen)> = seen.into_iter().collect();
    order.sort_by(|(_, a), (_, b)| a.score.total_cmp(&b.score));
    let count = order.len().min(EXAMPLES);
    let last = order.len().saturating_sub(1);
    let wanted: Vec<usize> = (0..count).map(|number| number * last / count.saturating_sub(1).max(1)).collect();
    order.into_iter().enumerate().filter(|(place, _)| wanted.contains(place)).map(|(_, entry)| entry).collect()
}

/// Keeps the pictures of before for a resumed run.
fn write_pictures(folder: &Path, before: &BTreeMap<usize, Seen>) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    let list: Vec<Value> =
        before.iter().map(|(index, seen)| json!({ "index": index, "name": seen.name, "msa": seen.score })).collect();
    for (index, seen) in before {
        for (kind, bytes) in [("image", &seen.image), ("before", &seen.found)] {
            write_atomically(folder.join(format!("{index:03}_{kind}.png")), |writer| {
                let failed = |error| {
                    cytomask_image::Error::new(cytomask_image::ErrorKind::Io, "cannot write").with_source(error)
                };
                writer.write_all(bytes).map_err(failed)
            })?;
        }
    }
    Ok(write_text(folder.join("before.json"), &format!("{:#}\n", Value::Array(list)))?)
}

/// What [`write_pictures`] wrote; nothing where that is missing or damaged, as it is only for the eye.
fn read_pictures(folder: &Path) -> BTreeMap<usize, Seen> {
    let read = |folder: &Path| -> Option<BTreeMap<usize, Seen>> {
        let list: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(folder.join("before.json")).ok()?).ok()?;
        let mut found = BTreeMap::new();
        for entry in list {
            let index = entry["index"].as_u64()?;
            let bytes = |kind: &str| std::fs::read(folder.join(format!("{index:03}_{kind}.png"))).ok();
            let seen = Seen {
                name: entry["name"].as_str()?.to_owned(),
                score: entry["msa"].as_f64()?,
                image: bytes("image")?,
                found: bytes("before")?,
            };
            found.insert(index as usize, seen);
        }
        Some(found)
    };
    read(folder).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use cytomask_image::Rgb;
    use cytomask_train::data::{Sample, Store};

    use super::super::Use;
    use super::*;

    fn data() -> Dataset {
        Dataset {
            store: Store::from(Vec::new()),
            validation: Vec::new(),
            rows: vec![DataRow {
                image: "images/a.png".into(),
                labels: "labels/a.tif".into(),
                group: String::new(),
                purpose: Some(Use::Training),
                size: Some([97, 131]),
                objects: 3,
                tiny: 0,
                median_side: Some(9.5),
            }],
            findings: Vec::new(),
            shares: BTreeMap::new(),
        }
    }

    fn log(folder: &Path, done: u64, goes_on: bool) -> RunLog {
        RunLog::open(folder, "cells", json!({ "batch_size": 4 }), &data(), done, goes_on).unwrap()
    }

    fn step(log: &mut RunLog, step: u64) {
        let report = json!({ "step": step, "maps": 1.0, "masks": 0.5, "learning_rate": 1e-4 });
        log.step(&report, Duration::from_secs(2), Duration::from_millis(100), 4).unwrap();
    }

    fn see(log: &mut RunLog, index: usize, score: f64) {
        let labels = Labels::zeros([97, 131]);
        let image = Rgb { size: [97, 131], samples: vec![9.0; 97 * 131 * 3] };
        let sample = Sample { path: format!("v{index}.png").into(), image, labels: labels.clone() };
        let scores = Validation { apg: Some(score), ..Validation::default() };
        log.see(&ValidatedImage { index, sample: &sample, found: &labels, scores }).unwrap();
    }

    #[test]
    fn later_steps_and_torn_lines_are_dropped() {
        let text = "{\"step\":0}\n{\"step\":1,\"maps\":0.5}\n{\"step\":2}\n{\"step\":1,\"ma";
        assert_eq!(&text[..kept(text, 1)], "{\"step\":0}\n{\"step\":1,\"maps\":0.5}\n");
        assert_eq!(kept("{\"step\":1}", 1), 0);
    }

    #[test]
    fn a_resumed_run_shows_the_whole_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = log(folder.path(), 0, false);
        for index in 0..6 {
            see(&mut first, index, 0.1 * index as f64);
        }
        let scores = |apg| Some(Validation { apg: Some(apg), ais: Some(0.2), ..Validation::default() });
        first.validation(0, scores(0.25), true, 10).unwrap();
        let page = |folder: &Path| std::fs::read_to_string(folder.join("report.html")).unwrap();
        assert!(page(folder.path()).contains("Validation score: 0.250 before."));
        (1..=3).for_each(|at| step(&mut first, at));
        drop(first);
        // Killed after step 3; the last checkpoint is of step 2.
        let mut second = log(folder.path(), 2, true);
        assert_eq!((second.steps.len(), second.validations.len(), second.before.len()), (2, 1, 4));
        (3..=4).for_each(|at| step(&mut second, at));
        for index in 0..6 {
            see(&mut second, index, 0.5);
        }
        assert_eq!(second.seen.len(), 4);
        second.validation(4, scores(0.2), false, 10).unwrap();
        assert!(
            page(folder.path()).contains("0.250 before; none since is better, so best.safetensors is the model before")
        );
        for index in 0..6 {
            see(&mut second, index, 0.5);
        }
        second.validation(4, scores(0.5), true, 10).unwrap();
        let status = second.status(10);
        assert_eq!(
            (status.loss, status.msa, status.images_per_second, status.seconds_left),
            (1.5, Some(0.5), 2.0, 12.0)
        );
        assert_eq!(status.to_string(), "loss 1.500, validation 0.500, 2.0 images/s, 12 s left");
        let page = page(folder.path());
        for text in [
            "Step 4 of 10",
            "0.250 before, 0.500 at its best (step 4)",
            "now: mSA 0.500",
            "v5.png",
            "v0.png",
            "a.png",
            "97 × 131",
        ] {
            assert!(page.contains(text), "{text}");
        }
        let lines = std::fs::read_to_string(folder.path().join(LOG)).unwrap();
        assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{lines}");
        assert_eq!(lines.matches("\"step\":3").count(), 1);
    }
}
