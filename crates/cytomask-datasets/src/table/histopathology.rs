//! Nuclei and cells in stained tissue.

use super::{Access, Crop, Dataset, Domain, Repeatable, Source, SplitName, SplitRule, Take};
use crate::readers::{Decode, FileSet, Group, Reader};

const BASE: Dataset = Dataset { domain: Domain::Histopathology, ..Dataset::BASE };
const DRAWN_VAL: SplitRule = SplitRule::new("15 % of what is left after the test set, drawn")
    .files(Take::Drawn(SplitName::Val))
    .repeatable(Repeatable::OwnSplit);
const DRAWN_TEST: SplitRule =
    SplitRule::new("a fifth of the images, drawn").files(Take::Drawn(SplitName::Test)).repeatable(Repeatable::OwnSplit);

pub(super) const DATASETS: &[Dataset] = &[
    Dataset {
        key: "pannuke",
        title: "PanNuke",
        modality: "H&E, 19 tissues",
        licence: "CC-BY-NC-SA 4.0",
        citation: "https://doi.org/10.48550/arXiv.2003.10778",
        sources: &[
            Source::direct(
                "fold_2.zip",
                "https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke/fold_2.zip",
                "5bc540cc509f64b5f5a274d6e5a245527dbd3e6d3155d43555115c5d54709b07",
            )
            .only(SplitName::Val),
            Source::direct(
                "fold_3.zip",
                "https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke/fold_3.zip",
                "c14d372981c42f611ebc80afad01702b89cad8c1b3089daa31931cf5a4b1a39d",
            )
            .only(SplitName::Test),
        ],
        hint: "give only the split's own fold",
        val: SplitRule::new("the first 200 images of fold 2").slices(Take::First(200)),
        test: SplitRule::new("fold 3"),
        crop: Crop::Pad,
        min_count: Some(5),
        reader: Reader::PanNuke,
        ..BASE
    },
    Dataset {
        key: "ihc_tma",
        title: "IHC TMA",
        modality: "IHC, tissue microarrays of lung cancer (SRSA-Net)",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.1016/j.bspc.2024.106143",
        sources: &[Source::direct(
            "IHC_TMA_dataset.zip",
            "https://zenodo.org/records/7647846/files/IHC_TMA_dataset.zip",
            "9dcc1c94b5d8af5383d3c91141617b1621904ee9bd6f69d2223e7f4363cc80d9",
        )],
        val: SplitRule::new("fold 2").folder("fold2"),
        test: SplitRule::new("fold 3").folder("fold3"),
        reader: Reader::Files(FileSet {
            groups: &[Group { images: &["images/{}_*.png"], labels: &["masks/{}_*.npy"], ..Group::BASE }],
            decode: Decode::NpySumComponents,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "lynsec",
        title: "LynSec",
        modality: "IHC, lymphoma",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.1016/j.compbiomed.2024.107978",
        sources: &[Source::direct(
            "lynsec.zip",
            "https://zenodo.org/records/8065174/files/lynsec.zip",
            "14b9b5a9c39cb41afc7f31de5a995cefff0947c215e14ab9c7a463f32fbbf4b6",
        )],
        val: DRAWN_VAL,
        test: DRAWN_TEST,
        reader: Reader::Lynsec,
        ..BASE
    },
    Dataset {
        key: "monuseg",
        title: "MoNuSeg",
        modality: "H&E, several organs",
        licence: "CC-BY-NC-SA 4.0",
        citation: "https://monuseg.grand-challenge.org/Data/",
        sources: &[
            Source {
                split: Some(SplitName::Val),
                file: "monuseg_train.zip",
                url: "https://drive.google.com/uc?export=download&id=1ZgqFJomqQGNnsx7w7QBzQQMVA16lbVCA",
                sha256: Some("25d3d3185bb2970b397cafa72eb664c9b4d24294aee382e7e3df9885affce742"),
                access: Access::GoogleDrive,
            },
            Source {
                split: Some(SplitName::Test),
                file: "monuseg_test.zip",
                url: "https://drive.google.com/uc?export=download&id=1NKkSQ5T0ZNQ8aUhh0a8Dt2YKYCQXIViw",
                sha256: Some("13e522387ae8b1bcc0530e13ff9c7b4d91ec74959ef6f6e57747368d7ee6f88a"),
                access: Access::GoogleDrive,
            },
        ],
        hint: "the training archive (folders Tissue Images and Annotations), the test archive (folder MoNuSegTestData)",
        val: SplitRule::new("the first 20 official training images").files(Take::First(20)),
        test: SplitRule::new("official test set"),
        crop: Crop::Centre,
        min_count: Some(5),
        reader: Reader::Files(FileSet {
            groups: &[
                Group {
                    images: &["Tissue Images/*.tif"],
                    labels: &["Annotations/*.xml"],
                    only: Some(SplitName::Val),
                    ..Group::BASE
                },
                Group {
                    images: &["MoNuSegTestData/*.tif"],
                    labels: &["MoNuSegTestData/*.xml"],
                    only: Some(SplitName::Test),
                    ..Group::BASE
                },
            ],
            decode: Decode::XmlRegions,
            plain_order: true,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "nuinsseg",
        title: "NuInsSeg",
        modality: "H&E, 31 organs of human and mouse",
        licence: "MIT (Kaggle)",
        citation: "https://doi.org/10.1038/s41597-024-03117-2",
        sources: &[Source::unhashed(
            "nuinsseg.zip",
            "https://www.kaggle.com/datasets/ipateam/nuinsseg",
            Access::Kaggle,
        )],
        val: SplitRule::new("the first 50 images").files(Take::First(50)).repeatable(Repeatable::OwnSplit),
        test: SplitRule::new("all images but the first 50").files(Take::From(50)).repeatable(Repeatable::OwnSplit),
        min_count: Some(10),
        reader: Reader::Files(FileSet {
            groups: &[Group {
                images: &["*/tissue images/*.png"],
                labels: &["*/label masks modify/*.tif"],
                ..Group::BASE
            }],
            three_channels: true,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "puma",
        title: "PUMA",
        modality: "H&E, melanoma",
        licence: "CC0",
        citation: "https://doi.org/10.1093/gigascience/giaf011",
        sources: &[
            Source::direct(
                "01_training_dataset_tif_ROIs.zip",
                "https://zenodo.org/records/15050523/files/01_training_dataset_tif_ROIs.zip",
                "af48b879f8ff7e74b84a7114924881606f13f108aa0f9bcc21d3593b717ee022",
            ),
            Source::direct(
                "01_training_dataset_geojson_nuclei.zip",
                "https://zenodo.org/records/15050523/files/01_training_dataset_geojson_nuclei.zip",
                "eda271225900d6de0759e0281f3731a570e09f2adab58bd36425b9d2dfad91a0",
            ),
            Source::direct(
                "01_training_dataset_geojson_tissue.zip",
                "https://zenodo.org/records/15050523/files/01_training_dataset_geojson_tissue.zip",
                "fc2835135cc28324f52eac131327f0f12c554c0b1f334a108bf4b65e0f18c42b",
            ),
        ],
        hint: "the tissue annotations only decide the split: each part must show every class",
        val: SplitRule::new(
            "15 % of what is left after the test set, metastatic and primary apart, seed 42 or the next",
        )
        .repeatable(Repeatable::Uncertain),
        test: SplitRule::new("a fifth of the images, metastatic and primary apart, seed 42 or the next")
            .repeatable(Repeatable::Uncertain),
        crop: Crop::Centre,
        min_count: Some(10),
        reader: Reader::Puma,
        ..BASE
    },
    Dataset {
        key: "tnbc",
        title: "TNBC",
        modality: "H&E, triple-negative breast cancer",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.5281/zenodo.1175282",
        sources: &[Source::direct(
            "TNBC_NucleiSegmentation.zip",
            "https://zenodo.org/records/1175282/files/TNBC_NucleiSegmentation.zip",
            "da708c3a988f4ad4b9bbb9283b387faf703f0bc0e5e689927306bd27ea13a57f",
        )],
        val: DRAWN_VAL,
        test: DRAWN_TEST,
        min_count: Some(10),
        reader: Reader::Files(FileSet {
            groups: &[Group { images: &["Slide_*/*.png"], labels: &["GT_*/*.png"], ..Group::BASE }],
            decode: Decode::Components,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "cryonuseg",
        title: "CryoNuSeg",
        modality: "H&E cryosections, ten organs, annotator 1 (biologist)",
        licence: "not known",
        citation: "https://doi.org/10.1016/j.compbiomed.2021.104349",
        sources: &[Source::unhashed(
            "segmentation-of-nuclei-in-cryosectioned-he-images.zip",
            "https://www.kaggle.com/datasets/ipateam/segmentation-of-nuclei-in-cryosectioned-he-images",
            Access::Kaggle,
        )],
        val: DRAWN_VAL,
        test: DRAWN_TEST,
        reader: Reader::Files(FileSet {
            groups: &[Group {
                images: &["tissue images/*.tif"],
                labels: &["Annotator 1 (biologist)/label masks modify/*.tif"],
                ..Group::BASE
            }],
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "cytodark0",
        title: "CytoDark0",
        modality: "Nissl-stained brain, 20×",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.5281/zenodo.13694738",
        sources: &[Source::direct(
            "cytoDArk0.zip",
            "https://zenodo.org/records/13694738/files/cytoDArk0.zip",
            "ce4b05675aa5057e277c8d4ab74524307e2402a3703f6bd80643b93ca9b70ff8",
        )],
        val: SplitRule::new("images of fold 1 of folds.csv").folder("1").repeatable(Repeatable::OrderUnknown),
        test: SplitRule::new("images of fold 2 of folds.csv").folder("2").repeatable(Repeatable::OrderUnknown),
        crop: Crop::Centre,
        min_count: Some(5),
        reader: Reader::Files(FileSet {
            groups: &[Group {
                images: &["20x/1024x1024/image/*.png"],
                labels: &["20x/1024x1024/label/*.tiff"],
                ..Group::BASE
            }],
            folds: Some("20x/1024x1024/folds.csv"),
            ..FileSet::BASE
        }),
        ..BASE
    },
];
