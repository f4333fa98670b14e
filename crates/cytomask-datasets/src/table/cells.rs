//! Cells in fluorescence.

use super::{Access, Crop, Dataset, Domain, Repeatable, Source, SplitName, SplitRule, Take};
use crate::readers::{Decode, FileSet, Group, Hdf5, Npz, Reader};

const BASE: Dataset = Dataset { domain: Domain::FluorescenceCells, ..Dataset::BASE };
const DEEPCELL: &str = "https://datasets.deepcell.org/data";
const CELLBINDB: &str = "ftp://ftp.cngb.org/pub/CNSA/data5/CNP0006370/Other/";

pub(super) const DATASETS: &[Dataset] = &[
    Dataset {
        key: "tissuenet",
        title: "TissueNet",
        modality: "multiplexed tissue imaging; channels cell, nucleus, empty",
        licence: "modified Apache, non-commercial",
        citation: "https://doi.org/10.1038/s41587-021-01094-0",
        sources: &[Source::unhashed("tissuenet_v1.1.zip", DEEPCELL, Access::Login)],
        hint: "version 1.1, the zip with tissuenet_v1.1_val.npz and tissuenet_v1.1_test.npz (or one of these files, \
               or the folder of .zarr images that torch-em makes of it)",
        val: SplitRule::new("official validation set").folder("val"),
        test: SplitRule::new("official test set").folder("test"),
        min_count: Some(10),
        reader: Reader::Npz(Npz {
            file: "tissuenet_v1.1_{}.npz",
            channels: &[1, 0],
            label: 0,
            stretch: true,
            zarr_folder: "{}",
            zarr_image: "raw/rgb",
            zarr_labels: "labels/cell",
        }),
        ..BASE
    },
    Dataset {
        key: "cellpose",
        title: "CellPose",
        modality: "fluorescence and others, cytoplasm and nucleus",
        licence: "CC-BY-NC 4.0",
        citation: "https://doi.org/10.1038/s41592-020-01018-x",
        sources: &[
            Source::unhashed("train.zip", "https://www.cellpose.org/dataset", Access::Login).only(SplitName::Val),
            Source::unhashed("test.zip", "https://www.cellpose.org/dataset", Access::Login).only(SplitName::Test),
        ],
        hint: "the set called cyto, after agreeing to its terms",
        val: SplitRule::new("the official training set, all of it").folder("train"),
        test: SplitRule::new("official test set").folder("test"),
        reader: Reader::Files(FileSet {
            groups: &[Group { images: &["{}/*_img.png"], labels: &["{}/*_masks.png"], ..Group::BASE }],
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "plantseg_root",
        title: "PlantSeg (Root)",
        modality: "light-sheet, Arabidopsis lateral root, 3-D",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.7554/eLife.57613",
        sources: &[
            Source::unhashed(
                "root_val.zip",
                "https://files.de-1.osf.io/v1/resources/vs6gb/providers/osfstorage/?zip=",
                Access::Direct,
            )
            .only(SplitName::Val),
            Source::unhashed(
                "root_test.zip",
                "https://files.de-1.osf.io/v1/resources/tn4xj/providers/osfstorage/?zip=",
                Access::Direct,
            )
            .only(SplitName::Test),
        ],
        hint: "give only the split's own archive: the files inside have no folder that tells them apart",
        val: SplitRule::new("slices 0–399 of the official validation volumes").slices(Take::First(400)),
        test: SplitRule::new("slices from 400 on of the official test volumes").slices(Take::From(400)),
        crop: Crop::Centre,
        min_count: Some(5),
        ignore_label: Some(1),
        reader: Reader::Hdf5(Hdf5 {
            file: "*.h5",
            images: &["raw"],
            labels: "label",
            volume: true,
            // torch-em cuts off slices without labels; of the files used here it is this one.
            drop_last: &[("Movie2_T00020_crop_gt.h5", 50)],
        }),
        ..BASE
    },
    Dataset {
        key: "plantseg_ovules",
        title: "PlantSeg (Ovules)",
        modality: "confocal, Arabidopsis ovules, 3-D",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.7554/eLife.57613",
        sources: &[
            Source::unhashed(
                "ovules_val.zip",
                "https://files.de-1.osf.io/v1/resources/xp5uf/providers/osfstorage/?zip=",
                Access::Direct,
            )
            .only(SplitName::Val),
            Source::unhashed(
                "ovules_test.zip",
                "https://files.de-1.osf.io/v1/resources/8jz7e/providers/osfstorage/?zip=",
                Access::Direct,
            )
            .only(SplitName::Test),
        ],
        hint: "give only the split's own archive: the files inside have no folder that tells them apart",
        val: SplitRule::new("slices 0–599 of the official validation volumes").slices(Take::First(600)),
        test: SplitRule::new("slices from 600 on of the official test volumes").slices(Take::From(600)),
        crop: Crop::Centre,
        min_count: Some(25),
        reader: Reader::Hdf5(Hdf5 {
            file: "*.h5",
            images: &["raw"],
            labels: "label_with_ignore",
            volume: true,
            drop_last: &[("N_420_ds2x.h5", 1)],
        }),
        ..BASE
    },
    Dataset {
        key: "pnas_arabidopsis",
        title: "PNAS Arabidopsis",
        modality: "confocal, Arabidopsis shoot apex membranes, 3-D",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.1073/pnas.1616768113",
        sources: &[Source::direct(
            "PNAS.zip",
            "https://www.repository.cam.ac.uk/bitstream/handle/1810/262530/PNAS.zip?sequence=4&isAllowed=y",
            "39341398389baf6d93c3f652b7e2e8aedc5579c29dfaf2b82b41ebfc3caa05c4",
        )],
        val: SplitRule::new("slices of the first 5 volumes with labels")
            .files(Take::First(5))
            .repeatable(Repeatable::OwnSplit),
        test: SplitRule::new("slices of the last 10 volumes with labels")
            .files(Take::Last(10))
            .repeatable(Repeatable::OwnSplit),
        min_count: Some(50),
        ignore_label: Some(1),
        reader: Reader::Plants,
        ..BASE
    },
    Dataset {
        key: "covid_if",
        title: "Covid-IF",
        modality: "immunofluorescence; channels IgG, nucleus, empty",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.1002/bies.202000257",
        sources: &[Source::direct(
            "covid-if-groundtruth.zip",
            "https://zenodo.org/record/5092850/files/covid-if-groundtruth.zip?download=1",
            "d9cd6c85a19b802c771fb4ff928894b19a8fab0e0af269c49235fdac3f7a60e1",
        )],
        val: SplitRule::new("the first 10 images").files(Take::First(10)),
        test: SplitRule::new("all images but the first 10").files(Take::From(10)),
        crop: Crop::Centre,
        min_count: Some(10),
        reader: Reader::Hdf5(Hdf5 {
            file: "*.h5",
            images: &["raw/serum_IgG/s0", "raw/nuclei/s0"],
            labels: "labels/cells/s0",
            volume: false,
            drop_last: &[],
        }),
        ..BASE
    },
    Dataset {
        key: "hpa",
        title: "HPA",
        modality: "confocal, Human Protein Atlas, protein channel",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.1038/s41592-019-0658-6",
        sources: &[Source::direct(
            "hpa_dataset_v2.zip",
            "https://zenodo.org/record/4665863/files/hpa_dataset_v2.zip",
            "dcd6072293d88d49c71376d3d99f3f4f102e4ee83efb0187faa89c95ec49faa9",
        )],
        val: SplitRule::new("the official validation set (9 images)")
            .folder("valid")
            .repeatable(Repeatable::OrderUnknown),
        test: SplitRule::new("the official training set (257 images); the official test set has no labels")
            .folder("train")
            .repeatable(Repeatable::OrderUnknown),
        crop: Crop::Resize,
        min_count: Some(3),
        reader: Reader::Hpa,
        ..BASE
    },
    Dataset {
        key: "cellbindb",
        title: "CellBinDB",
        modality: "10×Genomics DAPI, DAPI and mIF of tissue sections",
        licence: "not known",
        citation: "https://doi.org/10.1101/2024.11.20.619750",
        sources: &[Source::unhashed("Other", CELLBINDB, Access::Manual)],
        hint: "the folder Other of project CNP0006370 with its folders 10×Genomics_DAPI, DAPI and mIF, for example by \
               wget -r; hours",
        val: SplitRule::new("the first 20 readable images of each stain").files(Take::First(20)),
        test: SplitRule::new("all readable images of each stain but the first 20").files(Take::From(20)),
        reader: Reader::Files(FileSet {
            groups: &[
                Group {
                    images: &["10×Genomics_DAPI/*/*-img.tif"],
                    labels: &["10×Genomics_DAPI/*/*-instancemask.tif"],
                    ..Group::BASE
                },
                Group { images: &["DAPI/*/*-img.tif"], labels: &["DAPI/*/*-instancemask.tif"], ..Group::BASE },
                Group { images: &["mIF/*/*-img.tif"], labels: &["mIF/*/*-instancemask.tif"], ..Group::BASE },
            ],
            decode: Decode::Ids,
            skip_damaged: true,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "mouse_embryo",
        title: "Mouse Embryo",
        modality: "confocal, mouse embryo membranes, 3-D",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.15252/embj.2022113280",
        sources: &[Source::direct(
            "MouseEmbryos.zip",
            "https://zenodo.org/record/6546550/files/MouseEmbryos.zip?download=1",
            "bf24df25e5f919489ce9e674876ff27e06af84445c48cf2900f1ab590a042622",
        )],
        val: SplitRule::new("slices 0–99 of the official membrane validation volumes").slices(Take::First(100)),
        test: SplitRule::new("slices from 100 on of the same volumes").slices(Take::From(100)),
        crop: Crop::Centre,
        min_count: Some(10),
        reader: Reader::Hdf5(Hdf5 {
            file: "Membrane/val/*.h5",
            images: &["raw"],
            labels: "label",
            volume: true,
            drop_last: &[],
        }),
        ..BASE
    },
];
