//! Attention.

use burn::{backend::flex::FlexTensor, tensor::Tensor};
use cytomask_kernels::{AttentionShape, attention as forward, backward};

use super::{
    operation::{Operation, absent, flex, record},
    recorded, strategy, tensor,
};
use crate::{
    cpu::{MapParts, Values},
    layers::{MapAttention, Positions},
};

#[derive(Clone, Debug)]
struct Attention {
    parts: [Values; 3],
    shape: AttentionShape,
    /// Of queries, and of keys and values.
    dims: [[usize; 4]; 2],
}

impl Attention {
    fn scale(&self) -> f32 {
        (self.shape.head as f32).sqrt().recip()
    }
}

impl Operation<3> for Attention {
    fn back(self, dy: Values, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let parts = self.parts.each_ref().map(Values::slice);
        let found = backward::attention_gradients(parts, dy.slice(), &self.shape, self.scale());
        let [q, k] = self.dims;
        let mut found = found.into_iter().zip([q, k, k]).zip(wanted);
        [(); 3].map(|()| found.next().and_then(|((values, dims), wanted)| wanted.then(|| flex(values, dims))))
    }
}

/// See [`crate::layers::attention`]; without bias.
pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let strategy = strategy(&q);
    let dims = [q.dims(), k.dims()];
    let ([n, heads, queries, head], [_, _, keys, _]) = (dims[0], dims[1]);
    let shape = AttentionShape { batch: n * heads, queries, keys, head };
    tensor(
        record([recorded(q), recorded(k), recorded(v)], |inputs| {
            let kept = Attention { parts: inputs.map(Values::from), shape, dims };
            let y = forward(kept.parts.each_ref().map(Values::slice), &shape, kept.scale(), None);
            (flex(y, dims[0]), kept)
        }),
        strategy,
    )
}

#[derive(Clone, Debug)]
struct OnMap {
    qkv: Values,
    parts: MapParts,
    dims: [usize; 4],
    /// Of what is added to the logits.
    terms: [Vec<usize>; 2],
}

impl Operation<4> for OnMap {
    fn back(self, dy: Values, wanted: [bool; 4]) -> [Option<FlexTensor>; 4] {
        let found = backward::map_attention_gradients(self.qkv.slice(), dy.slice(), &self.parts.shape());
        self.qkv.release();
        dy.release();
        let [first, second] = found.positions;
        let term = |values: Vec<f32>, dims: &[usize]| {
            FlexTensor::from_data(burn::tensor::TensorData::new(values, dims.to_vec()))
        };
        [
            wanted[0].then(|| flex(found.qkv, self.dims)),
            wanted[1].then(|| flex(found.outside, [self.dims[3]])),
            wanted[2].then(|| term(first, &self.terms[0])),
            wanted[3].then(|| term(second, &self.terms[1])),
        ]
    }
}

/// See [`crate::layers::map_attention`].
pub(crate) fn map_attention(qkv: Tensor<4>, attention: MapAttention) -> Tensor<4> {
    let strategy = strategy(&qkv);
    let dims = qkv.dims();
    let MapAttention { heads, order, window, outside, positions, precision: _ } = attention;
    let (has_outside, decomposed) = (outside.is_some(), matches!(positions, Positions::Relative { .. }));
    let (terms, dims_of_terms) = match positions {
        Positions::Relative { rows, columns } => {
            let dims = [&rows, &columns].map(|table| table.dims().to_vec());
            ([recorded(rows), recorded(columns)], dims)
        }
        Positions::Table(table) => {
            let dims = table.dims().to_vec();
            ([recorded(table), absent()], [dims, vec![1]])
        }
    };
    let [first, second] = terms;
    tensor(
        record([recorded(qkv), outside.map_or_else(absent, recorded), first, second], |inputs| {
            let [qkv, outside, first, second] = inputs.map(Values::from);
            let parts = MapParts {
                dims,
                heads,
                order,
                window,
                outside: has_outside.then_some(outside),
                terms: [Some(first), decomposed.then_some(second)],
            };
            let y = cytomask_kernels::map_attention(qkv.slice(), &parts.shape());
            let [n, h, w, channels] = dims;
            (flex(y, [n, h, w, channels / 3]), OnMap { qkv, parts, dims, terms: dims_of_terms })
        }),
        strategy,
    )
}
