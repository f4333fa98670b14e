//! A reader for each published layout. Each hands over images with their labels in the paper's order; what happens to them then
//! is the same for all ([`crate::prepare`]).

mod deepcell;
mod files;
mod hpa;
mod livecell;
mod pannuke;
mod puma;
mod segpc;
mod volumes;

pub(crate) use deepcell::Npz;
pub(crate) use files::{Decode, FileSet, Group, Pairing};
pub(crate) use volumes::{Hdf5, Stacks};

use crate::archive::Files;
use crate::plane::Plane;
use crate::table::{SplitName, SplitRule};
use crate::{Dataset, Result};

/// How a dataset is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader {
    /// An image file and a label file for each image.
    Files(FileSet),
    /// HDF5 files with images or volumes.
    Hdf5(Hdf5),
    /// 3-D TIFF files.
    Stacks(Stacks),
    /// PNAS: 3-D TIFF files whose labels have longer names.
    Plants,
    /// One TIFF of 50 time points, six of which have labels.
    Parhyale,
    /// DeepCell's NPZ files.
    Npz(Npz),
    /// `images.npy` and `masks.npy`.
    PanNuke,
    /// NPY files whose fourth channel is the label image.
    Lynsec,
    /// BMP, a mask a cell.
    SegPc,
    /// PNG and GeoJSON in a folder an image.
    Hpa,
    /// Images and one COCO JSON.
    LiveCell,
    /// TIFF and GeoJSON, split by the classes they show.
    Puma,
}

/// What a reader hands over.
pub(crate) enum Item {
    /// An image with labels.
    Pair {
        /// `[H, W, C]`.
        image: Plane,
        /// `[H, W]`.
        labels: Plane,
        /// Where it comes from.
        name: String,
    },
    /// Something that upstream leaves out before it counts.
    LeftOut {
        /// Where it comes from.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Takes items one by one; `false` means that no more are wanted.
pub(crate) type Sink<'a> = dyn FnMut(Item) -> Result<bool> + 'a;

/// What a reader is to read.
pub(crate) struct Job<'a> {
    pub(crate) files: &'a mut Files,
    pub(crate) split: SplitName,
    pub(crate) rule: SplitRule,
}

impl Job<'_> {
    /// The split's own folder in the place of `{}`.
    fn fill(&self, pattern: &str) -> String {
        pattern.replace("{}", self.rule.folder)
    }

    fn fill_all(&self, patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| self.fill(pattern)).collect()
    }
}

/// Reads a dataset's split.
pub(crate) fn read(dataset: &Dataset, job: &mut Job<'_>, sink: &mut Sink<'_>) -> Result<()> {
    match &dataset.reader {
        Reader::Files(spec) => files::read(spec, job, sink),
        Reader::Hdf5(spec) => volumes::hdf5(spec, job, sink),
        Reader::Stacks(spec) => volumes::stacks(spec, job, sink),
        Reader::Plants => volumes::plants(job, sink),
        Reader::Parhyale => volumes::parhyale(job, sink),
        Reader::Npz(spec) => deepcell::read(spec, job, sink),
        Reader::PanNuke => pannuke::read(job, sink),
        Reader::Lynsec => files::lynsec(job, sink),
        Reader::SegPc => segpc::read(job, sink),
        Reader::Hpa => hpa::read(job, sink),
        Reader::LiveCell => livecell::read(job, sink),
        Reader::Puma => puma::read(job, sink),
    }
}
