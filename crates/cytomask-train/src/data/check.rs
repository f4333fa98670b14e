//! What is wrong with training images and labels, found before hours are spent on them.
//!
//! Each [`Finding`] names its file, says what was found and what to do. An [`Severity::Error`] is what a run could only learn nonsense
//! from; a [`Severity::Warning`] is what its owner should know. Reading files is left to the caller.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cytomask_image::{Labels, Rgb};
use cytomask_segment::ops::boundaries::{BoundaryMode, find_boundaries};
use cytomask_segment::ops::components::{Connectivity, label_ids};
use serde::Serialize;

use super::clean::holes;
use super::{MIN_OBJECT_PX, median_side};

/// Whether a run may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It may not.
    Error,
    /// It may.
    Warning,
}

/// Kinds of what can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Problem {
    /// A file cannot be read.
    Unreadable,
    /// Ids that are no whole numbers from 0 to 2³² − 1.
    NotWholeNumbers,
    /// A picture of several channels in place of labels.
    ColourMask,
    /// A file format that changes ids.
    LossyFormat,
    /// An image without labels.
    NoLabels,
    /// Labels without an image.
    NoImage,
    /// Image and labels differ in size.
    SizesDiffer,
    /// Outlines that follow nothing in the image.
    NoContrast,
    /// Classes in place of objects.
    Semantic,
    /// Objects of several parts.
    Parts,
    /// Objects too small to be trained on.
    Specks,
    /// Objects with holes.
    Holes,
    /// Ids far above the number of objects.
    HugeIds,
    /// An object that seems to be the background.
    BackgroundObject,
    /// No object in an image.
    Empty,
    /// No object in any image.
    AllEmpty,
    /// One image twice.
    Duplicate,
    /// One image in training and in validation.
    Leak,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Whether a run may begin.
    pub severity: Severity,
    /// What kind it is.
    pub problem: Problem,
    /// The file (or folder).
    pub path: PathBuf,
    /// What was found.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// An error.
    pub fn error(problem: Problem, path: &Path, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            problem,
            path: path.to_path_buf(),
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    /// A warning.
    pub fn warning(problem: Problem, path: &Path, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(problem, path, found, remedy) }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.path.display(), self.found, self.remedy)
    }
}

/// What a label image holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LabelSummary {
    /// Distinct ids above 0.
    pub objects: u64,
    /// Of them, those of fewer than [`MIN_OBJECT_PX`] pixels, which are not trained on.
    pub tiny: u64,
    /// √area of the median object, pixels.
    pub median_side: Option<f64>,
}

/// An id of so many parts a piece, and not more ids than [`MOST_CLASSES`], is a class.
const PARTS_OF_A_CLASS: usize = 4;

/// Semantic masks have few ids.
const MOST_CLASSES: u64 = 4;

/// Ids this much above the number of pixels are no counting.
const HUGE_ID: u32 = 1 << 24;

/// An object that covers this share of an image that has no background is taken for it.
const BACKGROUND_SHARE: f64 = 0.4;

/// Boxes of all objects together may have so many times the pixels of the image when holes are looked for.
const MOST_BOXES: u64 = 64;

