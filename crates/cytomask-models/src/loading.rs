//! Copies tensors between checkpoints and modules by name.
//!
//! A parameter's name is its path of field names. Two things differ from a plain path: a field `_0` stands for the index `0` of
//! a PyTorch sequence (`neck._0.weight` is `neck.0.weight`), and the variant of an enum adds nothing. Files are read elsewhere
//! (crate `cytomask-weights`); this module sees names, shapes and values.

use std::collections::{BTreeMap, BTreeSet};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Tensor, TensorData},
};

use crate::error::{Error, ErrorKind};

/// Shape and row-major values of a tensor.
pub type Values = (Vec<usize>, Vec<f32>);

/// Named tensors, read one at a time.
pub trait TensorSource {
    /// All names, in any order.
    fn names(&self) -> Vec<String>;

    /// Shape and row-major values of one tensor; `None` when there is none of that name.
    fn get(&self, name: &str) -> Option<Result<Values, Error>>;
}

/// What [`load_into`] returns.
#[derive(Debug)]
pub struct Loaded<M> {
    /// The module with the checkpoint's values.
    pub module: M,
    /// Names under the prefix that the module has no place for, sorted. `num_batches_tracked` is not listed: it is a counter,
    /// not a weight.
    pub unused: Vec<String>,
}

/// Fills every parameter of `module` from the tensor named `prefix` + its path. A prefix that is not empty ends with a dot.
/// Holds one tensor at a time beside the module.
///
/// # Errors
/// `MissingTensor` or `Shape` for the first tensor that is absent or does not fit, and whatever the source reports.
pub fn load_into<M: Module>(module: M, source: &dyn TensorSource, prefix: &str) -> Result<Loaded<M>, Error> {
    let mut loader = Loader { path: Path::new(prefix), source, used: BTreeSet::new(), error: None };
    let module = module.map(&mut loader);
    if let Some(error) = loader.error {
        return Err(error);
    }
    let mut unused = source.names();
    unused.retain(|name| {
        name.starts_with(prefix) && !name.ends_with(".num_batches_tracked") && !loader.used.contains(name)
    });
    unused.sort_unstable();
    Ok(Loaded { module, unused })
}

/// One named tensor: name, shape, row-major values.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// Every parameter of `module` under the name [`load_into`] would look for.
pub fn state_dict<M: Module>(module: &M, prefix: &str) -> Vec<NamedTensor> {
    let mut collector = Collector { path: Path::new(prefix), tensors: Vec::new() };
    module.visit(&mut collector);
    collector.tensors
}

/// Name and shape of every parameter, in the module's order; allocates no values.
pub fn state_shapes<M: Module>(module: &M, prefix: &str) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Shapes { path: Path::new(prefix), shapes: Vec::new() };
    module.visit(&mut shapes);
    shapes.shapes
}

impl TensorSource for BTreeMap<String, Values> {
    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<Result<Values, Error>> {
        Self::get(self, name).cloned().map(Ok)
    }
}

impl TensorSource for cytomask_weights::TensorMap {
    fn names(&self) -> Vec<String> {
        Self::names(self).map(str::to_owned).collect()
    }

    fn get(&self, name: &str) -> Option<Result<Values, Error>> {
        let view = Self::get(self, name)?;
        Some(view.to_f32().map(|values| (view.shape.to_vec(), values)).map_err(Error::from))
    }
}

/// The position in the module tree; `None` for a level that adds nothing to the name.
struct Path {
    prefix: String,
    parts: Vec<Option<String>>,
}

impl Path {
    fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), parts: Vec::new() }
    }

    fn enter(&mut self, name: &str, container: &str) {
        let is_index = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        self.parts.push(if container.starts_with("Enum:") {
            None
        } else {
            Some(name.strip_prefix('_').filter(|rest| is_index(rest)).unwrap_or(name).to_owned())
        });
    }

    fn exit(&mut self) {
        self.parts.pop();
    }

    fn name(&self) -> String {
        let parts: Vec<&str> = self.parts.iter().flatten().map(String::as_str).collect();
        format!("{}{}", self.prefix, parts.join("."))
    }
}

