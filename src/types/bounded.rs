//! Lists that come from outside: refused while they are decoded, before there is room for more than
//! their bound.
//!
//! An element may take much more memory than bytes: without a bound, a frame of many small ones would
//! take as many times its own length. A list that announces too many is refused at once; one that
//! does not say how many it has, when there is one too many.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// For `#[serde(deserialize_with)]`: a list, a set or a map of at most `MAX` elements.
pub(in crate::types) fn bounded<'de, D, C, const MAX: usize>(deserializer: D) -> Result<C, D::Error>
where
    D: Deserializer<'de>,
    Bounded<C, MAX>: Deserialize<'de>,
{
    Bounded::<C, MAX>::deserialize(deserializer).map(|Bounded(list)| list)
}

/// A list that was decoded, of at most `MAX` elements.
pub(in crate::types) struct Bounded<C, const MAX: usize>(pub(in crate::types) C);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<Vec<T>, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements::<T, MAX>(PhantomData)).map(Self)
    }
}

impl<'de, T: Deserialize<'de> + Ord, const MAX: usize> Deserialize<'de>
    for Bounded<BTreeSet<T>, MAX>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let elements = deserializer.deserialize_seq(Elements::<T, MAX>(PhantomData))?;
        Ok(Self(elements.into_iter().collect()))
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, const MAX: usize> Deserialize<'de>
    for Bounded<BTreeMap<K, V>, MAX>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let elements = deserializer.deserialize_map(Pairs::<K, V, MAX>(PhantomData))?;
        Ok(Self(elements.into_iter().collect()))
    }
}

/// Collects what `next` gives, with room for as many as are announced.
fn collect<T, E: Error, const MAX: usize>(
    announced: Option<usize>,
    mut next: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Vec<T>, E> {
    let too_many = || E::custom(format_args!("too many elements: at most {MAX} are accepted"));
    let announced = announced.unwrap_or(0);
    if announced > MAX {
        return Err(too_many());
    }
    let mut elements = Vec::with_capacity(announced);
    while let Some(element) = next()? {
        if elements.len() == MAX {
            return Err(too_many());
        }
        elements.push(element);
    }
    Ok(elements)
}

/// The elements of a list.
struct Elements<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        collect::<_, _, MAX>(list.size_hint(), || list.next_element())
    }
}

/// The pairs of a map.
struct Pairs<K, V, const MAX: usize>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>, const MAX: usize> Visitor<'de>
    for Pairs<K, V, MAX>
{
    type Value = Vec<(K, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of at most {MAX} elements")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<(K, V)>, A::Error> {
        collect::<_, _, MAX>(map.size_hint(), || map.next_entry())
    }
}
