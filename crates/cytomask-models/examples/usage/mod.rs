//! What this process has used so far, as Linux tells it; zeros elsewhere. The programs here and those of cytomask-train report it.
#![allow(dead_code, reason = "each program takes what it reports")]

/// User and system seconds of all threads, to 10 ms.
pub(crate) fn processor_seconds() -> [f64; 2] {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold spaces; fields are counted after it.
    let fields: Vec<&str> =
        text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    [11, 12]
        .map(|index| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0) / TICKS_PER_SECOND)
}

/// Their sum.
pub(crate) fn cpu_seconds() -> f64 {
    processor_seconds().iter().sum()
}

/// Largest resident memory.
pub(crate) fn peak_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
