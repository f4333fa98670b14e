//! What one core can do at most, by number format: multiply-adds on registers alone, no memory.
//! `cargo run --release -p cytomask-kernels --example peaks`.
//!
//! Rates count a multiplication and an addition as two. Best of several runs, since a busy machine can only slow one down.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("x86-64 only");
}

#[cfg(target_arch = "x86_64")]
fn main() {
    x86::main();
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions by name, on registers only; each is looked for first")]
mod x86 {
    use std::arch::{asm, is_x86_feature_detected as has};
    use std::time::Instant;

    /// 24 independent sums: more than latency times instructions a cycle on any machine so far.
    const SUMS: f64 = 24.0;

    macro_rules! sums {
        ($name:ident, $instruction:literal) => {
            /// SAFETY: the machine has the instruction and AVX-512.
            #[target_feature(enable = "avx512f")]
            unsafe fn $name(rounds: u64) {
                // SAFETY: registers only, all declared.
                unsafe {
                    asm!(
                        // Zeros: no denormals, no NaN.
                        "vpxord zmm30, zmm30, zmm30",
                        "vpxord zmm31, zmm31, zmm31",
                        "2:",
                        concat!($instruction, " zmm0, zmm30, zmm31"), concat!($instruction, " zmm1, zmm30, zmm31"),
                        concat!($instruction, " zmm2, zmm30, zmm31"), concat!($instruction, " zmm3, zmm30, zmm31"),
                        concat!($instruction, " zmm4, zmm30, zmm31"), concat!($instruction, " zmm5, zmm30, zmm31"),
                        concat!($instruction, " zmm6, zmm30, zmm31"), concat!($instruction, " zmm7, zmm30, zmm31"),
                        concat!($instruction, " zmm8, zmm30, zmm31"), concat!($instruction, " zmm9, zmm30, zmm31"),
                        concat!($instruction, " zmm10, zmm30, zmm31"), concat!($instruction, " zmm11, zmm30, zmm31"),
                        concat!($instruction, " zmm12, zmm30, zmm31"), concat!($instruction, " zmm13, zmm30, zmm31"),
                        concat!($instruction, " zmm14, zmm30, zmm31"), concat!($instruction, " zmm15, zmm30, zmm31"),
                        concat!($instruction, " zmm16, zmm30, zmm31"), concat!($instruction, " zmm17, zmm30, zmm31"),
                        concat!($instruction, " zmm18, zmm30, zmm31"), concat!($instruction, " zmm19, zmm30, zmm31"),
                        concat!($instruction, " zmm20, zmm30, zmm31"), concat!($instruction, " zmm21, zmm30, zmm31"),
                        concat!($instruction, " zmm22, zmm30, zmm31"), concat!($instruction, " zmm23, zmm30, zmm31"),
                        "dec {rounds}",
                        "jnz 2b",
                        rounds = inout(reg) rounds => _,
                        out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                        out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                        out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _,
                        out("zmm17") _, out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _,
                        out("zmm22") _, out("zmm23") _, out("zmm30") _, out("zmm31") _,
                        options(nomem, nostack),
                    );
                }
            }
        };
    }

    sums!(f32_sums, "vfmadd231ps");
    sums!(f16_sums, "vfmadd231ph");
    sums!(bf16_sums, "vdpbf16ps");
    sums!(int8_sums, "vpdpbusd");

    pub(super) fn main() {
        let f32_too = has!("avx512f");
        for (name, has, operations, run) in [
            ("f32    vfmadd231ps", f32_too, 32.0, f32_sums as unsafe fn(u64)),
            ("f16    vfmadd231ph (sums in f16)", f32_too && has!("avx512fp16"), 64.0, f16_sums),
            ("bf16   vdpbf16ps (sums in f32)", f32_too && has!("avx512bf16"), 64.0, bf16_sums),
            ("8 bits vpdpbusd (sums in i32)", f32_too && has!("avx512vnni"), 128.0, int8_sums),
        ] {
            if !has {
                println!("{name:<36} not on this machine");
                continue;
            }
            let rounds = 1_000_000;
            let fastest = (0..20).map(|_| {
                let start = Instant::now();
                // SAFETY: the instruction was found.
                unsafe { run(rounds) };
                start.elapsed().as_secs_f64()
            });
            let seconds = fastest.fold(f64::INFINITY, f64::min);
            let instructions = SUMS * rounds as f64 / seconds / 1e9;
            println!("{name:<36} {:>6.0} G/s, {instructions:.2} G instructions/s", instructions * operations);
        }
    }
}