/// Looks at one label image, with the ids as they are in the file. Takes time and memory in proportion to its pixels.
pub fn check_labels(path: &Path, labels: &Labels) -> (LabelSummary, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut warn = |problem, found: String, remedy: &str| findings.push(Finding::warning(problem, path, found, remedy));
    let highest = labels.max_id();
    let mut labels = labels.clone();
    labels.relabel();
    let extents = labels.extents();
    let objects = extents.len() as u64;
    if objects == 0 {
        let remedy = "it shows what is no object; keep it if that is meant";
        warn(Problem::Empty, "no object".into(), remedy);
        return (LabelSummary::default(), findings);
    }
    if highest >= HUGE_ID {
        let found = format!("ids up to {highest} for {objects} objects");
        warn(Problem::HugeIds, found, "they are renumbered; negative numbers saved as unsigned ones look like this");
    }
    let tiny = extents.iter().filter(|&&(area, _)| area < MIN_OBJECT_PX).count() as u64;
    if tiny > 0 {
        let single = extents.iter().filter(|&&(area, _)| area == 1).count();
        let found =
            format!("{tiny} of {objects} objects have fewer than {MIN_OBJECT_PX} pixels, {single} of them one pixel");
        let remedy = match tiny == objects {
            true => "all would be left out: enlarge image and labels, or check the pixel size",
            false => {
                "they are left out; specks beside objects come from drawing or from resizing labels with interpolation"
            }
        };
        warn(Problem::Specks, found, remedy);
    }

    // Parts that count: specks beside an object do not make it a class.
    let components = label_ids(&labels, Connectivity::Eight);
    let mut parts = vec![0_usize; extents.len()];
    let sizes = components.extents();
    let mut seen = vec![false; sizes.len()];
    for (&id, &component) in labels.as_slice().iter().zip(components.as_slice()) {
        if component != 0 && !std::mem::replace(&mut seen[component as usize - 1], true) {
            let counts = sizes[component as usize - 1].0 >= MIN_OBJECT_PX;
            parts[id as usize - 1] += usize::from(counts);
        }
    }
    let large_parts: usize = parts.iter().sum();
    let split = parts.iter().filter(|&&count| count > 1).count();
    if objects <= MOST_CLASSES && large_parts > PARTS_OF_A_CLASS * objects as usize {
        let ids = if objects == 1 { "one id".into() } else { format!("{objects} ids") };
        findings.push(Finding::error(
            Problem::Semantic,
            path,
            format!("{ids} in {large_parts} separate parts: this looks like a semantic mask (classes), not one id an object"),
            "export one id for each object, or make each part an object with --split_components (touching objects stay one)",
        ));
    } else if split > 0 {
        let found = format!("{split} of {objects} objects lie in several parts");
        let remedy = "each part is learnt as an object of its own by the decoder; --split_components makes it so for prompts too";
        findings.push(Finding::warning(Problem::Parts, path, found, remedy));
    }

    let [h, w] = labels.size().map(u64::from);
    let boxes: u64 = extents.iter().map(|(_, rect)| u64::from(rect.height()) * u64::from(rect.width())).sum();
    if boxes <= MOST_BOXES * h * w {
        let with_hole = (1..).zip(&extents).filter(|&(id, &(_, rect))| !holes(&labels, id, rect).is_empty()).count();
        if with_hole > 0 {
            let found = format!("{with_hole} of {objects} objects have holes");
            let remedy = "they are learnt with the holes; --fill_holes closes them";
            findings.push(Finding::warning(Problem::Holes, path, found, remedy));
        }
    }
    let no_background = labels.as_slice().iter().all(|&id| id != 0);
    let largest = extents.iter().map(|&(area, _)| area).max().unwrap_or(0);
    if no_background && largest as f64 >= BACKGROUND_SHARE * (h * w) as f64 {
        let found =
            format!("no background (0), and one object covers {:.0} %", 100.0 * largest as f64 / (h * w) as f64);
        findings.push(Finding::error(
            Problem::BackgroundObject,
            path,
            found,
            "the background must be 0: subtract its id, or set its pixels to 0",
        ));
    }
    (LabelSummary { objects, tiny, median_side: median_side(&labels) }, findings)
}

/// Fewer pixels of outline say nothing.
const LEAST_OUTLINE_PX: usize = 200;

/// Outlines on no steeper places than this many times those of their mirror images follow nothing.
const LEAST_STEEPNESS: f64 = 1.1;

/// How much steeper the image is at the outlines of its objects than at the same outlines mirrored up-down, left-right and both; about 1 for
/// labels of another image. None where there are too few outlines to say.
pub fn outline_steepness(image: &Rgb, labels: &Labels) -> Option<f64> {
    let [h, w] = labels.size().map(|side| side as usize);
    if image.size != labels.size() || h < 3 || w < 3 {
        return None;
    }
    let outline = find_boundaries(labels, BoundaryMode::Inner);
    if outline.iter().filter(|&&set| set).count() < LEAST_OUTLINE_PX {
        return None;
    }
    let grey: Vec<f32> = image.samples.chunks_exact(3).map(|pixel| pixel.iter().sum()).collect();
    let slope = |y: usize, x: usize| {
        let at = |y: usize, x: usize| f64::from(grey[y * w + x]);
        let down = at((y + 1).min(h - 1), x) - at(y.saturating_sub(1), x);
        let right = at(y, (x + 1).min(w - 1)) - at(y, x.saturating_sub(1));
        down.hypot(right)
    };
    // Own place, then the three mirror images.
    let mut sums = [0.0_f64; 4];
    for at in (0..h * w).filter(|&at| outline[at]) {
        let (y, x) = (at / w, at % w);
        let places = [(y, x), (h - 1 - y, x), (y, w - 1 - x), (h - 1 - y, w - 1 - x)];
        sums.iter_mut().zip(places).for_each(|(sum, (y, x))| *sum += slope(y, x));
    }
    let mirrored = (sums[1] + sums[2] + sums[3]) / 3.0;
    (mirrored > 0.0 && sums[0].is_finite()).then(|| sums[0] / mirrored)
}

