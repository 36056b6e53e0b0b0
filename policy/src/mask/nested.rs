//! Takes a mask to where the values are: into dictionaries, runs, struct fields, list elements, map keys and values.
//!
//! A value is taken apart along a path, the part is masked, and the value is put together again with the same
//! type. A dictionary is built anew, so that neither its unused values nor its keys tell anything the mask hides.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait, StructArray, UInt32Array,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::compute::{can_cast_types, cast, take};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use rand::Rng;

use super::{Failed, Kernel};

/// The path segment of a list's elements.
pub(crate) const ELEMENT: &str = "element";
/// The path segment of a map's keys.
pub(crate) const KEY: &str = "key";
/// The path segment of a map's values.
pub(crate) const VALUE: &str = "value";

/// What lies directly inside a type: the path segment and the field of each part. Empty for plain values.
#[derive(Debug)]
pub(crate) struct Nesting(pub(crate) Vec<(String, FieldRef)>);

impl Nesting {
    /// The parts of a type.
    pub(crate) fn of(data_type: &DataType) -> Self {
        Self(match data_type {
            DataType::Struct(fields) => fields
                .iter()
                .map(|field| (field.name().clone(), Arc::clone(field)))
                .collect(),
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                vec![(ELEMENT.to_owned(), Arc::clone(field))]
            }
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) => [KEY, VALUE]
                    .into_iter()
                    .map(str::to_owned)
                    .zip(fields.iter().cloned())
                    .collect(),
                _ => vec![],
            },
            _ => vec![],
        })
    }
}

/// Writes a path below a column as one text; `\` stands before a dot inside a name.
pub(crate) fn join_path(path: &[String]) -> String {
    let escaped: Vec<_> = path
        .iter()
        .map(|segment| segment.replace('\\', "\\\\").replace('.', "\\."))
        .collect();
    escaped.join(".")
}

/// Reads what [`join_path`] wrote.
pub(super) fn split_path(text: &str) -> Vec<String> {
    let mut path = vec![];
    let mut segment = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => segment.extend(characters.next()),
            '.' => path.push(std::mem::take(&mut segment)),
            other => segment.push(other),
        }
    }
    path.push(segment);
    path
}

/// Makes a kernel for values of a type.
type MakeKernel<'a> = dyn Fn(&DataType) -> Result<Arc<dyn Kernel>, String> + 'a;

/// Makes the kernel that masks what lies at `path` inside values of `data_type`; `leaf` makes the mask's own.
pub(super) fn kernel_at(
    data_type: &DataType,
    path: &[String],
    leaf: &MakeKernel<'_>,
) -> Result<Arc<dyn Kernel>, String> {
    if let DataType::Dictionary(_, values) = data_type {
        return Ok(Arc::new(Dictionary(kernel_at(values, path, leaf)?)));
    }
    if let DataType::RunEndEncoded(_, values) = data_type {
        let values = values.data_type();
        if !can_cast_types(data_type, values) || !can_cast_types(values, data_type) {
            return Err("expected a column whose values do not lie in runs".to_owned());
        }
        let inner = kernel_at(values, path, leaf)?;
        return Ok(Arc::new(Runs(values.clone(), inner)));
    }
    let Some((segment, rest)) = path.split_first() else {
        return leaf(data_type);
    };
    let parts = Nesting::of(data_type).0;
    let Some((index, (_, field))) = parts.iter().enumerate().find(|(_, (name, _))| name == segment) else {
        return Err(format!("type `{data_type}` has no part `{segment}`"));
    };
    let inner = kernel_at(field.data_type(), rest, leaf)?;
    Ok(match data_type {
        DataType::Struct(_) => Arc::new(Struct { index, inner }),
        DataType::Map(..) => Arc::new(Map { index, inner }),
        _ => Arc::new(List(inner)),
    })
}

#[derive(Debug)]
struct Dictionary(Arc<dyn Kernel>);

impl Kernel for Dictionary {
    fn apply(&self, array: &ArrayRef) -> Result<ArrayRef, Failed> {
        let dictionary = array.as_any_dictionary_opt().ok_or(Failed)?;
        let plain = if self.0.can_fail() {
            self.0.apply(&take(dictionary.values(), dictionary.keys(), None)?)?
        } else {
            let masked = self.0.apply(dictionary.values())?;
            let plain = take(&masked, dictionary.keys(), None)?;
            if self.0.is_volatile() { shuffled(&plain)? } else { plain }
        };
        Ok(cast(&plain, array.data_type())?)
    }
    fn can_fail(&self) -> bool {
        self.0.can_fail()
    }
    fn is_volatile(&self) -> bool {
        self.0.is_volatile()
    }
}

