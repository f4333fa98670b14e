//! Aperio's XML annotations: `Region` elements with `Vertex` elements. MoNuSeg's labels.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::{Error, ErrorKind, Result};

/// Each region's corners, `(x, y)` in pixels.
pub(crate) fn read(text: &[u8]) -> Result<Vec<Vec<(f64, f64)>>> {
    let damaged =
        |source: quick_xml::Error| Error::new(ErrorKind::Format, "XML: the file is damaged").with_source(source);
    let mut reader = Reader::from_reader(text);
    let mut regions: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut depth = 0_usize;
    loop {
        match reader.read_event().map_err(damaged)? {
            Event::Start(element) => {
                depth += 1;
                take(&element, &mut regions)?;
            }
            Event::Empty(element) => take(&element, &mut regions)?,
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Eof if depth > 0 => return Err(Error::new(ErrorKind::Format, "XML: the file is cut short")),
            Event::Eof => return Ok(regions),
            _ => {}
        }
    }
}

fn take(element: &BytesStart<'_>, regions: &mut Vec<Vec<(f64, f64)>>) -> Result<()> {
    match element.local_name().as_ref() {
        "Region" => regions.push(Vec::new()),
        "Vertex" => {
            let corner = (number(element, "X")?, number(element, "Y")?);
            let message = || Error::new(ErrorKind::Format, "XML: a Vertex stands before the first Region");
            regions.last_mut().ok_or_else(message)?.push(corner);
        }
        _ => {}
    }
    Ok(())
}

fn number(element: &BytesStart<'_>, name: &str) -> Result<f64> {
    let found = element.try_get_attribute(name).ok().flatten().map(|attribute| attribute.value.into_owned());
    let text = found.unwrap_or_default();
    let value = text.trim().parse::<f64>().ok().filter(|value| value.abs() < 1e9);
    value.ok_or_else(|| {
        Error::expected(ErrorKind::Format, "XML", format!("a number {name} of each Vertex"), format!("{text:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_and_their_corners() {
        let text = br#"<Annotations><Annotation><Regions><Region Id="1"><Vertices><Vertex X="1.5" Y="2" Z="0"/>
            <Vertex X="3" Y="4"></Vertex></Vertices></Region><Region/></Regions></Annotation></Annotations>"#;
        assert_eq!(read(text).unwrap(), [vec![(1.5, 2.0), (3.0, 4.0)], vec![]]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for bad in [
            "<a><Vertex X='1' Y='2'/></a>",
            "<a><Region><Vertex X='1'/></Region></a>",
            "<a><Region>",
            "<Region><Vertex X='n' Y='1'/></Region>",
        ] {
            assert_eq!(read(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Format, "{bad}");
        }
    }
}