/// Whether the outlines follow the image at all.
pub fn check_contrast(path: &Path, image: &Rgb, labels: &Labels) -> Option<Finding> {
    let steepness = outline_steepness(image, labels).filter(|&steepness| steepness < LEAST_STEEPNESS)?;
    let found =
        format!("the image is no steeper at its objects' outlines than at mirrored ones ({steepness:.2} times)");
    Some(Finding::warning(
        Problem::NoContrast,
        path,
        found,
        "look whether these labels belong to this image, and to this channel and slice of it",
    ))
}

/// An image of the set, by what it shows.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The file.
    pub path: PathBuf,
    /// A hash of its pixels.
    pub hash: u64,
    /// Whether it is for validation.
    pub validation: bool,
    /// Objects in it.
    pub objects: u64,
}

/// Looks at the images together: the same twice, no object at all. `place` is what the user gave.
pub fn check_set(place: &Path, images: &[Shown]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut first: BTreeMap<u64, &Shown> = BTreeMap::new();
    for image in images {
        let Some(other) = first.get(&image.hash) else {
            first.insert(image.hash, image);
            continue;
        };
        let found = format!("shows the same as {}", other.path.display());
        findings.push(if other.validation == image.validation {
            Finding::warning(Problem::Duplicate, &image.path, found, "it counts twice; remove one of the two")
        } else {
            let found = format!("{found}, one for training and one for validation");
            let remedy = "validation would be scored on what was learnt by heart: remove one of the two";
            Finding::error(Problem::Leak, &image.path, found, remedy)
        });
    }
    for validation in [false, true] {
        let of_use = || images.iter().filter(|image| image.validation == validation);
        if of_use().next().is_some() && of_use().all(|image| image.objects == 0) {
            let found = format!(
                "none of the {} label images holds an object",
                if validation { "validation" } else { "training" }
            );
            let remedy = "look whether these are the labels and not masks of something else, and whether they were saved with their ids";
            findings.push(Finding::error(Problem::AllEmpty, place, found, remedy));
        }
    }
    findings
}

