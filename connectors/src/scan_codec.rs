//! How a [`ScanExec`] travels to a worker: one protobuf message with the address, columns, filters, limit and splits.
//! Whatever opens the depot (settings, credentials) is not in it; the worker has that from its own resources.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, ScalarValue, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use minerva_resources::Address;
use prost::Message;

use crate::remote::{Form, Shown};
use crate::{Comparison, Fence, RemoteQuery, Scan, ScanExec, ScanFilter, Split};

/// A scan, and what joins of its stage tell it.
#[derive(Clone, PartialEq, Message)]
struct ToldMessage {
    #[prost(bytes = "vec", tag = "1")]
    scan: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    dynamic: Vec<protobuf::PhysicalExprNode>,
}

#[derive(Clone, PartialEq, Message)]
struct ScanMessage {
    #[prost(string, tag = "1")]
    depot: String,
    #[prost(string, tag = "2")]
    collection: String,
    #[prost(string, tag = "3")]
    dataset: String,
    #[prost(message, optional, tag = "4")]
    schema: Option<protobuf::Schema>,
    #[prost(message, repeated, tag = "5")]
    filters: Vec<FilterMessage>,
    #[prost(uint64, optional, tag = "6")]
    limit: Option<u64>,
    #[prost(message, repeated, tag = "7")]
    partitions: Vec<PartitionMessage>,
    #[prost(uint64, optional, tag = "8")]
    rows: Option<u64>,
    #[prost(bool, tag = "9")]
    rows_are_exact: bool,
    #[prost(string, optional, tag = "10")]
    snapshot: Option<String>,
    #[prost(message, optional, tag = "11")]
    query: Option<QueryMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryMessage {
    /// Collections and datasets, in turn; the depot is the scan's.
    #[prost(string, repeated, tag = "1")]
    datasets: Vec<String>,
    #[prost(string, tag = "2")]
    select: String,
    #[prost(string, repeated, tag = "3")]
    conditions: Vec<String>,
    #[prost(string, tag = "4")]
    rest: String,
    #[prost(bool, tag = "5")]
    divisible: bool,
    #[prost(bool, tag = "6")]
    limited: bool,
    #[prost(message, repeated, tag = "7")]
    fences: Vec<FenceMessage>,
    #[prost(bool, repeated, tag = "8")]
    compared: Vec<bool>,
    #[prost(message, repeated, tag = "9")]
    inside: Vec<ShownMessage>,
}

/// A column inside a fence; without a type it is none.
#[derive(Clone, PartialEq, Message)]
struct ShownMessage {
    #[prost(string, tag = "1")]
    sql: String,
    #[prost(message, optional, tag = "2")]
    data_type: Option<protobuf::ArrowType>,
    /// One of the `FORM_` numbers below.
    #[prost(uint32, tag = "3")]
    form: u32,
}

#[derive(Clone, PartialEq, Message)]
struct FenceMessage {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(string, tag = "2")]
    collection: String,
    #[prost(string, tag = "3")]
    dataset: String,
    #[prost(string, tag = "4")]
    fingerprint: String,
    #[prost(string, tag = "5")]
    before: String,
    #[prost(string, repeated, tag = "6")]
    conditions: Vec<String>,
    #[prost(string, tag = "7")]
    after: String,
}

