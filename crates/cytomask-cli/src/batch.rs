//! The images of one `cytomask segment`: which are finished, what becomes of each, and what is left to read afterwards.
//!
//! Beside the results of each image, a run over several leaves `index.html`, a page to look through, and, where some failed,
//! `failures.json`. Both are the same however often the run was stopped in between (docs/batch.md).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use cytomask::batch::{Event, Failure, Limits, Outcome, Read, Work};
use cytomask::output::write_text;
use cytomask::{
    Fields, Image, Phase, Pixels, Rect, Resolved, ScaleChoice, Segmentation, Segmenter, Selection, Source, StoredPixels,
};
use serde_json::{Value, json};

use crate::args::SegmentArgs;
use crate::exports::Export;
use crate::inputs::{self, Input};
use crate::outputs::{self, Targets};
use crate::page::{self, Row};
use crate::progress::{print, say};
use crate::report::{LogFormat, Reporter};
use crate::resume::{self, State};
use crate::timings::{Stage, Timings};
use crate::{Exit, FAILED, choose, interrupt, segment};

/// Which of many images, and how they are worked through. None of it changes a result.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Many images")]
pub(crate) struct BatchArgs {
    /// Take only files of the folders that match, e.g. '*_w1.tif'; with a `/` the path below the folder must match. Repeatable.
    #[arg(long, value_name = "GLOB")]
    pub(crate) pattern: Vec<String>,
    /// Leave out files of the folders that match. Repeatable.
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Look into subfolders too; results go into folders of the same names.
    #[arg(long)]
    pub(crate) recursive: bool,
    /// Segment images again that are finished with the same input, model and settings.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Images segmented at a time, with one model.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) jobs: usize,
    /// Memory of all images in hand together, by the estimate of --dry-run, e.g. 8GB.
    #[arg(long = "max_memory", value_name = "SIZE", value_parser = bytes)]
    pub(crate) max_memory: Option<u64>,
    /// How the run is reported on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log: LogFormat,
    /// Say at the end how long each stage took, all images and jobs together.
    #[arg(long)]
    pub(crate) timings: bool,
}

/// `8GB`, `500 MB`, `2GiB`, or plain bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a size such as 8GB or 500MB, found {text:?}");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim().to_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        _ => return Err(wrong()),
    };
    Some((number * factor) as u64).filter(|&bytes| bytes > 0).ok_or_else(wrong)
}

/// How long a watcher sleeps between looks at whether the user wants to stop.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// All images of a run.
pub(crate) struct Batch<'a> {
    arguments: &'a SegmentArgs,
    segmenter: &'a Segmenter,
    inputs: &'a [Input],
    fields: Option<Fields>,
    /// Which part of every file.
    selection: Selection,
    /// The file read last and its hash: time points of one file follow each other.
    hashed: Mutex<Option<(PathBuf, String)>>,
    /// What provenances must say of program, model and settings.
    identity: Value,
    /// Whether there is a page and a list of failures.
    with_summary: bool,
    reporter: Reporter,
    /// Thousandths of images done, of all together and of each.
    progress: AtomicU64,
    parts: Vec<AtomicU64>,
    timings: Timings,
}

/// Images of more samples are let go before they are segmented, and their objects have no intensities.
const MEASURED_SAMPLES: usize = 1 << 27;

/// What reading an image comes to.
enum Picture {
    /// In memory.
    Whole(Image),
    /// One of several tiles, which are read when their turn comes.
    Stored(Box<Source>),
}

/// An image between reading and segmenting.
pub(crate) struct Loaded {
    picture: Picture,
    from: Resolved,
    expected: Value,
    /// Why earlier results do not count.
    again: Option<String>,
    seconds: f64,
}

/// An image between segmenting and writing.
pub(crate) struct Segmented {
    /// In memory, kept for intensities.
    image: Option<Image>,
    from: Resolved,
    pixels: Box<dyn Pixels + Send>,
    segmentation: Segmentation,
    provenance: Value,
    again: Option<String>,
    seconds: f64,
}

