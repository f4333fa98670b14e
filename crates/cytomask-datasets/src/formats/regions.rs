//! Aperio's XML annotations: `Region` elements with `Vertex` elements. MoNuSeg's labels.

use roxmltree::{Document, Node, ParsingOptions};

use crate::{Error, ErrorKind, Result};

/// A file of more elements is none of this set's (its largest has some 100,000).
const MAX_NODES: u32 = 20_000_000;

/// Each region's corners, `(x, y)` in pixels.
pub(crate) fn read(text: &[u8]) -> Result<Vec<Vec<(f64, f64)>>> {
    let damaged = || Error::new(ErrorKind::Format, "XML: the file is damaged or cut short");
    let text = std::str::from_utf8(text).map_err(|source| damaged().with_source(source))?;
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|source| damaged().with_source(source))?;
    let named = |name: &'static str| move |node: &Node<'_, '_>| node.tag_name().name() == name;
    let corner = |node: Node<'_, '_>| Ok((number(node, "X")?, number(node, "Y")?));
    let region = |region: Node<'_, '_>| region.descendants().filter(named("Vertex")).map(corner).collect();
    document.descendants().filter(named("Region")).map(region).collect()
}

fn number(vertex: Node<'_, '_>, name: &str) -> Result<f64> {
    let text = vertex.attribute(name).unwrap_or_default();
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
        for bad in ["<a><Region><Vertex X='1'/></Region></a>", "<a><Region>", "<Region><Vertex X='n' Y='1'/></Region>"]
        {
            assert_eq!(read(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Format, "{bad}");
        }
    }
}
