//! The program from outside, and small images made for it.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by several test files, none of which uses all of it"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a run of the program left behind.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Asserts the exit code and that stderr holds every given text.
    #[track_caller]
    pub fn fails(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} not in stderr: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

pub fn cytomask<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cytomask"));
    let Output { status, stdout, stderr } = command.args(arguments).output().expect("the program starts");
    Outcome {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Runs `segment IMAGE -o OUT` with more arguments.
pub fn segment(image: &Path, output: &Path, more: &[&str]) -> Outcome {
    let mut arguments: Vec<std::ffi::OsString> = vec!["segment".into(), image.into(), "-o".into(), output.into()];
    arguments.extend(more.iter().map(Into::into));
    cytomask(arguments)
}

/// A grey image with bright discs on a dark ground, 8 bit.
pub fn discs(height: u32, width: u32) -> Vec<u8> {
    (0..height * width)
        .map(|at| {
            let (y, x) = (i64::from(at / width), i64::from(at % width));
            let inside = [(24, 30), (60, 40), (40, 90), (75, 100)]
                .iter()
                .any(|(cy, cx)| (y - cy).pow(2) + (x - cx).pow(2) < 100);
            // A little texture, so that no percentile degenerates.
            let texture = ((y * 7 + x * 13) % 11) as u8;
            if inside { 180 + texture } else { 20 + texture }
        })
        .collect()
}

pub fn write_png(path: &Path, height: u32, width: u32, pixels: &[u8]) -> PathBuf {
    let file = std::fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    path.to_path_buf()
}

pub fn write_float_tiff(path: &Path, height: u32, width: u32, pixels: &[f32]) -> PathBuf {
    let file = std::fs::File::create(path).unwrap();
    let mut encoder = tiff::encoder::TiffEncoder::new(file).unwrap();
    encoder.write_image::<tiff::encoder::colortype::Gray32Float>(width, height, pixels).unwrap();
    path.to_path_buf()
}

/// Every file below `folder`, for asserting what was (not) written.
pub fn files_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
