//! Files in and out: every kind is written by an encoder of its own and read back, damaged ones are refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use cytomask_image::{
    Error, ErrorKind, Image, Labels, ReadOptions, SampleType, read_labels, write_atomically, write_labels_png16,
    write_labels_tiff, write_rgb_png, write_rgba_png,
};
use tempfile::TempDir;
use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, TiffEncoder, TiffKindBig, colortype as kind};

const H: u32 = 97;
const W: u32 = 131;
const SIZE: [u32; 2] = [H, W];
const N: usize = (H * W) as usize;

fn open(path: &Path) -> Result<Image, Error> {
    Image::open(path, &ReadOptions::default())
}

fn save(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn entries(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn png_bytes(
    color: png::ColorType,
    depth: png::BitDepth,
    palette: Option<&[u8]>,
    data: &[u8],
    size: [u32; 2],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size[1], size[0]);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if let Some(palette) = palette {
        encoder.set_palette(palette.to_vec());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    bytes
}

fn tiff_bytes<C: kind::ColorType>(values: &[C::Inner], compression: Compression) -> Vec<u8>
where
    [C::Inner]: tiff::encoder::TiffValue,
{
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap().with_compression(compression);
    encoder.write_image::<C>(W, H, values).unwrap();
    bytes.into_inner()
}

#[test]
fn tiff_samples_of_every_type_come_back() {
    let folder = TempDir::new().unwrap();
    let deflate = Compression::Deflate(DeflateLevel::Fast);
    macro_rules! check {
        ($kind:ty, $type:ty, $dtype:ident, $compression:expr) => {
            let values: Vec<$type> = (0..N).map(|i| (i % 120) as $type).collect();
            let path = save(&folder, "image.dat", &tiff_bytes::<$kind>(&values, $compression));
            let image = open(&path).unwrap();
            assert_eq!((image.size, image.channels, image.dtype), (SIZE, 1, SampleType::$dtype));
            assert_eq!(image.samples, values.iter().map(|&value| value as f32).collect::<Vec<_>>());
            assert_eq!(read_labels(&path).unwrap().as_slice()[N - 1], (N - 1) as u32 % 120);
        };
    }
    check!(kind::Gray8, u8, U8, Compression::Uncompressed);
    check!(kind::Gray16, u16, U16, Compression::Lzw);
    check!(kind::Gray32, u32, U32, deflate);
    check!(kind::Gray64, u64, U64, Compression::Packbits);
    check!(kind::GrayI8, i8, I8, Compression::Uncompressed);
    check!(kind::GrayI16, i16, I16, deflate);
    check!(kind::GrayI32, i32, I32, Compression::Lzw);
    check!(kind::Gray32Float, f32, F32, deflate);
    check!(kind::Gray64Float, f64, F64, Compression::Uncompressed);
}

#[test]
fn tiff_colour_is_kept_and_alpha_dropped() {
    let folder = TempDir::new().unwrap();
    let rgba: Vec<u16> = (0..N * 4).map(|i| i as u16).collect();
    let image = open(&save(&folder, "a", &tiff_bytes::<kind::RGBA16>(&rgba, Compression::Lzw))).unwrap();
    assert_eq!(image.channels, 3);
    assert_eq!(image.samples[..6], [0.0, 1.0, 2.0, 4.0, 5.0, 6.0]);
    let rgb: Vec<u8> = (0..N * 3).map(|i| i as u8).collect();
    let path = save(&folder, "b", &tiff_bytes::<kind::RGB8>(&rgb, Compression::Packbits));
    assert_eq!(open(&path).unwrap().samples, rgb.iter().map(|&value| f32::from(value)).collect::<Vec<_>>());
    assert_eq!(read_labels(&path).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// A hand-made little-endian TIFF of one uncompressed piece per plane: tags are `(tag, type, values)`.
fn raw_tiff(
    size: [u32; 2],
    samples: u16,
    planar: bool,
    bits: u16,
    format: u16,
    tile: Option<u32>,
    data: &[u8],
) -> Vec<u8> {
    let pieces = if planar { usize::from(samples) } else { 1 };
    let piece = data.len() / pieces;
    let mut bytes = b"II\x2a\0".to_vec();
    bytes.extend((8 + data.len() as u32).to_le_bytes());
    bytes.extend(data);
    let offsets: Vec<u32> = (0..pieces).map(|index| 8 + (index * piece) as u32).collect();
    let sizes = vec![piece as u32; pieces];
    let mut tags: Vec<(u16, u16, Vec<u32>)> = vec![
        (256, 4, vec![size[1]]),
        (257, 4, vec![size[0]]),
        (258, 3, vec![u32::from(bits); usize::from(samples)]),
        (259, 3, vec![1]),
        (262, 3, vec![1]),
        (277, 3, vec![u32::from(samples)]),
        (284, 3, vec![if planar { 2 } else { 1 }]),
        (339, 3, vec![u32::from(format); usize::from(samples)]),
    ];
    match tile {
        Some(side) => tags.extend([(322, 4, vec![side]), (323, 4, vec![side]), (324, 4, offsets), (325, 4, sizes)]),
        None => tags.extend([(273, 4, offsets), (278, 4, vec![size[0]]), (279, 4, sizes)]),
    }
    tags.sort();
    let mut extra = Vec::new();
    let extra_start = bytes.len() + 2 + tags.len() * 12 + 4;
    bytes.extend((tags.len() as u16).to_le_bytes());
    for (tag, kind, values) in tags {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend((values.len() as u32).to_le_bytes());
        let packed: Vec<u8> =
            values.iter().flat_map(|value| value.to_le_bytes()[..if kind == 3 { 2 } else { 4 }].to_vec()).collect();
        if packed.len() <= 4 {
            bytes.extend(&packed);
            bytes.resize(bytes.len() + 4 - packed.len(), 0);
        } else {
            bytes.extend(((extra_start + extra.len()) as u32).to_le_bytes());
            extra.extend(packed);
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(extra);
    bytes
}

#[test]
fn tiff_layouts() {
    let folder = TempDir::new().unwrap();
    // Five channels, pixel by pixel and plane by plane: the same image.
    let expected: Vec<f32> = (0..30).map(|i| i as f32).collect();
    let chunky: Vec<u8> = (0..30).collect();
    let planar: Vec<u8> = (0..5).flat_map(|channel| (0..6).map(move |pixel| pixel * 5 + channel)).collect();
    for (is_planar, data) in [(false, chunky), (true, planar)] {
        let image = open(&save(&folder, "c", &raw_tiff([2, 3], 5, is_planar, 8, 1, None, &data))).unwrap();
        assert_eq!((image.size, image.channels), ([2, 3], 5));
        assert_eq!(image.samples, expected, "planar: {is_planar}");
    }
    // Half floats.
    let halves: Vec<u8> = [1.0, -2.5, 0.25].iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    let image = open(&save(&folder, "h", &raw_tiff([1, 3], 1, false, 16, 3, None, &halves))).unwrap();
    assert_eq!((image.samples, image.dtype), (vec![1.0, -2.5, 0.25], SampleType::F16));
    // One bit: rows are padded to whole bytes.
    let image =
        open(&save(&folder, "1", &raw_tiff([2, 3], 1, false, 1, 1, None, &[0b1010_0000, 0b0110_0000]))).unwrap();
    assert_eq!((image.samples, image.dtype), (vec![1.0, 0.0, 1.0, 0.0, 1.0, 1.0], SampleType::Bool));
    // One tile larger than the image.
    let tile: Vec<u8> = (0..=255).collect();
    let image = open(&save(&folder, "t", &raw_tiff([2, 3], 1, false, 8, 1, Some(16), &tile))).unwrap();
    assert_eq!(image.samples, [0.0, 1.0, 2.0, 16.0, 17.0, 18.0]);
}

#[test]
fn tiff_pages_and_bigtiff() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pages.tif");
    let mut encoder = TiffEncoder::<_, TiffKindBig>::new_generic(fs::File::create(&path).unwrap()).unwrap();
    for page in 0..3_u16 {
        encoder.write_image::<kind::Gray16>(3, 2, &[page; 6]).unwrap();
    }
    drop(encoder);
    for page in 0..3 {
        let image = Image::open(&path, &ReadOptions { page, ..ReadOptions::default() }).unwrap();
        assert_eq!(image.samples, [page as f32; 6]);
    }
    let error = Image::open(&path, &ReadOptions { page: 3, ..ReadOptions::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(
        error.to_string().ends_with("pages.tif: page 3 does not exist: the file has 3 pages, counted from 0"),
        "{error}"
    );
}

#[test]
fn png_of_every_depth() {
    use png::{BitDepth as Depth, ColorType as Color};
    let folder = TempDir::new().unwrap();
    let check = |bytes: Vec<u8>, channels: u32, samples: &[f32], dtype: SampleType| {
        let image = open(&save(&folder, "x", &bytes)).unwrap();
        assert_eq!((image.channels, image.dtype), (channels, dtype));
        assert_eq!(image.samples, samples);
    };
    check(png_bytes(Color::Grayscale, Depth::One, None, &[0b0100_0000], [1, 2]), 1, &[0.0, 255.0], SampleType::Bool);
    check(png_bytes(Color::Grayscale, Depth::Sixteen, None, &[1, 0, 0, 7], [1, 2]), 1, &[256.0, 7.0], SampleType::U16);
    check(png_bytes(Color::GrayscaleAlpha, Depth::Eight, None, &[9, 1, 8, 2], [1, 2]), 1, &[9.0, 8.0], SampleType::U8);
    check(png_bytes(Color::Rgba, Depth::Eight, None, &[1, 2, 3, 4], [1, 1]), 3, &[1.0, 2.0, 3.0], SampleType::U8);
    let palette = png_bytes(Color::Indexed, Depth::Four, Some(&[0, 0, 0, 10, 20, 30]), &[0x10], [1, 2]);
    assert_eq!(read_labels(save(&folder, "y", &palette)).unwrap().as_slice(), [1, 0]);
    check(palette, 3, &[10.0, 20.0, 30.0, 0.0, 0.0, 0.0], SampleType::U8);
}

#[test]
fn jpeg_is_read_and_a_cut_one_refused() {
    let folder = TempDir::new().unwrap();
    let fixture = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/jpeg.safetensors")).unwrap();
    let fixture = safetensors::SafeTensors::deserialize(&fixture).unwrap();
    for (name, channels) in [("grey", 1), ("rgb", 3)] {
        let bytes = fixture.tensor(&format!("file_{name}")).unwrap().data().to_vec();
        let path = save(&folder, "named_like_a.tif", &bytes);
        let image = open(&path).unwrap();
        assert_eq!((image.size, image.channels, image.dtype), (SIZE, channels, SampleType::U8));
        // Pillow's decoder smooths half-resolution colour and rounds its transform in a way of its own.
        let expected = fixture.tensor(&format!("pixels_{name}")).unwrap().data();
        let differences = image.samples.iter().zip(expected).map(|(found, &byte)| (found - f32::from(byte)).abs());
        let largest = differences.fold(0.0_f32, f32::max);
        assert!(largest <= 4.0, "{name}: {largest}");
        assert_eq!(read_labels(&path).unwrap_err().kind(), ErrorKind::Unsupported);
        for length in [3, 40, bytes.len() / 2, bytes.len() - 2] {
            let error = open(&save(&folder, "cut", &bytes[..length])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format, "{length}: {error}");
        }
    }
}

#[test]
fn damaged_files_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let noise: Vec<u16> = (0..N as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u16).collect();
    let tiff = tiff_bytes::<kind::Gray16>(&noise, Compression::Deflate(DeflateLevel::Fast));
    let bytes: Vec<u8> = noise.iter().flat_map(|value| value.to_be_bytes()).collect();
    let png = png_bytes(png::ColorType::Grayscale, png::BitDepth::Sixteen, None, &bytes, SIZE);
    let png_kept = png.len() - 4;
    for (whole, longest) in [(tiff.clone(), tiff.len() - 1), (png.clone(), png_kept)] {
        for length in [4, 12, 30, 100, whole.len() / 2, longest] {
            let error = open(&save(&folder, "cut.dat", &whole[..length])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format, "{length}: {error}");
            assert!(error.to_string().contains("cut.dat: "), "{error}");
        }
    }
    let kind_of = |name: &str, bytes: &[u8]| open(&save(&folder, name, bytes)).unwrap_err().kind();
    assert_eq!(kind_of("empty", b""), ErrorKind::Format);
    assert_eq!(kind_of("text", b"not an image"), ErrorKind::Unsupported);
    assert_eq!(open(&folder.path().join("absent")).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(open(folder.path()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(kind_of("no pixels", &raw_tiff([0, 3], 1, false, 8, 1, None, &[])), ErrorKind::Format);
    assert_eq!(kind_of("24 bits", &raw_tiff([1, 2], 1, false, 24, 1, None, &[0; 6])), ErrorKind::Unsupported);
    assert_eq!(kind_of("complex", &raw_tiff([1, 1], 1, false, 64, 6, None, &[0; 8])), ErrorKind::Unsupported);
    // A PNG header of width 0 with a valid checksum is hard to come by: the decoder checks the size first.
    let mut flat = png;
    flat[16..20].fill(0);
    assert_eq!(kind_of("flat", &flat), ErrorKind::Format);
}

#[test]
fn the_size_is_checked_before_memory_is_taken() {
    let folder = TempDir::new().unwrap();
    // Claims 2³² − 1 pixels a side and holds one byte.
    let path = save(&folder, "huge.tif", &raw_tiff([u32::MAX; 2], 1, false, 8, 1, None, &[0]));
    let error = open(&path).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Value | ErrorKind::Format), "{error}");
    let path = folder.path().join("small.png");
    write_rgb_png(&path, [10, 10], &[7; 300]).unwrap();
    let error = Image::open(&path, &ReadOptions { max_pixels: 99, ..ReadOptions::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.to_string().contains("small.png: the image is too large: 10 × 10 pixels"), "{error}");
}

#[test]
fn labels_survive_a_tiff_with_more_than_65535_objects() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("labels.tif");
    let labels = Labels::from_vec([300, 300], (0..90_000).collect()).unwrap();
    write_labels_tiff(&path, &labels).unwrap();
    assert_eq!(read_labels(&path).unwrap(), labels);
    assert_eq!(entries(&folder), ["labels.tif"]);
    let png = folder.path().join("labels.png");
    let error = write_labels_png16(&png, &labels).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.to_string().contains("found 24464 larger ones, up to 89999"), "{error}");
    assert_eq!(entries(&folder), ["labels.tif"]);
    let small = Labels::from_vec([1, 3], vec![0, 65_535, 258]).unwrap();
    write_labels_png16(&png, &small).unwrap();
    assert_eq!(read_labels(&png).unwrap(), small);
}

#[test]
fn labels_must_be_whole_and_not_negative() {
    let folder = TempDir::new().unwrap();
    let mut values = vec![3.0_f32; N];
    values[5] = 0.5;
    values[6] = -1.0;
    values[7] = f32::NAN;
    let error =
        read_labels(save(&folder, "f", &tiff_bytes::<kind::Gray32Float>(&values, Compression::Lzw))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.to_string().contains("found 3 others, first 0.5"), "{error}");
}

#[test]
fn pictures_are_written() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("p.png");
    write_rgba_png(&path, [1, 2], &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_eq!(open(&path).unwrap().samples, [1.0, 2.0, 3.0, 5.0, 6.0, 7.0]);
    assert_eq!(write_rgb_png(&path, [1, 2], &[1]).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(write_rgb_png(&path, [0, 2], &[]).unwrap_err().kind(), ErrorKind::Shape);
    // A failed write leaves what was there.
    assert_eq!(open(&path).unwrap().samples.len(), 6);
    assert_eq!(entries(&folder), ["p.png"]);
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("result.bin");
    fs::write(&path, b"before").unwrap();
    let error = write_atomically(&path, |writer| {
        writer.write_all(&[0; 100_000]).unwrap();
        Err(Error::new(ErrorKind::Io, "no space left on device"))
    })
    .unwrap_err();
    assert!(error.to_string().contains("result.bin: no space left"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"before");
    let panicked = std::panic::catch_unwind(|| write_atomically(&path, |_| panic!("midway")));
    assert!(panicked.is_err());
    assert_eq!(entries(&folder), ["result.bin"]);
    write_atomically(&path, |writer| {
        writer.write_all(b"after").unwrap();
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"after");
    assert_eq!(write_atomically(folder.path().join("no/such.bin"), |_| Ok(())).unwrap_err().kind(), ErrorKind::Io);
    // A folder in the way: the move fails, the temporary file goes.
    fs::create_dir(folder.path().join("taken")).unwrap();
    assert_eq!(write_atomically(folder.path().join("taken"), |_| Ok(())).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(entries(&folder), ["result.bin", "taken"]);
}