/// Gives each row that is not NULL the value of any such row, by chance: equal rows can no longer be told.
fn shuffled(array: &ArrayRef) -> Result<ArrayRef, Failed> {
    let nulls = array.logical_nulls();
    let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let mut rows = Vec::with_capacity(array.len());
    for row in (0..array.len()).filter(|row| !is_null(*row)) {
        rows.push(u32::try_from(row).map_err(|_| Failed)?);
    }
    let mut random = rand::rng();
    let chosen: UInt32Array = (0..array.len())
        .map(|row| {
            if is_null(row) {
                None
            } else {
                rows.get(random.random_range(0..rows.len())).copied()
            }
        })
        .collect();
    Ok(take(array, &chosen, None)?)
}

/// Runs of equal values: laid out, masked, and gathered again, so that their ends tell nothing of the raw values.
#[derive(Debug)]
struct Runs(DataType, Arc<dyn Kernel>);

impl Kernel for Runs {
    fn apply(&self, array: &ArrayRef) -> Result<ArrayRef, Failed> {
        let masked = self.1.apply(&cast(array, &self.0)?)?;
        Ok(cast(&masked, array.data_type())?)
    }
    fn can_fail(&self) -> bool {
        self.1.can_fail()
    }
    fn is_volatile(&self) -> bool {
        self.1.is_volatile()
    }
}

#[derive(Debug)]
struct Struct {
    index: usize,
    inner: Arc<dyn Kernel>,
}

impl Struct {
    fn rebuilt(&self, array: &StructArray) -> Result<StructArray, Failed> {
        let (fields, mut columns, nulls) = array.clone().into_parts();
        let column = columns.get_mut(self.index).ok_or(Failed)?;
        *column = self.inner.apply(column)?;
        Ok(StructArray::try_new_with_length(fields, columns, nulls, array.len())?)
    }
}

impl Kernel for Struct {
    fn apply(&self, array: &ArrayRef) -> Result<ArrayRef, Failed> {
        Ok(Arc::new(self.rebuilt(array.as_struct_opt().ok_or(Failed)?)?))
    }
    fn can_fail(&self) -> bool {
        self.inner.can_fail()
    }
    fn is_volatile(&self) -> bool {
        self.inner.is_volatile()
    }
}

#[derive(Debug)]
struct List(Arc<dyn Kernel>);

impl List {
    fn rebuilt<O: OffsetSizeTrait>(&self, array: &ArrayRef) -> Result<ArrayRef, Failed> {
        let list = array.as_list_opt::<O>().ok_or(Failed)?;
        let (field, offsets, values, nulls) = list.clone().into_parts();
        let (offsets, values) = visible(&offsets, &values)?;
        Ok(Arc::new(GenericListArray::<O>::try_new(
            field,
            offsets,
            self.0.apply(&values)?,
            nulls,
        )?))
    }
}

/// Cuts what lies before the first and after the last offset, which no row shows.
fn visible<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    values: &ArrayRef,
) -> Result<(OffsetBuffer<O>, ArrayRef), Failed> {
    let (Some(first), Some(last)) = (offsets.first().copied(), offsets.last().copied()) else {
        return Err(Failed);
    };
    let length = last.as_usize().checked_sub(first.as_usize()).ok_or(Failed)?;
    let rebased: ScalarBuffer<O> = offsets.iter().map(|offset| *offset - first).collect();
    Ok((OffsetBuffer::new(rebased), values.slice(first.as_usize(), length)))
}

impl Kernel for List {
    fn apply(&self, array: &ArrayRef) -> Result<ArrayRef, Failed> {
        match array.data_type() {
            DataType::List(_) => self.rebuilt::<i32>(array),
            DataType::LargeList(_) => self.rebuilt::<i64>(array),
            DataType::FixedSizeList(field, size) => {
                let list = array.as_fixed_size_list_opt().ok_or(Failed)?;
                let values = self.0.apply(list.values())?;
                let nulls = list.nulls().cloned();
                Ok(Arc::new(FixedSizeListArray::try_new_with_length(
                    Arc::clone(field),
                    *size,
                    values,
                    nulls,
                    list.len(),
                )?))
            }
            _ => Err(Failed),
        }
    }
    fn can_fail(&self) -> bool {
        self.0.can_fail()
    }
    fn is_volatile(&self) -> bool {
        self.0.is_volatile()
    }
}

#[derive(Debug)]
struct Map {
    index: usize,
    inner: Arc<dyn Kernel>,
}

impl Kernel for Map {
    fn apply(&self, array: &ArrayRef) -> Result<ArrayRef, Failed> {
        let map = array.as_map_opt().ok_or(Failed)?;
        let (field, offsets, entries, nulls, ordered) = map.clone().into_parts();
        let entries: ArrayRef = Arc::new(entries);
        let (offsets, entries) = visible(&offsets, &entries)?;
        let inside = Struct {
            index: self.index,
            inner: Arc::clone(&self.inner),
        };
        let entries = inside.rebuilt(entries.as_struct_opt().ok_or(Failed)?)?;
        Ok(Arc::new(MapArray::try_new(field, offsets, entries, nulls, ordered)?))
    }
    fn can_fail(&self) -> bool {
        self.inner.can_fail()
    }
    fn is_volatile(&self) -> bool {
        self.inner.is_volatile()
    }
}