/// A finished image.
pub(crate) struct Done {
    provenance: Value,
    picture: Option<Vec<u8>>,
    again: Option<String>,
    seconds: f64,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(
        arguments: &'a SegmentArgs,
        segmenter: &'a Segmenter,
        inputs: &'a [Input],
        timings: Timings,
    ) -> Result<Self> {
        let into_folder = outputs::as_label_file(&arguments.output).is_none();
        Ok(Self {
            arguments,
            segmenter,
            inputs,
            fields: arguments.fields.as_deref().map(segment::read_fields).transpose()?,
            selection: choose::selection(&arguments.choose)?,
            hashed: Mutex::default(),
            identity: segment::identity(arguments, segmenter)?,
            with_summary: into_folder && (inputs.len() > 1 || arguments.images.iter().any(|path| path.is_dir())),
            reporter: Reporter::new(arguments.batch.log, inputs.len()),
            progress: AtomicU64::new(0),
            parts: inputs.iter().map(|_| AtomicU64::new(0)).collect(),
            timings,
        })
    }

    /// Works through all images; the error, if any, is an exit status whose reason has been said.
    pub(crate) fn run(mut self) -> Result<()> {
        let start = Instant::now();
        self.tidy()?;
        let stop = interrupt::watch()?;
        let watched = stop.clone();
        let log = self.arguments.batch.log;
        std::thread::spawn(move || {
            while !watched.load(Ordering::Relaxed) {
                std::thread::sleep(WATCH_INTERVAL);
            }
            if log == LogFormat::Text {
                say("stopping after the image at hand; once more stops at once");
            }
        });
        report_panics(log);

        let limits = Limits { jobs: self.arguments.batch.jobs, memory_bytes: self.arguments.batch.max_memory };
        let mut failures = Vec::new();
        self.reporter.progress(0.0);
        let outcomes = cytomask::batch::run(&self, self.inputs.len(), &limits, &stop, &mut |event| match event {
            Event::Started(index) => self.started(index),
            Event::Ended(index, outcome) => {
                self.ended(index, outcome);
                if let Outcome::Failed(failure) = outcome {
                    failures.push((index, failure.clone()));
                    self.write_failures(&mut failures);
                }
            }
        });
        // The default hook is the one that says where.
        let _ = std::panic::take_hook();
        self.reporter.finish();
        if self.arguments.batch.timings {
            let networks = self.segmenter.model().seconds();
            self.reporter.event("timings", None, self.timings.as_json(networks), &self.timings.as_text(networks));
        }
        self.summarise(&outcomes, &failures, &stop, start.elapsed().as_secs_f64())
    }

