//! Rate of each kernel against the best this core can do: `cargo run --release -p cytomask-kernels --example rates`.
//!
//! Rates are for each core: operations over the seconds of all threads, the best of several runs, since a busy machine can only
//! slow one down. `RAYON_NUM_THREADS=1` for one thread.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use std::hint::black_box;
use std::time::Instant;

use cytomask_kernels::{
    Activation, AttentionShape, Conv2dShape, Level, Map, MapAttention, Packed, Packed8, Positions, QkvOrder,
    SplitWeight, Weight3x3, buffers,
};

/// Seconds that all threads of this process were on a processor; `None` where the system does not say.
fn busy_seconds() -> Option<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    Some(nanoseconds / 1e9)
}

/// Seconds of the fastest run: of all threads together, so that other programs on the machine and waiting do not count; hence a
/// rate for each core.
fn fastest(runs: usize, mut work: impl FnMut()) -> f64 {
    work();
    let start = Instant::now();
    work();
    // The system tells processor time in steps of milliseconds: short work is repeated.
    let repeats = (0.05 / start.elapsed().as_secs_f64().max(1e-7)).ceil() as usize;
    let mut time = || {
        let (start, busy) = (Instant::now(), busy_seconds());
        (0..repeats).for_each(|_| work());
        let seconds = busy.zip(busy_seconds()).map(|(before, after)| after - before);
        seconds.unwrap_or_else(|| start.elapsed().as_secs_f64()) / repeats as f64
    };
    (0..runs).map(|_| time()).fold(f64::INFINITY, f64::min)
}

fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index % 97) as f32 / 48.0 - 1.0).collect()
}

/// Multiply-adds on registers alone: what no loop can pass.
fn peak() -> f64 {
    // Long enough for the clock to settle; the smallest product that stays in the first-level cache and has no edges.
    let (rows, k, columns) = (8, 512, 48);
    let (x, packed) = (wave(rows * k), Packed::from_columns(&wave(k * columns), [k, columns]));
    let seconds = fastest(10, || {
        black_box(cytomask_kernels::multiply(black_box(&x), &packed, None, Activation::None));
    });
    2.0 * (rows * k * columns) as f64 / seconds / 1e9
}

