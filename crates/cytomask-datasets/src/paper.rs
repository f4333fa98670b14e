//! The scores that the paper reports, mean segmentation accuracy over each test set.

use std::sync::LazyLock;

/// `modality,dataset,method,msa,in_domain`, as the paper's plots have them.
const TABLE: &str = include_str!("../data/paper_msa.csv");

/// A method of the paper's comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// As in the paper's table of scores.
    pub key: &'static str,
    /// For people.
    pub title: &'static str,
}

/// The methods, in the order of the paper's table. For histopathology, "µSAM" is PathoSAM's model.
pub const METHODS: &[Method] = &[
    Method { key: "amg/sam_vit_b", title: "SAM AMG" },
    Method { key: "amg/usam_vit_b_lm", title: "µSAM AMG" },
    Method { key: "ais/usam_vit_b_lm", title: "µSAM AIS" },
    Method { key: "apg_boundary/usam_vit_b_lm", title: "APG (boundary)" },
    Method { key: "apg/usam_vit_b_lm", title: "APG" },
    Method { key: "apg_boundary_gridsearch/usam_vit_b_lm", title: "APG (boundary, tuned)" },
    Method { key: "apg_gridsearch/usam_vit_b_lm", title: "APG (tuned)" },
    Method { key: "cellpose3", title: "Cellpose 3" },
    Method { key: "cellpose_sam", title: "Cellpose-SAM" },
    Method { key: "cellsam", title: "CellSAM" },
    Method { key: "sam3_text_cell", title: "SAM3" },
];

/// One reported score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Who made it.
    pub method: Method,
    /// Mean segmentation accuracy; `None` where the paper has none.
    pub msa: Option<f64>,
    /// Whether the method was trained on data like the test set.
    pub in_domain: bool,
}

/// Reported scores of a dataset, by its title in the paper; in the order of [`METHODS`].
pub fn paper_scores(title: &str) -> Vec<Score> {
    type Row = (&'static str, &'static str, Option<f64>, bool);
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
        let row = |line: &'static str| {
            let mut fields = line.trim_end().split(',');
            let (_, dataset, method) = (fields.next()?, fields.next()?, fields.next()?);
            Some((dataset, method, fields.next()?.parse().ok(), fields.next() == Some("1")))
        };
        TABLE.lines().skip(1).filter_map(row).collect()
    });
    METHODS
        .iter()
        .filter_map(|&method| {
            let row = ROWS.iter().find(|row| row.0 == title && row.1 == method.key)?;
            Some(Score { method, msa: row.2, in_domain: row.3 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dataset_has_a_row_of_every_method() {
        for dataset in crate::all() {
            assert_eq!(paper_scores(dataset.title).len(), METHODS.len(), "{}", dataset.title);
        }
        assert_eq!(TABLE.lines().count(), 1 + 36 * METHODS.len());
    }

    #[test]
    fn scores_are_read_as_printed() {
        let dsb = paper_scores("DSB");
        let apg = dsb.iter().find(|score| score.method.title == "APG").unwrap();
        assert_eq!((apg.msa, apg.in_domain), (Some(0.665), true));
        let none =
            paper_scores("BitDepth NucSeg").into_iter().find(|score| score.method.title == "APG (tuned)").unwrap();
        assert_eq!((none.msa, none.in_domain), (None, false));
        assert!(paper_scores("no such").is_empty());
    }
}