#[derive(Clone, PartialEq, Message)]
struct PartitionMessage {
    #[prost(message, repeated, tag = "1")]
    splits: Vec<SplitMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct SplitMessage {
    #[prost(oneof = "SplitKind", tags = "1, 2, 3")]
    kind: Option<SplitKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum SplitKind {
    #[prost(bool, tag = "1")]
    Whole(bool),
    #[prost(message, tag = "2")]
    Part(PairMessage),
    #[prost(message, tag = "3")]
    Range(PairMessage),
}

#[derive(Clone, PartialEq, Message)]
struct PairMessage {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    second: u64,
}

#[derive(Clone, PartialEq, Message)]
struct FilterMessage {
    /// What it is: one of the `KIND_` numbers below.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    column: String,
    #[prost(message, repeated, tag = "3")]
    values: Vec<protobuf::ScalarValue>,
    #[prost(message, repeated, tag = "4")]
    inner: Vec<FilterMessage>,
}

const COMPARISONS: [(u32, Comparison); 6] = [
    (1, Comparison::Equal),
    (2, Comparison::NotEqual),
    (3, Comparison::Less),
    (4, Comparison::LessOrEqual),
    (5, Comparison::Greater),
    (6, Comparison::GreaterOrEqual),
];
const KIND_ONE_OF: u32 = 7;
const KIND_IS_NULL: u32 = 8;
const KIND_IS_NOT_NULL: u32 = 9;
const KIND_ALL: u32 = 10;
const KIND_ANY: u32 = 11;

const FORMS: [(u32, Form); 5] = [
    (1, Form::Exact),
    (2, Form::Text { own: false }),
    (3, Form::Text { own: true }),
    (4, Form::Opaque { tested: false }),
    (5, Form::Opaque { tested: true }),
];

/// The bytes of a scan with what joins of the same stage tell it. The converter is that of the whole stage, so that what a join tells is heard there.
pub fn encode_told_scan(
    exec: &ScanExec,
    codec: &dyn PhysicalExtensionCodec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Vec<u8>> {
    let told = exec.told_by_joins();
    let message = ToldMessage {
        scan: encode_scan(exec)?,
        dynamic: told
            .map(|filter| converter.physical_expr_to_proto(filter, codec))
            .collect::<Result<_>>()?,
    };
    Ok(message.encode_to_vec())
}

/// The scan that [`encode_told_scan`] wrote.
pub fn decode_told_scan(
    bytes: &[u8],
    context: &TaskContext,
    codec: &dyn PhysicalExtensionCodec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<ScanExec> {
    let message = ToldMessage::decode(bytes).map_err(|error| malformed(&error.to_string()))?;
    let exec = decode_scan(&message.scan)?;
    let context = PhysicalPlanDecodeContext::new(context, codec);
    let schema = Arc::clone(&exec.scan().schema);
    let told = message.dynamic.iter();
    let told = told.map(|filter| converter.proto_to_physical_expr(filter, &schema, &context));
    let told = told.collect::<Result<_>>()?;
    Ok(exec.told(told))
}

/// The bytes of a scan that nobody tells anything.
pub fn encode_scan(exec: &ScanExec) -> Result<Vec<u8>> {
    let scan = exec.scan();
    let (rows, rows_are_exact) = match exec.rows() {
        Precision::Exact(rows) => (Some(rows as u64), true),
        Precision::Inexact(rows) => (Some(rows as u64), false),
        Precision::Absent => (None, false),
    };
    let message = ScanMessage {
        depot: scan.address.depot.clone(),
        collection: scan.address.collection.clone(),
        dataset: scan.address.dataset.clone(),
        schema: Some(scan.schema.as_ref().try_into()?),
        filters: scan.filters.iter().map(encode_filter).collect::<Result<_>>()?,
        limit: scan.limit.map(|limit| limit as u64),
        partitions: exec
            .partitions()
            .iter()
            .map(|splits| encode_partition(splits))
            .collect(),
        rows,
        rows_are_exact,
        snapshot: scan.snapshot.clone(),
        query: scan.query.as_deref().map(encode_query).transpose()?,
    };
    Ok(message.encode_to_vec())
}

/// The scan that [`encode_scan`] wrote.
pub fn decode_scan(bytes: &[u8]) -> Result<ScanExec> {
    let message = ScanMessage::decode(bytes).map_err(|error| malformed(&error.to_string()))?;
    let schema: Schema = message
        .schema
        .as_ref()
        .ok_or_else(|| malformed("it has no schema"))?
        .try_into()?;
    let query = message.query.map(|query| decode_query(query, &message.depot));
    let query = query.transpose()?.map(Arc::new);
    let scan = Scan {
        address: Address {
            depot: message.depot,
            collection: message.collection,
            dataset: message.dataset,
        },
        schema: Arc::new(schema),
        filters: message.filters.iter().map(decode_filter).collect::<Result<_>>()?,
        limit: message.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        snapshot: message.snapshot,
        query,
    };
    let partitions = message.partitions.iter().map(decode_partition).collect::<Result<_>>()?;
    let rows = match message.rows.map(|rows| usize::try_from(rows).unwrap_or(usize::MAX)) {
        Some(rows) if message.rows_are_exact => Precision::Exact(rows),
        Some(rows) => Precision::Inexact(rows),
        None => Precision::Absent,
    };
    Ok(ScanExec::new(scan, partitions, rows))
}

fn encode_partition(splits: &[Split]) -> PartitionMessage {
    let encode = |split: &Split| match *split {
        Split::Whole => SplitKind::Whole(true),
        Split::Part { index, of } => SplitKind::Part(PairMessage {
            first: u64::from(index),
            second: u64::from(of),
        }),
        Split::Range { from, to } => SplitKind::Range(PairMessage {
            first: from,
            second: to,
        }),
    };
    PartitionMessage {
        splits: splits
            .iter()
            .map(|split| SplitMessage {
                kind: Some(encode(split)),
            })
            .collect(),
    }
}

fn decode_partition(message: &PartitionMessage) -> Result<Vec<Split>> {
    let number = |number: u64| u32::try_from(number).map_err(|_| malformed("a split has too large a number"));
    let decode = |split: &SplitMessage| match &split.kind {
        Some(SplitKind::Whole(_)) => Ok(Split::Whole),
        Some(SplitKind::Part(pair)) => Ok(Split::Part {
            index: number(pair.first)?,
            of: number(pair.second)?,
        }),
        Some(SplitKind::Range(pair)) => Ok(Split::Range {
            from: pair.first,
            to: pair.second,
        }),
        None => Err(malformed("a split has no kind")),
    };
    message.splits.iter().map(decode).collect()
}

fn encode_filter(filter: &ScanFilter) -> Result<FilterMessage> {
    let leaf = |kind: u32, column: &str, values: &[ScalarValue]| {
        let values = values
            .iter()
            .map(|value| Ok(value.try_into()?))
            .collect::<Result<_>>()?;
        Ok(FilterMessage {
            kind,
            column: column.to_owned(),
            values,
            inner: Vec::new(),
        })
    };
    let branch = |kind: u32, filters: &[ScanFilter]| {
        let inner = filters.iter().map(encode_filter).collect::<Result<_>>()?;
        Ok(FilterMessage {
            kind,
            column: String::new(),
            values: Vec::new(),
            inner,
        })
    };
    match filter {
        ScanFilter::Compare {
            column,
            comparison,
            value,
        } => {
            let kind = COMPARISONS
                .iter()
                .find(|(_, known)| known == comparison)
                .map_or(0, |(kind, _)| *kind);
            leaf(kind, column, std::slice::from_ref(value))
        }
        ScanFilter::OneOf { column, values } => leaf(KIND_ONE_OF, column, values),
        ScanFilter::IsNull(column) => leaf(KIND_IS_NULL, column, &[]),
        ScanFilter::IsNotNull(column) => leaf(KIND_IS_NOT_NULL, column, &[]),
        ScanFilter::All(filters) => branch(KIND_ALL, filters),
        ScanFilter::Any(filters) => branch(KIND_ANY, filters),
    }
}

fn decode_filter(message: &FilterMessage) -> Result<ScanFilter> {
    let column = message.column.clone();
    let values = || {
        message
            .values
            .iter()
            .map(|value| Ok(value.try_into()?))
            .collect::<Result<Vec<ScalarValue>>>()
    };
    let inner = || {
        message
            .inner
            .iter()
            .map(decode_filter)
            .collect::<Result<Vec<ScanFilter>>>()
    };
    match message.kind {
        KIND_ONE_OF => Ok(ScanFilter::OneOf {
            column,
            values: values()?,
        }),
        KIND_IS_NULL => Ok(ScanFilter::IsNull(column)),
        KIND_IS_NOT_NULL => Ok(ScanFilter::IsNotNull(column)),
        KIND_ALL => Ok(ScanFilter::All(inner()?)),
        KIND_ANY => Ok(ScanFilter::Any(inner()?)),
        kind => {
            let known = COMPARISONS.iter().find(|(number, _)| *number == kind);
            let (_, comparison) = known.ok_or_else(|| malformed("a filter has an unknown kind"))?;
            let value = values()?.pop().ok_or_else(|| malformed("a comparison has no value"))?;
            Ok(ScanFilter::Compare {
                column,
                comparison: *comparison,
                value,
            })
        }
    }
}

fn encode_query(query: &RemoteQuery) -> Result<QueryMessage> {
    let names = |address: &Address| [address.collection.clone(), address.dataset.clone()];
    Ok(QueryMessage {
        datasets: query.addresses.iter().flat_map(names).collect(),
        select: query.select.clone(),
        conditions: query.conditions.clone(),
        rest: query.rest.clone(),
        divisible: query.divisible,
        limited: query.limited,
        fences: query.fences.iter().map(encode_fence).collect(),
        compared: query.compared.clone(),
        inside: (query.inside.iter())
            .map(|shown| shown.as_ref().map_or_else(|| Ok(ShownMessage::default()), encode_shown))
            .collect::<Result<_>>()?,
    })
}

fn encode_shown(shown: &Shown) -> Result<ShownMessage> {
    let form = FORMS.iter().find(|(_, form)| *form == shown.form);
    Ok(ShownMessage {
        sql: shown.sql.clone(),
        data_type: Some((&shown.data_type).try_into()?),
        form: form.map_or(0, |(number, _)| *number),
    })
}

fn decode_shown(message: ShownMessage) -> Result<Option<Shown>> {
    let Some(data_type) = &message.data_type else {
        return Ok(None);
    };
    let form = FORMS.iter().find(|(number, _)| *number == message.form);
    let (_, form) = form.ok_or_else(|| malformed("a column of a fence has an unknown form"))?;
    Ok(Some(Shown {
        sql: message.sql,
        data_type: data_type.try_into()?,
        form: *form,
    }))
}

fn encode_fence(fence: &Fence) -> FenceMessage {
    FenceMessage {
        number: fence.number as u64,
        collection: fence.address.collection.clone(),
        dataset: fence.address.dataset.clone(),
        fingerprint: fence.fingerprint.clone(),
        before: fence.before.clone(),
        conditions: fence.conditions.clone(),
        after: fence.after.clone(),
    }
}

fn decode_query(message: QueryMessage, depot: &str) -> Result<RemoteQuery> {
    let (pairs, _) = message.datasets.as_chunks::<2>();
    Ok(RemoteQuery {
        addresses: pairs
            .iter()
            .map(|[collection, dataset]| Address::new(depot, collection, dataset))
            .collect(),
        select: message.select,
        conditions: message.conditions,
        rest: message.rest,
        divisible: message.divisible,
        limited: message.limited,
        fences: (message.fences.into_iter())
            .map(|fence| Fence {
                number: usize::try_from(fence.number).unwrap_or(usize::MAX),
                address: Address::new(depot, &fence.collection, &fence.dataset),
                fingerprint: fence.fingerprint,
                before: fence.before,
                conditions: fence.conditions,
                after: fence.after,
            })
            .collect(),
        compared: message.compared,
        inside: message.inside.into_iter().map(decode_shown).collect::<Result<_>>()?,
        around: None,
    })
}

fn malformed(why: &str) -> DataFusionError {
    internal_datafusion_err!("a scan that came over the wire cannot be read: {why}")
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::{split, splits_of};

    fn exec() -> ScanExec {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("a \"name\"", DataType::Utf8View, true),
        ]));
        let compare = |value: f64| ScanFilter::Compare {
            column: "price".to_owned(),
            comparison: Comparison::LessOrEqual,
            value: ScalarValue::Float64(Some(value)),
        };
        let filters = vec![
            ScanFilter::Any(vec![compare(0.1 + 0.2), ScanFilter::IsNull("id".to_owned())]),
            ScanFilter::OneOf {
                column: "a \"name\"".to_owned(),
                values: vec![
                    ScalarValue::Utf8View(Some("x'y".to_owned())),
                    ScalarValue::Utf8View(Some(String::new())),
                ],
            },
        ];
        let address = Address {
            depot: "d".to_owned(),
            collection: "c".to_owned(),
            dataset: "t".to_owned(),
        };
        let splits = (0..5).map(|index| Split::Part { index, of: 5 }).collect();
        let scan = Scan {
            address,
            schema,
            filters,
            limit: Some(7),
            snapshot: Some("00000003-0000001B-1".to_owned()),
            query: Some(Arc::new(RemoteQuery {
                addresses: vec![Address::new("d", "c", "t"), Address::new("d", "c", "u")],
                select: "SELECT 'é'".to_owned(),
                conditions: vec!["true".to_owned(), "a".to_owned()],
                rest: " LIMIT 3".to_owned(),
                divisible: true,
                limited: true,
                fences: vec![Fence {
                    number: 3,
                    address: Address::new("d", "c", "governed"),
                    fingerprint: "ab12".to_owned(),
                    before: "f3 AS MATERIALIZED (SELECT 1".to_owned(),
                    conditions: vec!["true".to_owned()],
                    after: ")".to_owned(),
                }],
                compared: vec![true, false],
                inside: vec![
                    None,
                    Some(Shown {
                        sql: "t.\"id\"".to_owned(),
                        data_type: DataType::Decimal128(12, 2),
                        form: Form::Text { own: true },
                    }),
                ],
                around: None,
            })),
        };
        ScanExec::new(
            scan,
            vec![splits, vec![Split::Whole, Split::Range { from: 3, to: 9 }]],
            Precision::Inexact(70),
        )
    }

    #[test]
    fn what_is_decoded_is_what_was_encoded() {
        let exec = exec();
        let decoded = decode_scan(&encode_scan(&exec).unwrap()).unwrap();
        assert_eq!(decoded.scan(), exec.scan());
        assert_eq!(decoded.partitions(), exec.partitions());
        assert_eq!(decoded.rows(), exec.rows());
        assert!(decode_scan(&[255, 1, 2]).is_err());
    }

    #[test]
    fn tasks_share_every_split_once_and_have_as_many_partitions() {
        let exec = exec();
        assert_eq!(splits_of(&exec), 7);
        for tasks in [1, 2, 3, 7, 20] {
            let variants = split(&exec, tasks);
            assert_eq!(variants.len(), tasks);
            let partitions: Vec<usize> = variants.iter().map(|variant| variant.partitions().len()).collect();
            assert!(partitions.iter().all(|count| *count == partitions[0]), "{partitions:?}");
            let dealt: Vec<Split> = variants
                .iter()
                .flat_map(|variant| variant.partitions().concat())
                .collect();
            assert_eq!(dealt, exec.partitions().concat());
        }
    }
}