/// A hash of an image's pixels (FNV-1a, Fowler, Noll & Vo), rounded to whole numbers.
pub fn hash_pixels(image: &Rgb) -> u64 {
    let bytes = image.size.iter().flat_map(|side| side.to_le_bytes());
    let pixels = image.samples.iter().map(|&sample| sample.round() as u8);
    bytes.chain(pixels).fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "labels/a.tif";

    /// Squares of side 10, 5 apart, ids by their number.
    fn squares(id: impl Fn(u32) -> u32) -> Labels {
        let mut labels = Labels::zeros([97, 131]);
        for (number, (y0, x0)) in
            (0..6).flat_map(|row| (0..8).map(move |column| (row * 15 + 3, column * 15 + 7))).enumerate()
        {
            for y in y0..y0 + 10 {
                labels.as_mut_slice()[y * 131 + x0..y * 131 + x0 + 10].fill(id(number as u32));
            }
        }
        labels
    }

    fn problems(labels: &Labels) -> Vec<(Problem, Severity)> {
        check_labels(Path::new(PATH), labels).1.into_iter().map(|finding| (finding.problem, finding.severity)).collect()
    }

    #[test]
    fn good_labels_have_no_findings() {
        let (summary, findings) = check_labels(Path::new(PATH), &squares(|number| number + 1));
        assert_eq!(findings, []);
        assert_eq!((summary.objects, summary.tiny, summary.median_side), (48, 0, Some(10.0)));
        // One object, and two parts of one object, are no classes.
        assert_eq!(problems(&squares(|number| u32::from(number == 3))), []);
        let two = squares(|number| u32::from(number == 3 || number == 9));
        assert_eq!(problems(&two), [(Problem::Parts, Severity::Warning)]);
    }

    #[test]
    fn classes_are_told_from_objects() {
        for classes in [1, 2, 3] {
            let found = check_labels(Path::new(PATH), &squares(|number| number % classes + 1)).1;
            assert_eq!((found[0].problem, found[0].severity), (Problem::Semantic, Severity::Error), "{classes}");
            assert!(found[0].to_string().contains("--split_components") && found[0].to_string().contains(PATH));
        }
        assert_eq!(problems(&squares(|_| 255)), [(Problem::Semantic, Severity::Error)]);
    }

    #[test]
    fn specks_holes_and_strange_ids_are_counted() {
        let mut labels = squares(|number| number + 1);
        labels.as_mut_slice()[0] = 60;
        labels.as_mut_slice()[131 * 5 + 9] = 0;
        let (summary, findings) = check_labels(Path::new(PATH), &labels);
        assert_eq!(summary.tiny, 1);
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(text[0].contains("1 of 49 objects have fewer than 25 pixels, 1 of them one pixel"), "{text:?}");
        assert!(text[1].contains("1 of 49 objects have holes"), "{text:?}");
        assert_eq!(problems(&squares(|number| u32::MAX - number)), [(Problem::HugeIds, Severity::Warning)]);
        assert_eq!(problems(&Labels::zeros([97, 131])), [(Problem::Empty, Severity::Warning)]);
    }

    #[test]
    fn a_background_with_an_id_is_an_error() {
        let mut labels = squares(|number| number + 2);
        labels.as_mut_slice().iter_mut().for_each(|id| *id = (*id).max(1));
        assert!(problems(&labels).contains(&(Problem::BackgroundObject, Severity::Error)));
    }

    fn picture(labels: &Labels) -> Rgb {
        let level = |(at, &id): (usize, &u32)| [if id == 0 { 40.0 } else { 120.0 } + (at * 7 % 11) as f32; 3];
        Rgb { size: labels.size(), samples: labels.as_slice().iter().enumerate().flat_map(level).collect() }
    }

    #[test]
    fn labels_of_another_image_lie_on_no_contrast() {
        let own = squares(|number| if number % 7 < 3 { number + 1 } else { 0 });
        let other = squares(|number| if number % 5 == 1 { number + 1 } else { 0 });
        let image = picture(&own);
        assert_eq!(check_contrast(Path::new(PATH), &image, &own), None);
        assert!(outline_steepness(&image, &own).unwrap() > 1.3);
        // Moved by half a square: most outlines leave the image's.
        let mut moved = Labels::zeros(other.size());
        moved.as_mut_slice()[131 * 6 + 6..].copy_from_slice(&other.as_slice()[..97 * 131 - 131 * 6 - 6]);
        let steepness = outline_steepness(&image, &moved).unwrap();
        assert!(steepness < 1.3, "{steepness}");
        assert_eq!(outline_steepness(&image, &Labels::zeros([97, 131])), None);
        let flat = Rgb { size: [97, 131], samples: vec![9.0; 97 * 131 * 3] };
        assert_eq!(outline_steepness(&flat, &own), None);
    }

    #[test]
    fn the_same_image_twice_is_found() {
        let shown = |path: &str, hash, validation| Shown { path: path.into(), hash, validation, objects: 3 };
        let kinds = |images: &[Shown]| -> Vec<Problem> {
            check_set(Path::new("set"), images).into_iter().map(|finding| finding.problem).collect()
        };
        assert_eq!(kinds(&[shown("a", 1, false), shown("b", 2, false)]), []);
        assert_eq!(kinds(&[shown("a", 1, false), shown("b", 1, false)]), [Problem::Duplicate]);
        assert_eq!(kinds(&[shown("a", 1, false), shown("b", 1, true)]), [Problem::Leak]);
        let empty = Shown { objects: 0, ..shown("a", 1, true) };
        assert_eq!(kinds(&[shown("b", 2, false), empty]), [Problem::AllEmpty]);
        let image = picture(&squares(|number| number));
        let mut other = image.clone();
        assert_eq!(hash_pixels(&image), hash_pixels(&other));
        other.samples[0] += 1.0;
        assert_ne!(hash_pixels(&image), hash_pixels(&other));
    }
}
