//! Nodes into any serde type.
//!
//! serde stops at the first error, people want all of them: unknown keys are noted on the way, a bad element of a list or entry of a
//! map is noted and passed over, and a bad value of a struct is set aside and the whole read once more without it.

mod refusal;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use self::refusal::Refusal;
use super::{Key, Node, Value};
use crate::problem::{Location, Problem};
use crate::suggest;

/// How often a value is read again without what was wrong in it.
const MOST_ROUNDS: usize = 100;

pub(super) fn read<T: DeserializeOwned>(node: &Node, file: &Path) -> Result<T, Vec<Problem>> {
    let reading = Reading {
        file: Arc::from(file),
        problems: RefCell::default(),
        aside: RefCell::default(),
        unknown: RefCell::default(),
    };
    for _ in 0..MOST_ROUNDS {
        let before = reading.aside.borrow().len();
        match T::deserialize(At {
            node,
            key: None,
            reading: &reading,
        }) {
            Ok(value) if reading.problems.borrow().is_empty() => return Ok(value),
            Ok(_) => break,
            Err(Refusal::Known) => {}
            Err(refusal) => reading.note(refusal.at(node.line)),
        }
        if reading.aside.borrow().len() == before {
            break;
        }
    }
    let mut problems = reading.problems.into_inner();
    problems.sort();
    problems.dedup();
    Err(problems)
}

/// What is common to one reading.
struct Reading {
    file: Arc<Path>,
    problems: RefCell<Vec<Problem>>,
    /// The addresses of nodes that were wrong: their keys are treated as absent.
    aside: RefCell<HashSet<*const Node>>,
    /// The addresses of keys that were noted as unknown, and the keys that were meant.
    unknown: RefCell<HashMap<*const Key, Option<&'static str>>>,
}

impl Reading {
    fn note(&self, refusal: Refusal) {
        if let Refusal::At {
            line, message, help, ..
        } = refusal
        {
            let mut problem = Problem::new(Location::new(Arc::clone(&self.file), line), message);
            problem.help = help;
            self.problems.borrow_mut().push(problem);
        }
    }

    /// Notes what is wrong with a node, once, and sets the node aside; the next round reads what surrounds it.
    fn settle(&self, node: &Node, key: Option<&str>, refusal: Refusal) -> Refusal {
        if !matches!(refusal, Refusal::Known) {
            self.note(match (key, refusal) {
                (_, refusal @ Refusal::Missing(_)) | (None, refusal) => refusal.at(node.line),
                (Some(key), refusal) => refusal.at(node.line).named(key),
            });
            self.aside.borrow_mut().insert(std::ptr::from_ref(node));
        }
        Refusal::Known
    }

    /// Notes a key that is not known, once; gives the key that was probably meant.
    fn unknown(&self, key: &Key, fields: &'static [&'static str]) -> Option<&'static str> {
        let address = std::ptr::from_ref(key);
        if let Some(meant) = self.unknown.borrow().get(&address) {
            return *meant;
        }
        let known = fields.iter().copied();
        let meant = suggest::closest(&key.text, known.clone());
        let help = suggest::instead(&key.text, known);
        self.note(Refusal::At {
            line: key.line,
            message: format!("unknown key `{}`", key.text),
            help,
        });
        self.unknown.borrow_mut().insert(address, meant);
        meant
    }

    fn is_aside(&self, node: &Node) -> bool {
        self.aside.borrow().contains(&std::ptr::from_ref(node))
    }
}

/// A node that is being read.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    /// The key behind which it, or the list that holds it, stands.
    key: Option<&'a str>,
    reading: &'a Reading,
}

impl<'a> At<'a> {
    fn refuse<T>(self, expected: &str) -> Result<T, Refusal> {
        let found = self.node.value.kind();
        let help = (expected == "text" && matches!(self.node.value, Value::Bool(_) | Value::Float(_)))
            .then(|| "put it in quotes".to_string());
        Err(Refusal::At {
            line: self.node.line,
            message: format!("expected {expected}, found {found}"),
            help,
        })
    }

    fn whole(self, least: i64, most: i64) -> Result<i64, Refusal> {
        match self.node.as_integer() {
            Some(number) if (least..=most).contains(&number) => Ok(number),
            _ if least == i64::MIN => self.refuse("a whole number"),
            _ if most == i64::MAX => self.refuse(&format!("a whole number from {least} on")),
            _ => self.refuse(&format!("a whole number from {least} to {most}")),
        }
    }

    /// Visits the entries of a map; `fields` are all the keys there may be, if that is known.
    fn entries<V: Visitor<'a>>(self, visitor: V, fields: Option<&'static [&'static str]>) -> Result<V::Value, Refusal> {
        let Some(entries) = self.node.as_map() else {
            return self.refuse("a map");
        };
        let mut wanted = Vec::with_capacity(entries.len());
        // Keys of which it is known why they are absent.
        let mut aside = Vec::new();
        for (key, node) in entries {
            if self.reading.is_aside(node) {
                aside.push(key.text.as_str());
            } else if fields.is_none_or(|fields| fields.contains(&key.text.as_str())) {
                wanted.push((key, node));
            } else {
                aside.extend(self.reading.unknown(key, fields.unwrap_or_default()));
            }
        }
        let access = Entries {
            left: wanted.into_iter(),
            value: None,
            reading: self.reading,
        };
        visitor.visit_map(access).map_err(|refusal| match refusal {
            Refusal::Missing(key) if aside.contains(&key) => Refusal::Spoiled,
            Refusal::Missing(key) => Refusal::Missing(key),
            refusal => refusal.at(self.node.line),
        })
    }
}

