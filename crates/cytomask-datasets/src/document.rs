//! The table of docs/datasets.md, made from the code's.

use std::fmt::Write as _;

use crate::table::{Domain, SplitName};
use crate::{all, paper_scores};

/// A Markdown table for each domain: name, modality, licence, access, splits, crop, minimum, and the paper's APG score.
pub fn markdown_table() -> String {
    let mut text = String::new();
    let domains = [Domain::FluorescenceCells, Domain::FluorescenceNuclei, Domain::LabelFree, Domain::Histopathology];
    for domain in domains {
        let _ = write!(
            text,
            "### {}\n\n| key | images | licence¹ | access | validation | test | the paper's test set² | crop | at least³ | APG⁴ |\n|{}\n",
            domain.title(),
            "---|".repeat(10)
        );
        for dataset in all().filter(|dataset| dataset.domain == domain) {
            let mut access: Vec<&str> = dataset
                .sources
                .iter()
                .filter(|source| source.serves(SplitName::Test))
                .map(|source| source.access.name())
                .collect();
            access.dedup();
            let score = paper_scores(dataset.title).into_iter().find(|score| score.method.key == "apg/usam_vit_b_lm");
            let msa =
                score.and_then(|score| Some(format!("{:.3}{}", score.msa?, if score.in_domain { " *" } else { "" })));
            let _ = writeln!(
                text,
                "| `{}` | [{}]({}): {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                dataset.key,
                dataset.title,
                dataset.citation,
                dataset.modality,
                dataset.licence,
                access.join(", "),
                dataset.val.rule,
                dataset.test.rule,
                dataset.test.repeatable.name(),
                dataset.crop.name(),
                dataset.min_count.map_or("–".to_owned(), |count| count.to_string()),
                msa.unwrap_or("–".to_owned()),
            );
        }
        text.push('\n');
    }
    text
}
