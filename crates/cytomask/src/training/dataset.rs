//! Reading, checking and dividing the images of a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cytomask_image::{Labels, Normalization};
use cytomask_train::data::check::{
    Finding, Problem, Severity, Shown, check_contrast, check_labels, check_set, hash_pixels,
};
use cytomask_train::data::{Sample, Store, fill_holes, split_components};
use serde::Serialize;

use super::{Pair, labels};
use crate::{Error, ErrorKind, Selection};

/// One image in so many is held out for validation where the user says nothing.
const HOLD_OUT: usize = 10;

/// Fewer images are not divided.
const LEAST_TO_DIVIDE: usize = 4;

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Steps are made on it.
    Training,
    /// The model is scored on it.
    Validation,
}

/// How images are read.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// Which plane and channels of each image; labels of a stack are taken at the same place.
    pub selection: Selection,
    /// How samples become 0–255.
    pub normalization: Normalization,
    /// Whether each connected part becomes an object.
    pub split_components: bool,
    /// Whether holes of objects are filled.
    pub fill_holes: bool,
    /// Images beyond so many bytes are read again whenever they are drawn.
    pub kept_bytes: u64,
    /// More validation images than this are left out, evenly.
    pub max_validation: usize,
    /// How often images of a group are drawn beside other groups; without one it is the root of the number of its images.
    pub weights: BTreeMap<String, f64>,
}

/// One line of the table of images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataRow {
    /// The image.
    pub image: PathBuf,
    /// Its labels.
    pub labels: PathBuf,
    /// Its source; empty where there is one only.
    pub group: String,
    /// What it is for; none when it cannot be used.
    pub purpose: Option<Use>,
    /// `[h, w]`; none when it cannot be read.
    pub size: Option<[u32; 2]>,
    /// Objects.
    pub objects: u64,
    /// Of them those too small to be trained on.
    pub tiny: u64,
    /// √area of the median object, pixels.
    pub median_side: Option<f64>,
}

impl DataRow {
    /// What it is for, in words.
    pub fn purpose_name(&self) -> &'static str {
        match self.purpose {
            Some(Use::Training) => "training",
            Some(Use::Validation) => "validation",
            None => "not used",
        }
    }
}

/// Everything a run is made on.
pub struct Dataset {
    /// Training images.
    pub store: Store,
    /// Validation images.
    pub validation: Vec<Sample>,
    /// One an image.
    pub rows: Vec<DataRow>,
    /// What is wrong, errors first.
    pub findings: Vec<Finding>,
    /// Share of all draws by group.
    pub shares: BTreeMap<String, f64>,
}

impl Dataset {
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).count()
    }

    /// Images for one use.
    pub fn count(&self, purpose: Use) -> usize {
        self.rows.iter().filter(|row| row.purpose == Some(purpose)).count()
    }
}