    /// Removes what a killed run left half-written, and its list of failures.
    fn tidy(&self) -> Result<()> {
        let mut folders: Vec<PathBuf> = self
            .inputs
            .iter()
            .filter_map(|input| Some(self.targets(input).provenance.parent()?.to_path_buf()))
            .collect();
        folders.sort();
        folders.dedup();
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            cytomask::output::remove_abandoned(folder)?;
        }
        if self.with_summary {
            match std::fs::remove_file(self.failures_path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("{}: cannot remove", self.failures_path().display()))
                }
                _ => Ok(()),
            }
        } else {
            Ok(())
        }
    }

    fn targets(&self, input: &Input) -> Targets {
        let output = match outputs::as_label_file(&self.arguments.output) {
            Some(_) => self.arguments.output.clone(),
            None => self.arguments.output.join(&input.folder),
        };
        Targets::new(&output, &input.stem, &outputs::chosen_exports(self.arguments))
    }

    fn sha256(&self, input: &Input) -> Result<String> {
        if input.time.is_none() {
            return inputs::sha256(&input.path);
        }
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*hashed {
            Some((path, hash)) if *path == input.path => Ok(hash.clone()),
            _ => {
                let hash = inputs::sha256(&input.path)?;
                *hashed = Some((input.path.clone(), hash.clone()));
                Ok(hash)
            }
        }
    }

    fn failures_path(&self) -> PathBuf {
        self.arguments.output.join("failures.json")
    }

    fn started(&self, index: usize) {
        self.reporter.event("started", Some(&self.inputs[index].path), Value::Null, "");
    }

    fn ended(&self, index: usize, outcome: &Outcome<Done>) {
        let input = &self.inputs[index];
        let path = &input.path;
        match outcome {
            Outcome::Done(done) => {
                let again = done.again.as_ref().map_or_else(String::new, |why| format!(" (again: {why})"));
                let (objects, seconds) = (&done.provenance["objects"], done.seconds);
                let line = format!("{}: {objects} objects in {seconds:.1} s{again}", input.shown());
                self.reporter.event("finished", Some(path), self.description(input, done), &line);
                for warning in done.warnings() {
                    let line = format!("warning: {}: {warning}", input.shown());
                    self.reporter.event("warning", Some(path), json!({ "message": warning }), &line);
                }
            }
            Outcome::Skipped(done) => self.reporter.event("skipped", Some(path), self.description(input, done), ""),
            Outcome::Failed(failure) => {
                let line = format!("error: {}", named(input, failure));
                self.reporter.event("failed", Some(path), as_json(failure), &line);
            }
            Outcome::NotReached => {}
        }
        self.set_part(index, 1.0);
    }

    /// What `--json` says of an image with results.
    fn description(&self, input: &Input, done: &Done) -> Value {
        let targets = self.targets(input);
        json!({
            "input": input.path,
            "time": input.time,
            "objects": done.provenance["objects"],
            "seconds": done.seconds,
            "again": done.again,
            "labels": targets.labels(),
            "overlay": targets.path(Export::Overlay),
            "table": targets.path(Export::Csv),
            "files": targets.files(),
            "provenance": targets.provenance,
        })
    }

    fn set_part(&self, index: usize, part: f64) {
        let now = (part.clamp(0.0, 1.0) * 1000.0) as u64;
        let before = self.parts[index].fetch_max(now, Ordering::Relaxed);
        let all = self.progress.fetch_add(now.saturating_sub(before), Ordering::Relaxed) + now.saturating_sub(before);
        self.reporter.progress(all as f64 / 1000.0);
    }

    /// Kept up to date while the run goes on, so that it is there whatever ends the run.
    fn write_failures(&self, failures: &mut [(usize, Failure)]) {
        if !self.with_summary {
            return;
        }
        failures.sort_by_key(|(index, _)| *index);
        let list: Vec<Value> = failures
            .iter()
            .map(|(index, failure)| {
                let mut entry = as_json(failure);
                entry["input"] = json!(self.inputs[*index].path);
                if let Some(time) = self.inputs[*index].time {
                    entry["time"] = json!(time);
                }
                entry
            })
            .collect();
        if let Err(error) = write_text(self.failures_path(), &format!("{:#}\n", Value::Array(list))) {
            self.reporter.event(
                "warning",
                None,
                json!({ "message": format!("{error:#}") }),
                &format!("warning: {error:#}"),
            );
        }
    }

    fn summarise(
        &self,
        outcomes: &[Outcome<Done>],
        failures: &[(usize, Failure)],
        stop: &AtomicBool,
        seconds: f64,
    ) -> Result<()> {
        let with = |wanted: fn(&Outcome<Done>) -> Option<&Done>| -> Vec<Value> {
            let pairs = self.inputs.iter().zip(outcomes);
            pairs.filter_map(|(input, outcome)| Some(self.description(input, wanted(outcome)?))).collect()
        };
        let done = with(|outcome| if let Outcome::Done(done) = outcome { Some(done) } else { None });
        let skipped = with(|outcome| if let Outcome::Skipped(done) = outcome { Some(done) } else { None });
        let left = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::NotReached)).count();
        if self.with_summary {
            write_text(self.arguments.output.join("index.html"), &self.page(outcomes, failures))?;
        }
        let failed: Vec<Value> = failures
            .iter()
            .map(|(index, failure)| {
                let input = &self.inputs[*index];
                json!({ "input": input.path, "stage": failure.stage.name(), "error": named(input, failure) })
            })
            .collect();
        let counts = json!({
            "images": outcomes.len(),
            "done": done.len(),
            "skipped": skipped.len(),
            "failed": failed.len(),
            "left": left,
            "seconds": seconds,
            "output": self.arguments.output,
        });
        let mut lines = Vec::new();
        if failures.len() > 1 {
            lines.push("failed:".to_owned());
            lines.extend(failures.iter().map(|(index, failure)| format!("  {}", named(&self.inputs[*index], failure))));
        }
        if !skipped.is_empty() {
            let n = skipped.len();
            lines.push(format!(
                "{n} image{} finished before; --overwrite would do them again",
                if n == 1 { " was" } else { "s were" }
            ));
        }
        if self.arguments.json {
            print(&format!("{:#}", json!({ "images": done, "skipped": skipped, "failed": failed })))?;
        } else if !done.is_empty() || !skipped.is_empty() {
            lines.push(format!("results in {}", self.arguments.output.display()));
        }
        let interrupted = stop.load(Ordering::Relaxed);
        if interrupted && left > 0 {
            lines.push(format!(
                "stopped with {left} of {} images to go; the same command goes on from here",
                outcomes.len()
            ));
        }
        if !failures.is_empty() {
            lines.push(format!("error: {} of {} images failed", failures.len(), outcomes.len()));
        }
        self.reporter.event("summary", None, counts, &lines.join("\n"));
        match (interrupted && left > 0, failures.is_empty()) {
            (true, _) => bail!(Exit(interrupt::INTERRUPTED)),
            (false, false) => bail!(Exit(FAILED)),
            (false, true) => Ok(()),
        }
    }

    fn page(&self, outcomes: &[Outcome<Done>], failures: &[(usize, Failure)]) -> String {
        let rows: Vec<Row> = self
            .inputs
            .iter()
            .zip(outcomes)
            .filter_map(|(input, outcome)| match outcome {
                Outcome::Done(done) | Outcome::Skipped(done) => Some(self.row(input, done)),
                _ => None,
            })
            .collect();
        let failed: Vec<page::Failed> = failures
            .iter()
            .map(|(index, failure)| page::Failed {
                name: self.inputs[*index].shown(),
                message: format!("{}: {}", failure.stage.name(), failure.message),
            })
            .collect();
        let heading = format!(
            "cytomask {}, model {}, mode {}",
            env!("CARGO_PKG_VERSION"),
            self.segmenter.model().name(),
            self.segmenter.chosen_strategy().name()
        );
        page::html(&heading, &rows, &failed)
    }

    fn row(&self, input: &Input, done: &Done) -> Row {
        let targets = self.targets(input);
        let size = |axis: usize| done.provenance["input"]["size"][axis].as_u64().unwrap_or_default() as u32;
        let relative =
            |path: &Path| path.strip_prefix(&self.arguments.output).unwrap_or(path).to_string_lossy().into_owned();
        let mut links: Vec<(String, String)> = targets
            .exports
            .iter()
            .map(|(export, path)| {
                let what = match export {
                    _ if Some(path.as_path()) == targets.labels() => "labels".to_owned(),
                    Export::Csv => "table".to_owned(),
                    export => export.name(),
                };
                (what, relative(path))
            })
            .collect();
        links.push(("provenance".into(), relative(&targets.provenance)));
        Row {
            name: input.shown_below(),
            size: [size(0), size(1)],
            objects: done.provenance["objects"].as_u64().unwrap_or_default(),
            warnings: done.warnings(),
            links,
            picture: done.picture.clone(),
        }
    }

    /// The picture for the page, from the overlay on disk, so that it is the same whether the image was just done or before.
    fn picture(&self, targets: &Targets) -> Result<Option<Vec<u8>>> {
        let wanted = self.with_summary && self.inputs.len() <= page::PICTURES_UP_TO;
        let overlay = targets.path(Export::Overlay).filter(|_| wanted);
        overlay.map(|path| page::picture(path, page::picture_side(self.inputs.len()))).transpose()
    }

    fn load(&self, input: &Input) -> Result<Read<Loaded, Done>> {
        let start = Instant::now();
        let targets = self.targets(input);
        let mut expected = self.identity.clone();
        expected["input"] = json!({ "path": input.path, "sha256": self.sha256(input)? });
        if let Some(time) = input.time {
            expected["input"]["time"] = json!(time);
        }
        let state = if self.arguments.batch.overwrite { State::New } else { resume::state(&targets, &expected) };
        let again = match state {
            State::Finished(provenance) => {
                let picture = self.picture(&targets)?;
                let seconds = start.elapsed().as_secs_f64();
                return Ok(Read::Finished(Done { provenance, picture, again: None, seconds }));
            }
            State::Outdated(why) => Some(why),
            State::New => None,
        };
        let selection = input.part(&self.selection);
        let source = selection.open(&input.path)?;
        let held = source.description();
        let from = selection.resolve(held).with_context(|| input.path.display().to_string())?;
        let size = held.size;
        let picture = if self.segmenter.reads_in_parts(size)? {
            Picture::Stored(Box::new(source))
        } else {
            let whole = Rect::whole(size);
            Picture::Whole(source.read_image(from.time, from.projection, &from.channels, whole)?)
        };
        expected["input"]["size"] = json!(size);
        expected["input"]["channels"] = json!(from.channels.len());
        expected["input"]["pixel_size_um"] = json!(from.pixel_size_um);
        self.timings.add(Stage::Read, start);
        Ok(Read::Loaded(Loaded { picture, from, expected, again, seconds: start.elapsed().as_secs_f64() }))
    }

    /// Whether an image is small enough to be read again for intensities, by what its provenance says of it.
    fn is_measurable(&self, provenance: &Value) -> bool {
        let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
        let held = &provenance["input"];
        let pixels = number(&held["size"][0]).saturating_mul(number(&held["size"][1]));
        pixels.saturating_mul(number(&held["channels"])) <= MEASURED_SAMPLES as u64
    }

    fn segment_one(&self, index: usize, loaded: Loaded) -> Result<Segmented> {
        let start = Instant::now();
        let Loaded { picture, from, expected: mut provenance, again, seconds } = loaded;
        let path = &self.inputs[index].path;
        let normalization = self.segmenter.chosen_normalization();
        let (pixels, image): (Box<dyn Pixels + Send>, Option<Image>) = match picture {
            Picture::Whole(image) => {
                let rgb = image.to_rgb(normalization).map_err(|error| error.with_path(path))?;
                (Box::new(rgb), Some(image).filter(is_measured))
            }
            Picture::Stored(source) => {
                let channels = from.channels.clone();
                let pixels = StoredPixels::new(*source, from.time, from.projection, channels, normalization)?;
                (Box::new(pixels), None)
            }
        };
        self.timings.add(Stage::Convert, start);
        let (begun, mut merge) = (Instant::now(), None);
        let mut tiles = (0, 1);
        let scaled = match self.segmenter.model().flow_predictor() {
            Some(_) => from.diameter_px.map(|pixels| self.segmenter.with_diameter(pixels)),
            None => from.scale().map(|scale| self.segmenter.with_scale(ScaleChoice::Fixed(scale))),
        };
        let segmentation = scaled
            .as_ref()
            .unwrap_or(self.segmenter)
            .run_pixels(pixels.as_ref(), self.fields.as_ref(), &mut |phase| match phase {
                Phase::Tile { done, total } => {
                    tiles = (done, total);
                    self.set_part(index, done as f64 / total as f64);
                }
                Phase::Prompts { done, total } => {
                    let of_tile = 0.5 + 0.5 * done as f64 / total.max(1) as f64;
                    self.set_part(index, (tiles.0 as f64 + of_tile) / tiles.1 as f64);
                }
                Phase::Merge => merge = Some(Instant::now()),
            })
            .with_context(|| path.display().to_string())?;
        self.timings.add(Stage::Segment, begun);
        if let Some(merge) = merge {
            self.timings.add(Stage::Merge, merge);
        }
        provenance["objects"] = json!(segmentation.objects.len());
        let mut warnings = from.warnings.clone();
        warnings.extend(from.contradictions(&segmentation));
        warnings.extend(report_cut(&segmentation, &mut provenance));
        if image.is_none() && !self.is_measurable(&provenance) {
            warnings.push("the image is too large to be held for intensities; they are not in the table".into());
        }
        provenance["warnings"] = json!(warnings);
        let seconds = seconds + start.elapsed().as_secs_f64();
        Ok(Segmented { image, from, pixels, segmentation, provenance, again, seconds })
    }

    fn write_one(&self, input: &Input, segmented: Segmented) -> Result<Done> {
        let start = Instant::now();
        let Segmented { image, from, pixels, segmentation, provenance, again, seconds } = segmented;
        let targets = self.targets(input);
        if let Some(folder) = targets.provenance.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
        }
        let image = match image {
            None if self.is_measurable(&provenance) => Some(input.part(&self.selection).read(&input.path)?.image),
            image => image,
        };
        let options = &self.arguments.export_options;
        let subject = targets.subject(&input.path, image.as_ref(), &from, pixels.as_ref(), &segmentation);
        let provenance = targets.write(subject, options, provenance)?;
        let picture = self.picture(&targets)?;
        self.timings.add(Stage::Write, start);
        Ok(Done { provenance, picture, again, seconds: seconds + start.elapsed().as_secs_f64() })
    }
}

