//! Where a network runs, chosen at run time among what was compiled in.

use burn::tensor::Device;

use crate::error::{Error, ErrorKind};

/// A choice of device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The fastest that was compiled in: CUDA, Metal, wgpu, CPU, in this order. Whether the machine has one is not asked.
    #[default]
    Auto,
    /// The processor (feature `flex`).
    Cpu,
    /// The first NVIDIA GPU (feature `cuda`).
    Cuda,
    /// The best GPU that Vulkan, Metal or DirectX offers (feature `wgpu`).
    Wgpu,
    /// An Apple GPU (feature `metal`).
    Metal,
}

impl DeviceChoice {
    /// All choices, for messages and completion.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Cpu, Self::Cuda, Self::Wgpu, Self::Metal];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
            Self::Metal => "metal",
        }
    }

    /// The device.
    ///
    /// # Errors
    /// `Unsupported`, naming the feature to build with, when the choice was not compiled in.
    pub fn open(self) -> Result<Device, Error> {
        match self {
            Self::Auto => [Self::Cuda, Self::Metal, Self::Wgpu, Self::Cpu]
                .into_iter()
                .find_map(Self::compiled)
                .ok_or_else(|| Self::Cpu.missing()),
            choice => choice.compiled().ok_or_else(|| choice.missing()),
        }
    }

    fn compiled(self) -> Option<Device> {
        match self {
            #[cfg(feature = "flex")]
            Self::Cpu => Some(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda => Some(Device::cuda(0)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "metal")]
            Self::Metal => Some(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
            _ => None,
        }
    }

    fn missing(self) -> Error {
        let feature = if self == Self::Cpu { "flex" } else { self.name() };
        let message = format!(
            "device `{}` is not part of this build: build with `--features {feature}`, or choose another device",
            self.name()
        );
        Error::new(ErrorKind::Unsupported, message)
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|choice| choice.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|choice| choice.name()).collect();
            Error::new(ErrorKind::Value, format!("device: expected one of {}, found `{name}`", known.join(", ")))
        })
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
