//! Hostile and broken archives: each a clear error that names archive and member, and nothing left behind.

mod common;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use common::{Member, SIZE, fixture, grey_png, ids, npy, raw, tif, try_prepare, zip, zip_bytes};
use cytomask_datasets::SplitName::{Test, Val};
use cytomask_datasets::{Error, ErrorKind, Limits, PrepareOptions, find, prepare};
use flate2::Compression;
use flate2::write::GzEncoder;
use zip::write::SimpleFileOptions;

/// One good DSB pair.
fn good() -> Vec<Member> {
    vec![
        ("dsb2018/test/images/a.tif".into(), tif(&[raw(0, SIZE)], SIZE)),
        ("dsb2018/test/masks/a.tif".into(), tif(&[ids(0, SIZE)], SIZE)),
    ]
}

fn failure(key: &str, inputs: &[PathBuf], out: &Path) -> Error {
    let error = try_prepare(key, inputs, out, Test).map(drop).unwrap_err();
    let left: Vec<_> = std::fs::read_dir(out.join(key)).map(|entries| entries.collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?} is left behind after {error}");
    error
}

/// Fails with this kind, and says all of this.
#[track_caller]
fn fails(key: &str, members: &[Member], kind: ErrorKind, says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let archive = zip(folder.path(), "given.zip", members);
    let error = failure(key, &[archive], &folder.path().join("out"));
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in says.iter().chain(&["given.zip"]) {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn a_path_out_of_the_archive() {
    for name in ["../../evil.tif", "/etc/evil.tif", "C:\\evil.tif", "dsb2018/../../evil.tif"] {
        let mut members = good();
        members.push((name.into(), vec![1]));
        fails("dsb", &members, ErrorKind::Unsafe, &["evil.tif", "expected a path inside the archive"]);
    }
}

#[test]
fn a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("dsb2018/test/images/b.tif", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let path = folder.path().join("link.zip");
    std::fs::write(&path, writer.finish().unwrap().into_inner()).unwrap();
    let error = failure("dsb", &[path], &folder.path().join("out"));
    assert_eq!(error.kind(), ErrorKind::Unsafe);
    assert!(error.to_string().contains("b.tif: member: expected a file, found a symbolic link"), "{error}");

    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, "gold-standard-BF-V-1/1_im.tif", "/etc/passwd").unwrap();
    let path = folder.path().join("link.tar.gz");
    std::fs::write(&path, archive.into_inner().unwrap().finish().unwrap()).unwrap();
    let error = failure("yeaz", &[path], &folder.path().join("out"));
    assert_eq!((error.kind(), error.member()), (ErrorKind::Unsafe, Some("gold-standard-BF-V-1/1_im.tif")));
}

fn with_limits(key: &str, input: PathBuf, limits: Limits) -> Error {
    let out = input.parent().unwrap().join("out");
    let options = PrepareOptions { check_hashes: false, limits, ..PrepareOptions::default() };
    prepare(find(key).unwrap(), &[input], out, &options, &mut |_, _| ()).unwrap_err()
}

#[test]
fn bombs() {
    let folder = tempfile::tempdir().unwrap();
    let mut members = good();
    members.push(("zeros".into(), vec![0; 4 << 20]));
    let path = zip(folder.path(), "bomb.zip", &members);
    let small = Limits { ratio: 100, ratio_from_bytes: 1 << 20, ..Limits::default() };
    let case = |limits| with_limits("dsb", path.clone(), limits);
    let error = case(small);
    assert_eq!((error.kind(), error.member()), (ErrorKind::Unsafe, Some("zeros")));
    assert!(error.to_string().contains("at most 100-fold"), "{error}");
    assert_eq!(case(Limits { member_bytes: 1 << 20, ..Limits::default() }).member(), Some("zeros"));
    assert!(case(Limits { total_bytes: 1 << 20, ..Limits::default() }).to_string().contains("of all members"));
    assert_eq!(case(Limits { entries: 2, ..Limits::default() }).kind(), ErrorKind::Unsafe);

    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    let mut header = tar::Header::new_gnu();
    header.set_size(8 << 20);
    archive.append_data(&mut header, "other/zeros", std::io::repeat(0).take_bytes(8 << 20)).unwrap();
    let path = folder.path().join("bomb.tar.gz");
    std::fs::write(&path, archive.into_inner().unwrap().finish().unwrap()).unwrap();
    let error = with_limits("yeaz", path, small);
    assert_eq!(error.kind(), ErrorKind::Unsafe, "{error}");
}

trait TakeBytes {
    fn take_bytes(self, count: u64) -> std::io::Take<Self>
    where
        Self: Sized;
}

impl TakeBytes for std::io::Repeat {
    fn take_bytes(self, count: u64) -> std::io::Take<Self> {
        std::io::Read::take(self, count)
    }
}

#[test]
fn a_member_that_is_longer_than_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = zip_bytes(&good());
    // The size in the central directory and in the local header of the first member, made smaller.
    let size = (good()[0].1.len() as u32).to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 4).filter(|&at| bytes[at..at + 4] == size).collect();
    assert!(places.len() >= 2);
    for at in places {
        bytes[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    let path = folder.path().join("lying.zip");
    std::fs::write(&path, bytes).unwrap();
    let error = failure("dsb", &[path], &folder.path().join("out"));
    assert_eq!((error.kind(), error.member()), (ErrorKind::Unsafe, Some("dsb2018/test/images/a.tif")), "{error}");
}

#[test]
fn labels_that_are_missing_or_do_not_fit() {
    let mut members = good();
    members.push(("dsb2018/test/images/b.tif".into(), tif(&[raw(0, SIZE)], SIZE)));
    fails("dsb", &members, ErrorKind::NotFound, &["test/images/b.tif", "labels of this image: expected a file for b"]);
    let mut members = good();
    members[1].1 = tif(&[ids(0, [14, 12])], [14, 12]);
    fails("dsb", &members, ErrorKind::Shape, &["test/masks/a.tif", "12 × 14", "found 14 × 12"]);
    let members = [("0/t0.tif", 0), ("0/t1.tif", 0), ("0_GT/SEG/man_seg0.tif", 0)]
        .map(|(name, seed)| (format!("0{name}"), tif(&[raw(seed, SIZE)], SIZE)));
    fails("toiam", &members, ErrorKind::NotFound, &["t1.tif", "expected 2 label files", "found 1"]);
    fails("dsb", &[("x/y.tif".into(), vec![])], ErrorKind::NotFound, &["test/images/*.tif", "x/y.tif"]);
}

#[test]
fn wrong_number_types_and_shapes() {
    let mut members = good();
    let mut half = Cursor::new(Vec::new());
    tiff::encoder::TiffEncoder::new(&mut half)
        .unwrap()
        .write_image::<tiff::encoder::colortype::Gray32Float>(14, 12, &[0.5; 168])
        .unwrap();
    members[1].1 = half.into_inner();
    fails("dsb", &members, ErrorKind::Value, &["masks/a.tif", "expected whole numbers", "0.5"]);
    let mut members = good();
    members[1].1 = common::rgb_tif(&ids(0, SIZE), SIZE);
    fails("dsb", &members, ErrorKind::Unsupported, &["masks/a.tif", "expected one channel, found 3"]);
    let pickled = b"\x93NUMPY\x01\x00\x3a\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }   \n".to_vec();
    let image = |name: &str, bytes: Vec<u8>| (format!("fold3/{name}.npy"), bytes);
    let masks = image("masks", npy(&[1, 12, 14, 6], &[0.0; 1008]));
    fails("pannuke", &[image("images", pickled), masks.clone()], ErrorKind::Unsupported, &["images.npy", "|O"]);
    fails(
        "pannuke",
        &[image("images", npy(&[2, 12, 14, 3], &[0.0; 1008])), masks],
        ErrorKind::Shape,
        &["masks.npy", "expected 2", "found 1"],
    );
    let three = npy(&[12, 14, 3], &[0.0; 504]);
    let lynsec: Vec<Member> = (0..5).map(|n| (format!("lynsec 1/{n}.npy"), three.clone())).collect();
    fails("lynsec", &lynsec, ErrorKind::Shape, &["expected four channels, found 3"]);
}

#[test]
fn files_cut_short() {
    let mut members = good();
    members[0].1.truncate(60);
    fails("dsb", &members, ErrorKind::Format, &["images/a.tif"]);
    let mut png = grey_png(&raw(0, SIZE), SIZE);
    png.truncate(60);
    let cut = [("test/1_img.png".to_owned(), png), ("test/1_masks.png".to_owned(), grey_png(&ids(0, SIZE), SIZE))];
    fails("cellpose", &cut, ErrorKind::Format, &["1_img.png"]);
    for length in [9, 500, 9000] {
        let h5 = (0..11).map(|n| (format!("{n:02}.h5"), fixture("image.h5")[..length].to_vec())).collect::<Vec<_>>();
        let folder = tempfile::tempdir().unwrap();
        let error = failure("covid_if", &[zip(folder.path(), "given.zip", &h5)], &folder.path().join("out"));
        assert!(
            matches!(error.kind(), ErrorKind::Format | ErrorKind::NotFound) && error.member() == Some("10.h5"),
            "{error}"
        );
    }
    let npz = fixture("tissuenet.npz");
    let npz = vec![("tissuenet_v1.1_test.npz".to_owned(), npz[..npz.len() / 2].to_vec())];
    fails("tissuenet", &npz, ErrorKind::Format, &["tissuenet_v1.1_test.npz", "damaged or cut short"]);
    let array = npy(&[1, 12, 14, 3], &[0.0; 504]);
    let cut = [("images.npy".to_owned(), array[..900].to_vec()), ("masks.npy".to_owned(), array)];
    fails("pannuke", &cut, ErrorKind::Format, &["images.npy", "found 900 bytes"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given.zip");
    std::fs::write(&path, &zip_bytes(&good())[..300]).unwrap();
    assert_eq!(failure("dsb", &[path], &folder.path().join("out")).kind(), ErrorKind::Format);
}

#[test]
fn damaged_annotations() {
    let pair = |text: &str| {
        [
            ("MoNuSegTestData/a.tif".to_owned(), common::rgb_tif(&raw(0, SIZE), SIZE)),
            ("MoNuSegTestData/a.xml".to_owned(), text.as_bytes().to_vec()),
        ]
    };
    fails("monuseg", &pair("<Region><Vertex X='1'"), ErrorKind::Format, &["a.xml", "XML"]);
    fails("monuseg", &pair("<Region><Vertex X='one' Y='2'/></Region>"), ErrorKind::Format, &["a.xml", "\"one\""]);
    let hpa = [
        ("train/a/protein.png".to_owned(), grey_png(&[0; 144], [12, 12])),
        ("train/a/annotation.json".to_owned(), b"{\"features\": 3".to_vec()),
    ];
    fails("hpa", &hpa, ErrorKind::Format, &["annotation.json", "GeoJSON"]);
    let coco = [
        ("livecell_coco_test.json".to_owned(), b"{\"images\": []".to_vec()),
        ("livecell_test_images/a.tif".to_owned(), tif(&[raw(0, SIZE)], SIZE)),
    ];
    fails("livecell", &coco, ErrorKind::Format, &["livecell_coco_test.json", "COCO"]);
}

#[test]
fn bytes_turned_over_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let originals: [(&str, &str, Vec<u8>); 3] = [
        ("covid_if", "11.h5", fixture("image.h5")),
        ("tissuenet", "tissuenet_v1.1_test.npz", fixture("tissuenet.npz")),
        ("tissuenet", "images.zip", fixture("images.zip")),
    ];
    let mut state = 1_u64;
    for (key, name, bytes) in originals {
        for round in 0..40 {
            let mut broken = bytes.clone();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % if round % 2 == 0 { 2048.min(broken.len()) } else { broken.len() };
                broken[at] ^= (state >> 20) as u8 | 1;
            }
            let path = folder.path().join(name);
            std::fs::File::create(&path).unwrap().write_all(&broken).unwrap();
            let options =
                PrepareOptions { split: Val, check_hashes: false, replace: true, ..PrepareOptions::default() };
            // Whatever comes out, it comes out as a result.
            let _ = prepare(find(key).unwrap(), &[path], folder.path(), &options, &mut |_, _| ());
        }
    }
}

#[test]
fn hashes_and_earlier_results() {
    let folder = tempfile::tempdir().unwrap();
    let archive = zip(folder.path(), "dsb2018.zip", &good());
    let run = |options: &PrepareOptions| {
        prepare(find("dsb").unwrap(), std::slice::from_ref(&archive), folder.path(), options, &mut |_, _| ())
    };
    let error = run(&PrepareOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Hash);
    let text = error.to_string();
    assert!(text.contains("dsb2018.zip: SHA-256: expected e44921950e") && text.contains("found "), "{text}");
    assert!(!folder.path().join("dsb").exists());
    let any = PrepareOptions { check_hashes: false, ..PrepareOptions::default() };
    let set = run(&any).unwrap();
    let manifest = std::fs::read_to_string(set.folder.join("manifest.json")).unwrap();
    assert!(manifest.contains("\"published_hash\": \"different\""), "{manifest}");
    assert_eq!(run(&any).unwrap_err().kind(), ErrorKind::Value);
    run(&PrepareOptions { replace: true, ..any }).unwrap();
    assert_eq!(std::fs::read_to_string(set.folder.join("manifest.json")).unwrap(), manifest);
    let (no_file, elsewhere) = (folder.path().join("no.zip"), folder.path().join("elsewhere"));
    let absent = prepare(find("dsb").unwrap(), &[no_file], elsewhere, &PrepareOptions::default(), &mut |_, _| ());
    assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
}