impl Done {
    fn warnings(&self) -> Vec<String> {
        let listed = self.provenance["warnings"].as_array();
        listed.map_or_else(Vec::new, |list| list.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect())
    }
}

impl Work for Batch<'_> {
    type Loaded = Loaded;
    type Segmented = Segmented;
    type Done = Done;

    fn memory_bytes(&self, index: usize) -> Result<u64, String> {
        let estimate = || {
            let size = cytomask::header_size(&self.inputs[index].path, self.arguments.choose.plane.page.unwrap_or(0))?;
            let tiles = self.segmenter.plan(size, 1.0)?.len();
            let strategy = self.segmenter.chosen_strategy();
            anyhow::Ok(cytomask::memory_bytes(self.segmenter.model(), strategy, size, tiles))
        };
        estimate().map_err(|error| format!("{error:#}"))
    }

    fn read(&self, index: usize) -> Result<Read<Loaded, Done>, String> {
        self.load(&self.inputs[index]).map_err(|error| format!("{error:#}"))
    }

    fn segment(&self, index: usize, loaded: Loaded) -> Result<Segmented, String> {
        self.segment_one(index, loaded).map_err(|error| format!("{error:#}"))
    }

    fn write(&self, index: usize, segmented: Segmented) -> Result<Done, String> {
        self.write_one(&self.inputs[index], segmented).map_err(|error| format!("{error:#}"))
    }
}

