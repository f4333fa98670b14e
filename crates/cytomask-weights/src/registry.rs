//! The table of known models. A new model is a new row here; see `docs/adding-a-model.md`.
//!
//! Hashes are those that the projects publish: µSAM's registry (`micro_sam/util.py`) gives xxh128, Meta's file names
//! end in the first digits of the SHA-256. Where none is published there is none here.

use crate::{Family, Hash};

/// What a file of a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The network.
    Model,
    /// The instance decoder that belongs to it.
    Decoder,
    /// Cellpose's model of the objects' diameter, found beside the network's file.
    Size,
}

/// A file of a model.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ModelFile {
    /// What it is for.
    pub role: Role,
    /// Its name in the cache and on a mirror. No two files of the registry share one.
    pub name: &'static str,
    /// Where it is published; `None` where it is not for public download.
    pub url: Option<&'static str>,
    /// Its size in bytes, where published.
    pub size: Option<u64>,
    /// Its published hashes; all must match.
    pub hashes: &'static [Hash],
}

/// How a model segments when the user does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Automatic mask generation from a grid of points.
    Amg,
    /// Instance segmentation from decoder maps.
    Ais,
    /// Automatic prompt generation.
    Apg,
    /// Flows that are followed to the objects' centres.
    Flows,
}

impl Mode {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Amg => "amg",
            Mode::Ais => "ais",
            Mode::Apg => "apg",
            Mode::Flows => "flows",
        }
    }
}

/// A known model.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Model {
    /// Its name, as µSAM has it where µSAM has it.
    pub name: &'static str,
    /// Its architecture.
    pub family: Family,
    /// Its files; none for the model inside the program.
    pub files: &'static [ModelFile],
    /// Whether cytomask can run it.
    pub supported: bool,
    /// Licence of the weights.
    pub licence: &'static str,
    /// What to cite.
    pub citation: &'static str,
    /// What it was made for, in a line.
    pub description: &'static str,
    /// The mode that suits it; `None` where it cannot be run.
    pub default_mode: Option<Mode>,
    /// What else a user should know; may be empty.
    pub note: &'static str,
}

impl Model {
    /// Whether its weights are inside the program and need no file.
    pub fn is_embedded(&self) -> bool {
        self.files.is_empty() && self.supported
    }
}

/// All known models.
pub fn models() -> &'static [Model] {
    MODELS
}

/// The model of that name.
pub fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

const SAM: &str = "Kirillov et al., Segment Anything, arXiv:2304.02643";
const MOBILE_SAM: &str = "Zhang et al., Faster Segment Anything, arXiv:2306.14289";
const MICRO_SAM: &str =
    "Archit et al., Segment Anything for Microscopy, Nature Methods 2025, doi:10.1038/s41592-024-02580-4";
const PATHO_SAM: &str = "Griebel et al., Segment Anything for Histopathology, arXiv:2502.00408";
const MEDICO_SAM: &str = "Archit et al., MedicoSAM, arXiv:2501.11734";
const CELLPOSE_SAM: &str = "Pachitariu et al., Cellpose-SAM, bioRxiv 2025.04.28.651001";
const CELLPOSE_3: &str = "Stringer and Pachitariu, Cellpose3, Nature Methods 2025";
const SAM_2: &str = "Ravi et al., SAM 2, arXiv:2408.00714";
const SAM_3: &str = "SAM 3: Segment Anything with Concepts, Meta 2025";
const CELL_SAM: &str = "Israel et al., CellSAM, bioRxiv 2023.11.17.567630";

const APACHE: &str = "Apache-2.0";
const NOT_STATED: &str = "none stated for the file; derived from SAM (Apache-2.0), see its bioimage.io package";
const NOT_STATED_PATHO: &str = "none stated for the file; derived from SAM (Apache-2.0)";
const CELLPOSE_LICENCE: &str = "no separate licence; trained on non-commercial data (CC-BY-NC)";

const NO_HASH: &str = "No hash is published.";

const fn file(role: Role, name: &'static str, url: &'static str, hashes: &'static [Hash]) -> ModelFile {
    ModelFile { role, name, url: Some(url), size: None, hashes }
}