fn main() {
    println!("level {:?}", Level::best());
    println!("{:<44} {:>9.1} GFLOP/s", "tile 8 × 512 · 512 × 48, in cache", peak());
    for [rows, c_in, c_out] in [
        [4096, 768, 3072],
        [4096, 3072, 768],
        [4096, 768, 768],
        [16384, 128, 512],
        [4096, 64, 192],
        [14, 256, 256],
        [7, 256, 2048],
    ] {
        let (x, weight, bias) = (wave(rows * c_in), wave(c_in * c_out), wave(c_out));
        let seconds = fastest(5, || {
            black_box(cytomask_kernels::linear(&x, &weight, [c_out, c_in], Some(&bias), Activation::None));
        });
        report(&format!("linear {rows} × {c_in} → {c_out}"), 2.0 * (rows * c_in * c_out) as f64, seconds);
        let packed = Packed::from_rows(&weight, [c_out, c_in]);
        let seconds = fastest(5, || {
            buffers::give(black_box(cytomask_kernels::multiply(&x, &packed, Some(&bias), Activation::None)));
        });
        report("  packed before, into memory used before", 2.0 * (rows * c_in * c_out) as f64, seconds);
        let packed = Packed8::from_rows(&weight, [c_out, c_in]);
        let seconds = fastest(5, || {
            black_box(cytomask_kernels::multiply8(&x, &packed, Some(&bias), Activation::None));
        });
        report("  in 8 bits, weight packed", 2.0 * (rows * c_in * c_out) as f64, seconds);
    }
    for (c_in, side, c_out, kernel, stride) in [
        (256, 64, 256, 3, 1),
        (128, 128, 128, 3, 1),
        (64, 256, 64, 3, 1),
        (32, 512, 32, 3, 1),
        (16, 512, 16, 3, 1),
        (256, 64, 256, 1, 1),
        (3, 512, 32, 3, 2),
        (512, 128, 256, 3, 1),
    ] {
        let shape =
            Conv2dShape { n: 1, c_in, size: [side; 2], c_out, kernel: [kernel; 2], stride, padding: kernel / 2 };
        let (x, weight) = (wave(c_in * side * side), wave(c_in * c_out * kernel * kernel));
        let seconds = fastest(3, || {
            black_box(cytomask_kernels::conv2d(&x, &shape, &weight, None, Activation::None));
        });
        let out = shape.out_size();
        let flops = 2.0 * (c_in * kernel * kernel * c_out * out[0] * out[1]) as f64;
        report(&format!("conv {kernel} × {kernel} / {stride}, {c_in} → {c_out}, {side}²"), flops, seconds);
        if Weight3x3::suits(&shape) {
            let (maps, weight) = (Map::all(&x, side * side), Weight3x3::new(&weight, [c_out, c_in]));
            let seconds = fastest(3, || {
                buffers::give(black_box(cytomask_kernels::conv3x3(&maps, &shape, &weight, None, Activation::None)));
            });
            report("  with a quarter of the products (rate as if all)", flops, seconds);
        }
    }
    for (c, side, stride) in [(256, 128, 1), (256, 128, 2)] {
        let shape = Conv2dShape { n: 1, c_in: c, size: [side; 2], c_out: c, kernel: [3; 2], stride, padding: 1 };
        let (x, weight) = (wave(c * side * side), wave(c * 9));
        let seconds = fastest(3, || {
            black_box(cytomask_kernels::depthwise2d(&x, &shape, &weight, None, Activation::None));
        });
        report(
            &format!("depthwise 3 × 3 / {stride}, {c}, {side}²"),
            2.0 * (c * 9 * side * side / stride / stride) as f64,
            seconds,
        );
    }
    {
        let (c_in, c_out, side) = (256, 128, 128);
        let (x, weight) = (wave(c_in * side * side), SplitWeight::new(&wave(c_in * c_out * 4), [c_in, c_out]));
        let seconds = fastest(3, || {
            black_box(cytomask_kernels::conv_transpose2x2(&x, [1, c_in, side, side], &weight, None, Activation::None));
        });
        report(
            &format!("transposed 2 × 2, {c_in} → {c_out}, {side}²"),
            2.0 * (c_in * c_out * 4 * side * side) as f64,
            seconds,
        );
    }
    for (batch, side, head) in [(1, 64, 64), (300, 14, 64), (400, 7, 32)] {
        let tokens = side * side;
        let shape = AttentionShape { batch, queries: tokens, keys: tokens, head };
        let (q, terms) = (wave(batch * tokens * head), wave(batch * tokens * side));
        let seconds = fastest(3, || {
            black_box(cytomask_kernels::relative_attention([&q, &q, &q], &shape, 0.1, [&terms, &terms], [side; 2]));
        });
        report(
            &format!("relative attention, {batch} × {side}² tokens, {head}"),
            4.0 * (batch * tokens * tokens * head) as f64,
            seconds,
        );
    }
    for (name, map, window, heads, head) in [
        ("map attention, 64² tokens, 12 heads of 64", 64, 64, 12, 64),
        ("  in windows of 14²", 64, 14, 12, 64),
        ("map attention, 64² tokens, 16 heads of 80", 64, 64, 16, 80),
        ("  in windows of 14²", 64, 14, 16, 80),
        ("map attention, windows of 7², 10 heads of 32", 64, 7, 10, 32),
    ] {
        let (qkv, table) = (wave(map * map * 3 * heads * head), wave((2 * window - 1) * head));
        let shape = MapAttention {
            n: 1,
            map: [map; 2],
            window: [window; 2],
            heads,
            head,
            order: QkvOrder::PartsFirst,
            scale: 0.1,
            outside: None,
            positions: Positions::Relative { rows: &table, columns: &table },
        };
        let seconds = fastest(5, || buffers::give(black_box(cytomask_kernels::map_attention(&qkv, &shape))));
        let operations = 4.0 * (map * map * window * window * heads * head) as f64;
        report(name, operations, seconds);
        let seconds = fastest(5, || buffers::give(black_box(cytomask_kernels::map_attention8(&qkv, &shape))));
        report("    in 8 bits", operations, seconds);
    }
    let mut values = wave(1 << 22);
    let seconds = fastest(5, || cytomask_kernels::gelu(black_box(&mut values)));
    println!("{:<44} {:>9.2} ns a value", "gelu", seconds * 1e9 / values.len() as f64);
}

fn report(what: &str, flops: f64, seconds: f64) {
    println!("{what:<44} {:>9.1} GFLOP/s {:>9.2} ms", flops / seconds / 1e9, seconds * 1e3);
}