/// Whether an image is held through segmentation for its objects' intensities.
fn is_measured(image: &Image) -> bool {
    image.samples.len() <= MEASURED_SAMPLES
}

/// Lists the objects that no tile and no window showed whole in the provenance; a warning for people if there are any.
fn report_cut(segmentation: &Segmentation, provenance: &mut Value) -> Vec<String> {
    let cut = segmentation.objects.iter().filter(|object| object.cut);
    let list: Vec<Value> =
        cut.map(|object| json!({ "id": object.id, "centroid": object.centroid.map(|at| at.round()) })).collect();
    if list.is_empty() {
        return Vec::new();
    }
    let objects = if list.len() == 1 { "1 object is".to_owned() } else { format!("{} objects are", list.len()) };
    let hint =
        "larger than the network could be shown and put together from pieces (column `cut`); try --scale below 1";
    provenance["cut"] = Value::Array(list);
    vec![format!("{objects} {hint}")]
}

/// A failure with its input's name in front, unless the message says it.
fn named(input: &Input, failure: &Failure) -> String {
    let known = failure.message.contains(&input.path.display().to_string());
    if known && input.time.is_none() {
        failure.message.clone()
    } else {
        format!("{}: {}", input.shown(), failure.message)
    }
}

fn as_json(failure: &Failure) -> Value {
    json!({ "stage": failure.stage.name(), "message": failure.message, "program_fault": failure.panicked })
}

