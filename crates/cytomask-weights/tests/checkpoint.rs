//! Reading what torch writes, reading back what this crate writes, and surviving everything else.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use cytomask_weights::{
    Checkpoint, DType, ErrorKind, Family, HalfTensor, Kind, TensorMap, TensorView, write_safetensors, write_torch,
};

type Tensor = (String, Vec<usize>, Vec<f32>);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32).collect()
}

fn values(map: &TensorMap, name: &str) -> Vec<f32> {
    map.get(name).unwrap_or_else(|| panic!("{name}")).to_f32().unwrap()
}

fn tensor(name: &str, shape: &[usize]) -> Tensor {
    (name.into(), shape.to_vec(), numbers(shape.iter().product()))
}

/// A state dict with just the tensors that tell a family.
fn saved(dir: &Path, tensors: &[Tensor]) -> PathBuf {
    let path = dir.join("model.safetensors");
    write_safetensors(&path, tensors, &BTreeMap::new()).unwrap();
    path
}

#[test]
fn flat_torch_file() {
    let checkpoint = Checkpoint::open(fixture("checkpoint_flat.pt")).unwrap();
    assert_eq!(checkpoint.kind(), Kind::Model);
    assert_eq!(checkpoint.family().unwrap(), Family::VitB);
    let map = checkpoint.model();
    assert_eq!(map.len(), 16);
    assert_eq!(values(map, "image_encoder.patch_embed.proj.weight"), numbers(768));
    let transposed = map.get("transposed").unwrap();
    assert_eq!((transposed.shape, transposed.dtype), (&[4, 3][..], DType::F32));
    assert_eq!(values(map, "transposed"), [0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]);
    assert_eq!(values(map, "offset"), [5., 6., 7., 8., 9., 10.]);
    assert_eq!(values(map, "strided"), [1., 3., 5., 7., 9., 11., 13., 15., 17., 19., 21., 23.]);
    assert_eq!((values(map, "scalar"), map.get("scalar").unwrap().shape), (vec![7.], &[][..]));
    assert_eq!(map.get("empty").unwrap().shape, [0, 3]);
    assert_eq!(values(map, "parameter"), numbers(4));
    let types = ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"];
    for name in types {
        assert_eq!(values(map, &format!("types.{name}")), numbers(5), "{name}");
    }
    assert_eq!(values(map, "types.bool"), [1., 0., 1.]);
    assert_eq!(map.get("types.float16").unwrap().dtype, DType::F16);
    let mut names: Vec<&str> = map.names().collect();
    names.sort_unstable();
    assert!(map.names().eq(names));
}

#[test]
fn training_checkpoint_with_foreign_classes() {
    for name in ["checkpoint_joint.pt", "checkpoint_joint_protocol4.pt"] {
        let checkpoint = Checkpoint::open(fixture(name)).unwrap();
        assert_eq!(checkpoint.kind(), Kind::ModelWithDecoder);
        assert_eq!(checkpoint.family().unwrap(), Family::VitL);
        let names: Vec<&str> = checkpoint.model().names().collect();
        assert_eq!(names, ["image_encoder.patch_embed.proj.weight", "mask_decoder.iou_token.weight"]);
        let decoder = checkpoint.decoder().unwrap();
        assert_eq!(decoder.len(), 4, "the encoder's tensors are not the decoder's");
        assert_eq!(values(decoder, "deconv1.block.1.weight"), [1., 2., 3., 4., 5., 6.]);
    }
}

#[test]
fn decoder_alone() {
    let checkpoint = Checkpoint::open(fixture("checkpoint_decoder.pt")).unwrap();
    assert_eq!(checkpoint.kind(), Kind::Decoder);
    assert_eq!(checkpoint.family().unwrap(), Family::UnetrDecoder);
    assert!(checkpoint.model().is_empty());
    assert_eq!(values(checkpoint.decoder().unwrap(), "base.block.1.weight"), numbers(6));
}

#[test]
fn legacy_files_and_whole_objects_are_explained() {
    let error = Checkpoint::open(fixture("checkpoint_legacy.pt")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("torch.save(torch.load("), "{error}");
    let error = Checkpoint::open(fixture("checkpoint_object.pt")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("Settings"), "{error}");
}

