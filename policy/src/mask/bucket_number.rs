//! The mask `bucket_number`: a number becomes the lower edge of the bucket it is in.
//!
//! Below the first edge, and for NaN, it becomes NULL.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, downcast_primitive};
use datafusion::arrow::datatypes::{ArrowNativeTypeOp, DataType};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, when};
use minerva_resources::{MaskSpec, Node, Problem};

use super::constant::of_type;
use super::parameters::Parameters;
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::KeyRing;
use crate::value::{coerce, written};

/// The operator `bucket_number`.
#[derive(Debug)]
pub(super) struct BucketNumberKind;

impl MaskKind for BucketNumberKind {
    fn name(&self) -> &'static str {
        "bucket_number"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_bucket_number"
    }
    fn description(&self) -> &'static str {
        "Replaces a number by the largest of `buckets` that is not above it; below the first bucket it becomes NULL. \
         The buckets must be values that the column's type can hold."
    }
    fn types(&self) -> &'static str {
        "whole numbers, floating-point numbers and decimals"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: bucket_number\n  bucket_number: {buckets: [0, 1000, 5000, 10000]}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let mut parameters = Parameters::new(spec, &["buckets"]);
        let expected = "a list of at least one number";
        let mask = parameters.required("buckets", expected).and_then(|node| {
            let buckets: Option<Vec<Node>> = node.as_list().map(<[Node]>::to_vec);
            let buckets = buckets.filter(|list| !list.is_empty() && list.iter().all(|edge| edge.as_float().is_some()));
            if buckets.is_none() {
                parameters.wrong("buckets", expected);
            }
            buckets.map(|buckets| BucketNumber { buckets })
        });
        parameters.finish(mask)
    }
    fn plain(&self, column: &Expr, arguments: &[ScalarValue], data_type: &DataType) -> Option<Expr> {
        // Floating point numbers have two zeros, and values that are in no order, as decimals have where they come from.
        if !data_type.is_integer() {
            return None;
        }
        let mut edges = arguments.iter().rev().map(|edge| of_type(edge, data_type).ok());
        let branch = |edge: ScalarValue| {
            let edge = Expr::Literal(edge, None);
            (column.clone().gt_eq(edge.clone()), edge)
        };
        let (condition, edge) = branch(edges.next()??);
        let mut cases = when(condition, edge);
        for edge in edges {
            let (condition, edge) = branch(edge?);
            cases = cases.when(condition, edge);
        }
        cases.end().ok()
    }
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        data_type: &DataType,
        _keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        let edges = arguments
            .iter()
            .map(|edge| of_type(edge, data_type))
            .collect::<Result<Vec<_>, _>>()?;
        let edges = ScalarValue::iter_to_array(edges).map_err(|error| error.to_string())?;
        Ok(Arc::new(BucketNumberKernel { edges }))
    }
}

#[derive(Debug)]
struct BucketNumber {
    buckets: Vec<Node>,
}

impl Mask for BucketNumber {
    fn kind(&self) -> &'static dyn MaskKind {
        &BucketNumberKind
    }
    fn describe(&self) -> String {
        let edges: Vec<_> = self.buckets.iter().map(written).collect();
        format!("bucket_number(buckets: [{}])", edges.join(", "))
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        if !data_type.is_numeric() {
            return Err("expected a column of numbers".to_owned());
        }
        let mut edges = self
            .buckets
            .iter()
            .map(|edge| coerce(edge, data_type))
            .collect::<Result<Vec<_>, _>>()?;
        edges.sort_by(|left, right| left.partial_cmp(right).unwrap_or(std::cmp::Ordering::Equal));
        Ok(edges)
    }
    fn makes_null(&self, _data_type: &DataType) -> bool {
        true
    }
}

#[derive(Debug)]
struct BucketNumberKernel {
    /// The lower edges, ascending.
    edges: ArrayRef,
}

fn bucketed<T: ArrowPrimitiveType>(values: &ArrayRef, edges: &ArrayRef) -> Option<ArrayRef>
where
    T::Native: ArrowNativeTypeOp,
{
    let zero = T::Native::ZERO;
    let edges: Vec<_> = edges
        .as_primitive_opt::<T>()?
        .values()
        .iter()
        .map(|edge| edge.add_wrapping(zero))
        .collect();
    let values = values.as_primitive_opt::<T>()?;
    let lower_edge = |value: T::Native| {
        // Adding zero turns -0.0 into 0.0; NaN alone does not equal itself.
        value.partial_cmp(&value)?;
        let value = value.add_wrapping(zero);
        let above = edges.partition_point(|edge| edge.is_le(value));
        above.checked_sub(1).and_then(|index| edges.get(index).copied())
    };
    let masked: PrimitiveArray<T> = values.unary_opt(lower_edge);
    Some(Arc::new(masked.with_data_type(values.data_type().clone())))
}

impl Kernel for BucketNumberKernel {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        macro_rules! apply {
            ($type:ty) => {
                bucketed::<$type>(values, &self.edges)
            };
        }
        downcast_primitive! {
            values.data_type() => (apply),
            _ => None
        }
        .ok_or(Failed)
    }
}