/// A panic is told in one line: where it was; its message follows as the image's failure.
fn report_panics(log: LogFormat) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        match log {
            LogFormat::Json => say(&json!({ "event": "panic", "location": place }).to_string()),
            LogFormat::Text => say(&format!("a fault in the program at {place}")),
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("8GB"), Ok(8_000_000_000));
        assert_eq!(bytes("1.5 gib"), Ok(1_610_612_736));
        assert_eq!(bytes("700"), Ok(700));
        for wrong in ["", "GB", "0", "-1GB", "8 parsecs", "1e400"] {
            assert!(bytes(wrong).unwrap_err().contains("8GB"), "{wrong}");
        }
    }

    #[test]
    fn a_failure_names_its_file_once() {
        let failure =
            |message: &str| Failure { stage: cytomask::batch::Stage::Read, message: message.into(), panicked: false };
        let mut input = Input { path: "a.tif".into(), folder: PathBuf::new(), stem: "a".into(), time: None };
        assert_eq!(named(&input, &failure("a.tif: the file is empty")), "a.tif: the file is empty");
        assert_eq!(named(&input, &failure("too large")), "a.tif: too large");
        input.time = Some(3);
        assert_eq!(named(&input, &failure("too large")), "a.tif (time point 3): too large");
    }
}
