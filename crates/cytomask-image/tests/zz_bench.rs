//! Temporary.
use cytomask_image::{LogitFrame, LogitMap};
#[test]
fn bench() {
    for (name, grid, frame, radius) in [
        ("sam 256->1024->1024x768->1536x1152 r=30px", [256, 256], LogitFrame { padded: [1024, 1024], input: [1024, 768], image: [1536, 1152] }, 7.0_f32),
        ("sam ->520x696, r=20 grid", [256, 256], LogitFrame { padded: [1024, 1024], input: [765, 1024], image: [520, 696] }, 20.0),
        ("cytomask 256->512, r=10 grid", [256, 256], LogitFrame { padded: [512, 512], input: [512, 512], image: [512, 512] }, 10.0),
    ] {
        let values = (0..grid[0] * grid[1]).map(|i| radius - ((i / grid[1]) as f32 - 100.3).hypot((i % grid[1]) as f32 - 90.7)).collect();
        let map = LogitMap { grid, values, frame };
        let start = std::time::Instant::now();
        let n = 200;
        let mut area = 0;
        for _ in 0..n { area += map.threshold(&[-1.0, 0.0, 1.0])[1].area(); }
        let one = start.elapsed().as_secs_f64() / n as f64;
        let start = std::time::Instant::now();
        let length = map.to_image().len();
        eprintln!("{name}: threshold {:.1} us (area {}), to_image {:.1} us ({length})", one * 1e6, area / n, start.elapsed().as_secs_f64() * 1e6);
    }
}
