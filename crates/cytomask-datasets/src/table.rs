//! The table of datasets: what is written here is a description; the readers act on it.
//!
//! Facts come from micro-sam `scripts/apg_experiments/util.py` at 3acdcd7 and torch-em at 6f71247. Neither records licences:
//! those are general knowledge, and every mention says that they are to be checked at the source.

mod cells;
mod histopathology;
mod label_free;
mod nuclei;

use crate::readers::Reader;

/// The four groups of nine of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Cells, fluorescence.
    FluorescenceCells,
    /// Nuclei, fluorescence.
    FluorescenceNuclei,
    /// Cells without stain, bright field and phase contrast, and stained bone marrow.
    LabelFree,
    /// Nuclei in stained tissue.
    Histopathology,
}

impl Domain {
    /// As in the paper's table of scores.
    pub fn name(self) -> &'static str {
        match self {
            Domain::FluorescenceCells => "fluorescence_cells",
            Domain::FluorescenceNuclei => "nuclei",
            Domain::LabelFree => "label_free",
            Domain::Histopathology => "histopathology",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Domain::FluorescenceCells => "Fluorescence, cells",
            Domain::FluorescenceNuclei => "Fluorescence, nuclei",
            Domain::LabelFree => "Label-free",
            Domain::Histopathology => "Histopathology",
        }
    }
}

/// How a source can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `--download` fetches it.
    Direct,
    /// In a browser, after signing in or agreeing to terms.
    Login,
    /// In a browser, from Google Drive.
    GoogleDrive,
    /// From Kaggle, with an account.
    Kaggle,
    /// By hand: many files, or a protocol the program does not speak.
    Manual,
}

impl Access {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Access::Direct => "direct",
            Access::Login => "login",
            Access::GoogleDrive => "Google Drive",
            Access::Kaggle => "Kaggle",
            Access::Manual => "by hand",
        }
    }
}

/// The two sets the paper uses: it chose parameters on the first and reports scores on the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitName {
    /// Validation.
    Val,
    /// Test.
    Test,
}

impl SplitName {
    /// `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            SplitName::Val => "val",
            SplitName::Test => "test",
        }
    }
}

/// A published file (or folder).
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The split that needs it; `None`: both do.
    pub split: Option<SplitName>,
    /// What it is called where it is published.
    pub file: &'static str,
    /// Its address.
    pub url: &'static str,
    /// Published SHA-256, where there is one.
    pub sha256: Option<&'static str>,
    /// How it can be had.
    pub access: Access,
}

impl Source {
    pub(crate) const fn direct(file: &'static str, url: &'static str, sha256: &'static str) -> Self {
        Self { split: None, file, url, sha256: Some(sha256), access: Access::Direct }
    }

    /// Without a published hash.
    pub(crate) const fn unhashed(file: &'static str, url: &'static str, access: Access) -> Self {
        Self { split: None, file, url, sha256: None, access }
    }

    pub(crate) const fn only(mut self, split: SplitName) -> Self {
        self.split = Some(split);
        self
    }

    /// Whether `split` needs it.
    pub fn serves(&self, split: SplitName) -> bool {
        self.split.is_none_or(|own| own == split)
    }
}

/// What is cut out of each image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// Nothing: the image as it is.
    None,
    /// The central 512 × 512 pixels, or the full extent of a shorter axis.
    Centre,
    /// 512 × 512 pixels around the middle of the labels' bounding box.
    Foreground,
    /// Resampled to 512 × 512 (as scikit-image does, the labels too).
    Resize,
    /// Zeros below and to the right, up to 512 × 512.
    Pad,
}

impl Crop {
    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            Crop::None => "–",
            Crop::Centre => "centre 512",
            Crop::Foreground => "512 around the labels",
            Crop::Resize => "resized to 512",
            Crop::Pad => "padded to 512",
        }
    }
}

/// Whether a split is the one the paper used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// The same images in the same order.
    Exact,
    /// The same images, but the paper numbered them in the order its file system gave.
    OrderUnknown,
    /// Not the paper's images: it drew them without a seed (or took the first ones in the order its file system gave). We draw
    /// with seed 42 from the names in natural order.
    OwnSplit,
    /// Seeded upstream, but the seed came later than the paper; the paper's split may differ.
    Uncertain,
}

impl Repeatable {
    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            Repeatable::Exact => "yes",
            Repeatable::OrderUnknown => "same images, other numbers",
            Repeatable::OwnSplit => "not the paper's split",
            Repeatable::Uncertain => "perhaps not the paper's split",
        }
    }
}

/// Which items make up a split.
#[derive(Clone, Copy, Debug)]
pub struct SplitRule {
    /// In words.
    pub rule: &'static str,
    /// Whether it is the paper's.
    pub repeatable: Repeatable,
    /// What stands for `{}` in the reader's patterns.
    pub(crate) folder: &'static str,
    /// Of the files, in the reader's order.
    pub(crate) files: Take,
    /// Of the slices of all chosen volumes.
    pub(crate) slices: Take,
}

