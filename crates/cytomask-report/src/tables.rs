//! Tables for papers and programs: CSV and Markdown.

use std::fmt::Write as _;

use crate::{Analysis, Comparison, Metric, label};

/// A p-value as papers write it.
pub fn p_text(p: f64) -> String {
    if p < 0.0001 { "p < 0.0001".to_owned() } else { format!("p = {}", short(p)) }
}

/// Two digits that count.
fn short(p: f64) -> String {
    if p >= 0.0995 {
        format!("{p:.2}")
    } else if p >= 0.00995 {
        format!("{p:.3}")
    } else {
        format!("{p:.4}")
    }
}

/// A field of a CSV line, quoted where needed (RFC 4180).
pub fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.4}"))
}

/// One line for each image and method: every metric, and the time.
pub fn images_csv(comparison: &Comparison) -> String {
    let names: Vec<&str> = Metric::ALL.into_iter().map(Metric::name).collect();
    let mut text = format!("image,group,method,{},seconds\n", names.join(","));
    for image in &comparison.images {
        for (method, scores) in comparison.methods.iter().zip(&image.scores) {
            let group = image.group.as_deref().unwrap_or_default();
            let _ = write!(text, "{},{},{}", field(&image.name), field(group), field(&method.name));
            for metric in Metric::ALL {
                let _ = match scores.get(metric) {
                    value if value.is_nan() => write!(text, ","),
                    value if metric.is_count() => write!(text, ",{value}"),
                    value => write!(text, ",{value:.6}"),
                };
            }
            let _ = writeln!(text, ",{}", optional(scores.seconds));
        }
    }
    text
}

/// One line for each method.
pub fn summary_csv(analysis: &Analysis) -> String {
    let mut text = String::from(
        "method,metric,images,mean,ci95_low,ci95_high,median,msa,sa50,sa75,f1_50,panoptic_quality_50,average_rank,best_on,true_positives_50,\
         false_positives_50,false_negatives_50,median_seconds\n",
    );
    for at in analysis.order() {
        let row = &analysis.methods[at];
        let _ = writeln!(
            text,
            "{},{},{},{:.6},{:.6},{:.6},{:.6},{:.6},{:.6},{:.6},{:.6},{:.6},{:.4},{},{},{},{},{}",
            field(&row.method),
            analysis.metric.name(),
            analysis.images,
            row.mean.value,
            row.mean.low,
            row.mean.high,
            row.median,
            row.msa,
            row.sa50,
            row.sa75,
            row.f1,
            row.panoptic_quality,
            row.average_rank,
            row.best_on,
            row.true_positives,
            row.false_positives,
            row.false_negatives,
            optional(row.median_seconds)
        );
    }
    text
}

/// One line for each pair of methods.
pub fn pairs_csv(analysis: &Analysis) -> String {
    let mut text = String::from(
        "first,second,metric,images,mean_difference,ci95_low,ci95_high,hodges_lehmann,hl_ci95_low,hl_ci95_high,rank_biserial,\
         cliffs_delta,p_wilcoxon,p_holm,p_benjamini_hochberg,first_better,second_better,equal,paper_outcome,paper_p_one_sided\n",
    );
    for pair in &analysis.pairs {
        let _ = writeln!(
            text,
            "{},{},{},{},{:.6},{:.6},{:.6},{:.6},{:.6},{:.6},{:.4},{:.4},{:e},{:e},{:e},{},{},{},{},{:e}",
            field(&analysis.methods[pair.first].method),
            field(&analysis.methods[pair.second].method),
            analysis.metric.name(),
            analysis.images,
            pair.difference.value,
            pair.difference.low,
            pair.difference.high,
            pair.typical_difference.value,
            pair.typical_difference.low,
            pair.typical_difference.high,
            pair.rank_biserial,
            pair.cliffs_delta,
            pair.p,
            pair.p_holm,
            pair.p_benjamini_hochberg,
            pair.first_better,
            pair.second_better,
            pair.equal,
            pair.paper_outcome,
            pair.paper_p
        );
    }
    text
}

/// Summary, pairs and recommendation as Markdown.
pub fn summary_markdown(analysis: &Analysis) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let metric = label(analysis.metric);
    let recommendation = &analysis.recommendation;
    let mut text = format!("**{}** {}\n\n", recommendation.headline, recommendation.text);
    let _ = writeln!(
        text,
        "{} images. Mean {metric} with 95 % bootstrap interval over images; rank 1 is best.\n",
        analysis.images
    );
    let _ =
        writeln!(text, "| method | mean {metric} | SA50 | SA75 | average rank | best on | seconds an image (median) |");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for at in analysis.order() {
        let row = &analysis.methods[at];
        let _ = writeln!(
            text,
            "| {} | {:.3} [{:.3}, {:.3}] | {:.3} | {:.3} | {:.2} | {} | {} |",
            cell(&row.method),
            row.mean.value,
            row.mean.low,
            row.mean.high,
            row.sa50,
            row.sa75,
            row.average_rank,
            row.best_on,
            row.median_seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.2}"))
        );
    }
    if !analysis.pairs.is_empty() {
        let _ = writeln!(
            text,
            "\n| pair | mean difference | better / worse / equal | rank-biserial | p (Wilcoxon) | p (Holm) | paper's rule |"
        );
        text.push_str("|---|---|---|---|---|---|---|\n");
    }
    for pair in &analysis.pairs {
        let _ = writeln!(
            text,
            "| {} − {} | {:.3} [{:.3}, {:.3}] | {} / {} / {} | {:.2} | {} | {} | {} |",
            cell(&analysis.methods[pair.first].method),
            cell(&analysis.methods[pair.second].method),
            pair.difference.value,
            pair.difference.low,
            pair.difference.high,
            pair.first_better,
            pair.second_better,
            pair.equal,
            pair.rank_biserial,
            p_text(pair.p).trim_start_matches("p = ").trim_start_matches("p "),
            p_text(pair.p_holm).trim_start_matches("p = ").trim_start_matches("p "),
            pair.paper_outcome
        );
    }
    if !analysis.groups.is_empty() {
        let names: Vec<String> = analysis.methods.iter().map(|row| cell(&row.method)).collect();
        let _ = writeln!(text, "\n| group | images | {} | what to use |", names.join(" | "));
        let _ = writeln!(text, "|---|---|{}---|", "---|".repeat(names.len()));
        for group in &analysis.groups {
            let means: Vec<String> = group.means.iter().map(|mean| format!("{mean:.3}")).collect();
            let (name, advice) = (cell(&group.group), cell(&group.recommendation.headline));
            let _ = writeln!(text, "| {name} | {} | {} | {advice} |", group.images, means.join(" | "));
        }
    }
    if let Some(friedman) = &analysis.friedman {
        let _ = writeln!(
            text,
            "\nFriedman χ²({}) = {:.2}, {}; Nemenyi's critical difference of average ranks {:.2} (alpha {}).",
            friedman.degrees,
            friedman.statistic,
            p_text(friedman.p),
            friedman.critical_difference,
            analysis.alpha
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_keep_what_counts() {
        assert_eq!(p_text(0.3), "p = 0.30");
        assert_eq!(p_text(0.0234), "p = 0.023");
        assert_eq!(p_text(0.00051), "p = 0.0005");
        assert_eq!(p_text(1e-9), "p < 0.0001");
    }

    #[test]
    fn fields_with_commas_are_quoted() {
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(field("plain"), "plain");
    }
}