#[test]
fn deflated_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deflated.pt");
    let mut source = zip::ZipArchive::new(std::fs::File::open(fixture("checkpoint_flat.pt")).unwrap()).unwrap();
    let mut target = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for index in 0..source.len() {
        let mut entry = source.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        target.start_file(entry.name().unwrap().into_owned(), options).unwrap();
        target.write_all(&bytes).unwrap();
    }
    target.finish().unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(values(checkpoint.model(), "offset"), [5., 6., 7., 8., 9., 10.]);
}

#[test]
fn safetensors_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let tensors = [tensor("b", &[2, 3]), tensor("a", &[]), tensor("decoder_state/c", &[4])];
    let metadata = BTreeMap::from([("licence".to_owned(), "MIT".to_owned())]);
    write_safetensors(&path, &tensors, &metadata).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.metadata(), &metadata);
    assert_eq!(checkpoint.path(), Some(path.as_path()));
    assert_eq!(checkpoint.kind(), Kind::ModelWithDecoder);
    checkpoint.model().check(&[("a", vec![]), ("b", vec![2, 3])]).unwrap();
    assert_eq!(values(checkpoint.model(), "b"), numbers(6));
    assert_eq!(values(checkpoint.decoder().unwrap(), "c"), numbers(4));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");

    let half = HalfTensor { name: "h".into(), shape: vec![3], values: vec![0.1, 1.0, -2.5] };
    write_safetensors(&path, &[half], &BTreeMap::new()).unwrap();
    let view = Checkpoint::open_tensors(&path).unwrap();
    assert_eq!(view.get("h").unwrap().dtype, DType::F16);
    assert_eq!(values(&view, "h"), [0.099_975_586, 1.0, -2.5]);
}

#[test]
fn torch_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pt");
    let (model, decoder) = ([tensor("image_encoder.x", &[2, 3])], [tensor("out_conv.bias", &[3])]);
    write_torch(&path, &model, Some(&decoder)).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(values(checkpoint.model(), "image_encoder.x"), numbers(6));
    assert_eq!(values(checkpoint.decoder().unwrap(), "out_conv.bias"), numbers(3));
    // Number types and views of what torch wrote come back.
    let source = Checkpoint::open(fixture("checkpoint_flat.pt")).unwrap();
    let views: Vec<TensorView<'_>> = source.model().iter().collect();
    write_torch(&path, &views, None).unwrap();
    let copy = Checkpoint::open(&path).unwrap();
    for (a, b) in source.model().iter().zip(copy.model().iter()) {
        assert_eq!((a.name, a.shape, a.dtype, a.bytes()), (b.name, b.shape, b.dtype, b.bytes()));
    }
    assert_eq!(source.model().len(), copy.model().len());
}