impl SplitRule {
    pub(crate) const fn new(rule: &'static str) -> Self {
        Self { rule, repeatable: Repeatable::Exact, folder: "", files: Take::All, slices: Take::All }
    }

    pub(crate) const fn folder(mut self, folder: &'static str) -> Self {
        self.folder = folder;
        self
    }

    pub(crate) const fn files(mut self, take: Take) -> Self {
        self.files = take;
        self
    }

    pub(crate) const fn slices(mut self, take: Take) -> Self {
        self.slices = take;
        self
    }

    pub(crate) const fn repeatable(mut self, repeatable: Repeatable) -> Self {
        self.repeatable = repeatable;
        self
    }
}

/// Part of an ordered list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    All,
    First(usize),
    From(usize),
    Last(usize),
    /// scikit-learn's `train_test_split`: a fifth for testing, 15 % of the rest for validation, seed 42.
    Drawn(SplitName),
    /// A fifth of the names of each beginning, seed 42.
    FifthOfEach(&'static [&'static str]),
}

/// One of the 36 datasets.
#[derive(Clone, Copy, Debug)]
pub struct Dataset {
    /// Its name in commands and file names.
    pub key: &'static str,
    /// Its name in the paper.
    pub title: &'static str,
    /// The paper's group.
    pub domain: Domain,
    /// Microscopy and what is shown.
    pub modality: &'static str,
    /// General knowledge, not checked at the source.
    pub licence: &'static str,
    /// Where it was published.
    pub citation: &'static str,
    /// What to fetch.
    pub sources: &'static [Source],
    /// What of it, in words, beyond the sources.
    pub hint: &'static str,
    /// Validation.
    pub val: SplitRule,
    /// Test.
    pub test: SplitRule,
    /// What is cut out.
    pub crop: Crop,
    /// Images with fewer distinct label values, background included, are left out. `None`: all are kept, empty ones too.
    pub min_count: Option<usize>,
    /// A label value that becomes background.
    pub ignore_label: Option<i64>,
    pub(crate) reader: Reader,
}

impl Dataset {
    /// What the others start from.
    pub(crate) const BASE: Dataset = Dataset {
        key: "",
        title: "",
        domain: Domain::FluorescenceCells,
        modality: "",
        licence: "",
        citation: "",
        sources: &[],
        hint: "",
        val: SplitRule::new(""),
        test: SplitRule::new(""),
        crop: Crop::None,
        min_count: None,
        ignore_label: None,
        reader: Reader::PanNuke,
    };

    /// The rule of a split.
    pub fn split(&self, split: SplitName) -> &SplitRule {
        match split {
            SplitName::Val => &self.val,
            SplitName::Test => &self.test,
        }
    }

    /// Whether `--download` can fetch all that `split` needs.
    pub fn downloads(&self, split: SplitName) -> bool {
        self.sources.iter().filter(|source| source.serves(split)).all(|source| source.access == Access::Direct)
    }
}

/// All datasets, by domain.
pub fn all() -> impl Iterator<Item = &'static Dataset> {
    [cells::DATASETS, nuclei::DATASETS, label_free::DATASETS, histopathology::DATASETS].into_iter().flatten()
}

/// The dataset with this key or title; upper and lower case are the same.
pub fn find(name: &str) -> Option<&'static Dataset> {
    all().find(|dataset| dataset.key.eq_ignore_ascii_case(name) || dataset.title.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_each_domain() {
        let count = |domain| all().filter(|dataset| dataset.domain == domain).count();
        assert_eq!(
            [Domain::FluorescenceCells, Domain::FluorescenceNuclei, Domain::LabelFree, Domain::Histopathology]
                .map(count),
            [9; 4]
        );
    }

    #[test]
    fn rows_are_whole() {
        let mut keys: Vec<_> = all().map(|dataset| dataset.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 36);
        for dataset in all() {
            for text in [
                dataset.title,
                dataset.modality,
                dataset.licence,
                dataset.citation,
                dataset.val.rule,
                dataset.test.rule,
            ] {
                assert!(!text.is_empty(), "{}", dataset.key);
            }
            for source in dataset.sources {
                assert!(source.url.starts_with("http") || source.url.starts_with("ftp"), "{}", source.url);
                assert!(source.sha256.is_none_or(|hash| hash.len() == 64), "{}", dataset.key);
            }
            assert!(
                [SplitName::Val, SplitName::Test].iter().all(|&split| dataset.sources.iter().any(|s| s.serves(split)))
            );
            assert!(find(dataset.key).is_some() && find(&dataset.title.to_uppercase()).is_some());
        }
        assert!(find("no such").is_none());
    }
}
