//! Fields that a later version has added at a value's end.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

/// Writes such a field as bytes with their length: who knows of fields behind it finds them.
pub(super) fn serialize<T: Serialize, S: Serializer>(field: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = postcard::to_extend(field, Vec::new()).unwrap_or_default();
    bytes.serialize(serializer)
}

/// Reads such a field; its default where the value ends before it, or where a later version wrote what is unknown here.
pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: DeserializeOwned + Default,
    D: Deserializer<'de>,
{
    let bytes = Vec::<u8>::deserialize(deserializer).ok();
    Ok(bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default())
}