struct Loader<'a> {
    path: Path,
    source: &'a dyn TensorSource,
    used: BTreeSet<String>,
    /// The first error; nothing is read after it.
    error: Option<Error>,
}

impl Loader<'_> {
    fn read(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        let (shape, values) = self.source.get(name).unwrap_or_else(|| {
            let message = format!("tensor `{name}` is missing: expected shape {expected:?}");
            Err(Error::new(ErrorKind::MissingTensor, message))
        })?;
        if shape != expected || values.len() != expected.iter().product::<usize>() {
            return Err(Error::shape(format_args!("tensor `{name}`"), expected, shape));
        }
        self.used.insert(name.to_owned());
        Ok(values)
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let shape = param.lazy_shape().to_vec();
        match self.read(&self.path.name(), &shape) {
            Ok(values) => {
                let tensor = Tensor::from_data(TensorData::new(values, shape), &param.lazy_device());
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

struct Collector {
    path: Path,
    tensors: Vec<NamedTensor>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        self.tensors.push((self.path.name(), shape, values(tensor)));
    }
}

/// Row-major values of a tensor as `f32`, whatever its type on the device.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap_or_default()
}

struct Shapes {
    path: Path,
    shapes: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.shapes.push((self.path.name(), param.lazy_shape().to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DeviceChoice,
        layers::{Conv2d, ConvBn, Linear},
        seeded::Seeded,
    };

    #[derive(Module, Debug)]
    struct Network {
        _0: Linear,
        _12: Vec<ConvBn>,
        branch: Branch,
        _name: Option<Linear>,
    }

    #[derive(Module, Debug)]
    enum Branch {
        Straight(Linear),
    }

    fn network() -> Network {
        let device = DeviceChoice::Cpu.open().unwrap();
        Network {
            _0: Linear::new(2, 3, &device),
            _12: vec![ConvBn::new(Conv2d::new(2, 3, 1, &device))],
            branch: Branch::Straight(Linear::new(1, 1, &device)),
            _name: None,
        }
    }

    fn checkpoint() -> BTreeMap<String, Values> {
        let seeded = Seeded::of(&network(), "net.");
        seeded.names().into_iter().map(|name| (name.clone(), seeded.get(&name).unwrap().unwrap())).collect()
    }

    #[test]
    fn names_follow_the_checkpoint() {
        let names: Vec<String> = state_shapes(&network(), "net.").into_iter().map(|(name, _)| name).collect();
        let expected = [
            "net.0.weight",
            "net.0.bias",
            "net.12.0.c.weight",
            "net.12.0.bn.weight",
            "net.12.0.bn.bias",
            "net.12.0.bn.running_mean",
            "net.12.0.bn.running_var",
            "net.branch.weight",
            "net.branch.bias",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_is_loaded_is_written_back() {
        let mut source = checkpoint();
        source.insert("net.12.0.bn.num_batches_tracked".into(), (vec![], vec![7.0]));
        source.insert("net.extra".into(), (vec![1], vec![0.0]));
        source.insert("elsewhere.extra".into(), (vec![1], vec![0.0]));
        let loaded = load_into(network(), &source, "net.").unwrap();
        assert_eq!(loaded.unused, ["net.extra"]);
        let written: BTreeMap<_, _> = state_dict(&loaded.module, "net.")
            .into_iter()
            .map(|(name, shape, values)| (name, (shape, values)))
            .collect();
        assert_eq!(written, checkpoint());
    }

    #[test]
    fn errors_name_the_tensor_and_both_shapes() {
        let mut source = checkpoint();
        source.remove("net.12.0.bn.bias");
        let error = load_into(network(), &source, "net.").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingTensor);
        assert!(error.to_string().contains("net.12.0.bn.bias") && error.to_string().contains("[3]"), "{error}");

        let mut source = checkpoint();
        source.insert("net.0.weight".into(), (vec![2, 3], vec![0.0; 6]));
        let error = load_into(network(), &source, "net.").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Shape);
        let text = error.to_string();
        assert!(text.contains("net.0.weight") && text.contains("[3, 2]") && text.contains("[2, 3]"), "{text}");
    }
}