/// A row that tells where a model is found, though cytomask cannot run it.
const fn foreign(
    name: &'static str,
    family: Family,
    files: &'static [ModelFile],
    licence: &'static str,
    citation: &'static str,
    description: &'static str,
    note: &'static str,
) -> Model {
    Model { name, family, files, supported: false, licence, citation, description, default_mode: None, note }
}

/// One of µSAM's fine-tuned models: a network and a decoder.
const fn micro_sam(
    name: &'static str,
    family: Family,
    files: &'static [ModelFile],
    citation: &'static str,
    licence: &'static str,
    description: &'static str,
) -> Model {
    let default_mode = Some(Mode::Ais);
    Model { name, family, files, supported: true, licence, citation, description, default_mode, note: "" }
}

/// One of Cellpose's: a network that predicts flows.
const fn cellpose(
    name: &'static str,
    family: Family,
    files: &'static [ModelFile],
    citation: &'static str,
    description: &'static str,
) -> Model {
    let (licence, default_mode, note) = (CELLPOSE_LICENCE, Some(Mode::Flows), NO_HASH);
    Model { name, family, files, supported: true, licence, citation, description, default_mode, note }
}

const fn plain_sam(
    name: &'static str,
    family: Family,
    files: &'static [ModelFile],
    citation: &'static str,
    description: &'static str,
) -> Model {
    let default_mode = Some(Mode::Amg);
    Model { name, family, files, supported: true, licence: APACHE, citation, description, default_mode, note: "" }
}

