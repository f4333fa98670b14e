//! Files of microscope makers: recognised, not read. The error names the way to a format that is.

use std::path::Path;

use crate::{Error, ErrorKind};

/// First bytes and extension of formats one meets in microscopy.
const KNOWN: [(&[u8], &[&str], &str); 11] = [
    (b"ZISRAWFILE", &["czi"], "Zeiss CZI"),
    (b"\xDA\xCE\xBE\x0A", &["nd2"], "Nikon ND2"),
    (b"\x70\x00\x00\x00", &["lif", "lof", "xlef"], "Leica LIF"),
    (b"\x89HDF\r\n\x1a\n", &["ims", "h5", "hdf5", "nxs"], "HDF5 (Imaris, ilastik)"),
    (b"\xD0\xCF\x11\xE0", &["oib", "oif", "zvi", "ipw"], "Olympus OIB / Zeiss ZVI"),
    (b"PK\x03\x04", &["zip", "npz", "ome.zarr.zip"], "a ZIP archive"),
    (b"GIF8", &["gif"], "GIF"),
    (b"\x00\x00\x00\x0CjP  ", &["jp2", "j2k"], "JPEG 2000"),
    (b"\xFF\x4F\xFF\x51", &["jp2", "j2k"], "JPEG 2000"),
    (b"RIFF", &["webp", "avi"], "WebP or AVI"),
    (b"NRRD", &["nrrd"], "NRRD"),
];

/// The error for a file of no format that is read, by its first bytes and, failing that, its extension.
pub(crate) fn recognise(head: &[u8], path: Option<&Path>) -> Error {
    let extension = path.and_then(Path::extension).and_then(|text| text.to_str()).unwrap_or_default().to_lowercase();
    let by_content = KNOWN.iter().find(|(magic, ..)| head.starts_with(magic));
    let known = by_content.or_else(|| KNOWN.iter().find(|(_, extensions, _)| extensions.contains(&extension.as_str())));
    let message = match known {
        Some((.., "a ZIP archive")) => "expected an image, found a ZIP archive; unpack it first".to_owned(),
        Some((.., name @ ("GIF" | "JPEG 2000" | "WebP or AVI" | "NRRD"))) => {
            format!("{name} files are not read; save it as PNG or TIFF")
        }
        Some((.., name)) => format!(
            "{name} files are not read; convert it with `bioformats2raw FILE OUT.zarr` (then name OUT.zarr/0) or save it \
             as OME-TIFF from Fiji or the microscope's program"
        ),
        None => format!(
            "not an image: expected PNG, JPEG, BMP, TIFF, NPY or an OME-Zarr folder, \
             found a file that begins with {head:02x?}"
        ),
    };
    Error::new(ErrorKind::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_files_are_named_with_the_way_to_convert_them() {
        let czi = recognise(b"ZISRAWFILE\0\0\0\0\0\0", None).to_string();
        assert!(czi.contains("Zeiss CZI") && czi.contains("bioformats2raw"), "{czi}");
        assert!(recognise(b"????", Some(Path::new("a.LIF"))).to_string().contains("Leica LIF"));
        assert!(recognise(b"text", Some(Path::new("a.txt"))).to_string().contains("begins with"));
    }
}
