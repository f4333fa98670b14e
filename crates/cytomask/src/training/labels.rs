//! Reading one label image, and saying in a user's words why it cannot be read.

use std::collections::BTreeSet;
use std::path::Path;

use cytomask_image::{Image, Labels, Projection, SampleType};
use cytomask_train::data::check::{Finding, Problem};

use crate::Selection;

/// More colours than this are a photograph.
const MOST_COLOURS: usize = 4096;

/// Reads the labels of the plane that `selection` takes of the image. The findings beside them are warnings.
pub(super) fn read(path: &Path, selection: &Selection) -> Result<(Labels, Option<Finding>), Box<Finding>> {
    let plane = plane_of(selection);
    let read = || match plane {
        0 => crate::read_labels(path),
        _ => {
            let stack = crate::read_label_stack(path)?;
            let [depth, h, w] = stack.size();
            let pixels = h as usize * w as usize;
            // Labels of the chosen plane alone are as good.
            let first = if plane < depth { plane as usize * pixels } else { 0 };
            let ids = stack.into_vec()[first..first + pixels].to_vec();
            Ok(Labels::from_vec([h, w], ids)?)
        }
    };
    match read() {
        Ok(labels) => Ok((labels, None)),
        Err(error) => explain(path, &error.to_string()),
    }
}

/// Position of the selected plane in a stack of slices or of time points.
fn plane_of(selection: &Selection) -> u32 {
    let z = match selection.projection {
        Some(Projection::Plane(z)) => z,
        _ => 0,
    };
    selection.page.or(selection.time).unwrap_or(0).max(z)
}

fn explain(path: &Path, message: &str) -> Result<(Labels, Option<Finding>), Box<Finding>> {
    let error = |problem, found: String, remedy: &str| Err(Box::new(Finding::error(problem, path, found, remedy)));
    let extension = path.extension().map(|text| text.to_string_lossy().to_lowercase()).unwrap_or_default();
    let Ok(image) = Image::open(path, &cytomask_image::ReadOptions::default()) else {
        // The reader names the file, and so does the finding.
        let found = message.replace(&format!("{}: ", path.display()), "");
        return error(
            Problem::Unreadable,
            found,
            "look whether the file opens elsewhere, and save it again as TIFF or PNG",
        );
    };
    if ["jpg", "jpeg"].contains(&extension.as_str()) {
        let found = "a JPEG: its compression changes ids".to_owned();
        return error(
            Problem::LossyFormat,
            found,
            "export the labels again as TIFF or PNG; what JPEG lost cannot be had back",
        );
    }
    let channels = image.channels as usize;
    if channels > 1 {
        let equal = image
            .samples
            .chunks_exact(channels)
            .all(|pixel| pixel[..channels.min(3)].iter().all(|value| *value == pixel[0]));
        let first: Vec<f32> = image.samples.iter().step_by(channels).copied().collect();
        if equal && let Some(labels) = whole(image.size, &first) {
            let found = format!("{channels} equal channels in place of one");
            let remedy = "the first is taken; 8 bits hold 255 objects at most";
            return Ok((labels, Some(Finding::warning(Problem::ColourMask, path, found, remedy))));
        }
        let mut colours = BTreeSet::new();
        for pixel in image.samples.chunks_exact(channels) {
            if colours.len() > MOST_COLOURS {
                break;
            }
            colours.insert(pixel.iter().map(|value| value.to_bits()).collect::<Vec<u32>>());
        }
        let count =
            if colours.len() > MOST_COLOURS { format!("more than {MOST_COLOURS}") } else { colours.len().to_string() };
        return error(
            Problem::ColourMask,
            format!("a picture of {channels} channels with {count} colours, where one number a pixel is needed"),
            "export labels as 16-bit grey TIFF with one id for each object, not the coloured view of them",
        );
    }
    let bad = image.samples.iter().filter(|&&value| !is_id(value)).count();
    if bad > 0 {
        let kind = match image.dtype {
            SampleType::F16 | SampleType::F32 | SampleType::F64 => "floating-point",
            _ => "negative",
        };
        let example = image.samples.iter().copied().find(|&value| !is_id(value)).unwrap_or_default();
        return error(
            Problem::NotWholeNumbers,
            format!("{bad} {kind} pixels are no ids, for instance {example}: expected whole numbers from 0"),
            "a probability map or resized labels look like this: export ids, and resize labels without interpolation (nearest)",
        );
    }
    error(
        Problem::Unreadable,
        message.replace(&format!("{}: ", path.display()), ""),
        "save it again as TIFF or PNG of one channel",
    )
}

fn is_id(value: f32) -> bool {
    value >= 0.0 && value <= u32::MAX as f32 && value.fract() == 0.0
}

fn whole(size: [u32; 2], samples: &[f32]) -> Option<Labels> {
    let ids = samples.iter().map(|&value| is_id(value).then_some(value as u32)).collect::<Option<Vec<u32>>>()?;
    Labels::from_vec(size, ids).ok()
}