/// Reads all pairs, checks them and divides them; what is wrong is in the result. `place` names what the user gave, `findings` are those of
/// pairing, and `progress` hears how many pairs are done.
///
/// # Errors
/// `Setting` when weights name no group or leave nothing to draw.
pub fn open(
    place: &Path,
    pairs: &[Pair],
    mut findings: Vec<Finding>,
    options: &DataOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Dataset, Error> {
    if let Some(name) = options.weights.keys().find(|name| pairs.iter().all(|pair| pair.group != **name)) {
        let mut known: Vec<&str> = pairs.iter().map(|pair| pair.group.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        let message = format!("weight {name:?}: expected a source ({}), found none of this name", known.join(", "));
        return Err(Error::new(ErrorKind::Setting, message));
    }
    // Validation images are chosen when all is read; until then everything that fits is kept.
    let all: Arc<Vec<Pair>> = Arc::new(pairs.to_vec());
    let mut read = Vec::with_capacity(pairs.len());
    let mut rows = Vec::with_capacity(pairs.len());
    let mut shown = Vec::with_capacity(pairs.len());
    let mut bytes = 0_u64;
    for (index, pair) in pairs.iter().enumerate() {
        let mut row = DataRow {
            image: pair.image.clone(),
            labels: pair.labels.clone(),
            group: pair.group.clone(),
            purpose: None,
            size: None,
            objects: 0,
            tiny: 0,
            median_side: None,
        };
        let sample = match load(pair, options, Some(&mut findings)) {
            Ok(loaded) => {
                row.size = Some(loaded.sample.image.size);
                row.objects = loaded.summary.objects;
                row.tiny = loaded.summary.tiny;
                row.median_side = loaded.summary.median_side;
                row.purpose = pair.purpose.or(Some(Use::Training));
                shown.push((index, hash_pixels(&loaded.sample.image)));
                // Twice the limit: float pixels take more room than those the store packs.
                let size = loaded.sample.image.samples.len() as u64 * 4;
                bytes += size;
                (bytes <= options.kept_bytes.saturating_mul(2)).then_some(loaded.sample)
            }
            Err(finding) => {
                findings.push(*finding);
                None
            }
        };
        read.push(sample);
        rows.push(row);
        progress(index + 1);
    }
    hold_out(pairs, &mut rows, &shown);
    let together: Vec<Shown> = shown
        .iter()
        .map(|&(index, hash)| Shown {
            path: rows[index].image.clone(),
            hash,
            validation: rows[index].purpose == Some(Use::Validation),
            objects: rows[index].objects,
        })
        .collect();
    findings.extend(check_set(place, &together));
    thin_validation(&mut rows, options.max_validation);

    let reading = options.clone();
    let for_reader = Arc::clone(&all);
    let chosen: Vec<usize> = (0..rows.len()).filter(|&at| rows[at].purpose == Some(Use::Training)).collect();
    let of_store = chosen.clone();
    let reader = move |index: usize, _: &Path| {
        let failed = |text: String| cytomask_train::Error::new(cytomask_train::ErrorKind::Data, text);
        let loaded =
            load(&for_reader[of_store[index]], &reading, None).map_err(|finding| failed(finding.to_string()))?;
        Ok(loaded.sample)
    };
    let mut store = Store::new(options.kept_bytes, Box::new(reader));
    let mut validation = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let again = |sample: Option<Sample>| -> Result<Sample, Error> {
            let loaded = sample.map_or_else(|| load(&all[index], options, None).map(|loaded| loaded.sample), Ok);
            loaded.map_err(|finding| Error::new(ErrorKind::Image, finding.to_string()))
        };
        match row.purpose {
            Some(Use::Training) => store.push(&again(read[index].take())?, 1.0),
            Some(Use::Validation) => validation.push(again(read[index].take())?),
            None => {}
        }
    }
    let shares = balance(&rows, &chosen, &options.weights, &mut store)?;
    findings.sort_by_key(|finding| finding.severity);
    Ok(Dataset { store, validation, rows, findings, shares })
}

struct Loaded {
    sample: Sample,
    summary: cytomask_train::data::check::LabelSummary,
}

/// Reads one pair; checks it where there is a list for findings.
fn load(pair: &Pair, options: &DataOptions, findings: Option<&mut Vec<Finding>>) -> Result<Loaded, Box<Finding>> {
    let unreadable = |message: String| {
        let found = message.replace(&format!("{}: ", pair.image.display()), "");
        Box::new(Finding::error(
            Problem::Unreadable,
            &pair.image,
            found,
            "repair the image, or take it and its labels out of the set",
        ))
    };
    let selected = options.selection.read(&pair.image).map_err(|error| unreadable(error.to_string()))?;
    let image = selected.image.to_rgb(options.normalization).map_err(|error| unreadable(error.to_string()))?;
    let (read, note) = labels::read(&pair.labels, &options.selection)?;
    if read.size() != image.size {
        return Err(Box::new(sizes_differ(pair, image.size, read.size())));
    }
    let cleaned = clean(read, options);
    let mut summary = cytomask_train::data::check::LabelSummary::default();
    if let Some(findings) = findings {
        findings.extend(note);
        let (found, of_labels) = check_labels(&pair.labels, &cleaned);
        summary = found;
        findings.extend(of_labels);
        findings.extend(check_contrast(&pair.labels, &image, &cleaned));
    }
    Ok(Loaded { sample: Sample { path: pair.image.clone(), image, labels: cleaned }, summary })
}

fn clean(mut labels: Labels, options: &DataOptions) -> Labels {
    if options.split_components {
        labels = split_components(&labels);
    }
    if options.fill_holes {
        labels = fill_holes(&labels);
    }
    labels
}

fn sizes_differ(pair: &Pair, image: [u32; 2], labels: [u32; 2]) -> Finding {
    let found = format!("{} × {} pixels, its image {} × {}", labels[0], labels[1], image[0], image[1]);
    let remedy = if labels == [image[1], image[0]] {
        "height and width are exchanged: save the labels again in the image's order of axes".to_owned()
    } else if u64::from(image[0]) * u64::from(labels[1]) == u64::from(image[1]) * u64::from(labels[0]) {
        "resize the labels to the image without interpolation (nearest), or give the image they were drawn on"
            .to_owned()
    } else {
        format!("look whether they belong to {}", pair.image.display())
    };
    Finding::error(Problem::SizesDiffer, &pair.labels, found, remedy)
}

/// Takes validation images from those whose use is open: evenly over the images with objects of each group, and the same picture is never on both
/// sides. Only when the user names no validation image at all.
fn hold_out(pairs: &[Pair], rows: &mut [DataRow], shown: &[(usize, u64)]) {
    if rows.iter().any(|row| row.purpose == Some(Use::Validation)) {
        return;
    }
    let hash: BTreeMap<usize, u64> = shown.iter().copied().collect();
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, pair) in pairs.iter().enumerate() {
        if pair.purpose.is_none() && rows[index].purpose.is_some() && rows[index].objects > 0 {
            groups.entry(&pair.group).or_default().push(index);
        }
    }
    let mut held = Vec::new();
    for of_group in groups.values().filter(|of_group| of_group.len() >= LEAST_TO_DIVIDE) {
        let count = (of_group.len() / HOLD_OUT).max(1);
        held.extend((0..count).map(|number| of_group[(2 * number + 1) * of_group.len() / (2 * count)]));
    }
    let hashes: Vec<u64> = held.iter().filter_map(|index| hash.get(index).copied()).collect();
    for (index, row) in rows.iter_mut().enumerate() {
        let twin = hash.get(&index).is_some_and(|own| hashes.contains(own));
        if row.purpose.is_some() && pairs[index].purpose.is_none() && twin {
            row.purpose = Some(Use::Validation);
        }
    }
}