static MODELS: &[Model] = &[
    Model {
        name: "cytomask-t",
        family: Family::CytomaskT,
        files: &[],
        supported: true,
        licence: "see the model card",
        citation: "cytomask",
        description: "Compact model for nuclei and cells; inside the program",
        default_mode: Some(Mode::Apg),
        note: "",
    },
    plain_sam(
        "vit_b",
        Family::VitB,
        &[file(
            Role::Model,
            "sam_vit_b_01ec64.pth",
            "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
            &[Hash::Xxh128("6923c33df3637b6a922d7682bfc9a86b"), Hash::Sha256Prefix("01ec64")],
        )],
        SAM,
        "Segment Anything, ViT-B",
    ),
    plain_sam(
        "vit_l",
        Family::VitL,
        &[file(
            Role::Model,
            "sam_vit_l_0b3195.pth",
            "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth",
            &[Hash::Xxh128("a82beb3c660661e3dd38d999cc860e9a"), Hash::Sha256Prefix("0b3195")],
        )],
        SAM,
        "Segment Anything, ViT-L",
    ),
    plain_sam(
        "vit_h",
        Family::VitH,
        &[file(
            Role::Model,
            "sam_vit_h_4b8939.pth",
            "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
            &[Hash::Xxh128("97698fac30bd929c2e6d8d8cc15933c2"), Hash::Sha256Prefix("4b8939")],
        )],
        SAM,
        "Segment Anything, ViT-H",
    ),
    plain_sam(
        "vit_t",
        Family::VitT,
        &[file(
            Role::Model,
            "mobile_sam.pt",
            "https://owncloud.gwdg.de/index.php/s/TuDzuwVDHd1ZDnQ/download",
            &[Hash::Xxh128("8eadbc88aeb9d8c7e0b4b60c3db48bd0")],
        )],
        MOBILE_SAM,
        "MobileSAM: Segment Anything with a TinyViT encoder",
    ),
    micro_sam(
        "vit_l_lm",
        Family::VitL,
        &[
            file(
                Role::Model,
                "vit_l_lm.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/idealistic-rat/1.2/files/vit_l.pt",
                &[Hash::Xxh128("017f20677997d628426dec80a8018f9d")],
            ),
            file(
                Role::Decoder,
                "vit_l_lm_decoder.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/idealistic-rat/1.2/files/vit_l_decoder.pt",
                &[Hash::Xxh128("2faeafa03819dfe03e7c46a44aaac64a")],
            ),
        ],
        MICRO_SAM,
        NOT_STATED,
        "Cells and nuclei in light microscopy",
    ),
    micro_sam(
        "vit_b_lm",
        Family::VitB,
        &[
            file(
                Role::Model,
                "vit_b_lm.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/diplomatic-bug/1.2/files/vit_b.pt",
                &[Hash::Xxh128("fe9252a29f3f4ea53c15a06de471e186")],
            ),
            file(
                Role::Decoder,
                "vit_b_lm_decoder.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/diplomatic-bug/1.2/files/vit_b_decoder.pt",
                &[Hash::Xxh128("708b15ac620e235f90bb38612c4929ba")],
            ),
        ],
        MICRO_SAM,
        NOT_STATED,
        "Cells and nuclei in light microscopy",
    ),
    micro_sam(
        "vit_t_lm",
        Family::VitT,
        &[
            file(
                Role::Model,
                "vit_t_lm.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/faithful-chicken/1.1/files/vit_t.pt",
                &[Hash::Xxh128("72ec5074774761a6e5c05a08942f981e")],
            ),
            file(
                Role::Decoder,
                "vit_t_lm_decoder.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/faithful-chicken/1.1/files/vit_t_decoder.pt",
                &[Hash::Xxh128("3e914a5f397b0312cdd36813031f8823")],
            ),
        ],
        MICRO_SAM,
        NOT_STATED,
        "Cells and nuclei in light microscopy",
    ),
    micro_sam(
        "vit_l_em_organelles",
        Family::VitL,
        &[
            file(
                Role::Model,
                "vit_l_em_organelles.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/humorous-crab/1.2/files/vit_l.pt",
                &[Hash::Xxh128("810b084b6e51acdbf760a993d8619f2d")],
            ),
            file(
                Role::Decoder,
                "vit_l_em_organelles_decoder.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/humorous-crab/1.2/files/vit_l_decoder.pt",
                &[Hash::Xxh128("334877640bfdaaabce533e3252a17294")],
            ),
        ],
        MICRO_SAM,
        NOT_STATED,
        "Mitochondria and nuclei in electron microscopy",
    ),
    micro_sam(
        "vit_b_em_organelles",
        Family::VitB,
        &[
            file(
                Role::Model,
                "vit_b_em_organelles.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/noisy-ox/1.2/files/vit_b.pt",
                &[Hash::Xxh128("f3bf2ed83d691456bae2c3f9a05fb438")],
            ),
            file(
                Role::Decoder,
                "vit_b_em_organelles_decoder.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/noisy-ox/1.2/files/vit_b_decoder.pt",
                &[Hash::Xxh128("bb6398956a6b0132c26b631c14f95ce2")],
            ),
        ],
        MICRO_SAM,
        NOT_STATED,
        "Mitochondria and nuclei in electron microscopy",
    ),
    micro_sam(
        "vit_t_em_organelles",
        Family::VitT,
        &[
            file(
                Role::Model,
                "vit_t_em_organelles.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/greedy-whale/1/files/vit_t.pt",
                &[Hash::Xxh128("253474720c497cce605e57c9b1d18fd9")],
            ),
            file(
                Role::Decoder,
                "vit_t_em_organelles_decoder.pt",
                "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/greedy-whale/1/files/vit_t_decoder.pt",
                &[Hash::Xxh128("8f897c7bb93174a4d1638827c4dd6f44")],
            ),
        ],
        MICRO_SAM,
        NOT_STATED,
        "Mitochondria and nuclei in electron microscopy",
    ),
    micro_sam(
        "vit_b_histopathology",
        Family::VitB,
        &[
            file(
                Role::Model,
                "vit_b_histopathology.pt",
                "https://owncloud.gwdg.de/index.php/s/sBB4H8CTmIoBZsQ/download",
                &[Hash::Xxh128("ffd1a2cd84570458b257bd95fdd8f974")],
            ),
            file(
                Role::Decoder,
                "vit_b_histopathology_decoder.pt",
                "https://owncloud.gwdg.de/index.php/s/KO9AWqynI7SFOBj/download",
                &[Hash::Xxh128("6a66194dcb6e36199cbee2214ecf7213")],
            ),
        ],
        PATHO_SAM,
        NOT_STATED_PATHO,
        "PathoSAM: nuclei in H&E-stained histopathology",
    ),
    micro_sam(
        "vit_l_histopathology",
        Family::VitL,
        &[
            file(
                Role::Model,
                "vit_l_histopathology.pt",
                "https://owncloud.gwdg.de/index.php/s/IZgnn1cpBq2PHod/download",
                &[Hash::Xxh128("b591833c89754271023e901281dee3f2")],
            ),
            file(
                Role::Decoder,
                "vit_l_histopathology_decoder.pt",
                "https://owncloud.gwdg.de/index.php/s/oIs6VSmkOp7XrKF/download",
                &[Hash::Xxh128("46aab7765d4400e039772d5a50b55c04")],
            ),
        ],
        PATHO_SAM,
        NOT_STATED_PATHO,
        "PathoSAM: nuclei in H&E-stained histopathology",
    ),
    micro_sam(
        "vit_h_histopathology",
        Family::VitH,
        &[
            file(
                Role::Model,
                "vit_h_histopathology.pt",
                "https://owncloud.gwdg.de/index.php/s/L7AcvVz7DoWJ2RZ/download",
                &[Hash::Xxh128("bd1856dafc156a43fb3aa705f1a6e92e")],
            ),
            file(
                Role::Decoder,
                "vit_h_histopathology_decoder.pt",
                "https://owncloud.gwdg.de/index.php/s/1qAKxy5H0jgwZvM/download",
                &[Hash::Xxh128("3ed9f87e46ad5e16935bd8d722c8dc47")],
            ),
        ],
        PATHO_SAM,
        NOT_STATED_PATHO,
        "PathoSAM: nuclei in H&E-stained histopathology",
    ),
    micro_sam(
        "vit_b_medical_imaging",
        Family::VitB,
        &[
            file(
                Role::Model,
                "vit_b_medical_imaging.pt",
                "https://owncloud.gwdg.de/index.php/s/f5Ol4FrjPQWfjUF/download",
                &[Hash::Xxh128("40169f1e3c03a4b67bff58249c176d92")],
            ),
            file(
                Role::Decoder,
                "vit_b_medical_imaging_decoder.pt",
                "https://owncloud.gwdg.de/index.php/s/ahd3ZhZl2e0RIwz/download",
                &[Hash::Xxh128("9e498b12f526f119b96c88be76e3b2ed")],
            ),
        ],
        MEDICO_SAM,
        NOT_STATED_PATHO,
        "Medical images",
    ),
    foreign(
        "vit_b_histopathology_semantic",
        Family::UnetrDecoder,
        &[file(
            Role::Decoder,
            "vit_b_histopathology_semantic_decoder.pt",
            "https://owncloud.gwdg.de/index.php/s/TFbI25UZoixd1hi/download",
            &[Hash::Sha256("bdd05a55c72c02abce72a7aa6885c6ec21df9c43fda9cf3c5d11ef5788de0ab0")],
        )],
        NOT_STATED_PATHO,
        PATHO_SAM,
        "PathoSAM: classes of nuclei (PanNuke)",
        "A semantic decoder of 6 classes for vit_b_histopathology.",
    ),
    cellpose(
        "cpsam",
        Family::CellposeSam,
        &[file(Role::Model, "cpsam", "https://huggingface.co/mouseland/cellpose-sam/resolve/main/cpsam", &[])],
        CELLPOSE_SAM,
        "Cellpose-SAM: cells and nuclei",
    ),
    cellpose(
        "cpsam_v2",
        Family::CellposeSam,
        &[file(Role::Model, "cpsam_v2", "https://huggingface.co/mouseland/cellpose-sam/resolve/main/cpsam_v2", &[])],
        CELLPOSE_SAM,
        "Cellpose-SAM, second release: cells and nuclei",
    ),
    cellpose(
        "cyto3",
        Family::Cellpose,
        &[
            file(Role::Model, "cyto3", "https://www.cellpose.org/models/cyto3", &[]),
            file(Role::Size, "size_cyto3.npy", "https://www.cellpose.org/models/size_cyto3.npy", &[]),
        ],
        CELLPOSE_3,
        "Cellpose 3: cells",
    ),
    cellpose(
        "nuclei",
        Family::Cellpose,
        &[
            file(Role::Model, "nucleitorch_0", "https://www.cellpose.org/models/nucleitorch_0", &[]),
            file(Role::Size, "size_nucleitorch_0.npy", "https://www.cellpose.org/models/size_nucleitorch_0.npy", &[]),
        ],
        CELLPOSE_3,
        "Cellpose: nuclei",
    ),
    foreign(
        "sam2.1_hiera_tiny",
        Family::Sam2,
        &[file(
            Role::Model,
            "sam2.1_hiera_tiny.pt",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_tiny.pt",
            &[],
        )],
        APACHE,
        SAM_2,
        "SAM 2.1, Hiera tiny",
        "No hash is published.",
    ),
    foreign(
        "sam2.1_hiera_small",
        Family::Sam2,
        &[file(
            Role::Model,
            "sam2.1_hiera_small.pt",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_small.pt",
            &[],
        )],
        APACHE,
        SAM_2,
        "SAM 2.1, Hiera small",
        "No hash is published.",
    ),
    foreign(
        "sam2.1_hiera_base_plus",
        Family::Sam2,
        &[file(
            Role::Model,
            "sam2.1_hiera_base_plus.pt",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_base_plus.pt",
            &[],
        )],
        APACHE,
        SAM_2,
        "SAM 2.1, Hiera base plus",
        "No hash is published.",
    ),
    foreign(
        "sam2.1_hiera_large",
        Family::Sam2,
        &[file(
            Role::Model,
            "sam2.1_hiera_large.pt",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_large.pt",
            &[],
        )],
        APACHE,
        SAM_2,
        "SAM 2.1, Hiera large",
        "No hash is published.",
    ),
    foreign(
        "sam2_hiera_tiny",
        Family::Sam2,
        &[file(
            Role::Model,
            "sam2_hiera_tiny.pt",
            "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_tiny.pt",
            &[],
        )],
        APACHE,
        SAM_2,
        "SAM 2.0, Hiera tiny",
        "No hash is published.",
    ),
    foreign(
        "sam2_hiera_small",
        Family::Sam2,
        &[file(
            Role::Model,
            "sam2_hiera_small.pt",
            "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_small.pt",
            &[],
        )],
        APACHE,
        SAM_2,
        "SAM 2.0, Hiera small",
        "No hash is published.",
    ),
    foreign(
        "sam2_hiera_base_plus",
        Family::Sam2,
        &[file(
            Role::Model,
            "sam2_hiera_base_plus.pt",
            "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_base_plus.pt",
            &[],
        )],
        APACHE,
        SAM_2,
        "SAM 2.0, Hiera base plus",
        "No hash is published.",
    ),
    foreign(
        "sam2_hiera_large",
        Family::Sam2,
        &[file(
            Role::Model,
            "sam2_hiera_large.pt",
            "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_large.pt",
            &[],
        )],
        APACHE,
        SAM_2,
        "SAM 2.0, Hiera large",
        "No hash is published.",
    ),
    foreign(
        "sam3",
        Family::Sam3,
        &[],
        "SAM License (2025)",
        SAM_3,
        "SAM 3: text prompts",
        "Access is granted on Hugging Face (facebook/sam3).",
    ),
    foreign(
        "cellsam",
        Family::CellSam,
        &[],
        "modified Apache: academic and non-commercial use",
        CELL_SAM,
        "CellSAM: cells across imaging modalities",
        "Needs an account of users.deepcell.org.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_hashes_well_formed() {
        let mut names = std::collections::BTreeSet::new();
        let mut files = std::collections::BTreeSet::new();
        for model in models() {
            assert!(names.insert(model.name), "{}", model.name);
            assert_eq!(model.supported, model.family.is_supported() && model.default_mode.is_some(), "{}", model.name);
            assert!(!model.licence.is_empty() && !model.citation.is_empty(), "{}", model.name);
            for file in model.files {
                assert!(files.insert(file.name), "{}", file.name);
                assert!(file.url.is_none_or(|url| url.starts_with("https://")), "{}", file.name);
                assert!(file.name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c)), "{}", file.name);
                let known = !file.hashes.is_empty() || model.note == NO_HASH;
                assert!(!model.supported || (known && file.url.is_some()), "{}", file.name);
                for hash in file.hashes {
                    let (hex, length) = match hash {
                        Hash::Xxh128(hex) => (hex, 32),
                        Hash::Sha256(hex) => (hex, 64),
                        Hash::Sha256Prefix(hex) => (hex, 6),
                    };
                    assert_eq!(hex.len(), length, "{}", file.name);
                    assert!(hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{}", file.name);
                }
            }
            let models = model.files.iter().filter(|file| file.role == Role::Model).count();
            assert!(model.files.is_empty() || !model.supported || models == 1, "{}", model.name);
        }
        assert!(find("vit_b_lm").is_some() && find("vit_b_lm_decoder").is_none());
    }
}