#[test]
fn writing_refuses_what_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pt");
    let wrong: Tensor = ("x".into(), vec![2, 2], vec![0.0; 3]);
    for result in [
        write_torch(&path, std::slice::from_ref(&wrong), None),
        write_safetensors(&path, &[wrong], &BTreeMap::new()),
        write_torch(&path, &[tensor("x", &[1]), tensor("x", &[1])], None),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Tensor);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    let nowhere = dir.path().join("missing/a.pt");
    assert_eq!(write_torch(nowhere, &[tensor("x", &[1])], None).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn families() {
    let dir = tempfile::tempdir().unwrap();
    let family = |names: &[(&str, &[usize])]| {
        let tensors: Vec<Tensor> = names.iter().map(|(name, shape)| tensor(name, shape)).collect();
        Checkpoint::open(saved(dir.path(), &tensors)).unwrap().family()
    };
    let patch = "image_encoder.patch_embed.proj.weight";
    assert_eq!(family(&[(patch, &[768, 3, 1, 1])]).unwrap(), Family::VitB);
    assert_eq!(family(&[(patch, &[1280, 3, 1, 1])]).unwrap(), Family::VitH);
    let t = "image_encoder.layers.0.blocks.0.conv1.c.weight";
    assert_eq!(family(&[(t, &[1])]).unwrap(), Family::VitT);
    let slim = [(t, &[1][..]), ("instance_decoder.out_conv.bias", &[3]), ("mask_refiner.conv3.bias", &[16])];
    assert_eq!(family(&slim).unwrap(), Family::CytomaskT);
    type Names<'a> = &'a [(&'a str, &'a [usize])];
    let tokens = ("encoder.patch_embed.proj.weight", &[1024, 3, 8, 8][..]);
    assert_eq!(family(&[("W2", &[1]), tokens]).unwrap(), Family::CellposeSam);
    let tokens_in_parallel = ("module.encoder.patch_embed.proj.weight", &[1024, 3, 8, 8][..]);
    assert_eq!(family(&[("module.W2", &[1]), tokens_in_parallel]).unwrap(), Family::CellposeSam);
    assert_eq!(family(&[("downsample.down.res_down_0.conv.conv_0.0.weight", &[2])]).unwrap(), Family::Cellpose);
    let error = family(&[tokens]).unwrap_err();
    assert!(error.to_string().contains("without its tensor `W2`: not a file of Cellpose 4"), "{error}");
    let error = family(&[("W2", &[1]), tokens, ("encoder.cls_token", &[1])]).unwrap_err();
    assert!(error.to_string().contains("DINOv3"), "{error}");
    let foreign: [(Names<'_>, &str); 3] = [
        (&[("image_encoder.trunk.pos_embed", &[1]), ("sam_mask_decoder.x", &[1])], "SAM 2"),
        (&[("detector.backbone.vision_backbone.trunk.pos_embed", &[1])], "SAM 3"),
        (&[("model.image_encoder.pos_embed", &[1]), ("cellfinder.decode_head.x", &[1])], "CellSAM"),
    ];
    for (names, expected) in foreign {
        let error = family(names).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(&format!("this is a {expected} checkpoint")), "{error}");
    }
    let error = family(&[(patch, &[5, 3, 1, 1])]).unwrap_err();
    assert!(error.to_string().contains("[5, 3, 1, 1]"), "{error}");
    let error = family(&[("resnet.conv1", &[5])]).unwrap_err();
    assert!(error.to_string().contains("resnet.conv1") && error.path().is_some(), "{error}");
}

#[test]
fn no_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    let kind = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&path).unwrap_err();
        assert!(error.to_string().contains("x.pt"), "{error}");
        error.kind()
    };
    assert_eq!(kind(b""), ErrorKind::Format);
    assert_eq!(kind(b"hello"), ErrorKind::Format);
    assert_eq!(kind(b"PK\x03\x04"), ErrorKind::Format);
    assert_eq!(kind(b"\xff\xff\xff\xff\xff\xff\xff\xff{}"), ErrorKind::Format);
    assert_eq!(kind(b"\x02\x00\x00\x00\x00\x00\x00\x00{}"), ErrorKind::Format);
    let flat = std::fs::read(fixture("checkpoint_flat.pt")).unwrap();
    assert_eq!(kind(&flat[..flat.len() / 2]), ErrorKind::Format);
    assert_eq!(Checkpoint::open(dir.path()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(Checkpoint::open(dir.path().join("none")).unwrap_err().kind(), ErrorKind::Io);
}

/// A torch file around a given pickle.
fn with_pickle(path: &Path, pickle: &[u8], storage: &[u8]) {
    let mut target = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("archive/data.pkl", pickle), ("archive/data/0", storage)] {
        target.start_file(name, options).unwrap();
        target.write_all(bytes).unwrap();
    }
    target.finish().unwrap();
}