/// Keeps `most` validation images, evenly.
fn thin_validation(rows: &mut [DataRow], most: usize) {
    let of_use: Vec<usize> = (0..rows.len()).filter(|&at| rows[at].purpose == Some(Use::Validation)).collect();
    if of_use.len() <= most {
        return;
    }
    let kept: Vec<usize> = (0..most).map(|number| of_use[(2 * number + 1) * of_use.len() / (2 * most)]).collect();
    for index in of_use {
        if !kept.contains(&index) {
            rows[index].purpose = None;
        }
    }
}

/// Weight by group, within a group by the root of the area: a large image holds more different crops.
fn balance(
    rows: &[DataRow],
    chosen: &[usize],
    weights: &BTreeMap<String, f64>,
    store: &mut Store,
) -> Result<BTreeMap<String, f64>, Error> {
    let area = |index: usize| rows[index].size.map_or(0.0, |[h, w]| (f64::from(h) * f64::from(w)).sqrt());
    let (mut counts, mut areas) = (BTreeMap::<&str, f64>::new(), BTreeMap::<&str, f64>::new());
    for &index in chosen {
        *counts.entry(&rows[index].group).or_default() += 1.0;
        *areas.entry(&rows[index].group).or_default() += area(index);
    }
    let weight = |group: &str| weights.get(group).copied().unwrap_or_else(|| counts[group].sqrt());
    let total: f64 = counts.keys().map(|group| weight(group)).sum();
    if !chosen.is_empty() {
        let shares: Vec<f64> = chosen
            .iter()
            .map(|&index| weight(&rows[index].group) * area(index) / areas[rows[index].group.as_str()])
            .collect();
        store.set_shares(&shares).map_err(|error| Error::new(ErrorKind::Setting, format!("weights: {error}")))?;
    }
    Ok(counts.keys().map(|group| ((*group).to_owned(), weight(group) / total)).collect())
}

#[cfg(test)]
mod tests {
    use cytomask_image::output::{write_labels_tiff, write_rgb_png};

    use super::*;

    fn options() -> DataOptions {
        DataOptions {
            selection: Selection::default(),
            normalization: Normalization::MicroSam,
            split_components: false,
            fill_holes: false,
            kept_bytes: 1 << 30,
            max_validation: 25,
            weights: BTreeMap::new(),
        }
    }

