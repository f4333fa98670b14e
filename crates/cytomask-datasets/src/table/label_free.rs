//! Label-free images, and stained bone marrow.

use super::{Access, Crop, Dataset, Domain, Repeatable, Source, SplitName, SplitRule, Take};
use crate::readers::{Decode, FileSet, Group, Pairing, Reader};

const BASE: Dataset = Dataset { domain: Domain::LabelFree, crop: Crop::Centre, min_count: Some(5), ..Dataset::BASE };
const LIVECELL: &str = "http://livecell-dataset.s3.eu-central-1.amazonaws.com/LIVECell_dataset_2021/images.zip";

pub(super) const DATASETS: &[Dataset] = &[
    Dataset {
        key: "livecell",
        title: "LIVECell",
        modality: "phase contrast, eight cell lines",
        licence: "CC-BY-NC 4.0",
        citation: "https://doi.org/10.1038/s41592-021-01249-6",
        sources: &[
            Source::unhashed("images.zip", LIVECELL, Access::Direct),
            Source::unhashed(
                "livecell_coco_val.json",
                "http://livecell-dataset.s3.eu-central-1.amazonaws.com/LIVECell_dataset_2021/annotations/LIVECell/\
                 livecell_coco_val.json",
                Access::Direct,
            )
            .only(SplitName::Val),
            Source::unhashed(
                "livecell_coco_test.json",
                "http://livecell-dataset.s3.eu-central-1.amazonaws.com/LIVECell_dataset_2021/annotations/LIVECell/\
                 livecell_coco_test.json",
                Access::Direct,
            )
            .only(SplitName::Test),
        ],
        val: SplitRule::new("the first 5 images of each cell line in the official validation file").folder("val"),
        test: SplitRule::new("official test set").folder("test"),
        reader: Reader::LiveCell,
        ..BASE
    },
    Dataset {
        key: "omnipose",
        title: "OmniPose",
        modality: "phase contrast bacteria, bright-field worms",
        licence: "CC-BY-NC 3.0",
        citation: "https://doi.org/10.1038/s41592-022-01639-4",
        sources: &[Source::unhashed(
            "datasets.zip",
            "https://files.osf.io/v1/resources/xmury/providers/osfstorage/62f56c035775130690f25481/?zip=",
            Access::Direct,
        )],
        val: SplitRule::new("the training set (bact_phase, worm)").folder("train"),
        test: SplitRule::new("the test set (bact_phase, worm)").folder("test"),
        min_count: Some(3),
        reader: Reader::Files(FileSet {
            groups: &[
                Group {
                    images: &["bact_phase/{}_sorted/*/*.tif"],
                    not: &["_masks", "_flows"],
                    labels: &["bact_phase/{}_sorted/*/*_masks.tif"],
                    ..Group::BASE
                },
                Group {
                    images: &["worm/{}/*.tif", "worm/{}/*.png"],
                    not: &["_masks", "_flows"],
                    labels: &["worm/{}/*_masks.tif", "worm/{}/*_masks.png"],
                    ..Group::BASE
                },
            ],
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "deepbacs",
        title: "DeepBacs",
        modality: "bacteria, bright field and fluorescence membranes, mixed StarDist set",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.1038/s42003-022-03634-z",
        sources: &[Source::direct(
            "DeepBacs_Data_Segmentation_StarDist_MIXED_dataset.zip",
            "https://zenodo.org/record/5551009/files/DeepBacs_Data_Segmentation_StarDist_MIXED_dataset.zip?download=1",
            "2730e6b391637d6dc05bbc7b8c915fd8184d835ac3611e13f23ac6f10f86c2a0",
        )],
        val: SplitRule::new("a fifth of each bacterium of the training set, drawn")
            .folder("training")
            .files(Take::FifthOfEach(&["JE2", "pos", "train_"]))
            .repeatable(Repeatable::OwnSplit),
        test: SplitRule::new("official test set").folder("test"),
        reader: Reader::Files(FileSet {
            groups: &[Group { images: &["{}/source/*.tif"], labels: &["{}/target/*.tif"], ..Group::BASE }],
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "usiigaci",
        title: "Usiigaci",
        modality: "phase contrast, NIH/3T3 fibroblasts and T98G",
        licence: "MIT (repository)",
        citation: "https://doi.org/10.1016/j.softx.2019.02.007",
        sources: &[Source::unhashed(
            "Usiigaci.zip",
            "https://github.com/oist/Usiigaci/archive/HEAD.zip",
            Access::Direct,
        )],
        val: SplitRule::new("the repository's validation images").folder("val"),
        test: SplitRule::new("the repository's training images and its T98G example").folder("train"),
        min_count: Some(3),
        reader: Reader::Files(FileSet {
            groups: &[
                Group {
                    images: &["Mask R-CNN/{}/set*/raw.tif"],
                    labels: &["Mask R-CNN/{}/set*/instances_ids.png"],
                    ..Group::BASE
                },
                Group {
                    images: &["ExampleData/T98G_sample/*.tif"],
                    labels: &["ExampleData/T98G_sample_mask_avg/*.png"],
                    only: Some(SplitName::Test),
                    ..Group::BASE
                },
            ],
            by: Pairing::Position,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "vicar",
        title: "Vicar",
        modality: "quantitative phase, five cell lines",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.1364/BOE.433212",
        sources: &[Source::direct(
            "labelled.zip",
            "https://zenodo.org/record/5153251/files/labelled.zip",
            "e4b6fc8ad3955c4e0fe0e95a9be03d4333b6d9029f675ae9652084cefc4aaab6",
        )],
        val: SplitRule::new("the first 101 of the test images: there is no split"),
        test: SplitRule::new("all images"),
        reader: Reader::Files(FileSet {
            groups: &[
                Group { images: &["A2058/*_img.tif"], labels: &["A2058/*_mask.png"], ..Group::BASE },
                Group { images: &["G361/*_img.tif"], labels: &["G361/*_mask.png"], ..Group::BASE },
                Group { images: &["HOB/*_img.tif"], labels: &["HOB/*_mask.png"], ..Group::BASE },
                Group { images: &["PC3/*_img.tif"], labels: &["PC3/*_mask.png"], ..Group::BASE },
                Group { images: &["PNT1A/*_img.tif"], labels: &["PNT1A/*_mask.png"], ..Group::BASE },
            ],
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "toiam",
        title: "TOIAM",
        modality: "phase contrast, microbial colonies",
        licence: "CC-BY 4.0",
        citation: "https://arxiv.org/abs/2411.00552",
        sources: &[Source::direct(
            "ctc_format.zip",
            "https://zenodo.org/records/7260137/files/ctc_format.zip",
            "9ec73277b29f2b032037d9e07c73c428ff51456c23a5866bf214bf5a71590c31",
        )],
        val: SplitRule::new("the first 100 images").files(Take::First(100)),
        test: SplitRule::new("the last 200 images").files(Take::Last(200)),
        crop: Crop::None,
        reader: Reader::Files(FileSet {
            groups: &[Group { images: &["0*/t*.tif"], labels: &["0*_GT/SEG/man_*.tif"], ..Group::BASE }],
            by: Pairing::Position,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "deepseas",
        title: "DeepSeas",
        modality: "phase contrast, stem, bronchial and muscle cells",
        licence: "not known",
        citation: "https://deepseas.org/datasets/",
        sources: &[Source::unhashed(
            "segmentation_dataset.zip",
            "https://drive.google.com/drive/folders/18odgkzafW8stHkzME_s7Es-ue7odVAc5?usp=sharing",
            Access::GoogleDrive,
        )],
        hint: "the folder segmentation_dataset; Google Drive may cut it into several zip files: give all of them",
        val: SplitRule::new("the training set").folder("train"),
        test: SplitRule::new("the test set").folder("test"),
        crop: Crop::None,
        min_count: Some(10),
        reader: Reader::Files(FileSet {
            groups: &[Group {
                images: &["segmentation_dataset/{}/images/*.png"],
                labels: &["segmentation_dataset/{}/masks/*.png"],
                ..Group::BASE
            }],
            decode: Decode::Components,
            by: Pairing::Position,
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "yeaz",
        title: "YeaZ",
        modality: "bright field, yeast",
        licence: "not known",
        citation: "https://doi.org/10.1038/s41467-020-19557-4",
        sources: &[Source::unhashed(
            "gold-standard-BF-V-1.tar.gz",
            "https://drive.google.com/file/d/1Sot3bau0F0dsBjRxoQzdGOeUy_wMezal",
            Access::GoogleDrive,
        )],
        val: SplitRule::new("15 % of what is left after the test set, drawn")
            .files(Take::Drawn(SplitName::Val))
            .repeatable(Repeatable::OwnSplit),
        test: SplitRule::new("a fifth of the images, drawn")
            .files(Take::Drawn(SplitName::Test))
            .repeatable(Repeatable::OwnSplit),
        reader: Reader::Files(FileSet {
            groups: &[Group {
                images: &["gold-standard-BF-V-1/*_im.tif"],
                labels: &["gold-standard-BF-V-1/*_mask.tif"],
                ..Group::BASE
            }],
            ..FileSet::BASE
        }),
        ..BASE
    },
    Dataset {
        key: "segpc",
        title: "SegPC",
        modality: "bone-marrow smears, stained plasma cells",
        licence: "CC-BY 4.0",
        citation: "https://doi.org/10.1016/j.media.2022.102677",
        sources: &[Source::unhashed(
            "TCIA_SegPC_dataset.zip",
            "https://ieee-dataport.org/open-access/segpc-2021-segmentation-multiple-myeloma-plasma-cells-microscopic-images",
            Access::Login,
        )],
        hint: "the zip that holds train.zip and validation.zip (or these, or their folders)",
        val: SplitRule::new("official training set").folder("train"),
        test: SplitRule::new("official validation set; the official test set has no labels").folder("validation"),
        reader: Reader::SegPc,
        ..BASE
    },
];