#[test]
fn hostile_pickles() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    let open = |pickle: &[u8]| {
        with_pickle(&path, pickle, &[0; 16]);
        Checkpoint::open(&path)
    };
    // A million lists inside each other: no recursion anywhere.
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(std::iter::repeat_n(b']', 1_000_000));
    deep.extend(std::iter::repeat_n(b'a', 999_999));
    deep.push(b'.');
    assert_eq!(open(&deep).unwrap_err().kind(), ErrorKind::Format);
    // A dictionary that holds itself.
    assert!(open(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.").is_err());
    // os.system("x"): a call is an opaque value, and no dictionary.
    assert!(open(b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R.").is_err());
    // Lengths beyond the file, empty stacks, missing marks and memos, no end.
    for pickle in [
        &b"\x80\x02X\xff\xff\xff\xffa."[..],
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
        b"\x80\x02\x8b\xff\xff\xff\xff.",
        b"\x80\x02.",
        b"\x80\x02t.",
        b"\x80\x02(\x87.",
        b"\x80\x02h\x05.",
        b"\x80\x02}",
        b"\x80\x09}.",
        b"\x80\x02}(X\x01\x00\x00\x00au.",
        b"\x80\x02\xfe.",
    ] {
        assert!(open(pickle).is_err(), "{pickle:?}");
    }
    // One long dictionary copied again and again.
    let mut copies = b"\x80\x02}(".to_vec();
    copies.extend(b"K\x01K\x01".repeat(100_000));
    copies.extend(b"uq\x00");
    copies.extend(b"0ccollections\nOrderedDict\nh\x00\x85R".repeat(10_000));
    copies.push(b'.');
    assert!(open(&copies).unwrap_err().to_string().contains("values"));
}

#[test]
fn hostile_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    let open = |offset: i64, shape: i64, stride: i64, count: i64| {
        let long = |value: i64| [&[0x8a, 8][..], &value.to_le_bytes()].concat();
        let pickle = [
            &b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n\
               X\x01\x00\x00\x000X\x03\x00\x00\x00cpu"[..],
            &long(count),
            b"tQ",
            &long(offset),
            &long(shape),
            b"\x85",
            &long(stride),
            b"\x85\x89}tRs.",
        ]
        .concat();
        with_pickle(&path, &pickle, &[0; 16]);
        Checkpoint::open(&path).map(|checkpoint| checkpoint.model().get("x").unwrap().to_f32().unwrap().len())
    };
    assert_eq!(open(0, 4, 1, 4).unwrap(), 4);
    assert_eq!(open(3, 1000, 0, 4).unwrap(), 1000);
    for (offset, shape, stride, count) in [
        (1, 4, 1, 4),
        (0, 5, 1, 4),
        (0, 4, 1, 5),
        (-1, 4, 1, 4),
        (0, i64::MAX, 1, 4),
        (0, i64::MAX, 0, 4),
        (0, 4, i64::MAX, 4),
        (i64::MAX, 4, i64::MAX, i64::MAX),
        (0, 4, -1, 4),
    ] {
        let error = open(offset, shape, stride, count).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format, "{error}");
    }
}

/// Every tensor that can be opened can be read.
fn read_all(bytes: &[u8], path: &Path) {
    std::fs::write(path, bytes).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(path) {
        drop(checkpoint.family());
        for view in checkpoint.model().iter().chain(checkpoint.decoder().into_iter().flat_map(TensorMap::iter)) {
            assert_eq!(view.to_f32().unwrap().len(), view.count());
        }
    }
}

#[test]
fn damaged_files_give_errors_not_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged");
    let safetensors = saved(dir.path(), &[tensor("a", &[2, 3]), tensor("decoder_state/b", &[4])]);
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for source in [fixture("checkpoint_flat.pt"), fixture("checkpoint_joint_protocol4.pt"), safetensors] {
        let good = std::fs::read(&source).unwrap();
        for _ in 0..60 {
            read_all(&good[..next(good.len())], &path);
        }
        for round in 0..300 {
            let mut bad = good.clone();
            // Mostly where structure is: the pickle at the start, the directory at the end.
            let length = bad.len();
            for _ in 0..=round % 4 {
                let near = next(length.min(3000));
                let at = if round % 2 == 0 { near } else { length - 1 - near };
                bad[at] ^= 1 << next(8);
            }
            read_all(&bad, &path);
        }
    }
    // The checksum hides the pickle from flips in the archive, so it is also damaged inside a fresh archive.
    let mut archive = zip::ZipArchive::new(std::fs::File::open(fixture("checkpoint_joint.pt")).unwrap()).unwrap();
    let index = (0..archive.len()).find(|&i| archive.by_index(i).unwrap().name().unwrap().ends_with("data.pkl"));
    let mut pickle = Vec::new();
    archive.by_index(index.unwrap()).unwrap().read_to_end(&mut pickle).unwrap();
    for _ in 0..600 {
        let mut bad = pickle.clone();
        for _ in 0..=next(3) {
            let at = next(bad.len());
            bad[at] = next(256) as u8;
        }
        with_pickle(&path, &bad, &[0; 4096]);
        let bytes = std::fs::read(&path).unwrap();
        read_all(&bytes, &path);
    }
}