    /// A picture of squares and its labels; `shift` makes them differ.
    fn write(folder: &Path, name: &str, shift: u32) -> Pair {
        let mut labels = Labels::zeros([97, 131]);
        for (number, (y0, x0)) in [(5, 7), (40, 20), (60, 80), (10, 90)].into_iter().enumerate() {
            for y in y0..y0 + 20 {
                for x in x0 + shift..x0 + shift + 20 {
                    labels.as_mut_slice()[(y * 131 + x) as usize] = number as u32 + 1;
                }
            }
        }
        let pixels: Vec<u8> = labels
            .as_slice()
            .iter()
            .enumerate()
            .flat_map(|(at, &id)| [if id == 0 { 20 } else { 200 } + (at % 7) as u8; 3])
            .collect();
        let (image, path) = (folder.join(format!("{name}.png")), folder.join(format!("{name}_labels.tif")));
        write_rgb_png(&image, [97, 131], &pixels).unwrap();
        write_labels_tiff(&path, &labels).unwrap();
        Pair { image, labels: path, group: String::new(), purpose: None }
    }

    fn opened(pairs: &[Pair], options: &DataOptions) -> Dataset {
        open(Path::new("set"), pairs, Vec::new(), options, &mut |_| {}).unwrap()
    }

    #[test]
    fn good_images_are_divided_and_kept_or_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let pairs: Vec<Pair> = (0..12).map(|number| write(folder.path(), &format!("i{number:02}"), number)).collect();
        let set = opened(&pairs, &options());
        assert_eq!(set.findings, []);
        assert_eq!((set.store.len(), set.store.kept(), set.validation.len()), (11, 11, 1));
        assert_eq!(set.rows[6].purpose, Some(Use::Validation));
        assert_eq!((set.rows[0].objects, set.rows[0].median_side), (4, Some(20.0)));
        let little = opened(&pairs, &DataOptions { kept_bytes: 3 * 97 * 131 * 3, ..options() });
        assert!(little.store.kept() <= 3);
        for index in 0..11 {
            assert_eq!(little.store.path(index), set.store.path(index));
            assert_eq!(little.store.get(index).unwrap().unpack(), set.store.get(index).unwrap().unpack());
        }
        assert_eq!(opened(&pairs[..3], &options()).validation.len(), 0);
    }

    #[test]
    fn a_picture_that_is_there_twice_is_on_one_side() {
        let folder = tempfile::tempdir().unwrap();
        let mut pairs: Vec<Pair> =
            (0..6).map(|number| write(folder.path(), &format!("i{number}"), number.min(3))).collect();
        let set = opened(&pairs, &options());
        assert_eq!((set.store.len(), set.validation.len(), set.errors()), (3, 3, 0));
        pairs[5].purpose = Some(Use::Validation);
        let set = opened(&pairs, &options());
        let leak = set.findings.iter().find(|finding| finding.problem == Problem::Leak).unwrap();
        assert!(leak.path.ends_with("i5.png") && leak.severity == Severity::Error);
    }

    #[test]
    fn sources_are_balanced_by_weight() {
        let folder = tempfile::tempdir().unwrap();
        let mut pairs: Vec<Pair> = (0..10).map(|number| write(folder.path(), &format!("i{number}"), number)).collect();
        pairs.iter_mut().for_each(|pair| pair.purpose = Some(Use::Training));
        pairs[0].group = "few".into();
        let shares = |weights: &[(&str, f64)]| {
            let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
            open(Path::new("set"), &pairs, Vec::new(), &DataOptions { weights, ..options() }, &mut |_| {})
                .map(|set| set.shares)
        };
        assert_eq!(shares(&[]).unwrap()["few"], 0.25);
        assert_eq!(shares(&[("few", 1.0), ("", 1.0)]).unwrap()["few"], 0.5);
        assert!(shares(&[("other", 1.0)]).unwrap_err().to_string().contains("other"));
    }

    #[test]
    fn labels_nothing_can_be_learnt_from_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut pairs: Vec<Pair> = (0..5).map(|number| write(folder.path(), &format!("i{number}"), number)).collect();
        write_labels_tiff(&pairs[1].labels, &Labels::zeros([90, 131])).unwrap();
        write_labels_tiff(&pairs[2].labels, &Labels::zeros([131, 97])).unwrap();
        std::fs::write(&pairs[3].labels, b"no tiff").unwrap();
        pairs[4].labels = pairs[4].image.clone();
        let set = opened(&pairs, &options());
        let kinds: Vec<Problem> = set.findings[..3].iter().map(|found| found.problem).collect();
        assert_eq!(kinds, [Problem::SizesDiffer, Problem::SizesDiffer, Problem::Unreadable]);
        assert_eq!(set.findings[0].path, pairs[1].labels);
        assert!(set.findings[1].remedy.contains("exchanged"));
        assert_eq!((set.errors() >= 3, set.rows[1].purpose), (true, None));
    }
}
