//! Nuclei in fluorescence.

use super::{Access, Crop, Dataset, Domain, Source, SplitName, SplitRule, Take};
use crate::readers::{Decode, FileSet, Group, Npz, Pairing, Reader, Stacks};

const BASE: Dataset = Dataset { domain: Domain::FluorescenceNuclei, ..Dataset::BASE };

pub(super) const DATASETS: &[Dataset] = &[
    Dataset {
        key: "dsb",
        title: "DSB",
        modality: "fluorescence nuclei, StarDist's part of the Data Science Bowl 2018",
        licence: "CC0 (BBBC038)",
        citation: "https://doi.org/10.1038/s41592-019-0612-7",
        sources: &[Source::direct(
            "dsb2018.zip",
            "https://github.com/stardist/stardist/releases/download/0.1.0/dsb2018.zip",
            "e44921950edce378063aa4457e625581ba35b4c2dbd9a07c19d48900129f386f",
        )],
        val: SplitRule::new("the training set, all of it").folder("train"),
        test: SplitRule::new("the test set").folder("test"),
        reader: Reader::Files(FileSet {
            groups: &[Group { images: &["{}/images/*.tif"], labels: &["{}/masks/*.tif"], ..Group::BASE }],
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "u20s",
        title: "U20S",
        modality: "fluorescence, U2OS nuclei, Hoechst (BBBC039)",
        licence: "CC0",
        citation: "https://www.nature.com/articles/nmeth.2083",
        sources: &[
            Source::direct(
                "images.zip",
                "https://data.broadinstitute.org/bbbc/BBBC039/images.zip",
                "6f30a5d4fe38c928ded972704f085975f8dc0d65d9aa366df00e5a9d449fddd7",
            ),
            Source::direct(
                "masks.zip",
                "https://data.broadinstitute.org/bbbc/BBBC039/masks.zip",
                "f9e6043d8ca56344a4886f96a700d804d6ee982f31e2b2cd3194af2a053c2710",
            ),
        ],
        val: SplitRule::new("the first 25 images").files(Take::First(25)),
        test: SplitRule::new("all images but the first 25").files(Take::From(25)),
        crop: Crop::Centre,
        min_count: Some(5),
        reader: Reader::Files(FileSet {
            groups: &[Group { images: &["images/*.tif"], labels: &["masks/*.png"], ..Group::BASE }],
            decode: Decode::FirstChannelComponents,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "arvidsson",
        title: "Arvidsson",
        modality: "high-content fluorescence, nuclei",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.1016/j.dib.2022.108769",
        sources: &[
            Source::direct(
                "development_nuclei.zip",
                "https://zenodo.org/records/6657260/files/development_nuclei.zip",
                "722530a93fd5b67f61d52964651c715be6227c1c0508c4c95ef2b04b52fc1dd1",
            )
            .only(SplitName::Val),
            Source::direct(
                "test_nuclei.zip",
                "https://zenodo.org/records/6657260/files/test_nuclei.zip",
                "377dc719c4eaf9bfa30273f7e3a4042d98dbbfc4a1c4af2a467879237bff592f",
            )
            .only(SplitName::Test),
        ],
        val: SplitRule::new("the development set").folder("development_nuclei"),
        test: SplitRule::new("the test set").folder("test_nuclei"),
        crop: Crop::Centre,
        min_count: Some(5),
        reader: Reader::Files(FileSet {
            groups: &[Group { images: &["{}/images/*.png"], labels: &["{}/annotations/*.png"], ..Group::BASE }],
            decode: Decode::ColourComponents,
            by: Pairing::Position,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "bitdepth_nucseg",
        title: "BitDepth NucSeg",
        modality: "fluorescence, DAPI nuclei at four magnifications, 16 bit",
        licence: "not known",
        citation: "https://doi.org/10.3390/diagnostics11060967",
        sources: &[Source::unhashed(
            "BitDepth_NucSeg.zip",
            "https://github.com/masih4/BitDepth_NucSeg/archive/HEAD.zip",
            Access::Direct,
        )],
        hint: "the repository, or data/data.zip of it",
        val: SplitRule::new("the first 4 images of each magnification").files(Take::First(4)),
        test: SplitRule::new("all images of each magnification but the first 4").files(Take::From(4)),
        reader: Reader::Files(FileSet {
            groups: &[
                Group { images: &["20x/images_16bit/*.tif"], labels: &["20x/label masks/*.tif"], ..Group::BASE },
                Group {
                    images: &["40x air/images_16bit/*.tif"],
                    labels: &["40x air/label masks/*.tif"],
                    ..Group::BASE
                },
                Group {
                    images: &["40x oil/images_16bit/*.tif"],
                    labels: &["40x oil/label masks/*.tif"],
                    ..Group::BASE
                },
                Group {
                    images: &["63x oil/images_16bit/*.tif"],
                    labels: &["63x oil/label masks/*.tif"],
                    ..Group::BASE
                },
            ],
            by: Pairing::Position,
            nested: &["data/data.zip"],
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "ifnuclei",
        title: "IFNuclei",
        modality: "immunofluorescence and DAPI, nuclei of tissue and cell lines",
        licence: "CC0 (BioStudies)",
        citation: "https://doi.org/10.1038/s41597-020-00608-w",
        sources: &[Source::direct(
            "dataset.zip",
            "https://www.ebi.ac.uk/biostudies/files/S-BSST265/dataset.zip",
            "8285987ed4d57c46a46a55a33c1c085875ea41f429b59cde31d249741aa07ad1",
        )],
        val: SplitRule::new("the first 10 images").files(Take::First(10)),
        test: SplitRule::new("all images but the first 10").files(Take::From(10)),
        crop: Crop::Centre,
        min_count: Some(5),
        reader: Reader::Files(FileSet {
            groups: &[Group { images: &["rawimages/*.tif"], labels: &["groundtruth/*.tif"], ..Group::BASE }],
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "dynamicnuclearnet",
        title: "DynamicNuclearNet",
        modality: "fluorescence, nuclei of five cell lines",
        licence: "modified Apache, non-commercial",
        citation: "https://doi.org/10.1101/803205",
        sources: &[Source::unhashed(
            "DynamicNuclearNet-segmentation-v1_0.zip",
            "https://datasets.deepcell.org/data",
            Access::Login,
        )],
        hint: "the zip with DynamicNuclearNet-segmentation-v1_0/val.npz and test.npz (or that folder, or the folder of \
               .zarr images that torch-em makes of it)",
        val: SplitRule::new("official validation set").folder("val"),
        test: SplitRule::new("official test set").folder("test"),
        min_count: Some(5),
        reader: Reader::Npz(Npz {
            file: "DynamicNuclearNet-segmentation-v1_0/{}.npz",
            channels: &[0],
            label: 0,
            stretch: false,
            zarr_folder: "{}",
            zarr_image: "raw",
            zarr_labels: "labels",
        }),
        ..BASE
    },
    Dataset {
        key: "gonuclear",
        title: "GoNuclear",
        modality: "confocal, Arabidopsis ovule nuclei, 3-D",
        licence: "CC0 (BioStudies)",
        citation: "https://doi.org/10.1242/dev.202800",
        sources: &[Source::direct(
            "Training image dataset_Tiff Files.zip",
            "https://www.ebi.ac.uk/biostudies/files/S-BIAD1026/Nuclei_training_segmentation/\
             Training%20image%20dataset_Tiff%20Files.zip",
            "b103388a4aed01c7aadb2d5f49392d2dd08dd7cbeb2357b0c56355384ebb93a9",
        )],
        val: SplitRule::new("slices 0–249").slices(Take::First(250)),
        test: SplitRule::new("slices from 250 on").slices(Take::From(250)),
        crop: Crop::Centre,
        min_count: Some(20),
        reader: Reader::Stacks(Stacks {
            images: &["*_n_H2BtdTomato.tif", "*_n_H2BtdTomato.tiff"],
            labels: &["*_n_stain_StarDist_goldGT.tif", "*_n_stain_StarDist_goldGT.tiff"],
            // The labels are upside down, and two volumes end with a damaged slice.
            flip_labels: true,
            drop_last: &[("1137_n_H2BtdTomato", 1), ("1170_n_H2BtdTomato", 1)],
        }),
        ..BASE
    },
    Dataset {
        key: "nis3d",
        title: "NIS3D",
        modality: "light-sheet, embryo nuclei of several species, 3-D",
        licence: "CC-BY 4.0",
        citation: "https://proceedings.neurips.cc/paper_files/paper/2023/hash/0f2cd3d09a132757555b602e2dd43784-Abstract-Datasets_and_Benchmarks.html",
        sources: &[Source::direct(
            "NIS3D.zip",
            "https://zenodo.org/records/11456029/files/NIS3D.zip",
            "3eb60b48eba87a5eeb71e9676d6df64296adc3dd93234a1db80cd9a0da28cd83",
        )],
        val: SplitRule::new("slices of the training part of the suggested cross-image splitting").folder("train"),
        test: SplitRule::new("slices of the test part of the suggested cross-image splitting").folder("test"),
        crop: Crop::Foreground,
        min_count: Some(20),
        reader: Reader::Stacks(Stacks {
            images: &["suggestive splitting/cross-image/{}/*/data.tif"],
            labels: &[
                "suggestive splitting/cross-image/{}/*/GroundTruth.tif",
                "suggestive splitting/cross-image/{}/*/gt.tif",
            ],
            flip_labels: false,
            drop_last: &[],
        }),
        ..BASE
    },
    Dataset {
        key: "parhyale_regen",
        title: "Parhyale Regen",
        modality: "confocal, Parhyale limb nuclei, 3-D, 6 time points",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.7554/eLife.19766.012",
        sources: &[Source::unhashed("8252039", "https://zenodo.org/records/8252039", Access::Manual)],
        hint: "a folder with Parhyale_H2B-EGFP_images_tp01-50.tif and the six *_instance-segmentation-labels_*.tif of \
               the record",
        val: SplitRule::new("slices 0–39").slices(Take::First(40)),
        test: SplitRule::new("slices from 40 on").slices(Take::From(40)),
        min_count: Some(10),
        reader: Reader::Parhyale,
        ..BASE
    },
];
