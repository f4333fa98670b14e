//! Prompts from flags, JSON or CSV. The formats are described in docs/prompts.md.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use cytomask::{BoxPrompt, PointPrompt, Prompt};
use serde::Deserialize;

use crate::args::PromptArgs;

/// One object of a JSON file. `points` and `box` without axis names are x-first, as SAM users write them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonPrompt {
    #[serde(default)]
    points: Vec<JsonPoint>,
    #[serde(default, rename = "box")]
    bounds: Option<JsonBox>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonPoint {
    Named {
        y: f32,
        x: f32,
        #[serde(default = "positive")]
        label: u8,
    },
    XyLabel([f32; 3]),
    Xy([f32; 2]),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonBox {
    Named { y0: f32, x0: f32, y1: f32, x1: f32 },
    Xyxy([f32; 4]),
}

fn positive() -> u8 {
    1
}

/// All prompts of the command line, in the order points, boxes, file.
pub(crate) fn collect(arguments: &PromptArgs) -> Result<Vec<Prompt>> {
    let mut prompts: Vec<Prompt> = arguments.points.iter().map(|&[y, x]| Prompt::point(y, x)).collect();
    prompts.extend(arguments.boxes.iter().map(|&[y0, x0, y1, x1]| Prompt::bounds(BoxPrompt { y0, x0, y1, x1 })));
    if let Some(path) = &arguments.prompts {
        prompts.extend(read(path)?);
    }
    if prompts.is_empty() {
        bail!("--mode prompt needs at least one --point, --box or --prompts FILE");
    }
    Ok(prompts)
}

/// Prompt files of more bytes are refused: a million points take about 30 MB.
const LARGEST_FILE: u64 = 256 << 20;

/// Reads a prompt file by its extension.
pub(crate) fn read(path: &Path) -> Result<Vec<Prompt>> {
    let name = path.display();
    let length = std::fs::metadata(path).with_context(|| format!("{name}: cannot read the prompts"))?.len();
    if length > LARGEST_FILE {
        bail!("{name}: expected prompts of at most {LARGEST_FILE} bytes, found {length}");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("{name}: cannot read the prompts"))?;
    let extension = path.extension().and_then(|text| text.to_str()).unwrap_or_default().to_lowercase();
    let prompts = match extension.as_str() {
        "json" => from_json(&text).with_context(|| format!("{name}: not a prompt file"))?,
        "csv" => from_csv(&text).with_context(|| format!("{name}: not a prompt table"))?,
        other => bail!("{name}: prompts come as .json or .csv, found {other:?}"),
    };
    if let Some(index) = prompts.iter().position(|prompt| prompt.points.is_empty() && prompt.bounds.is_none()) {
        bail!("{name}: prompt {index} has neither points nor a box");
    }
    Ok(prompts)
}

fn from_json(text: &str) -> Result<Vec<Prompt>> {
    let parsed: Vec<JsonPrompt> = serde_json::from_str(text)?;
    Ok(parsed
        .into_iter()
        .map(|prompt| Prompt {
            points: prompt
                .points
                .into_iter()
                .map(|point| match point {
                    JsonPoint::Named { y, x, label } => PointPrompt { y, x, positive: label != 0 },
                    JsonPoint::XyLabel([x, y, label]) => PointPrompt { y, x, positive: label != 0.0 },
                    JsonPoint::Xy([x, y]) => PointPrompt { y, x, positive: true },
                })
                .collect(),
            bounds: prompt.bounds.map(|bounds| match bounds {
                JsonBox::Named { y0, x0, y1, x1 } => BoxPrompt { y0, x0, y1, x1 },
                JsonBox::Xyxy(corners) => BoxPrompt::from_xyxy(corners),
            }),
            mask: None,
        })
        .collect())
}

/// Columns by name: `object` (rows of one object belong together), `y`, `x`, `label` for points; `y0`, `x0`, `y1`, `x1` for boxes.
fn from_csv(text: &str) -> Result<Vec<Prompt>> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().ok_or_else(|| anyhow!("the file is empty"))?;
    let columns: Vec<&str> = header.split(',').map(str::trim).collect();
    let mut by_object: BTreeMap<String, usize> = BTreeMap::new();
    let mut prompts: Vec<Prompt> = Vec::new();
    for (number, line) in lines {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let cell = |name: &str| {
            columns
                .iter()
                .position(|column| *column == name)
                .and_then(|at| cells.get(at))
                .filter(|text| !text.is_empty())
        };
        let value = |name: &str| -> Result<Option<f32>> {
            cell(name)
                .map(|text| {
                    text.parse::<f32>()
                        .ok()
                        .filter(|value| value.is_finite())
                        .ok_or_else(|| anyhow!("line {}: {name}: expected a number, found {text:?}", number + 1))
                })
                .transpose()
        };
        let index = match cell("object") {
            Some(object) => *by_object.entry((*object).to_owned()).or_insert(prompts.len()),
            None => prompts.len(),
        };
        if index == prompts.len() {
            prompts.push(Prompt::default());
        }
        if let (Some(y), Some(x)) = (value("y")?, value("x")?) {
            let positive = value("label")?.unwrap_or(1.0) != 0.0;
            prompts[index].points.push(PointPrompt { y, x, positive });
        }
        if let (Some(y0), Some(x0), Some(y1), Some(x1)) = (value("y0")?, value("x0")?, value("y1")?, value("x1")?) {
            prompts[index].bounds = Some(BoxPrompt { y0, x0, y1, x1 });
        }
    }
    Ok(prompts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_takes_named_and_sam_orders() {
        let prompts = from_json(
            r#"[{"points": [{"y": 1, "x": 2}, [4, 3, 0]]}, {"box": [10, 20, 30, 40]}, {"box": {"y0": 1, "x0": 2, "y1": 3, "x1": 4}}]"#,
        )
        .unwrap();
        assert_eq!(prompts[0].points[0], PointPrompt { y: 1.0, x: 2.0, positive: true });
        assert_eq!(prompts[0].points[1], PointPrompt { y: 3.0, x: 4.0, positive: false });
        assert_eq!(prompts[1].bounds, Some(BoxPrompt { y0: 20.0, x0: 10.0, y1: 40.0, x1: 30.0 }));
        assert_eq!(prompts[2].bounds, Some(BoxPrompt { y0: 1.0, x0: 2.0, y1: 3.0, x1: 4.0 }));
        assert!(from_json(r#"[{"point": [1, 2]}]"#).is_err());
    }

    /// Random changes of good files: whatever comes out, nothing panics.
    #[test]
    fn changed_prompts_are_harmless() {
        let json = r#"[{"points": [{"y": 1, "x": 2}, [4, 3, 0]]}, {"box": [10, 20, 30, 40]}]"#;
        let csv = "object,y,x,label,y0,x0,y1,x1\na,1,2,1,,,,\nb,,,,5,6,7,8\n";
        let mut state = 7_u64;
        let mut random = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % limit
        };
        for _ in 0..4000 {
            for (text, parse) in [(json, from_json as fn(&str) -> Result<Vec<Prompt>>), (csv, from_csv)] {
                let mut bytes = text.as_bytes().to_vec();
                for _ in 0..=random(4) {
                    let at = random(bytes.len());
                    match random(4) {
                        0 => bytes[at] = b"0123456789-+eE.,[]{}\"\n "[random(23)],
                        1 => bytes[at] = random(128) as u8,
                        2 => {
                            let copy = bytes[at..].to_vec();
                            bytes.splice(at..at, copy);
                        }
                        _ => bytes.truncate(at + 1),
                    }
                }
                let _ = parse(&String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn csv_rows_of_one_object_belong_together() {
        let prompts = from_csv("object,y,x,label\na,1,2,1\nb,5,6,\na,3,4,0\n").unwrap();
        assert_eq!(prompts.len(), 2);
        assert_eq!(prompts[0].points.len(), 2);
        assert!(!prompts[0].points[1].positive);
        assert!(from_csv("y,x\n1,abc\n").unwrap_err().to_string().contains("line 2"));
    }
}
