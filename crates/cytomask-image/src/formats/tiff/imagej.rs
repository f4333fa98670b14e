//! ImageJ's image description: `name=value` lines.

use super::ome::micrometres;

/// What an ImageJ description says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ImageJ {
    pub(super) images: u64,
    pub(super) channels: u32,
    pub(super) slices: u32,
    pub(super) frames: u32,
    /// µm in one unit of the resolution tags.
    pub(super) unit_um: Option<f64>,
    /// Distance of slices, in units.
    pub(super) spacing: Option<f64>,
}

/// Reads a description; `None` when it is not ImageJ's.
pub(super) fn parse(description: &str) -> Option<ImageJ> {
    if !description.starts_with("ImageJ=") {
        return None;
    }
    let value = |name: &str| {
        description
            .lines()
            .find_map(|line| line.split_once('=').filter(|(found, _)| found.trim() == name))
            .map(|(_, v)| v.trim())
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<u32>().ok()).filter(|&number| number > 0);
    let channels = number("channels").unwrap_or(1);
    let (slices, frames) = (number("slices").unwrap_or(1), number("frames").unwrap_or(1));
    let product = u64::from(channels).saturating_mul(u64::from(slices)).saturating_mul(u64::from(frames));
    Some(ImageJ {
        images: number("images").map_or(product, u64::from),
        channels,
        slices,
        frames,
        unit_um: value("unit").and_then(|unit| micrometres(1.0, unit)),
        spacing: value("spacing")
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|&value| value.is_finite() && value > 0.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hyperstack_is_understood() {
        let text =
            "ImageJ=1.53t\nimages=30\nchannels=2\nslices=5\nframes=3\nhyperstack=true\nunit=\\u00B5m\nspacing=1.5\n";
        let found = parse(text).unwrap();
        assert_eq!((found.images, found.channels, found.slices, found.frames), (30, 2, 5, 3));
        assert_eq!((found.unit_um, found.spacing), (Some(1.0), Some(1.5)));
        assert_eq!(parse("ImageJ=1.53t\nimages=4\n").unwrap().images, 4);
        assert_eq!(parse("made by ImageJ=1"), None);
    }
}
