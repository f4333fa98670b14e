//! Runs one CPU loop a number of times, for counting its instructions: `instructions NAME TIMES`; without arguments the names.
//! `bench/instructions.sh` compares the counts with kept ones.
#![expect(clippy::print_stdout, reason = "a program that reports")]

use cytomask_kernels::{
    Activation, AttentionShape, BlockedMaps, Conv2dShape, Exchange, Map, MaskUpscaling, Packed, Queries, Weight3x3,
    attention, conv2d, conv3x3, depthwise2d_last, gather, gelu, instance_norm, layer_norm, multiply, softmax,
    upsample2,
};

type Loop = fn(usize);

const LOOPS: [(&str, Loop); 12] = [
    ("linear", |times| {
        let (x, packed) = (wave(196 * 256), Packed::from_rows(&wave(256 * 256), [256, 256]));
        repeat(times, || multiply(&x, &packed, None, Activation::None)[0]);
    }),
    ("attention", |times| {
        let shape = AttentionShape { batch: 2, queries: 196, keys: 196, head: 64 };
        let values = wave(2 * 196 * 64);
        repeat(times, || attention([&values, &values, &values], &shape, 0.125, None)[0]);
    }),
    ("conv3x3", |times| {
        let shape = Conv2dShape { n: 1, c_in: 32, size: [48, 48], c_out: 32, kernel: [3, 3], stride: 1, padding: 1 };
        let (x, weight) = (wave(32 * 48 * 48), wave(32 * 32 * 9));
        repeat(times, || conv2d(&x, &shape, &weight, None, Activation::None)[0]);
    }),
    ("conv3x3_points", |times| {
        let shape = Conv2dShape { n: 1, c_in: 32, size: [48, 48], c_out: 32, kernel: [3, 3], stride: 1, padding: 1 };
        let (x, weight) = (wave(32 * 48 * 48), Weight3x3::new(&wave(32 * 32 * 9), [32, 32]));
        let maps: Vec<Map<'_>> = Map::all(&x, 48 * 48).into_iter().map(|map| Map { factor: 0.5, ..map }).collect();
        repeat(times, || conv3x3(&maps, &shape, &weight, None, Activation::None)[0]);
    }),
    ("depthwise_last", |times| {
        let shape = Conv2dShape { n: 1, c_in: 64, size: [48, 48], c_out: 64, kernel: [3, 3], stride: 1, padding: 1 };
        let (x, weight) = (wave(64 * 48 * 48), wave(64 * 9));
        repeat(times, || depthwise2d_last(&x, &shape, &weight, None, Activation::None)[0]);
    }),
    ("layer_norm", |times| {
        let (x, terms) = (wave(196 * 256), wave(256));
        repeat(times, || layer_norm(&x, &terms, &terms, 1e-6)[0]);
    }),
    ("instance_norm", |times| {
        let (x, mut out) = (wave(16 * 64 * 64), vec![0.0; 16 * 64 * 64]);
        repeat(times, || {
            instance_norm(&x, 64 * 64, 1e-5, &mut out);
            out[0]
        });
    }),
    ("gelu", |times| {
        let mut x = wave(1 << 16);
        repeat(times, || {
            gelu(&mut x);
            x[0]
        });
    }),
    ("softmax", |times| {
        let mut x = wave(64 * 1024);
        repeat(times, || {
            softmax(&mut x, 1024);
            x[0]
        });
    }),
    ("upsample2", |times| {
        let x = wave(8 * 64 * 64);
        repeat(times, || upsample2(&x, [64, 64])[0]);
    }),
    ("exchange", |times| {
        let (channels, pixels, heads, tokens) = (256, 576, 8, 7);
        let maps = BlockedMaps::from_rows(&wave(pixels * channels), [1, pixels, channels]);
        let (of_tokens, terms) = (wave(heads * tokens * channels), wave(channels));
        let queries = Queries { values: &of_tokens, offsets: None, heads, tokens, groups: 1 };
        let exchange = Exchange {
            positions: &maps,
            image_of: &[0],
            pixel_queries: None,
            token_keys: queries,
            token_values: &of_tokens,
            bias: &terms,
            norm: (&terms, &terms, 1e-5),
            token_queries: queries,
        };
        let mut own = BlockedMaps::zeros(1, channels, pixels);
        repeat(times, || exchange.run(Some(&maps), &mut own)[0] + gather(&queries, &maps, &maps, &[0])[0]);
    }),
    ("masks", |times| {
        let (first, second, terms) = (wave(256 * 256), wave(128 * 64), wave(64));
        let upscaling = MaskUpscaling {
            first: &first,
            first_bias: &terms,
            norm: (&terms, &terms, 1e-6),
            second: &second,
            second_bias: &terms[..32],
        };
        let maps = BlockedMaps::from_rows(&wave(24 * 24 * 256), [1, 24 * 24, 256]);
        repeat(times, || upscaling.run(&maps, [24, 24], &terms[..32], 1)[0]);
    }),
];

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => LOOPS.iter().for_each(|(name, _)| println!("{name}")),
        [wanted, times] => {
            let (_, run) = LOOPS.iter().find(|(name, _)| name == wanted).ok_or(format!("no loop `{wanted}`"))?;
            run(times.parse().map_err(|error| format!("{times}: {error}"))?);
        }
        _ => return Err("expected a name and a number".into()),
    }
    Ok(())
}

fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index * 37 % 97) as f32 / 48.0 - 1.0).collect()
}

fn repeat(times: usize, mut run: impl FnMut() -> f32) {
    for _ in 0..times {
        std::hint::black_box(run());
    }
}