macro_rules! whole_numbers {
    ($($method:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
            let least = i64::try_from(<$type>::MIN).unwrap_or(i64::MIN);
            let most = i64::try_from(<$type>::MAX).unwrap_or(i64::MAX);
            let number = self.whole(least, most)?;
            visitor.visit_i64(number).map_err(|refusal: Refusal| refusal.at(self.node.line))
        }
    )*};
}

impl<'a> Deserializer<'a> for At<'a> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(_) => return self.deserialize_seq(visitor),
            Value::Map(_) => return self.entries(visitor, None),
        }
        .map_err(|refusal: Refusal| refusal.at(self.node.line))
    }

    whole_numbers! {
        deserialize_i8 i8;
        deserialize_i16 i16;
        deserialize_i32 i32;
        deserialize_i64 i64;
        deserialize_i128 i128;
        deserialize_u8 u8;
        deserialize_u16 u16;
        deserialize_u32 u32;
        deserialize_u64 u64;
        deserialize_u128 u128;
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.node.as_bool() {
            Some(flag) => visitor.visit_bool(flag),
            None => self.refuse("true or false"),
        }
    }

    fn deserialize_f32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.node.as_float() {
            Some(number) => visitor.visit_f64(number),
            None => self.refuse("a number"),
        }
    }

    fn deserialize_char<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_string(visitor)
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.node.plain_text() {
            Some(text) => visitor
                .visit_string(text)
                .map_err(|refusal: Refusal| refusal.at(self.node.line)),
            None => self.refuse("text"),
        }
    }

    fn deserialize_bytes<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_string(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if self.node.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if self.node.is_null() {
            visitor.visit_unit()
        } else {
            self.refuse("nothing")
        }
    }

    fn deserialize_unit_struct<V: Visitor<'a>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let Some(nodes) = self.node.as_list() else {
            return self.refuse("a list");
        };
        let access = Elements {
            left: nodes.iter(),
            key: self.key,
            reading: self.reading,
        };
        visitor.visit_seq(access).map_err(|refusal| refusal.at(self.node.line))
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, _length: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.entries(visitor, None)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.entries(visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let (name, line, inside) = match &self.node.value {
            Value::Text(name) => (name, self.node.line, None),
            Value::Map(entries) => match entries.as_slice() {
                [(key, node)] => (
                    &key.text,
                    key.line,
                    Some(At {
                        node,
                        key: Some(&key.text),
                        reading: self.reading,
                    }),
                ),
                _ => return self.refuse("a map with one key"),
            },
            _ => return self.refuse(&format!("one of {}", suggest::quoted(variants.iter().copied()))),
        };
        if !variants.contains(&name.as_str()) {
            let help = suggest::instead(name, variants.iter().copied());
            return Err(Refusal::At {
                line,
                message: format!("`{name}` is not known here"),
                help,
            });
        }
        visitor
            .visit_enum(Variant { name, inside })
            .map_err(|refusal| refusal.at(line))
    }

    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_string(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }
}

/// The elements of a list that are still to be read.
struct Elements<'a> {
    left: std::slice::Iter<'a, Node>,
    key: Option<&'a str>,
    reading: &'a Reading,
}

impl<'a> SeqAccess<'a> for Elements<'a> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let Some(node) = self.left.find(|node| !self.reading.is_aside(node)) else {
            return Ok(None);
        };
        seed.deserialize(At {
            node,
            key: self.key,
            reading: self.reading,
        })
        .map(Some)
        .map_err(|refusal| self.reading.settle(node, self.key, refusal))
    }
}

/// The entries of a map or struct that are still to be read.
struct Entries<'a> {
    left: std::vec::IntoIter<(&'a Key, &'a Node)>,
    value: Option<(&'a Key, &'a Node)>,
    reading: &'a Reading,
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some((key, node)) = self.left.next() else {
            return Ok(None);
        };
        self.value = Some((key, node));
        let name: de::value::StrDeserializer<'a, Refusal> = key.text.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|refusal| refusal.at(key.line))
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Some((key, node)) = self.value.take() else {
            return Err(Refusal::Somewhere("a value was asked for before its key".to_string()));
        };
        let key = Some(key.text.as_str());
        seed.deserialize(At {
            node,
            key,
            reading: self.reading,
        })
        .map_err(|refusal| self.reading.settle(node, key, refusal))
    }
}

struct Variant<'a> {
    name: &'a str,
    inside: Option<At<'a>>,
}

impl<'a> EnumAccess<'a> for Variant<'a> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Refusal> {
        let name: de::value::StrDeserializer<'a, Refusal> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'a> VariantAccess<'a> for Variant<'a> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        match self.inside {
            Some(at) if !at.node.is_null() => at.refuse("nothing"),
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Refusal> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'a>>(self, _length: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.content()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'a>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refusal> {
        self.content()?.entries(visitor, Some(fields))
    }
}

impl<'a> Variant<'a> {
    fn content(&self) -> Result<At<'a>, Refusal> {
        self.inside
            .ok_or_else(|| Refusal::Somewhere(format!("`{}` needs settings: expected a map with this key", self.name)))
    }
}

#[cfg(test)]
mod tests;
