//! Which vector instructions the machine has.

use std::sync::OnceLock;

/// An instruction set the loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain loops, for what the compiler may assume everywhere: SSE2 on x86-64, NEON on ARM.
    Portable,
    /// NEON, which every 64-bit ARM has: products in registers, everything else as [`Level::Portable`].
    Neon,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Level {
    /// The best one this machine has. The variable `CYTOMASK_SIMD` (`portable`, `neon`, `avx2`, `avx512`) lowers it, for
    /// comparisons.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| {
            let wanted = match std::env::var("CYTOMASK_SIMD").as_deref() {
                Ok("portable") => Self::Portable,
                Ok("neon") => Self::Neon,
                Ok("avx2") => Self::Avx2,
                _ => Self::Avx512,
            };
            Self::all().filter(|&level| level <= wanted).max().unwrap_or(Self::Portable)
        })
    }

    /// All that this machine has, worst first.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512].into_iter().filter(|level| level.found())
    }

    fn found(self) -> bool {
        if self == Self::Portable {
            return true;
        }
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma");
            match self {
                Self::Portable | Self::Neon => false,
                Self::Avx2 => avx2,
                Self::Avx512 => avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl"),
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            self == Self::Neon && std::arch::is_aarch64_feature_detected!("neon")
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            false
        }
    }
}

/// `a · b + c`: in one rounding where the level has the instruction, which `FUSED` says; elsewhere it would be a call.
#[inline(always)]
pub(crate) fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// The larger one; `most` if `value` is not a number.
#[inline(always)]
pub(crate) fn larger(most: f32, value: f32) -> f32 {
    if value > most { value } else { most }
}

/// The lanes of a register joined by halves: one after the other each would wait for the one before.
#[inline(always)]
pub(crate) fn by_halves(lanes: [f32; 16], join: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| join(lanes[lane], lanes[lane + 8]));
    let four: [f32; 4] = std::array::from_fn(|lane| join(eight[lane], eight[lane + 4]));
    join(join(four[0], four[2]), join(four[1], four[3]))
}

/// Compiles a function of plain loops for each [`Level`] and calls the one asked for. The body must be `#[inline(always)]`.
/// `= fused body` calls `body::<FUSED>` with what [`fma`] wants to know.
macro_rules! for_each_level {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident = $body:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)?) => {
        $crate::level::for_each_level! {
            @ [$(#[$meta])*] $visibility $name [$body] [$body] ($($argument: $kind),*) ($($result)?)
        }
    };
    ($(#[$meta:meta])* $visibility:vis fn $name:ident = fused $body:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)?) => {
        $crate::level::for_each_level! {
            @ [$(#[$meta])*] $visibility $name [$body::<true>] [$body::<{ cfg!(target_arch = "aarch64") }>]
            ($($argument: $kind),*) ($($result)?)
        }
    };
    (@ [$(#[$meta:meta])*] $visibility:vis $name:ident [$($wide:tt)*] [$($plain:tt)*] ($($argument:ident: $kind:ty),*) ($($result:ty)?)) => {
        $(#[$meta])*
        $visibility fn $name(level: $crate::Level, $($argument: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
                fn avx512($($argument: $kind),*) $(-> $result)? {
                    $($wide)*($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $kind),*) $(-> $result)? {
                    $($wide)*($($argument),*)
                }
                match level {
                    #[expect(unsafe_code, reason = "a level above Portable only comes from Level::found")]
                    // SAFETY: the machine has these instructions.
                    $crate::Level::Avx512 => return unsafe { avx512($($argument),*) },
                    #[expect(unsafe_code, reason = "a level above Portable only comes from Level::found")]
                    // SAFETY: the machine has these instructions.
                    $crate::Level::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::Level::Portable | $crate::Level::Neon => {}
                }
            }
            let _ = level;
            $($plain)*($($argument),*)
        }
    };
}
pub(crate) use for_each_level;
